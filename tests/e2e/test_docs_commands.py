"""Every command of the documentation is run, in the order in which a page tells its reader to.

The blocks marked `sh` of a page run in one shell, in a folder that looks like a fresh clone and has a few pictures;
tests/support/pages.py says how a page marks what the test cannot know. What is different here from what the reader
types is in this file and nowhere else: ports, REPLACED, and PRELUDE, which has something harmless in place of programs
that would change the machine or are seldom there. docker is looked at, not run (tests/compose/documented.py runs it),
nginx is the real one, and so is all the rest.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import trustme
from pages import DOCS, ROOT, Reader
from PIL import Image
from ports import free_port

PAGES = [
    DOCS / "quickstart.md",
    *sorted((DOCS / "how-to").glob("*.md")),
    DOCS / "concepts" / "heatmap.md",
    DOCS / "production.md",
]
REPLACED = {
    "training/configs/clicv2_small.yaml": "tiny.yaml",
    "--epochs 22": "--epochs 1",
    "--seconds 10": "--seconds 0.2",
}
PRELUDE = f"""
docker() {{ python {ROOT}/tests/support/pretended/docker.py "$@"; }}
pip() {{ python {ROOT}/tests/support/pretended/pip.py "$@"; }}
# Installs nothing: the environment that runs this test has it all.
make() {{ command make -o .venv/.serve -o .venv/.dev -o .venv/.triton "$@"; }}
sudo() {{ "$@"; }}
nginx() {{ command nginx -p "$PWD" -c etc/nginx/nginx.conf -e err/nginx "$@"; }}
# Anew, and not by its own reload, after which its old processes answer for a while.
systemctl() {{
  [ "$*" = "reload nginx" ]
  if [ -s nginx.pid ]; then nginx -s quit; while [ -e nginx.pid ]; do sleep 0.1; done; fi
  nginx >/dev/null & until [ -s nginx.pid ]; do kill -0 $!; sleep 0.1; done
}}
"""
NGINX = """
daemon off;
pid nginx.pid;
events {}
http { access_log off; include conf.d/*.conf; }
"""
HOSTS = ("complexity.example", "pictures.example")
# The shipped recipe's, in what one model's versions must have in common: the input, and how long an embedding is.
TINY = """
name: tiny
canvas: 64
workers: 0
input_size: 352
encoder: {dim: 192, depth: 1, heads: 3, stem: [4, 4, 8]}
clicv2: {view_size: 32, shift_low: 8, shift_high: 12}
optim: {epochs: 2, batch_size: 4, lr: 0.002, bf16: false}
"""
LINKED = (".venv", "Makefile", "README.md", "LICENSE", "pyproject.toml", "bench", "client", "clicv2", "docker", "docs",
          "docker-compose.yml", "service", "tests", "training")  # fmt: skip
PATIENCE_S = 280.0


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The project as far as pages name it, and what a reader has: pictures, ratings of them, a name in the DNS."""
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "model_repository", tmp_path / "model_repository")
    (tmp_path / "tiny.yaml").write_text(TINY)
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    rows = ["path,score,group"]
    for number in range(12):
        cells = 2 + 3 * number
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        name = f"{number:02}.{'png' if number % 5 == 4 else 'jpg'}"
        noise.resize((80, 64), Image.Resampling.NEAREST).save(photos / name)
        rows.append(f"{name},{20 + 5 * number},{'odd' if number % 2 else 'even'}")
    (tmp_path / "ratings.csv").write_text("\n".join(rows) + "\n")
    shutil.copy(photos / "11.jpg", tmp_path / "photo.jpg")
    return tmp_path


@pytest.fixture
def reader(clone: Path) -> Reader:
    """With certificates, and a curl that finds the page's hosts here and takes an error for a failure."""
    ports = {"80": free_port(), "443": free_port()}
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(clone / "ca.pem"))
    for host in HOSTS:
        certificate = authority.issue_cert(host)
        live = clone / "etc/letsencrypt/live" / host
        live.mkdir(parents=True)
        certificate.cert_chain_pems[0].write_to_path(str(live / "fullchain.pem"))
        certificate.private_key_pem.write_to_path(str(live / "privkey.pem"))
    (clone / "etc/nginx/conf.d").mkdir(parents=True)
    user = "user root;" if os.geteuid() == 0 else ""
    (clone / "etc/nginx/nginx.conf").write_text(user + NGINX)
    settings = ["silent", "show-error", 'cacert = "ca.pem"']
    settings += [f'connect-to = "{host}:{on}:127.0.0.1:{port}"' for host in HOSTS for on, port in ports.items()]
    for kind, more in (("refused", []), ("answered", ["fail-with-body"])):
        (clone / "curl" / kind).mkdir(parents=True)
        (clone / "curl" / kind / ".curlrc").write_text("\n".join([*settings, *more]))
    here = {f"listen {named}": f"listen 127.0.0.1:{port}" for named, port in ports.items()}
    return Reader(clone, {**REPLACED, **here, "/etc/": f"{clone}/etc/"}, PRELUDE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_can_be_followed(page: Path, reader: Reader, clone: Path) -> None:
    if "mkdir -p photos\n" in page.read_text():
        shutil.rmtree(clone / "photos")  # whoever has none gets them there
    reader.follow(page, PATIENCE_S)
