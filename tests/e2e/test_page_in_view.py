"""The page at / as it is seen: what matters is in view, at each width, and one is told how to read it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import WIDTHS, choose, chromium, opened, score_of
from playwright.sync_api import Browser, FloatRect, Locator, Page, expect
from serving import Server, serving

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "tests/data"
WEB = ROOT / "service/web"
STREET = WEB / "static/samples/street.webp"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(ROOT / "model_repository", deadline_s=60) as running:  # this machine may be busy
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def box(place: Locator) -> FloatRect:
    found = place.bounding_box()
    assert found
    return found


def assert_in_view(page: Page, place: Locator) -> None:
    found, window = box(place), page.viewport_size
    assert window
    assert found["y"] >= 0
    assert found["y"] + found["height"] <= window["height"]


@pytest.mark.parametrize("size", ["phone", "tablet", "desktop"])
def test_number_and_picture_are_seen_together(browser: Browser, server: Server, size: str) -> None:
    """Nobody has to scroll to the answer; where there is room, it stands beside its picture."""
    with opened(browser, server, size) as page:
        choose(page, STREET)
        score_of("A", page)
        picture, number = page.locator(".stack"), page.locator(".score")
        expect(page.locator(".map")).to_be_visible()
        assert_in_view(page, picture)
        assert_in_view(page, number)
        beside = box(number)["x"] >= box(picture)["x"] + box(picture)["width"]
        assert beside == (size != "phone")
        slider = box(page.get_by_role("slider"))
        assert slider["width"] >= min(270, WIDTHS[size][0] / 4)
        assert box(page.locator(".percent"))["x"] >= slider["x"]  # not pushed into a line of its own


@pytest.mark.parametrize("size", ["phone", "desktop"])
def test_what_went_wrong_is_seen(browser: Browser, server: Server, size: str, tmp_path: Path) -> None:
    """Though the browser can show the picture, and it is a large one."""
    tall = tmp_path / "tall.jpg"
    tall.write_bytes((PICTURES / "large.jpg").read_bytes()[:-2000])
    with opened(browser, server, size) as page:
        choose(page, tall)
        expect(page.get_by_role("alert")).to_be_visible()
        assert_in_view(page, page.get_by_role("alert"))


@pytest.mark.parametrize("size", ["phone", "desktop"])
def test_a_sample_is_seen_though_it_was_chosen_far_below(browser: Browser, server: Server, size: str) -> None:
    with opened(browser, server, size) as page:
        page.get_by_role("button", name="A sunset over water").click()
        score_of("A", page)
        page.get_by_role("button", name="Compare with a second picture").click()
        page.get_by_role("button", name="A street").click()
        score_of("B", page)
        page.get_by_role("button", name="A crowded board").scroll_into_view_if_needed()
        page.get_by_role("button", name="A crowded board").click()
        expect(page.locator("figcaption").last).to_have_text("market.webp")
        score_of("B", page)
        assert_in_view(page, page.get_by_role("region", name="Picture B").locator(".score"))


def test_no_colour_of_the_picture_is_taken_for_one_of_the_map(browser: Browser, server: Server) -> None:
    """Under the map it is grey, as in the service's own overlays; without it, it is as it was."""
    with opened(browser, server) as page:
        picture = page.locator(".picture")
        server.pause()
        try:
            choose(page, STREET)
            expect(picture).to_be_visible()
            expect(picture).to_have_css("filter", "none")  # no map is there yet
        finally:
            server.resume()
        score_of("A", page)
        expect(picture).to_have_css("filter", "grayscale(1)")
        page.get_by_role("slider").press("Home")
        expect(picture).to_have_css("filter", "grayscale(0)")


def test_it_says_how_to_be_read(browser: Browser, server: Server) -> None:
    """And when a difference means nothing, which is what the page goes by and the documentation has measured."""
    with opened(browser, server) as page:
        told = page.get_by_role("region", name="How to read it")
        for word in ("score", "More complex than", "heatmap", "not"):
            expect(told).to_contain_text(word)
        noise = re.search(r"const NOISE = ([\d.]+);", (WEB / "static/page.js").read_text())
        assert noise
        expect(told).to_contain_text(f"A difference below {noise[1]} means nothing")
        assert noise[1] == "0.03"
        assert "below three hundredths means nothing" in " ".join(
            (ROOT / "docs/concepts/complexity.md").read_text().split()
        )


def test_nobody_is_asked_to_drop_with_a_finger(browser: Browser, server: Server) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 800}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/")
    expect(page.get_by_text("Choose a picture")).to_be_visible()
    expect(page.get_by_text("JPEG, PNG or WebP")).to_be_visible()
    expect(page.get_by_text("drop it here")).to_be_hidden()
    context.close()


def test_it_keeps_still_for_whom_movement_disturbs(browser: Browser, server: Server) -> None:
    with opened(browser, server) as page:
        page.emulate_media(reduced_motion="reduce")
        server.pause()
        try:
            choose(page, STREET)
            expect(page.get_by_text("Looking at it")).to_be_visible()
            expect(page.locator(".spinner")).to_have_css("animation-name", "none")
        finally:
            server.resume()
        score_of("A", page)


@pytest.mark.parametrize("path", ["errors", "errors/overloaded"])
def test_what_an_error_means_is_dark_in_the_dark(browser: Browser, server: Server, path: str) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    missing: list[str] = []
    page.on("response", lambda answer: missing.append(answer.url) if answer.status >= 400 else None)
    page.goto(f"http://127.0.0.1:{server.port}/{path}")
    expect(page.locator("h1")).to_have_css("color", "rgb(255, 255, 255)")
    audit = Axe().run(page)
    assert audit.violations_count == 0, audit.generate_report()
    assert missing == []
    context.close()
