"""The page at /, driven in a real Chromium as people drive it: by mouse, by keyboard, on a phone, in the dark."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import tiny_model
from axe_playwright_python.sync_playwright import Axe
from browsing import WIDTHS, choose, chromium, opened, score_of
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect
from proxy import proxy
from serving import Server, serving

from clicv2 import contract
from service.keys import add, make

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "tests/data"
SAMPLES = ROOT / "service/web/static/samples"
SHIPPED = ROOT / "model_repository"
SHIPPED_MODEL = contract.open_version(SHIPPED / "clicv2").manifest


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(SHIPPED, deadline_s=60) as running:  # this machine may be busy
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def says_what_the_service_says(page: Page, server: Server, picture: Path) -> bool:
    answer = server.score(picture.read_bytes()).json()
    return score_of("A", page) == f"{answer['score']:.2f}"


def test_a_chosen_picture_is_scored_and_its_map_lies_upon_it(browser: Browser, server: Server) -> None:
    with opened(browser, server) as page:
        choose(page, SAMPLES / "street.webp")
        assert says_what_the_service_says(page, server, SAMPLES / "street.webp")
        assert "street.webp" in page.locator("figcaption").inner_text()
        picture, overlay = (page.locator(name).bounding_box() for name in (".picture", ".map"))
        assert picture == pytest.approx(overlay, abs=0.5)
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


def test_what_is_noise_is_no_verdict(browser: Browser, server: Server, tmp_path: Path) -> None:
    with Image.open(SAMPLES / "street.webp") as street:
        street.save(tmp_path / "again.jpg", quality=90)
    with opened(browser, server) as page:
        choose(page, SAMPLES / "street.webp")
        page.get_by_role("button", name="Compare with a second picture").click()
        choose(page, tmp_path / "again.jpg", place=1)
        expect(page.locator("#verdict")).to_contain_text("about equally complex")


def drop(page: Page, *files: tuple[str, str]) -> None:
    """Files as (name, media type), each with a sample's content."""
    page.evaluate(
        """async (files) => {
            const transfer = new DataTransfer();
            for (const [name, type] of files) {
                const data = await (await fetch(`static/samples/${name}`)).blob();
                transfer.items.add(new File([data], name, {type}));
            }
            document.querySelector(".drop").dispatchEvent(
                new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
        }""",
        files,
    )


def test_two_that_are_dropped_are_compared(browser: Browser, server: Server) -> None:
    with opened(browser, server) as page:
        drop(page, ("shapes.webp", "image/webp"), ("street.webp", "image/webp"))
        expect(page.locator("#verdict")).to_contain_text("B is the more complex")
        expect(page.locator("figcaption").first).to_have_text("shapes.webp")
        expect(page.locator("#told")).to_be_hidden()
        # Nobody sees where else it is said which of them it was.
        assert "B is the more complex" in page.locator("#said").inner_text()


def test_what_cannot_be_taken_is_said_to_all(browser: Browser, server: Server) -> None:
    """Not to those alone who have the page read to them; and what was there stays."""
    with opened(browser, server) as page:
        told = page.locator("#told")
        drop(page, ("sunset.webp", "application/pdf"))
        expect(told).to_have_text("That is no picture.")
        expect(page.locator("figure")).to_be_hidden()
        drop(page, *((name, "image/webp") for name in ("sunset.webp", "shapes.webp", "street.webp")))
        expect(told).to_contain_text("the first two of 3")
        page.evaluate("getSelection().selectAllChildren(document.querySelector('h1'))")
        page.locator("h1").drag_to(page.locator(".drop").first)
        expect(told).to_contain_text("Only files")
        expect(page.locator("figcaption").first).to_have_text("sunset.webp")
        choose(page, SAMPLES / "street.webp")
        expect(told).to_be_hidden()


def test_a_sample_can_be_dragged(browser: Browser, server: Server) -> None:
    with opened(browser, server) as page:
        page.locator("#samples img").nth(1).drag_to(page.locator(".drop"))
        assert says_what_the_service_says(page, server, SAMPLES / "shapes.webp")


def test_a_pasted_picture_is_scored(browser: Browser, server: Server) -> None:
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


def test_the_last_wish_counts(browser: Browser, server: Server) -> None:
    """Whatever comes late of an earlier one: its file, or its answer."""
    with opened(browser, server) as page:
        held: list[Route] = []
        page.route("**/samples/sunset.webp", lambda route: held.append(route))  # the bare method is no function
        page.get_by_role("button", name="A sunset over water").click()
        page.get_by_role("button", name="A few shapes").click()
        assert says_what_the_service_says(page, server, SAMPLES / "shapes.webp")
        with page.expect_response("**/samples/sunset.webp"):
            held.pop().continue_()
        page.wait_for_timeout(200)  # for what must not happen
        expect(page.locator("figcaption")).to_have_text("shapes.webp")
        server.pause()
        try:
            choose(page, SAMPLES / "market.webp")
            expect(page.get_by_text("Looking at it")).to_be_visible()
            choose(page, SAMPLES / "street.webp")
        finally:
            server.resume()
        expect(page.locator(".result")).to_be_visible()
        assert says_what_the_service_says(page, server, SAMPLES / "street.webp")


@pytest.mark.parametrize(
    ("file", "box"),
    [("rgb.png", (192, 128)), ("exif-6.jpg", (192, 128)), ("large.jpg", None)],
)
def test_a_small_picture_is_shown_larger(
    browser: Browser, server: Server, file: str, box: tuple[int, int] | None
) -> None:
    """Else nobody would see its map; one that is large enough fits."""
    with opened(browser, server) as page:
        choose(page, PICTURES / file)
        score_of("A", page)
        expect(page.locator(".map")).to_be_visible()
        shown, panel, upon = (page.locator(name).bounding_box() for name in (".picture", ".panel", ".map"))
        assert shown
        assert panel
        assert upon == pytest.approx(shown, abs=0.5)
        if box:
            assert (round(shown["width"]), round(shown["height"])) == box
        assert 192 <= shown["width"] <= panel["width"]


def test_a_transparent_picture_is_seen_as_the_model_sees_it(browser: Browser, server: Server) -> None:
    with opened(browser, server, scheme="dark") as page:
        choose(page, PICTURES / "rgba.png")
        score_of("A", page)
        expect(page.locator(".picture")).to_have_css("background-color", "rgb(255, 255, 255)")
        assert SHIPPED_MODEL.preprocess.background == (255, 255, 255)


def test_the_scale_keeps_its_colours_where_others_are_forced(browser: Browser, server: Server) -> None:
    with opened(browser, server) as page:
        page.emulate_media(forced_colors="active", reduced_motion="reduce")
        choose(page, SAMPLES / "street.webp")
        score_of("A", page)
        assert "gradient" in page.locator(".bar").evaluate("bar => getComputedStyle(bar).backgroundImage")
        expect(page.locator(".spinner")).to_have_css("animation-name", "none")


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
            "Choose a picture or drop it here, or paste it JPEG, PNG or WebP",
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
        page.get_by_role("button", name="Remove").last.press("Enter")
        assert page.evaluate("document.activeElement.id") == "second"
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Remove").first.press("Enter")
        assert page.evaluate("document.activeElement.id") == "file-B"  # which is empty


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
    """Another one at the same address; by keyboard, which stays where the reader is."""
    picture = SAMPLES / "shapes.webp"
    with ExitStack() as processes:
        first = processes.enter_context(serving(SHIPPED))
        with proxy(first.port) as address, opened(browser, first, url=f"http://127.0.0.1:{address.port}/") as page:
            first.pause()  # a picture is asked for, and no answer comes
            choose(page, picture)
            expect(page.get_by_text("Looking at it")).to_be_visible()
            first.kill()
            again = page.get_by_role("button", name="Try again")
            expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
            again.press("Enter")
            expect(again).to_be_focused()
            expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
            page.get_by_role("button", name="A street").click()
            expect(page.locator("#told")).to_contain_text("cannot be reached")
            second = processes.enter_context(serving(SHIPPED))
            address.target = second.port
            again.press("Enter")
            assert says_what_the_service_says(page, second, picture)
            expect(page.get_by_role("alert")).to_be_hidden()
            expect(page.locator("#told")).to_be_hidden()


def test_a_server_that_says_nothing_is_given_up(browser: Browser) -> None:
    with serving(SHIPPED) as server, opened(browser, server) as page:
        page.clock.install()
        server.pause()
        choose(page, SAMPLES / "shapes.webp")
        expect(page.get_by_text("Looking at it")).to_be_visible()
        page.clock.fast_forward(59_000)
        expect(page.get_by_text("Looking at it")).to_be_visible()
        page.clock.fast_forward(2_000)
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        server.resume()
        page.get_by_role("button", name="Try again").click()
        assert says_what_the_service_says(page, server, SAMPLES / "shapes.webp")


def test_a_refusal_says_when_to_come_again(browser: Browser, tmp_path: Path) -> None:
    """Overloaded with 429, then draining with 503; and whose picture was there gets its answer."""
    slow = tiny_model.write(tmp_path, work=300)
    with (
        serving(slow, threads=1, max_in_flight=1, deadline_s=60, drain_notice_s=5) as server,
        opened(browser, server) as lucky,
        opened(browser, server) as other,
    ):
        choose(lucky, SAMPLES / "shapes.webp")
        server.wait_for("clicv2_jobs_in_flight", 1)
        choose(other, SAMPLES / "shapes.webp")
        alert = other.get_by_role("alert")
        expect(alert).to_contain_text("Too many pictures")
        expect(alert).to_contain_text(re.compile(r"Try again in \d+ s\."))
        expect(lucky.locator(".result")).to_be_visible()
        other.get_by_role("button", name="Try again").click()
        expect(other.locator(".result")).to_be_visible()
        choose(lucky, SAMPLES / "street.webp")
        server.wait_for("clicv2_jobs_in_flight", 1)
        server.process.terminate()
        while server.client.get("/readyz").status_code != 503:
            pass
        choose(other, SAMPLES / "street.webp")
        expect(alert).to_contain_text("shutting down")
        expect(lucky.locator(".result")).to_be_visible()


def test_who_answers_in_the_services_place_is_not_believed(browser: Browser, server: Server) -> None:
    """As a hotel's network does: with a page of its own, and all is well."""
    with opened(browser, server) as page:
        page.route("**/v1/complexity*", lambda route: route.fulfill(content_type="text/html", body="<h1>Room?</h1>"))
        choose(page, SAMPLES / "shapes.webp")
        expect(page.get_by_role("alert")).to_contain_text("not the service's answer")
        page.unroute("**/v1/complexity*")
        page.get_by_role("button", name="Try again").click()
        assert says_what_the_service_says(page, server, SAMPLES / "shapes.webp")


def in_a_shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    shell = ["bash", "-euc", command]
    everything = os.environ | environment
    return subprocess.run(shell, cwd=folder, env=everything, capture_output=True, text=True, check=False)


def test_the_same_in_a_shell(browser: Browser, server: Server, tmp_path: Path) -> None:
    """Copied and run in the folder of the picture, or anywhere for a sample, it gives the same number and a map."""
    with opened(browser, server) as page:
        page.get_by_role("button", name="A street").click()
        shown = score_of("A", page)
        expect(page.locator("#curl")).to_contain_text("curl -O")
        done = in_a_shell(page.locator("#curl").inner_text(), tmp_path)
        assert (done.returncode, f"{json.loads(done.stdout)['score']:.2f}") == (0, shown), done.stderr
        with Image.open(tmp_path / "heatmap.png") as overlay:
            assert overlay.format == "PNG"
        choose(page, PICTURES / "baseline.jpg")
        expect(page.locator("#curl")).not_to_contain_text("street.webp")
        shown = score_of("A", page)
        shutil.copy(PICTURES / "baseline.jpg", tmp_path)
        done = in_a_shell(page.locator("#curl").inner_text(), tmp_path)
        assert f"{json.loads(done.stdout)['score']:.2f}" == shown
        page.get_by_role("button", name="Compare with a second picture").click()
        page.get_by_role("button", name="A street").click()
        expect(page.locator("#verdict")).to_contain_text("B is the more complex")
        done = in_a_shell(page.locator("#curl").inner_text(), tmp_path)
        found = json.loads(done.stdout)["pictures"]
        assert [f"{each['score']:.2f}" for each in found] == [score_of("A", page), score_of("B", page)]


def test_the_commands_are_copied(browser: Browser, server: Server) -> None:
    with opened(browser, server) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="A street").click()
        score_of("A", page)
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == page.locator("#curl").inner_text()


def test_it_works_under_a_path_of_another_host(browser: Browser, server: Server) -> None:
    """All that it asks for is relative to where it is; here the browser does what a proxy would, and cuts the path."""
    prefix, root = f"http://127.0.0.1:{server.port}/complexity/", f"http://127.0.0.1:{server.port}/"
    with opened(browser, server, url="about:blank") as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.route(
            lambda url: url.startswith(prefix),
            lambda route: route.continue_(url=route.request.url.replace(prefix, root)),
        )
        page.goto(prefix)
        page.get_by_role("button", name="A street").click()
        assert says_what_the_service_says(page, server, SAMPLES / "street.webp")
        assert [url for url in asked if not url.startswith((prefix, "data:", "blob:"))] == []
        assert f"'{prefix}v1/complexity'" in page.locator("#curl").inner_text()


def test_a_name_cannot_break_out(browser: Browser, server: Server, tmp_path: Path) -> None:
    """Neither into the page nor into the shell."""
    name = """a'b"c $(id) <img src=x onerror=alert(1)>.webp"""
    (tmp_path / name).write_bytes((SAMPLES / "shapes.webp").read_bytes())
    with opened(browser, server) as page:
        choose(page, tmp_path / name)
        score_of("A", page)
        expect(page.locator("figcaption")).to_have_text(name)
        done = in_a_shell(page.locator("#curl").inner_text(), tmp_path)
        assert f"{json.loads(done.stdout)['score']:.2f}" == score_of("A", page)


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
        expect(page.get_by_text("KEY is to hold your API key")).to_be_visible()
        shutil.copy(SAMPLES / "street.webp", tmp_path)
        done = in_a_shell(page.locator("#curl").inner_text(), tmp_path, KEY=full)
        assert f"{json.loads(done.stdout)['score']:.2f}" == score_of("A", page)


def test_a_wrong_key_is_asked_for_again(browser: Browser, tmp_path: Path) -> None:
    """And the keyboard stays where it is of use."""
    key, full = make("page", "read", None, None)
    add(tmp_path / "keys.json", key)
    with serving(SHIPPED, auth="on", keys_file=tmp_path / "keys.json") as server, opened(browser, server) as page:
        choose(page, SAMPLES / "street.webp")
        box = page.get_by_label("This service asks for an API key")
        box.fill("nonsense")
        with page.expect_response("**/v1/complexity*"):
            box.press("Enter")
        expect(page.get_by_role("alert")).to_be_visible()
        expect(box).to_be_focused()
        expect(box).to_have_value("")
        box.fill(full)
        box.press("Enter")
        assert score_of("A", page)
        expect(page.get_by_role("region", name="Picture A")).to_be_focused()


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
        for control in page.locator("button:visible, .choose:visible, input[type=range]:visible").all():
            box = control.bounding_box()
            assert box
            assert box["height"] >= 44, f"too small for a finger: {control.inner_text()}"


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
