"""The page at / where browser, file or network are not as one would wish."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from browsing import choose, chromium, opened, score_of
from playwright.sync_api import Browser, Page, Route, expect
from serving import Server, serving
from streams import StreamsInThread

from service.keys import add, make

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "tests/data"
STREET = ROOT / "service/web/static/samples/street.webp"
SHAPES = STREET.with_name("shapes.webp")
STRICT = "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; base-uri 'none'; form-action 'none'"
PASTE = """async (text) => {
    const transfer = new DataTransfer();
    if (text) transfer.setData("text/plain", text);
    else {
        const data = await (await fetch("static/samples/sunset.webp")).blob();
        transfer.items.add(new File([data], "image.webp", {type: "image/webp"}));
    }
    document.activeElement.dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true}));
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(ROOT / "model_repository", deadline_s=60) as running:  # this machine may be busy
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@contextmanager
def without_answers(page: Page) -> Iterator[None]:
    """Whoever asks for a score meets a network that is gone."""
    page.route("**/v1/complexity*", lambda route: route.abort())
    yield
    page.unroute("**/v1/complexity*")


def test_a_file_that_is_gone_is_not_a_service_that_is_gone(browser: Browser, server: Server, tmp_path: Path) -> None:
    """A browser tells of both alike. So it is with a folder that is dropped."""
    picture = tmp_path / "moved.webp"
    picture.write_bytes(STREET.read_bytes())
    with opened(browser, server) as page:
        with without_answers(page):
            choose(page, picture)
            expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
        picture.unlink()
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("alert")).to_contain_text("The picture cannot be read")
        expect(page.get_by_role("button", name="Try again")).to_be_hidden()
        choose(page, SHAPES)
        assert score_of("A", page)


def test_it_is_pasted_wherever_the_reader_is(browser: Browser, server: Server) -> None:
    """On the slider, too, which is an input as is a field of text; and what is no picture is said to be none."""
    with opened(browser, server) as page:
        choose(page, SHAPES)
        score_of("A", page)
        expect(page.get_by_text("has to be saved there first")).to_be_hidden()
        page.get_by_role("slider").focus()
        page.evaluate(PASTE, "https://pictures.example/cat.jpg")
        expect(page.locator("#told")).to_have_text("What was pasted is no picture.")
        page.evaluate(PASTE, "")
        expect(page.locator("figcaption")).to_have_text("image.webp")
        assert score_of("A", page)
        # There is no such file in any folder yet.
        expect(page.get_by_text("has to be saved there first")).to_be_visible()
        page.get_by_role("button", name="A street").click()
        expect(page.get_by_text("has to be saved there first")).to_be_hidden()


def test_a_key_can_be_used_where_the_browser_keeps_nothing(browser: Browser, tmp_path: Path) -> None:
    """With cookies off, asking for sessionStorage is an error in itself."""
    key, full = make("page", "read", None, None)
    add(tmp_path / "keys.json", key)
    with (
        serving(ROOT / "model_repository", auth="on", keys_file=tmp_path / "keys.json") as server,
        opened(browser, server, url="about:blank") as page,
    ):
        page.add_init_script(
            "Object.defineProperty(window, 'sessionStorage', {get() { throw new DOMException('', 'SecurityError'); }})"
        )
        page.goto(f"http://127.0.0.1:{server.port}/")
        choose(page, STREET)
        box = page.get_by_label("This service asks for an API key")
        expect(box).to_be_focused()
        page.evaluate(PASTE, full)  # of text, which is not said to be no picture
        expect(page.locator("#told")).to_be_hidden()
        box.fill(full)
        box.press("Enter")
        assert score_of("A", page)
        expect(page.get_by_text("KEY is to hold your API key")).to_be_visible()


def test_it_needs_nothing_that_a_strict_policy_forbids(browser: Browser, server: Server) -> None:
    """Of a proxy's, say: no styles or scripts in the page itself. `opened` fails for what the browser refuses."""

    def stricter(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, "content-security-policy": STRICT})

    url = f"http://127.0.0.1:{server.port}/"
    with opened(browser, server, url="about:blank") as page:
        page.route(url, stricter)
        assert page.goto(url).headers["content-security-policy"] == STRICT  # type: ignore[union-attr]
        choose(page, STREET)
        score_of("A", page)
        page.get_by_role("button", name="Compare with a second picture").click()
        choose(page, PICTURES / "rgb.png", place=1)  # a small one, whose size the page sets
        score_of("B", page)
        expect(page.locator(".map").last).to_be_visible()


def test_an_answer_that_is_the_same_again_is_said_again(browser: Browser, server: Server) -> None:
    """What does not change in a live region is not read aloud."""
    with opened(browser, server) as page:
        said = page.locator("#said")
        choose(page, STREET)
        expect(said).to_contain_text("street.webp: complexity")
        server.pause()
        try:
            choose(page, STREET)
            expect(said).to_be_empty()
        finally:
            server.resume()
        expect(said).to_contain_text("street.webp: complexity")


def test_numbers_of_limits_are_legible(browser: Browser, server: Server, tmp_path: Path) -> None:
    """As sentences are that begin with a capital letter; the API's own details are as they were."""
    large = tmp_path / "large.jpg"
    large.write_bytes(b"\xff" * (32 * 2**20 + 1))
    with opened(browser, server) as page:
        choose(page, large)
        detail = page.get_by_role("alert").locator(".detail")
        expect(detail).to_have_text("the upload exceeds the limit of 33,554,432 bytes: it has 33,554,433.")
        first = "getComputedStyle(document.querySelector('.detail'), '::first-letter').textTransform"
        assert page.evaluate(first) == "uppercase"


class SlowLine:
    """Between callers and a server; what is large comes to the server at some kB a second."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._thread = StreamsInThread()
        self.port = self._thread.do(self._thread.streams.listen(self._accept, read_ahead=2**12))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, asked = await self._thread.streams.connect(self._target)
        await asyncio.gather(self._pass(reader, asked, 2**16), self._pass(answers, writer, None))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fast: int | None) -> None:
        """All of it; what comes after the first `fast` bytes slowly."""
        passed = 0
        with suppress(ConnectionError):
            while piece := await reader.read(2**12):
                writer.write(piece)
                await writer.drain()
                passed += len(piece)
                if fast is not None and passed > fast:
                    await asyncio.sleep(0.2)
        writer.close()

    def close(self) -> None:
        self._thread.close()


@pytest.fixture
def slow_line(server: Server) -> Iterator[SlowLine]:
    line = SlowLine(server.port)
    yield line
    line.close()


def test_a_slow_connection_is_not_a_silent_service(
    browser: Browser, server: Server, slow_line: SlowLine, tmp_path: Path
) -> None:
    """It is said how far the picture is; and who is given up is told what it was that took so long."""
    large = tmp_path / "large.webp"
    large.write_bytes(STREET.read_bytes() + bytes(24 * 2**20))  # more than all buffers on the way hold
    with opened(browser, server, url=f"http://127.0.0.1:{slow_line.port}/") as page:
        page.clock.install()
        choose(page, large)
        expect(page.get_by_text("Sending it:")).to_be_visible()
        page.clock.fast_forward(61_000)
        expect(page.get_by_role("alert")).to_contain_text("did not get through")
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
