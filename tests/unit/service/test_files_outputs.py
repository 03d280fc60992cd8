"""Files of scores: every row once, whatever tore them, and no other file touched."""

import csv
import itertools
import json
import signal
import subprocess
import sys
from io import FileIO
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from service.files.errors import BadScores, Unwritable
from service.files.outputs import Form, form_of, open_output, read_scores
from service.files.rows import Row, columns
from service.files.score_file import LineFormat, Making, ScoreFile, head, line

ROOT = Path(__file__).parents[3]
MAKING = Making.by("clicv2", 1, "ab" * 32, None)
FORMS: tuple[LineFormat, ...] = ("csv", "jsonl")


def scored(path: str, **fields: object) -> Row:
    known = {
        "score": 0.25, "percentile": 12.5, "entropy": 0.5, "width": 640, "height": 480, "format": "JPEG",
        "bytes": 1234, "contrast": 0.1, "sha256": "c" * 64, "model": MAKING.model, "model_sha256": MAKING.model_sha256,
    }  # fmt: skip
    return Row.model_validate({"path": path, **known, **fields})


def broken(path: str) -> Row:
    return Row(path=path, error='not, "a" picture', model=MAKING.model, model_sha256=MAKING.model_sha256)


ROWS = [scored("a,b.jpg"), broken("b\\x0a.jpg"), scored('"ü".png', score=0.123456, contrast=None), broken("=1+1")]


def write(path: Path, form: LineFormat, rows: list[Row], making: Making = MAKING) -> list[Row]:
    """Continue a file; the rows that were there."""
    with ScoreFile(path, form, making) as file:
        prior = list(file.prior())
        for row in rows:
            file.write(row)
        file.finish()
    return prior


@pytest.mark.parametrize("name", ["s.csv", "s.jsonl", "s.parquet"])
def test_rows_come_back_as_they_went(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with open_output(path, form_of(path, None), MAKING) as output:
        assert not list(output.prior())
        for row in ROWS:
            output.write(row)
        output.finish()
    assert list(read_scores(path)) == ROWS
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_others_can_read_them(tmp_path: Path) -> None:
    write(tmp_path / "s.csv", "csv", ROWS)
    write(tmp_path / "s.jsonl", "jsonl", ROWS)
    with (tmp_path / "s.csv").open(newline="", encoding="utf-8") as file:
        from_csv = list(csv.DictReader(file))
    from_json = [json.loads(text) for text in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [row["path"] for row in from_csv] == [row["path"] for row in from_json] == [row.path for row in ROWS]
    assert from_csv[0]["score"] == "0.25"
    assert from_json[1]["score"] is None


@pytest.mark.parametrize("form", FORMS)
def test_a_file_torn_anywhere_is_continued(tmp_path: Path, form: LineFormat) -> None:
    """For every length that a kill may have left: what was whole is kept, and every row is there once at the end."""
    path = tmp_path / f"s.{form}"
    write(path, form, ROWS)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        prior = {row.path for row in write(path, form, [])}
        complete = whole[:length].count(b"\n") - (1 if form == "csv" else 0)
        assert len(prior) == max(complete, 0)
        assert path.read_bytes() == (whole[: whole[:length].rfind(b"\n") + 1] or head(form, MAKING.columns))
        write(path, form, [row for row in ROWS if row.path not in prior])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "content",
    [b"my thesis", b"path,score\na,1\n", b'{"path": 1}\n', b'{"path": "a"}\n', b"[1]\n", b"\xff\xfe\n", b"\0" * 600],
)
def test_another_file_is_not_touched(tmp_path: Path, form: LineFormat, content: bytes) -> None:
    path = tmp_path / "s"
    path.write_bytes(content)
    with pytest.raises(BadScores):
        write(path, form, ROWS)
    assert path.read_bytes() == content


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "spoilt",
    [
        b"\n",
        b"nonsense\n",
        line(scored("x"), "csv", columns(heatmaps=True)),
        line(scored("x"), "jsonl", columns(heatmaps=True)),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, form: LineFormat, spoilt: bytes) -> None:
    path = tmp_path / "s"
    wanted = MAKING.columns
    path.write_bytes(head(form, wanted) + line(ROWS[0], form, wanted) + spoilt + line(ROWS[1], form, wanted))
    before = path.read_bytes()
    with pytest.raises(BadScores, match=f"line {3 if form == 'csv' else 2}"):
        write(path, form, [])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "field", [("score", 2), ("score", None), ("path", ""), ("path", "a\\b"), ("width", "x"), ("score", "nan")]
)
def test_values_that_make_no_row(tmp_path: Path, field: tuple[str, object]) -> None:
    values = ROWS[0].model_dump(exclude={"heatmap"}) | {field[0]: field[1]}
    (tmp_path / "s.jsonl").write_text(json.dumps(values) + "\n")
    with pytest.raises(BadScores, match="line 1"):
        list(read_scores(tmp_path / "s.jsonl"))


@pytest.mark.parametrize("name", ["s.csv", "s.jsonl", "s.parquet"])
@pytest.mark.parametrize(
    ("other", "why"),
    [
        (Making.by("clicv2", 2, "ab" * 32, None), "by clicv2:1 .* now there is clicv2:2"),
        (Making.by("clicv2", 1, "cd" * 32, None), "sha256 cdcdcd"),
        (Making.by("clicv2", 1, "ab" * 32, Path("maps")), "without --heatmaps"),
    ],
)
def test_rows_that_came_about_otherwise_are_not_mixed(tmp_path: Path, name: str, other: Making, why: str) -> None:
    path = tmp_path / name
    form = form_of(path, None)
    with open_output(path, form, MAKING) as output:
        list(output.prior())
        output.write(ROWS[0])
        output.finish()
    before = path.read_bytes()
    with pytest.raises(BadScores, match=why), open_output(path, form, other) as output:
        list(output.prior())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_heatmaps_stay_in_one_folder(tmp_path: Path) -> None:
    first, second = (Making.by("clicv2", 1, "ab" * 32, Path(name)) for name in ("maps", "map"))
    write(tmp_path / "s.csv", "csv", [scored("a", heatmap="maps/00/a.png")], first)
    with pytest.raises(BadScores, match="has its heatmaps in maps"):
        write(tmp_path / "s.csv", "csv", [], second)
    with pytest.raises(BadScores, match="with --heatmaps"):
        write(tmp_path / "s.csv", "csv", [])


GOOD = [row for row in ROWS if row.error is None]
NAMES = ["s.csv", "s.jsonl", "s.parquet"]


def finished(path: Path, rows: list[Row]) -> None:
    with open_output(path, form_of(path, None), MAKING) as output:
        list(output.prior())
        for row in rows:
            output.write(row)
        output.finish()


@pytest.mark.parametrize("name", NAMES)
def test_rows_with_errors_are_forgotten_and_no_others(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    finished(path, ROWS)
    again = broken("b\\x0a.jpg")
    for expected, more in ((2, [again]), (1, []), (0, [])):
        with open_output(path, form_of(path, None), MAKING) as output:
            assert output.forget_errors() == expected
            assert list(output.prior()) == GOOD
            for row in more:
                output.write(row)
            output.finish()
        assert list(read_scores(path)) == [*GOOD, *more]
        assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_left_is_as_if_there_had_been_no_errors(tmp_path: Path, form: LineFormat) -> None:
    """Also of a file that was torn, by its link, with its permissions; by one process at a time."""
    write(tmp_path / "expected", form, GOOD)
    real, path = tmp_path / "real", tmp_path / "s"
    write(real, form, ROWS)
    with real.open("ab") as file:
        file.write(b'{"path": "x' if form == "jsonl" else b"x,0.")
    real.chmod(0o640)
    path.symlink_to("real")
    (tmp_path / "real.without-errors").write_bytes(b"of one who was killed " * 1000)
    with ScoreFile(path, form, MAKING) as file:
        assert file.forget_errors() == 2
        with pytest.raises(BadScores, match="another process"):
            ScoreFile(path, form, MAKING)
        assert list(file.prior()) == GOOD
    assert path.readlink() == Path("real")
    assert real.read_bytes() == (tmp_path / "expected").read_bytes()
    assert real.stat().st_mode & 0o777 == 0o640
    assert {file.name for file in tmp_path.iterdir()} == {"expected", "real", "s"}


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_forgotten_in_another_file(tmp_path: Path, form: LineFormat) -> None:
    for content, making in ((b"my thesis\n", MAKING), (b"", Making.by("clicv2", 2, "ab" * 32, None))):
        path = tmp_path / "s"
        path.write_bytes(content)
        if not content:
            write(path, form, ROWS)
        before = path.read_bytes()
        with ScoreFile(path, form, making) as file, pytest.raises(BadScores):
            file.forget_errors()
        assert path.read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["s"]


KILLED = """
import os, signal, sys
from pathlib import Path
from service.files.score_file import Making, ScoreFile

path, form, content = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[1]).read_bytes()
left = 0

def count(frame, event, _):
    global left
    if frame.f_code.co_filename.endswith("score_file.py"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return count

def forget(steps):
    global left
    left = steps
    sys.settrace(count)
    with ScoreFile(path, form, Making.by("clicv2", 1, "ab" * 32, None)) as file:
        file.forget_errors()
    sys.settrace(None)
    os._exit(0)

steps, status = 0, None
while status != 0:
    path.write_bytes(content)
    child = os.fork()
    if not child:
        forget(steps)
    _, status = os.waitpid(child, 0)
    print(steps, os.waitstatus_to_exitcode(status), path.read_bytes().hex())
    steps += 1
"""


@pytest.mark.parametrize("form", FORMS)
def test_killed_at_any_line_no_good_row_is_lost(tmp_path: Path, form: LineFormat) -> None:
    """SIGKILL at each step of the way: there are all the rows, or all the good ones, and in the end these."""
    path = tmp_path / "s"
    write(tmp_path / "expected", form, GOOD)
    write(path, form, ROWS)
    whole, expected = path.read_bytes(), (tmp_path / "expected").read_bytes()
    command = [sys.executable, "-c", KILLED, str(path), form]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True, cwd=ROOT)
    ends = [line.split() for line in done.stdout.splitlines()]
    assert len(ends) > 100
    assert {code for _, code, _ in ends[:-1]} == {str(-signal.SIGKILL)}
    found = [bytes.fromhex(content) for _, _, content in ends]
    assert set(found) == {whole, expected}
    assert found == sorted(found, key=[whole, expected].index), "and never back"
    assert found[-1] == expected
    assert write(path, form, []) == GOOD


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with ScoreFile(tmp_path / "s.csv", "csv", MAKING), pytest.raises(BadScores, match="another process"):
        ScoreFile(tmp_path / "s.csv", "csv", MAKING)


def test_a_full_disk_is_told() -> None:
    with pytest.raises(BadScores, match="no file that can be continued"):
        ScoreFile(Path("/dev/full"), "csv", MAKING)
    with pytest.raises(Unwritable, match="cannot be written"):
        ScoreFile(Path("/proc/nothing/s.csv"), "csv", MAKING)


class Full:
    """A disk with room for so many bytes more; takes what fits, as a kernel does."""

    def __init__(self, real: FileIO, room: int) -> None:
        self.real = real
        self.room = room
        self.taken = b""

    def write(self, data: bytes) -> int:
        taken = data[: min(self.room, 7)]
        if not taken:
            raise OSError(28, "No space left on device")
        self.room -= len(taken)
        self.taken += taken
        return len(taken)

    def close(self) -> None:
        self.real.close()


def test_what_did_not_fit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = line(ROWS[0], "jsonl", MAKING.columns)
    for room in (0, 10, len(expected) - 1, len(expected)):
        with ScoreFile(tmp_path / "s.jsonl", "jsonl", MAKING) as file:
            disk = Full(file._file, room)
            monkeypatch.setattr(file, "_file", disk)
            if room < len(expected):
                with pytest.raises(Unwritable, match="No space left"):
                    file.write(ROWS[0])
            else:
                file.write(ROWS[0])
            assert disk.taken == expected[:room]


def test_parquet_is_continued_after_a_stop_and_after_its_end(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    for number, (row, finished) in enumerate(zip(ROWS, (False, True, False, True), strict=True)):
        with open_output(path, Form.PARQUET, MAKING) as output:
            assert list(output.prior()) == ROWS[:number]
            output.write(row)
            assert output.place == tmp_path / "s.parquet.partial.jsonl"
            if finished:
                output.finish()
                assert output.place == path
    table = parquet.read_table(path)
    assert table.column("path").to_pylist() == [row.path for row in ROWS]
    assert table.schema.field("score").type == pa.float64()
    assert table.schema.field("width").type == pa.int64()


def test_parquet_of_several_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.files.parquet._GROUP", 10)
    rows = [scored(f"{n}.jpg") for n in range(25)]
    with open_output(tmp_path / "s.parquet", Form.PARQUET, MAKING) as output:
        list(output.prior())
        for row in rows:
            output.write(row)
        output.finish()
    assert parquet.ParquetFile(tmp_path / "s.parquet").num_row_groups == 3
    assert list(read_scores(tmp_path / "s.parquet")) == rows


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all" * 20])
def test_what_is_no_parquet_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.parquet").write_bytes(content)
    with pytest.raises(BadScores, match="no file of scores"):
        list(read_scores(tmp_path / "s.parquet"))
    parquet.write_table(pa.table({"path": ["a"], "x": [1]}), tmp_path / "o.parquet")
    with pytest.raises(BadScores, match="other columns"):
        list(read_scores(tmp_path / "o.parquet"))


@pytest.mark.parametrize(
    ("name", "wanted", "expected"),
    [
        (None, None, Form.TABLE), (None, Form.CSV, Form.CSV), ("s.csv", None, Form.CSV), ("s.NDJSON", None, Form.JSONL),
        ("s.txt", Form.PARQUET, Form.PARQUET), (None, Form.PARQUET, "name a file"), ("s.txt", None, "choose --format"),
        ("s.csv", Form.TABLE, "choose --format"),
    ],
)  # fmt: skip
def test_forms(name: str | None, wanted: Form | None, expected: Form | str) -> None:
    path = Path(name) if name else None
    if isinstance(expected, Form):
        assert form_of(path, wanted) is expected
    else:
        with pytest.raises(ValueError, match=expected):
            form_of(path, wanted)


def test_a_name_says_what_is_in_a_file(tmp_path: Path) -> None:
    with pytest.raises(BadScores, match="is called"):
        read_scores(tmp_path / "s.txt")
    with pytest.raises(BadScores, match="cannot be read"):
        list(read_scores(tmp_path / "s.csv"))


def test_reading_leaves_a_torn_line_away(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    write(path, "csv", ROWS)
    path.write_bytes(path.read_bytes()[:-5])
    assert list(read_scores(path)) == list(itertools.islice(ROWS, 3))
