"""Promise 18: the API honours its schema, whatever schemathesis thinks of to send.

The command that anybody may run, with every check, in a real process: examples, edge cases, random requests, and
requests that follow each other. CLICV2_API_EXAMPLES and CLICV2_API_SEEDS (as 1,2,3) make it longer.

Schemathesis tells how many cases there were in all. Of a single operation there may be far fewer than asked for: it
ends an operation's random requests without a word once what it deletes is what they are drawn from. So what came to
each operation is counted by the server.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from serving import COMMAND, HOST, Server, serving

ROOT = Path(__file__).parents[2]
EXAMPLES = int(os.environ.get("CLICV2_API_EXAMPLES", "15"))
SEEDS = [int(seed) for seed in os.environ.get("CLICV2_API_SEEDS", "0").split(",")]

pytestmark = pytest.mark.timeout(120 + 30 * EXAMPLES)


def assert_honours_its_schema(server: Server, seed: int, *options: str) -> None:
    command: Sequence[str | Path] = (
        Path(sys.executable).parent / "schemathesis",
        "run",
        f"http://{HOST}:{server.port}/openapi.json",
        *("--seed", str(seed), "--max-examples", str(EXAMPLES), "--no-color", "--warnings", "off"),
        *options,
    )
    # From the root, where schemathesis.toml is.
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert server.metric("clicv2_requests_total", status="200", route="/v1/complexity") > 0, "nothing was tested"
    assert server.metric("clicv2_requests_total", status="500") == 0


def operations(server: Server) -> Iterator[tuple[str, str]]:
    """Each one's method and path."""
    for path, methods in server.client.get("/openapi.json").json()["paths"].items():
        yield from ((method.upper(), path) for method in methods)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_keys(repository: Path, seed: int) -> None:
    with serving(repository) as server:
        assert_honours_its_schema(server, seed)
        # Alone, its ids are those that schemathesis makes up, of which there is no end.
        assert_honours_its_schema(server, seed, "--include-operation-id", "forget_job", "--phases", "fuzzing")
        for method, route in operations(server):
            assert server.metric("clicv2_requests_total", method=method, route=route) >= EXAMPLES, (method, route)


@pytest.mark.parametrize("seed", SEEDS)
def test_with_keys_and_a_cache(repository: Path, seed: int, tmp_path: Path) -> None:
    """And a key is really needed: schemathesis asks again without one and with a wrong one."""
    keys = tmp_path / "keys.json"
    create = [*COMMAND, "keys", "create", "--name", "test", "--scope", "admin", "--file", str(keys)]
    key = subprocess.run(create, capture_output=True, text=True, check=True).stdout.strip()
    with serving(repository, auth="on", keys_file=keys, cache_bytes=1 << 20) as server:
        server.client.headers["Authorization"] = f"Bearer {key}"
        assert_honours_its_schema(server, seed, "--header", f"Authorization: Bearer {key}", "--phases", "coverage")


@pytest.mark.parametrize("seed", SEEDS)
def test_with_urls(repository: Path, seed: int) -> None:
    with serving(repository, url_input=True) as server:
        assert_honours_its_schema(server, seed, "--include-path", "/v1/complexity", "--phases", "examples,fuzzing")
