"""Docker's commands as the documents have them, on a real engine: part of `make test-compose`.

Each section runs in a copy of what git has, in one shell, as tests/support/pages.py says. What is different from what a
reader types: the ports, the names of project and tag, the images that are not to be had (WITHOUT), and what a proxy
that listens before its container does would fail (curl tries again). What needs a GPU or a cluster is looked at only.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from pages import DOCS, ROOT, Reader, blocks, calls
from ports import free_port

PATIENCE_S = 1500.0  # the first one builds the images
PROJECT = "clicv2-documented"
EMBEDDED = "clicv2-embedded-documented"
MONITORED = "--profile monitoring up --build --wait"
# Grafana's image is the largest by far; tests/integration/test_monitoring.py judges its dashboards.
WITHOUT = f"{MONITORED} gateway worker prometheus alertmanager redis-exporter"
SECTIONS = [
    (DOCS / "quickstart.md", "As containers, with keys"),
    (ROOT / "docker/README.md", "With Compose"),
    (ROOT / "docker/README.md", "In one container"),
    (ROOT / "docker/README.md", "Watching it"),
]
GPU = DOCS / "how-to/gpu.md"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As fresh as what is at work on here may be, with a picture and a curl that waits for whom Docker has started."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "docs/heatmap.jpg", tmp_path / "photo.jpg")
    for kind in ("refused", "answered"):
        (tmp_path / "curl" / kind).mkdir(parents=True)
    settings = ["silent", "show-error", "fail-with-body", "retry = 60", "retry-delay = 1", "retry-all-errors"]
    (tmp_path / "curl/answered/.curlrc").write_text("\n".join(settings))
    return tmp_path


@pytest.fixture
def environment(clone: Path) -> Iterator[dict[str, str]]:
    """Of a project that is nobody's; at the end nothing is left of it."""
    settings = {
        "COMPOSE_PROJECT_NAME": PROJECT,
        "TAG": "test",
        "GATEWAY_PORT": str(free_port()),
        "DOCKER_CONFIG": os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker")),
    }
    yield settings
    down = ["docker", "compose", "--profile", "*", "down", "--volumes", "--timeout", "30"]
    subprocess.run(down, cwd=clone, env=os.environ | settings, capture_output=True, check=True)
    found = ["docker", "ps", "--quiet", "--filter", f"ancestor={EMBEDDED}"]
    left = subprocess.run(found, capture_output=True, text=True, check=True).stdout.split()
    if left:
        subprocess.run(["docker", "rm", "--force", *left], capture_output=True, check=True)


@pytest.mark.timeout(PATIENCE_S + 120)
@pytest.mark.parametrize(("page", "section"), SECTIONS, ids=lambda given: getattr(given, "stem", given))
def test_a_section_can_be_followed(page: Path, section: str, clone: Path, environment: dict[str, str]) -> None:
    replaced = {MONITORED: WITHOUT, "clicv2-embedded": EMBEDDED}
    ports = {"8000": int(environment["GATEWAY_PORT"])}
    Reader(clone, replaced, "", ports, environment).follow(page, PATIENCE_S, section)


def test_no_section_with_docker_is_forgotten() -> None:
    """Of these two pages; the how-to page is looked at below, and stack.py follows the runbooks."""
    for page in dict(SECTIONS):
        followed = [section for other, section in SECTIONS if other == page]
        text = page.read_text()
        shown = [block for block in blocks(text) if block.runs and "docker " in block.text]
        assert shown
        titles = {text[: text.index(block.text)].rpartition("\n## ")[2].partition("\n")[0] for block in shown}
        assert titles == set(followed)


@pytest.mark.parametrize("words", calls(GPU.read_text(), "docker"), ids=" ".join)
def test_composes_own_reading_of_what_needs_a_gpu(words: list[str], clone: Path, environment: dict[str, str]) -> None:
    """Which needs no engine: the files fit together, and the services that are named are in them."""
    assert words[0] == "compose"
    files = [word for name, value in pairwise(words) if name == "-f" for word in (name, value)]
    assert len(files) == 4
    command = words[1 + len(files) :]
    services = subprocess.run(
        ["docker", "compose", *files, "config", "--services"],
        cwd=clone,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "triton" in services
    assert command[0] != "exec" or command[1] in services
    assert subprocess.run(["docker", "compose", command[0], "--help"], check=True, capture_output=True).stdout
