"""Under a path of another host: a real nginx before a real service, a browser and the SDK behind it.

nginx passes the path on as it is, or cuts it off; who asks sees no difference.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest
from browsing import choose, chromium, opened, score_of
from clicv2_client import Client, errors
from pages import ROOT
from playwright.sync_api import Browser, Page, expect
from ports import free_port
from serving import Server, serving

from service import keys

SHIPPED = ROOT / "model_repository"
STREET = ROOT / "service/web/static/samples/street.webp"
SHAPES = STREET.with_name("shapes.webp")
NGINX = """
daemon off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ return 418; }}
        location /complexity/ {{
            proxy_pass http://127.0.0.1:{target}{path};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_buffering off;
        }}
    }}
}}
"""
PATHS = {"passed on": "", "cut off": "/"}


@dataclass(frozen=True)
class Site:
    """The service, and where it is for those who do not know it."""

    server: Server
    host: str
    key: str

    @property
    def url(self) -> str:
        return f"{self.host}/complexity"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module", params=PATHS.values(), ids=PATHS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("nginx")
    key, full = keys.make("proxied", "read")
    keys.add(folder / "keys.json", key)
    port = free_port()
    with serving(
        SHIPPED,
        root_path="/complexity",
        trusted_proxies="127.0.0.1",
        auth="on",
        keys_file=folder / "keys.json",
        deadline_s=60,
    ) as server:
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(user + NGINX.format(port=port, target=server.port, path=request.param))
        with subprocess.Popen(["nginx", "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]) as nginx:
            try:
                site = Site(server, f"http://127.0.0.1:{port}", full)
                _wait_for(f"{site.url}/livez")
                yield site
            finally:
                nginx.terminate()
                nginx.wait(20)


def _wait_for(url: str) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            httpx.get(url).raise_for_status()
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("nginx did not start")


def watched(page: Page) -> tuple[list[str], list[str]]:
    """What the page asks for from now on, and of that what is not answered with 200."""
    asked: list[str] = []
    failed: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.on("response", lambda response: failed.append(response.url) if response.status >= 400 else None)
    return asked, failed


def test_the_page(browser: Browser, site: Site) -> None:
    with opened(browser, site.server, url="about:blank") as page:
        asked, failed = watched(page)
        page.goto(f"{site.url}/")
        page.evaluate("key => sessionStorage.setItem('clicv2-api-key', key)", site.key)
        choose(page, STREET)
        assert score_of("A", page)
        assert f"'{site.url}/v1/complexity'" in page.locator("#curl").inner_text()
        page.get_by_role("link", name="The API").click()
        expect(page.get_by_role("heading", name="CLICv2 complexity service")).to_be_visible()
        assert urlsplit(page.url).path == "/complexity/docs"
        assert [url for url in asked if not url.startswith((f"{site.url}/", "data:", "blob:", "about:"))] == []
        assert failed == []


def test_the_docs_and_their_button_that_asks(browser: Browser, site: Site) -> None:
    with opened(browser, site.server, url="about:blank") as page:
        asked, failed = watched(page)
        page.goto(f"{site.url}/docs", wait_until="networkidle")
        expect(page.locator(".servers select")).to_have_value("/complexity")
        livez = page.locator("[id^=operations-operations]").filter(has_text="/livez")
        livez.locator("button").first.click()
        livez.get_by_role("button", name="Try it out").click()
        livez.get_by_role("button", name="Execute").click()
        expect(livez.locator(".request-url")).to_contain_text(f"{site.url}/livez")
        expect(livez.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
        assert f"{site.url}/livez" in asked
        # What the document's description leads to.
        with page.expect_popup() as opening:
            page.locator(".info a", has_text="/errors").click()
        explained = opening.value
        explained.get_by_role("link", name="overloaded", exact=True).click()
        explained.get_by_role("link", name="All errors").click()
        expect(explained.get_by_role("heading", name="Errors", exact=True)).to_be_visible()
        assert explained.url == f"{site.url}/errors"
        assert [url for url in asked if not url.startswith((f"{site.url}/", "data:", "blob:", "about:"))] == []
        assert failed == []


def test_what_answers_lead_to(site: Site) -> None:
    """Every link is one of this host's, with the path, and there is what it promises."""
    with httpx.Client(base_url=site.host, headers={"X-API-Key": site.key}, timeout=60) as client:
        pictures = [("file", STREET.read_bytes())] * 3
        begun = client.post("/complexity/v1/jobs", files=pictures).raise_for_status()
        where = begun.headers["location"]
        with client.stream("GET", f"{where}/events") as events:
            assert [line for line in events.iter_lines() if line == "event: end"]
        found, following = [], f"{where}?limit=2"
        while following:
            page = client.get(following).raise_for_status().json()
            found += page["results"]
            following = page["page"].get("next")
        assert sorted(item["index"] for item in found) == [0, 1, 2]
        assert client.delete(where).status_code == 204

        for problem in (client.get(where), client.get("/complexity/nothing"), client.put("/complexity/v1/models")):
            assert problem.status_code in (404, 405)
            explanation = client.get(problem.links["help"]["url"]).raise_for_status()
            assert problem.json()["type"] in explanation.text
        assert client.get("/complexity/openapi.json").json()["servers"] == [{"url": "/complexity"}]
        assert client.get("/complexity/docs/").headers["location"] == "/complexity/docs"
        assert client.get("/complexity/metrics").status_code == 403
        assert client.get("/complexity/complexity/metrics").status_code in (403, 404)


def test_the_sdk(site: Site) -> None:
    with Client(f"{site.url}/", api_key=site.key, timeout_s=60) as client:
        alone = client.score(STREET).score
        assert [each.result and each.result.score for each in client.score_many([STREET] * 2)] == [alone] * 2
        assert client.compare([STREET, SHAPES]).pictures[0].score == alone
        assert [model.name for model in client.models()] == ["clicv2"]
        job = client.jobs.submit([STREET] * 3)
        assert client.jobs.wait(job.id, timeout_s=60).status == "done"
        assert [item.unwrap().score for item in client.jobs.results(job.id)] == [alone] * 3
        client.jobs.delete(job.id)
        with pytest.raises(errors.UnknownJob):
            client.jobs.get(job.id)


def test_who_stands_beside_the_proxy_needs_no_path(site: Site) -> None:
    for path in ("/livez", "/readyz", "/complexity/readyz"):
        assert site.server.client.get(path).status_code == 200, path
    assert site.server.client.get("/v1/models", headers={"X-API-Key": site.key}).status_code == 200
