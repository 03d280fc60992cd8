"""A real Chromium, and the page at / in it as people use it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright
from serving import Server

# The narrowest that WCAG 2.2 asks for is a desktop's 1280 at 400 %, 320.
WIDTHS = {"narrow": (320, 568), "phone": (360, 800), "tablet": (768, 1024), "desktop": (1440, 900)}
PATIENCE_MS = 30_000


@contextmanager
def chromium() -> Iterator[Browser]:
    found = shutil.which("chromium")
    assert found, "these tests need Chromium: make test installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        expect.set_options(timeout=PATIENCE_MS)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, server: Server, size: str = "desktop", scheme: str = "light", url: str | None = None
) -> Iterator[Page]:
    """The page in a window of its own; whatever it complains of in the console, its policy too, fails the test."""
    width, height = WIDTHS[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    # "Failed to load resource" tells of answers that are not 200, which some tests ask for.
    page.on("console", lambda said: complaints.append(said.text) if "Failed to load" not in said.text else None)
    page.goto(url or f"http://127.0.0.1:{server.port}/")
    yield page
    context.close()
    assert complaints == []


def score_of(panel: str, page: Page) -> str:
    shown = page.get_by_role("region", name=f"Picture {panel}").locator(".score strong")
    expect(shown).to_be_visible()  # it is hidden while another answer is awaited
    return shown.inner_text()


def choose(page: Page, *files: Path, place: int = 0) -> None:
    page.locator("input[type=file]").nth(place).set_input_files(list(files))
