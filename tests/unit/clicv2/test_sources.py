"""Pictures in folders and shards: everything once, in order, and nothing endless."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from clicv2 import sources
from clicv2.errors import TooLarge
from clicv2.sources import ImageSource, LinkedFolder, identity, members, walk


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def write_tar(path: Path, names: list[str], **options: object) -> dict[str, bytes]:
    content = {name: f"the bytes of {name}".encode() * 40 for name in names}
    with tarfile.open(path, "w", **options) as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return content


NAMES = ("b.jpg", "a/2.png", "a/1/z.txt", "a.jpg", "a/10.png", "c/.hidden/x.webp", "a0/1.png", "Z.jpg")


def test_the_order_is_that_of_sorted_paths(tmp_path: Path) -> None:
    tree(tmp_path, *NAMES)
    assert list(walk(tmp_path)) == sorted(p for p in tmp_path.rglob("*") if p.is_file())


def test_a_folder_too_large_for_memory_comes_in_sorted_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PIECE", 3)
    tree(tmp_path, *(f"{n}.jpg" for n in range(10)), *(f"sub{n}/x.png" for n in range(4)))
    found = list(walk(tmp_path))
    assert sorted(found) == sorted(p for p in tmp_path.rglob("*") if p.is_file())
    listed = [entry.name for entry in sources.entries(tmp_path)]
    assert all(listed[n : n + 3] == sorted(listed[n : n + 3]) for n in range(0, 14, 3))


def test_links_to_folders_are_told_and_not_followed(tmp_path: Path) -> None:
    tree(tmp_path, "a/x.jpg")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "file.jpg").symlink_to("a/x.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    told: list[OSError] = []
    names = [path.relative_to(tmp_path).as_posix() for path in walk(tmp_path, told.append)]
    assert names == ["a/x.jpg", "file.jpg", "gone.jpg", "self"]
    assert [(type(error), error.filename) for error in told] == [(LinkedFolder, str(tmp_path / "a/up"))]


def test_a_folder_can_be_left_out_whatever_it_is_called(tmp_path: Path) -> None:
    tree(tmp_path, "a/x.jpg", "maps/00/y.png")
    (tmp_path / "alias").symlink_to("maps")
    known = identity(tmp_path / "alias")
    assert known is not None
    assert [path.name for path in walk(tmp_path, skip=frozenset([known]))] == ["x.jpg"]


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    told: list[OSError] = []
    assert not list(walk(tmp_path / "missing", told.append))
    assert [error.filename for error in told] == [str(tmp_path / "missing")]
    assert not list(walk(tmp_path / "missing"))


def test_a_deep_tree_needs_no_open_files(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(300):
        folder = folder / "d"
    folder.mkdir(parents=True)
    (folder / "x.jpg").touch()
    before = len(list(Path("/proc/self/fd").iterdir()))
    found = walk(tmp_path)
    assert next(found).name == "x.jpg"
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    found.close()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_read_where_they_lie(tmp_path: Path, form: int) -> None:
    long = "l" * 90 + "/" + "m" * 90 + ".jpeg"
    content = write_tar(tmp_path / "s.tar", ["./a.jpg", long, "notes.txt", "x/B.PNG"], format=form)
    found = list(members(tmp_path / "s.tar"))
    assert [source.name for source in found] == ["a.jpg", long, "x/B.PNG"]
    assert [source.read() for source in found] == [content["./a.jpg"], content[long], content["x/B.PNG"]]


def test_the_headers_of_a_shard_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "s.tar", [f"{n}.jpg" for n in range(50)])
    opened: list[tarfile.TarFile] = []
    real = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *a, **k: opened.append(real(*a, **k)) or opened[-1])
    for _ in members(tmp_path / "s.tar"):
        assert len(opened[0].members) <= 1


def test_a_header_that_is_damaged_is_no_end(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    write_tar(path, ["a.jpg", "b.jpg", "c.jpg"])
    second = list(members(path))[1].offset - tarfile.BLOCKSIZE
    data = bytearray(path.read_bytes())
    data[second + 10] ^= 0xFF
    path.write_bytes(data)
    found = members(path)
    assert next(found).name == "a.jpg"
    with pytest.raises(tarfile.ReadError, match="what follows is lost"):
        list(found)


@pytest.mark.parametrize("cut", [100, 700, 1400, 2048 + 100])
def test_a_truncated_shard_is_an_error(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "s.tar"
    write_tar(path, ["a.jpg", "b.jpg", "c.jpg"])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises((tarfile.TarError, OSError)):
        list(members(path))


def test_a_tar_without_its_end_mark_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    write_tar(path, ["a.jpg"])
    end = next(members(path)).offset + 1024
    path.write_bytes(path.read_bytes()[:end])
    assert [source.name for source in members(path)] == ["a.jpg"]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(OSError, match="not a file"):
        ImageSource("pipe.jpg", tmp_path / "pipe.jpg").read()
    with pytest.raises(OSError, match="not a file"):
        ImageSource("folder", tmp_path).read()


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TooLarge) as raised:
        ImageSource("large.jpg", path).read(1 << 20)
    assert (raised.value.limit, raised.value.actual) == ("bytes", 1 << 40)
    assert ImageSource("large.jpg", path, offset=5, size=3).read(3) == b"\0\0\0"
