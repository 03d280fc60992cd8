"""`clicv2 score` as a person uses it: on folders with everything in them, killed, stopped, piped, and by a server."""

import base64
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import pytest
import tiny_model
from commands import ROOT, app, run, started
from pictures import encode, flat_png, noise, scene
from proxy import proxy
from pyarrow import parquet
from serving import Server, serving
from typer.testing import CliRunner

from service.files.outputs import read_scores
from service.files.seen import Seen

RANDOM = random.Random(0)
BROKEN = {
    "text.jpg": b"this is no picture",
    "empty.png": b"",
    "torn.jpg": encode(noise(64, 64), "JPEG")[:900],
    "bomb.png": flat_png(16_000, 16_000)[:3000],
}


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    with serving(repository) as running:
        yield running


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Every kind of file, in folders and a shard, with a name that is no UTF-8 and one that would be two lines."""
    folder = tmp_path / "photos"
    (folder / "deep/er").mkdir(parents=True)
    (folder / "a.png").write_bytes(encode(noise(90, 60), "PNG"))
    (folder / "deep/b.jpg").write_bytes(encode(scene(900, 700), "JPEG"))
    (folder / "deep/er/c.webp").write_bytes(encode(scene(70, 90), "WEBP"))
    for name, data in BROKEN.items():
        (folder / name).write_bytes(data)
    with open(os.fsencode(folder) + b"/caf\xe9\nau lait.png", "wb") as file:  # noqa: PTH123  # bytes
        file.write(encode(noise(64, 64, 3), "PNG"))
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for seed, name in enumerate(("x/d.png", "x/e.png"), 7):
            data = encode(noise(64, 64, seed), "PNG")
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, BytesIO(data))
    return folder


def many(folder: Path, count: int) -> Path:
    """So many files, of which every fiftieth is broken; few are different, so that they are made quickly."""
    folder.mkdir()
    made = [encode(noise(48, 32, seed) // (seed + 1), "PNG") for seed in range(20)]
    for number in range(count):
        path = folder / f"{number // 500:02}" / f"{number:06}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"broken" if number % 50 == 0 else made[number % 20])
    return folder


def paths(output: Path) -> list[str]:
    """Of the whole rows of a file that may still be written."""
    text = output.read_bytes() if output.exists() else b""
    whole = [part.decode() for part in text.split(b"\n")[:-1]]
    if output.suffix == ".jsonl":
        return [json.loads(line)["path"] for line in whole]
    return [row[0] for row in csv.reader(whole)][1:]


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, err = process.communicate(timeout=120)
    return process.returncode, err.decode()


def test_numbers_and_heatmaps_are_the_services(photos: Path, server: Server, repository: Path, tmp_path: Path) -> None:
    """Of every file of the golden set too."""
    golden = Path(__file__).parents[1] / "data"
    arguments = [photos, golden, "--heatmaps", tmp_path / "maps", "--model-repository", repository, "--json"]
    rows = [json.loads(line) for line in run("score", *arguments).stdout.splitlines()]
    scored = [row for row in rows if row["error"] is None and ".tar/" not in row["path"] and "\\" not in row["path"]]
    assert len(scored) > 40
    for row in scored:
        answer = server.score(Path(row["path"]).read_bytes(), heatmap="overlay").json()
        image = answer["image"]
        for name in ("score", "percentile", "entropy"):
            assert row[name] == answer[name], row["path"]
        for name in ("width", "height", "format", "sha256"):
            assert row[name] == image[name], row["path"]
        assert Path(row["heatmap"]).read_bytes() == base64.b64decode(answer["heatmap"]["data"])


def test_everything_has_its_row(photos: Path, repository: Path, tmp_path: Path) -> None:
    done = run("score", photos, "-o", tmp_path / "s.csv", "--model-repository", repository)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()))
    found = {row["path"].removeprefix(f"{photos}/"): row["error"] for row in rows}
    assert {name for name, error in found.items() if error} == set(BROKEN)
    assert {name for name, error in found.items() if not error} == {
        "a.png", "deep/b.jpg", "deep/er/c.webp", "caf\\xe9\\x0aau lait.png", "shard.tar/x/d.png", "shard.tar/x/e.png",
    }  # fmt: skip


@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_the_standard_output_is_utf8_lines(photos: Path, repository: Path, form: str) -> None:
    done = run("score", photos, "--format", form, "--model-repository", repository)
    lines = done.stdout.decode("utf-8").splitlines()
    assert len(lines) == 10 + (form == "csv")
    assert done.stderr.decode() == "clicv2: 4 of 10 could not be scored\n"


@pytest.mark.parametrize(("name", "count"), [("s.csv", 2000), ("s.jsonl", 400), ("s.parquet", 400)])
def test_killed_at_any_moment_every_file_is_there_once(repository: Path, tmp_path: Path, name: str, count: int) -> None:
    folder = many(tmp_path / "many", count)
    output = tmp_path / name
    growing = output.with_name("s.parquet.partial.jsonl") if name == "s.parquet" else output
    command = ("score", folder, "-o", output, "--model-repository", repository)
    kills = 0
    while kills < 4:
        process = started(*command, stderr=subprocess.PIPE)
        enough = len(paths(growing)) + RANDOM.randrange(1, count // 6)
        while len(paths(growing)) < enough and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        code, _ = ended(process)
        assert code == -signal.SIGKILL
        kills += 1
        if growing.read_bytes().endswith(b"\n"):  # a write is hardly ever torn, so tear it
            growing.write_bytes(growing.read_bytes()[: -RANDOM.randrange(1, 60)])
    assert 0 < len(paths(growing)) < count
    done = run(*command)
    assert done.returncode == 1, done.stderr
    if name == "s.parquet":
        rows = parquet.read_table(output).to_pylist()
        assert not growing.exists()
    elif name == "s.csv":
        rows = list(csv.DictReader(output.read_text().splitlines()))
    else:
        rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert Counter(row["path"] for row in rows) == Counter(str(path) for path in folder.rglob("*.png"))
    assert sum(bool(row["error"]) for row in rows) == count // 50
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)  # as if nothing had happened
    before = output.read_bytes()
    again = run(*command)
    assert f"{count:,} of them there already" in again.stderr.decode()
    assert again.returncode == 1  # its rows with errors are still there
    if name != "s.parquet":
        assert output.read_bytes() == before


@pytest.mark.parametrize("name", ["s.csv", "s.jsonl", "s.parquet"])
def test_what_failed_is_tried_again_when_somebody_says_so(repository: Path, tmp_path: Path, name: str) -> None:
    """After the disk was mended; killed on the way, too."""
    folder, output = many(tmp_path / "many", 1000), tmp_path / name
    command = ("score", folder, "-o", output, "--model-repository", repository)
    assert run(*command).returncode == 1
    good = encode(noise(48, 32), "PNG")
    broken = [path for path in folder.rglob("*.png") if path.read_bytes() == b"broken"]
    for path in broken[1:-1]:
        path.write_bytes(good)
    broken[-1].unlink()
    assert run(*command).returncode == 1, "nobody has said so"
    growing = tmp_path / "s.parquet.partial.jsonl" if name == "s.parquet" else output
    process = started(*command, "--retry-errors", stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.readline()  # that rows were taken out
    process.kill()
    ended(process)
    assert 980 <= len(paths(growing)) <= 999
    done = run(*command, "--retry-errors")
    assert done.returncode == 1
    assert b"1 could not be scored" in done.stderr
    rows = list(read_scores(output))
    assert Counter(row.path for row in rows) == Counter(str(path) for path in folder.rglob("*.png"))
    assert [row.path for row in rows if row.error] == [str(broken[0])]


def test_trying_again_needs_a_file(photos: Path) -> None:
    done = run("score", photos, "--retry-errors")
    assert done.returncode == 2
    assert b"name it with --output" in done.stderr


def test_another_model_does_not_continue(photos: Path, repository: Path, tmp_path: Path) -> None:
    output = tmp_path / "s.csv"
    run("score", photos / "a.png", "-o", output, "--model-repository", repository)
    before = output.read_bytes()
    newer = tiny_model.write(tmp_path / "newer", version=2)
    done = run("score", photos, "-o", output, "--model-repository", newer)
    assert done.returncode == 2
    assert b"was scored by clicv2:1" in done.stderr
    done = run("score", photos, "-o", output, "--heatmaps", tmp_path / "maps", "--model-repository", repository)
    assert done.returncode == 2
    assert b"without --heatmaps" in done.stderr
    assert output.read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_what_is_done_written(repository: Path, tmp_path: Path, number: signal.Signals) -> None:
    folder = many(tmp_path / "many", 3000)
    output = tmp_path / "s.csv"
    process = started("score", folder, "-o", output, "--model-repository", repository, stderr=subprocess.PIPE)
    while len(paths(output)) < 20:
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(number)
    code, err = ended(process)
    assert code == 128 + number
    found = paths(output)
    assert f"stopped; {output} has {len(found):,} rows" in err
    assert "Traceback" not in err
    assert output.read_bytes().endswith(b"\n")
    assert found == sorted(str(path) for path in folder.rglob("*.png"))[: len(found)]


@pytest.mark.parametrize(("command", "option", "name"), [("report", "-o", "out/r.html"), ("select", "--links", "out")])
def test_what_keeps_nothing_says_what_would(tmp_path: Path, command: str, option: str, name: str) -> None:
    slow = tiny_model.write(tmp_path / "model", work=20)
    folder = many(tmp_path / "many", 1000)
    process = started(command, folder, option, tmp_path / name, "--model-repository", slow, stderr=subprocess.PIPE)
    while not (tmp_path / "out").exists():  # it takes signals by then
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"stopped, and nothing is kept; `clicv2 score --output FILE`" in said
    assert not list((tmp_path / "out").iterdir())


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    slow = tiny_model.write(tmp_path / "slow", work=2000)  # a picture takes many seconds
    (tmp_path / "a.png").write_bytes(encode(noise(64, 64), "PNG"))
    errors = tmp_path / "err"
    with errors.open("wb") as err:
        arguments = ("-o", tmp_path / "s.csv", "--model-repository", slow)
        process = started("score", tmp_path / "a.png", *arguments, stderr=err)
        while not (tmp_path / "s.csv").exists():
            time.sleep(0.02)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None  # it finishes what it has begun
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert "stopped" not in errors.read_text()


def test_a_list_that_is_still_typed_does_not_hold_it_up(photos: Path, repository: Path) -> None:
    process = started("score", "-", "--model-repository", repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                      stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{photos}/a.png\n".encode())
    process.stdin.flush()
    assert process.stdout.readline().endswith(b"a.png\n")  # its row is there before the next line is
    process.send_signal(signal.SIGINT)
    code, err = process.wait(60), process.stderr.read().decode() if process.stderr else ""
    assert code == 130
    assert "Fatal" not in err
    process.stdin.close()
    process.stdout.close()
    if process.stderr:
        process.stderr.close()


def test_lists_and_pipes(photos: Path, repository: Path) -> None:
    listed = b"\0".join(os.fsencode(path) for path in photos.rglob("*.png"))
    process = started("score", "-0", "-", "--json", "--model-repository", repository, stdin=subprocess.PIPE,
                      stdout=subprocess.PIPE)  # fmt: skip
    out, _ = process.communicate(listed, timeout=120)
    assert len(out.splitlines()) == 4
    found = {os.path.basename(json.loads(line)["path"]) for line in out.splitlines()}  # noqa: PTH119
    assert "caf\\xe9\\x0aau lait.png" in found


def test_who_reads_no_more_is_no_error(tmp_path: Path, repository: Path) -> None:
    folder = many(tmp_path / "many", 500)
    process = started("score", folder, "--model-repository", repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read().decode() if process.stderr else ""
    assert process.wait(60) == 141
    assert err == ""
    if process.stderr:
        process.stderr.close()


def test_a_picture_by_pipe(photos: Path, repository: Path) -> None:
    named = run("score", photos / "a.png", "--json", "--model-repository", repository)
    process = started("score", "-", "--json", "--model-repository", repository, stdin=subprocess.PIPE,
                      stdout=subprocess.PIPE)  # fmt: skip
    out, _ = process.communicate((photos / "a.png").read_bytes(), timeout=120)
    assert process.returncode == 0
    assert json.loads(out) == json.loads(named.stdout) | {"path": "-"}


@pytest.mark.parametrize("arguments", [["score"], ["score", "--json"], ["score", "--format", "csv"], ["select"]])
def test_an_output_that_is_full_is_told(photos: Path, repository: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        process = started(*arguments, photos / "deep", "--model-repository", repository, stdout=full,
                          stderr=subprocess.PIPE)  # fmt: skip
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err.decode().splitlines()[-1] == "clicv2: the standard output cannot be written: No space left on device"
    assert b"Traceback" not in err
    assert b"Exception" not in err


def test_a_temporary_folder_that_is_full_is_told(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the paths of millions of files lie meanwhile; here a few fill it."""
    folder = many(tmp_path / "many", 500)
    real = Seen.__enter__

    def enter(seen: Seen) -> Seen:
        seen._database.execute("PRAGMA max_page_count = 3")
        return real(seen)

    monkeypatch.setattr(Seen, "__enter__", enter)
    done = CliRunner().invoke(app, ["score", str(folder), "--model-repository", str(repository)])
    assert done.exit_code == 1
    assert "TMPDIR, cannot be used: database or disk is full" in done.output


def test_memory_does_not_grow_with_the_files(tmp_path: Path, repository: Path) -> None:
    """Ten times the files, and the same memory within what an allocator wastes."""
    folder = many(tmp_path / "many", 3000)

    def peak_mb(what: Path) -> float:
        process = started("score", what, "-o", tmp_path / f"{what.name}.csv", "--model-repository", repository,
                          stderr=subprocess.DEVNULL)  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 1
        return usage.ru_maxrss / 1024

    few = many(tmp_path / "few", 300)
    assert peak_mb(folder) - peak_mb(few) < 16


def test_by_a_server_as_on_this_machine(photos: Path, server: Server, repository: Path, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.port}"
    maps = [tmp_path / name for name in ("here", "there")]
    here = run("score", photos, "--json", "--heatmaps", maps[0], "--model-repository", repository)
    there = run("score", photos, "--json", "--heatmaps", maps[1], "--server", url)
    assert (here.returncode, there.returncode) == (1, 1), there.stderr
    rows = [[json.loads(line) for line in done.stdout.splitlines()] for done in (here, there)]
    assert len(rows[0]) == len(rows[1]) == 10
    for mine, its in zip(*rows, strict=True):
        assert bool(mine.pop("error")) == bool(its.pop("error"))
        pictures = [Path(row.pop("heatmap")).read_bytes() for row in (mine, its) if row["score"]]
        assert len(set(pictures)) <= 1
        mine.pop("contrast"), its.pop("contrast")
        assert {**mine, "heatmap": None} == {**its, "heatmap": None}


def test_a_server_that_goes_away_ends_it_and_it_is_continued_here(repository: Path, tmp_path: Path) -> None:
    folder = many(tmp_path / "many", 600)
    output = tmp_path / "s.csv"
    with serving(repository) as going:
        url = f"http://127.0.0.1:{going.port}"
        process = started("score", folder, "-o", output, "--server", url, "--timeout", 5, stderr=subprocess.PIPE)
        while len(paths(output)) < 10:
            time.sleep(0.01)
            assert process.poll() is None
        going.kill()
        code, err = ended(process)
    assert code == 1
    assert "the server has no answers" in err
    assert f"stopped; {output} has {len(paths(output)):,} rows, and the same command goes on with it" in err
    with output.open() as file:
        assert {row["error"] for row in csv.DictReader(file)} <= {
            "",
            "not a picture in a supported format (JPEG, PNG, WEBP)",
        }
    assert 10 <= len(paths(output)) < 600
    assert run("score", folder, "-o", output, "--model-repository", repository).returncode == 1
    assert sorted(paths(output)) == sorted(str(path) for path in folder.rglob("*.png"))


def test_a_server_that_comes_back_has_cost_nothing(repository: Path, tmp_path: Path) -> None:
    folder = many(tmp_path / "many", 400)
    output = tmp_path / "s.csv"
    with ExitStack() as servers:
        first = servers.enter_context(serving(repository))
        with proxy(first.port) as address:
            url = f"http://127.0.0.1:{address.port}"
            process = started("score", folder, "-o", output, "--server", url, stderr=subprocess.PIPE)
            while len(paths(output)) < 50:
                time.sleep(0.01)
                assert process.poll() is None
            first.pause()
            time.sleep(1)
            first.resume()
            first.kill()
            address.target = servers.enter_context(serving(repository)).port
            code, err = ended(process)
    assert code == 1
    assert f"{output} has 400 rows; 8 could not be scored" in err
    assert sorted(paths(output)) == sorted(str(path) for path in folder.rglob("*.png"))


def test_no_server(photos: Path) -> None:
    done = run("score", photos, "--server", "http://127.0.0.1:1", "--timeout", 2)
    assert done.returncode == 1
    assert b"127.0.0.1:1" in done.stderr
    assert run("score", photos, "--server", "not a url").returncode == 2


@pytest.mark.parametrize(
    ("missing", "arguments", "says"),
    [
        ("clicv2_client", ["--server", "http://127.0.0.1:1"], "pip install ./client"),
        ("pyarrow", ["-o", "s.parquet"], "pip install '.[files]'"),
    ],
)
def test_what_is_not_installed_is_named(
    photos: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    missing: str, arguments: list[str], says: str,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["score", str(photos), *arguments, "--model-repository", str(repository)])
    assert result.exit_code == 2
    assert says in result.output


def test_a_machine_with_the_least_installed_has_its_commands(photos: Path) -> None:
    missing = ("onnxruntime", "pyarrow", "jinja2", "clicv2_client", "redis", "tritonclient", "grpc")
    script = f"import sys; sys.modules.update(dict.fromkeys({missing})); import commands; commands.app()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests/support")))}

    def ask(*arguments: object) -> tuple[int, str]:
        command = [sys.executable, "-c", script, *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout + done.stderr

    assert ask("--help")[0] == 0
    for name in ("score", "report", "select"):
        code, said = ask(name, photos)
        assert code == 2
        assert "scoring on this machine needs onnxruntime: pip install '.[serve]'" in said
    code, said = ask("check")
    assert code == 1
    assert "it cannot be imported" in said


def test_a_path_is_scored_once_however_often_it_is_named(photos: Path, repository: Path) -> None:
    (photos / "deep/loop").symlink_to("..")
    done = run("score", photos / "deep", photos / "deep/b.jpg", photos / "deep", "--model-repository", repository)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert b"more than once, and have one row each: 3" in done.stderr
    assert b"links to folders that were not followed" in done.stderr


def test_heatmaps_among_the_pictures_are_not_scored(photos: Path, repository: Path) -> None:
    command = ("score", photos, "--heatmaps", photos / "deep/maps", "--model-repository", repository)
    assert len(run(*command).stdout.splitlines()) == 10
    assert len(run(*command).stdout.splitlines()) == 10
    assert len(list((photos / "deep/maps").rglob("*.png"))) == 6


def test_select_lists_bytes_and_makes_links(photos: Path, repository: Path, tmp_path: Path) -> None:
    scores = tmp_path / "s.jsonl"
    run("score", photos, "-o", scores, "--model-repository", repository)
    listed = run("select", "--scores", scores, "-n", "6", "--strategy", "low", "-0").stdout
    names = [os.path.basename(path) for path in listed.split(b"\0")[:-1]]  # noqa: PTH119  # bytes
    assert sorted(names) == sorted([b"a.png", b"b.jpg", b"c.webp", b"d.png", b"e.png", b"caf\xe9\nau lait.png"])
    refused = run("select", "--scores", scores, "-n", "6")
    assert refused.returncode == 2
    assert b"would be two lines" in refused.stderr
    links = tmp_path / "links"
    done = run(
        "select", "--scores", scores, "--strategy", "high", "--links", links, photos / "deep", photos / "shard.tar"
    )
    assert done.returncode == 0, done.stderr
    made = sorted(links.iterdir())
    assert len(made) == 4
    linked = {path.name.partition("-")[2]: path for path in made}
    assert linked["b.jpg"].readlink() == photos / "deep/b.jpg"
    assert linked["d.png"].read_bytes() == encode(noise(64, 64, 7), "PNG")  # out of its shard
    again = run("select", "--scores", scores, "--links", links)
    assert again.returncode == 2
    assert b"is not empty" in again.stderr


def test_select_of_a_folder(photos: Path, repository: Path) -> None:
    done = run("select", photos / "deep", "-n", "5", "--model-repository", repository)
    assert done.stdout.decode().splitlines() == [str(photos / "deep/b.jpg"), str(photos / "deep/er/c.webp")]
    assert b"there are only 2 pictures" in done.stderr


def test_select_leaves_copies_out_and_says_so(photos: Path, repository: Path) -> None:
    (photos / "deep/a copy.jpg").write_bytes((photos / "deep/b.jpg").read_bytes())
    arguments = ("select", photos / "deep", "-n", "3", "--strategy", "high", "--model-repository", repository)
    alone, together = run(*arguments), run(*arguments, "--copies")
    assert sorted(alone.stdout.decode().splitlines()) == [
        str(photos / f"deep/{n}") for n in ("a copy.jpg", "er/c.webp")
    ]
    assert b"copies of other files that were left out: 1; --copies lets them in" in alone.stderr
    assert len(together.stdout.splitlines()) == 3
    assert together.stderr == b""
