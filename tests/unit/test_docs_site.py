"""The documentation site: built once, strictly, and then read as a browser reads it."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import clicv2_client
import pytest
import typer
from axe_playwright_python.sync_playwright import Axe
from pages import DOCS, ROOT, SHELL, blocks, calls
from playwright.sync_api import Browser, expect, sync_playwright

from service.cli import app as service_app
from training.cli import app as training_app

PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
# Where commands stand for what they are like, with RUN and RECIPE.yaml; the how-to pages have them as they are typed.
NOT_FOLLOWED = {"training.md"}
FOLLOWED = {"quickstart.md", "concepts/heatmap.md", "production.md"}
SIZES = {"phone": (375, 812), "desktop": (1280, 900)}
STACK_STARTS = re.compile(r"^(\w+=\S+ )?docker compose .*\bup --build\b", re.MULTILINE)
# One of each kind: prose with a picture, commands, the API, the SDK, tables, a copied file.
LOOKED_AT = ("concepts/learning", "how-to/http", "api", "sdk", "promises", "files/service/settings.py")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    trees = tmp_path_factory.mktemp("trees")
    build = [sys.executable, "-m", "sphinx", "-E", "-W", "--keep-going", "-q", "-d", str(trees), "-b", "html"]
    done = subprocess.run([*build, str(DOCS), str(folder)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


class Html(HTMLParser):
    """What a page links to, what it loads, and the names of its places."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.ids.add(given["id"])
        if "src" in given or (tag == "link" and given.get("rel") != "canonical"):
            self.loads.append(given.get("src") or given["href"])
        elif tag == "a" and "href" in given:
            self.links.append(given["href"])


read = cache(Html)


def text_of(site: Path, page: str) -> str:
    return re.sub(r"<[^>]+>", "", (site / page).read_text())


def test_every_link_leads_somewhere(site: Path) -> None:
    dead = []
    for page in site.rglob("*.html"):
        for link in read(page).links + read(page).loads:
            url = urlsplit(link)
            if url.scheme:
                continue
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            if target.is_dir():
                target /= "index.html"
            if not target.is_file() or (
                url.fragment and target.suffix == ".html" and unquote(url.fragment) not in read(target).ids
            ):
                dead.append((page.relative_to(site).as_posix(), link))
    assert dead == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert [url for url in read(page).loads if urlsplit(url).scheme not in ("", "data")] == [], page
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)]*", style.read_text()) == [], style


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_reached_from_the_first_one(site: Path, page: str) -> None:
    assert (site / page).with_suffix(".html").is_file()
    assert page == "index.md" or page.replace(".md", ".html") in read(site / "index.html").links


def test_the_reference_has_every_operation_and_schema(site: Path) -> None:
    document = json.loads((DOCS / "openapi.json").read_text())
    page = text_of(site, "api.html")
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert f"{method.upper()} {path}" in page
            assert all(parameter["name"] in page for parameter in operation.get("parameters", ()))
    places = read(site / "api.html").ids
    assert {name.lower() for name in document["components"]["schemas"]} <= places


def test_the_reference_has_every_name_of_the_sdk(site: Path) -> None:
    page = text_of(site, "sdk.html")
    assert [name for name in clicv2_client.__all__ if name not in page] == []


def test_the_reference_has_every_command_and_option(site: Path) -> None:
    page = text_of(site, "commands.html")
    for program in ("clicv2", "clicv2-train"):
        for name, options in options_of(program).items():
            assert name in page
            assert [option for option in options if option not in page] == [], name


@cache
def options_of(program: str) -> dict[str, set[str]]:
    """The options of each of a program's commands, as `clicv2 keys create`."""
    apps = {"clicv2": service_app, "clicv2-train": training_app}
    found: dict[str, set[str]] = {}

    def look(name: str, command: object) -> None:
        children = getattr(command, "commands", None)
        if children is None:
            found[name] = {option for parameter in command.params for option in parameter.opts if option[0] == "-"}  # type: ignore[attr-defined]
        else:
            for child, each in children.items():
                look(f"{name} {child}", each)

    look(program, typer.main.get_command(apps[program]))
    return found


def calls_on(page: Path, program: str) -> list[list[str]]:
    return [
        words for block in blocks(page.read_text()) if block.language == SHELL for words in calls(block.text, program)
    ]


@pytest.mark.parametrize(
    "page", [*(f"docs/{page}" for page in PAGES), "README.md", "docker/README.md", "MODEL_CARD.md"]
)
def test_a_command_has_the_options_that_the_page_gives_it(page: str) -> None:
    for program, called in (("clicv2", "clicv2"), ("clicv2-train", "clicv2-train"), ("clicv2-train", "training.cli")):
        known = options_of(program)
        for words in calls_on(ROOT / page, called):
            name = next((name for name in known if [program, *words][: len(name.split())] == name.split()), None)
            given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z0]", word)}
            assert name is None or given <= known[name], words


def test_commands_to_be_looked_at_are_found() -> None:
    """Or the test above would look at nothing."""
    assert len(calls_on(DOCS / "training.md", "clicv2-train")) >= 6
    assert ["models", "load", "--version", "1"] in calls_on(DOCS / "production.md", "clicv2")
    [torchrun] = calls_on(DOCS / "how-to/gpu.md", "training.cli")
    assert torchrun[0] == "pretrain"


def test_tritons_options_are_those_of_the_stack() -> None:
    stack = (ROOT / "docker/compose.gpu.yml").read_text()
    [words] = calls_on(DOCS / "how-to/gpu.md", "tritonserver")
    assert [word for word in words if word.partition("=")[0] not in stack] == []


def test_every_page_with_commands_is_followed() -> None:
    """By tests/e2e/test_docs_commands.py, which has the how-to pages all; here, so that no other is forgotten."""
    shown = {page for page in PAGES if any(block.language == SHELL for block in blocks((DOCS / page).read_text()))}
    assert {page for page in shown if not page.startswith(("how-to/", "runbooks/"))} == FOLLOWED | NOT_FOLLOWED


@pytest.mark.parametrize("page", [*(f"docs/{page}" for page in PAGES), "docker/README.md"])
def test_a_port_is_free_when_it_is_wanted_again(page: str) -> None:
    """Whoever follows a page is told to end what has it; the test that follows pages has ports to spare."""
    text = (ROOT / page).read_text()
    lines = text.splitlines()
    taken: dict[str, int] = {}
    for block in blocks(text):
        port = block.asked.get("stays") or ("8000" if STACK_STARTS.search(block.text) else "")
        if port and block.runs:
            between = "\n".join(lines[taken.get(port, block.line) : block.line])
            assert not between or re.search("Ctrl-C|docker compose down", between), f"{page}, line {block.line}"
            taken[port] = block.line


@pytest.mark.parametrize("page", PAGES)
def test_a_page_reads_well_where_it_is_not_built(page: str) -> None:
    """On GitHub: no directives of the generator, every file that a link names, and one title."""
    text = (DOCS / page).read_text()
    assert re.findall(r"^(?:```\{|:::|\(\w+\)=)|\{(?:ref|doc|term)\}`", text, re.MULTILINE) == []
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1
    for link in re.findall(r"\]\(([^)#\s]+)", prose):
        assert re.match(r"https?:", link) or ((DOCS / page).parent / link).exists(), link


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium")
    assert found, "the site's tests need Chromium: make test installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_anybody_can_read_it(site: Path, browser: Browser, size: str, scheme: str) -> None:
    """No scrolling sideways, and axe finds nothing against it: contrast, names, roles, the order of headings."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(30_000)
    tab = context.new_page()
    for page in LOOKED_AT:
        tab.goto((site / f"{page}.html").as_uri())
        audit = Axe().run(tab)
        assert audit.violations_count == 0, f"{page}: {audit.generate_report()}"
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, page
    context.close()


def test_search_needs_no_server(site: Path, browser: Browser) -> None:
    tab = browser.new_page()
    tab.set_default_timeout(30_000)
    tab.goto((site / "search.html").as_uri() + "?q=webhook")
    expect(tab.locator("#search-results li").first).to_be_visible(timeout=30_000)
    tab.close()
