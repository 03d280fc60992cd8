"""The page at /, driven in a real Chromium as people drive it: by mouse, by keyboard, on a phone, in the dark."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from serving import Server, serving

from service.keys import add, make

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "tests/data"
SAMPLES = ROOT / "service/web/static/samples"
SHIPPED = ROOT / "model_repository"
WIDTHS = {"phone": (375, 812), "tablet": (768, 1024), "desktop": (1280, 900)}
PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(SHIPPED) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium")
    assert found, "the page's tests need Chromium: make test installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, server: Server, size: str = "desktop", scheme: str = "light") -> Iterator[Page]:
    """The page in a window of its own; whatever it complains of in the console fails the test."""
    width, height = WIDTHS[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    # "Failed to load resource" tells of answers that are not 200, which some tests ask for.
    page.on("console", lambda said: complaints.append(said.text) if "Failed to load" not in said.text else None)
    page.goto(f"http://127.0.0.1:{server.port}/")
    yield page
    context.close()
    assert complaints == []


def score_of(panel: str, page: Page) -> str:
    shown = page.get_by_role("region", name=f"Picture {panel}").locator(".score strong")
    expect(shown).not_to_be_empty(timeout=PATIENCE_MS)
    return shown.inner_text()


def choose(page: Page, *files: Path, place: int = 0) -> None:
    page.locator("input[type=file]").nth(place).set_input_files(list(files))


def says_what_the_service_says(page: Page, server: Server, picture: Path) -> bool:
    answer = server.score(picture.read_bytes()).json()
    return score_of("A", page) == f"{answer['score']:.2f}"


def test_a_chosen_picture_is_scored_and_its_map_lies_upon_it(browser: Browser, server: Server) -> None:
    with opened(browser, server) as page:
        choose(page, SAMPLES / "street.webp")
        assert says_what_the_service_says(page, server, SAMPLES / "street.webp")
        assert "street.webp" in page.locator("figcaption").inner_text()
        picture, overlay = (page.locator(name).bounding_box() for name in (".picture", ".map"))
        assert picture == overlay
        assert "More complex than" in page.locator("#said").inner_text()  # what is read aloud


def test_the_slider_is_the_maps_opacity(browser: Browser, server: Server) -> None:
    with opened(browser, server) as page:
        choose(page, SAMPLES / "shapes.webp")
        slider = page.get_by_role("slider", name="Heatmap")
        slider.press("Home")
        expect(page.locator(".map")).to_have_css("opacity", "0")
        slider.press("End")
        expect(page.locator(".map")).to_have_css("opacity", "1")


def test_two_pictures_side_by_side(browser: Browser, server: Server) -> None:
    with opened(browser, server) as page:
        page.get_by_role("button", name="A crowded board").click()
        busy = score_of("A", page)
        page.get_by_role("button", name="Compare with a second picture").click()
        page.get_by_role("button", name="A sunset over water").click()
        calm = score_of("B", page)
        expect(page.locator("#verdict")).to_contain_text(f"A is the more complex: {busy} against {calm}")
        left, right = (page.get_by_role("region", name=f"Picture {each}").bounding_box() for each in "AB")
        assert left
        assert right
        assert left["y"] == right["y"]
        page.get_by_role("button", name="Remove").first.click()
        expect(page.locator("#verdict")).to_be_hidden()
        expect(page.locator(".panel")).to_have_count(1)
        # What was B is left, and a new one takes the letter that is free.
        assert score_of("B", page) == calm
        page.get_by_role("button", name="Compare with a second picture").click()
        expect(page.get_by_role("region", name="Picture A")).to_be_visible()


def test_dropped_and_pasted(browser: Browser, server: Server) -> None:
    """Two at once are compared; what is no picture leaves all as it was."""
    with opened(browser, server) as page:
        page.evaluate(
            """async () => {
                const transfer = new DataTransfer();
                for (const name of ["shapes.webp", "street.webp"]) {
                    const data = await (await fetch(`static/samples/${name}`)).blob();
                    transfer.items.add(new File([data], name, {type: "image/webp"}));
                }
                document.querySelector(".drop").dispatchEvent(
                    new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
            }"""
        )
        expect(page.locator("#verdict")).to_contain_text("B is the more complex")
        expect(page.locator("figcaption").first).to_have_text("shapes.webp")
    with opened(browser, server) as page:
        paste = """async (type) => {
            const transfer = new DataTransfer();
            const data = await (await fetch("static/samples/sunset.webp")).blob();
            transfer.items.add(new File([data], "pasted", {type}));
            document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true}));
        }"""
        page.evaluate(paste, "text/plain")
        expect(page.locator("figure")).to_be_hidden()
        page.evaluate(paste, "image/webp")
        assert says_what_the_service_says(page, server, SAMPLES / "sunset.webp")


def test_by_keyboard_alone(browser: Browser, server: Server) -> None:
    """Tab reaches everything in the order of the page, and one sees where one is."""
    with opened(browser, server) as page:
        reached: list[str] = []
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement === document.body"):
                break  # past the last one
            name = page.evaluate("document.activeElement.labels?.[0]?.innerText ?? document.activeElement.innerText")
            reached.append(name)
            shown = page.evaluate(
                """() => {
                    const focused = document.activeElement;
                    const seen = focused.matches(".unseen") ? focused.labels[0].querySelector(".choose") : focused;
                    return getComputedStyle(seen).outlineStyle;
                }"""
            )
            assert shown != "none", f"nobody sees that {name} has the focus"
        assert [" ".join(name.split()) for name in reached] == [
            "Choose a picture or drop it here, or paste it",
            "A sunset over water",
            "A few shapes",
            "A street",
            "A crowded board",
            "The API",
        ]
        page.get_by_role("button", name="A street").focus()
        page.keyboard.press("Enter")
        assert says_what_the_service_says(page, server, SAMPLES / "street.webp")
        page.get_by_role("button", name="Compare with a second picture").press("Enter")
        # It goes where the next thing is to be done.
        assert page.evaluate("document.activeElement.id") == "file-B"


@pytest.mark.parametrize(
    ("file", "title"),
    [
        ("truncated.png", "damaged"),
        ("text.jpg", "format"),
        ("empty.png", "empty"),
    ],
)
def test_a_broken_file_is_told_as_what_it_is(
    browser: Browser, server: Server, tmp_path: Path, file: str, title: str
) -> None:
    content = {"truncated.png": (PICTURES / "rgb.png").read_bytes()[:200], "text.jpg": b"no picture", "empty.png": b""}
    (tmp_path / file).write_bytes(content[file])
    with opened(browser, server) as page:
        choose(page, tmp_path / file)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text(title)
        problem = server.score(content[file], media_type="application/octet-stream").json()
        expect(alert).to_contain_text(problem["title"])
        expect(alert).to_contain_text(problem["detail"])
        expect(page.get_by_role("button", name="Try again")).to_be_hidden()  # it would not help
        choose(page, SAMPLES / "shapes.webp")  # and the page goes on
        assert says_what_the_service_says(page, server, SAMPLES / "shapes.webp")
        expect(alert).to_be_hidden()


def test_the_server_is_gone_and_comes_back(browser: Browser) -> None:
    with serving(SHIPPED) as server, opened(browser, server) as page:
        server.pause()  # a picture is asked for, and no answer comes
        choose(page, SAMPLES / "shapes.webp")
        expect(page.get_by_text("Looking at it")).to_be_visible()
        server.kill()
        expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("alert")).to_contain_text("cannot be reached")


def test_the_same_in_a_shell(browser: Browser, server: Server) -> None:
    with opened(browser, server) as page:
        page.get_by_role("button", name="A street").click()
        score_of("A", page)
        command = page.locator("#curl").inner_text()
        assert (
            command == f"""curl -F 'file=@"street.webp"' 'http://127.0.0.1:{server.port}/v1/complexity?heatmap=png'"""
        )


def test_a_name_cannot_break_out(browser: Browser, server: Server, tmp_path: Path) -> None:
    """Neither into the page nor into the shell."""
    name = """a'b"c $(id) <img src=x onerror=alert(1)>.webp"""
    (tmp_path / name).write_bytes((SAMPLES / "shapes.webp").read_bytes())
    with opened(browser, server) as page:
        choose(page, tmp_path / name)
        score_of("A", page)
        expect(page.locator("figcaption")).to_have_text(name)
        assert (
            page.locator("#curl")
            .inner_text()
            .startswith(r"""curl -F 'file=@"a'\''b\"c $(id) <img src=x onerror=alert(1)>.webp"' 'http""")
        )


def test_a_key_is_asked_for_where_one_is_needed(browser: Browser, tmp_path: Path) -> None:
    key, full = make("page", "read", None, None)
    add(tmp_path / "keys.json", key)
    with serving(SHIPPED, auth="on", keys_file=tmp_path / "keys.json") as server, opened(browser, server) as page:
        choose(page, SAMPLES / "street.webp")
        expect(page.get_by_role("alert")).to_be_visible()
        box = page.get_by_label("This service asks for an API key")
        expect(box).to_be_focused()
        box.fill(full)
        box.press("Enter")
        assert score_of("A", page)
        expect(page.get_by_role("alert")).to_be_hidden()
        assert full not in page.content()
        assert '"Authorization: Bearer $KEY"' in page.locator("#curl").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", WIDTHS)
def test_it_fits_and_everybody_can_use_it(browser: Browser, server: Server, size: str, scheme: str) -> None:
    """No scrolling sideways, and axe finds nothing against it: contrast, names, roles, the order of headings."""
    with opened(browser, server, size, scheme) as page:
        audits = [Axe().run(page)]
        choose(page, SAMPLES / "street.webp")
        score_of("A", page)
        page.get_by_role("button", name="Compare with a second picture").click()
        choose(page, PICTURES / "grey.jpg", place=1)
        score_of("B", page)
        audits.append(Axe().run(page))
        assert [audit.generate_report() for audit in audits if audit.violations_count] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[size][0]


def test_its_files_are_asked_for_again_and_are_not_sent_twice(server: Server) -> None:
    first = server.client.get("/static/page.js")
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["content-type"].startswith("text/javascript")
    assert server.client.get("/static/page.js", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    assert server.client.get("/static/../index.html").status_code == 404
    missing = server.client.get("/static/missing.js")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"


def test_it_asks_nobody_else() -> None:
    """No CDN, no fonts, nothing from elsewhere."""
    for file in (ROOT / "service/web").rglob("*"):
        if file.suffix in (".html", ".css", ".js"):
            text = file.read_text().replace("http://this-host/v1/complexity", "")
            assert "//" not in text.replace("// ", ""), file
