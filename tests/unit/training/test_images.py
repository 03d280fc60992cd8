"""Images from folders and tar shards, read at random and decoded as in serving."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clicv2.imaging import decode, to_model_input
from clicv2.spec import PreprocessSpec
from training.data.images import ImageDataset, ResumableSampler, find_images


def jpeg(grey: int, size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (grey, grey, grey)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_folders_shards_and_shards_in_folders(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(jpeg(10))
    (folder / "deep" / "B.JPG").write_bytes(jpeg(20))
    (folder / "notes.txt").write_text("not an image")
    write_tar(folder / "shard.tar", {"./c.jpg": jpeg(30), "x/d.jpeg": jpeg(40), "e.txt": b"no"})
    write_tar(tmp_path / "alone.tar", {"f.jpg": jpeg(50)})
    found = find_images([folder, tmp_path / "alone.tar"])
    assert [source.name for source in found] == ["a.jpg", "deep/B.JPG", "c.jpg", "x/d.jpeg", "f.jpg"]
    assert [source.read() for source in found] == [jpeg(g) for g in (10, 20, 30, 40, 50)]


def test_images_are_what_serving_would_see(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    spec = PreprocessSpec(height=32, width=48)
    image = ImageDataset(find_images([tmp_path]), spec)[0]
    assert image.shape == (32, 48, 3)
    assert image.dtype == torch.uint8
    assert np.array_equal(image.numpy(), to_model_input(decode((tmp_path / "a.png").read_bytes(), spec).image, spec))


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(jpeg(1)[:300])
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        ImageDataset(find_images([tmp_path]), PreprocessSpec())[0]


@pytest.mark.parametrize("content", ["missing", "empty"])
def test_nothing_to_read_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / content
    if content == "empty":
        path.mkdir()
    with pytest.raises(FileNotFoundError):
        find_images([path])


def order(**settings: int) -> list[int]:
    return list(ResumableSampler(100, **{"batch_size": 24, "epochs": 3, **settings}))


def test_each_epoch_is_a_new_order_of_whole_batches() -> None:
    whole = order(seed=1)
    epochs = [whole[n : n + 96] for n in range(0, 288, 96)]
    assert all(len(set(epoch)) == 96 and set(epoch) <= set(range(100)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len({frozenset(epoch) for epoch in epochs}) > 1  # not always the same four are left out
    assert whole != order(seed=2)


@pytest.mark.parametrize("first_step", [0, 1, 3, 4, 5, 11, 12])
def test_an_order_can_be_resumed_at_any_step(first_step: int) -> None:
    assert order(seed=1, first_step=first_step) == order(seed=1)[24 * first_step :]
    assert len(ResumableSampler(100, batch_size=24, epochs=3, first_step=first_step)) == 288 - 24 * first_step


@pytest.mark.parametrize(("ranks", "part"), [(2, 12), (2, 6), (3, 4), (4, 6)])
def test_processes_share_every_part_of_a_batch(ranks: int, part: int) -> None:
    whole = order(seed=1)
    shares = [order(seed=1, rank=rank, ranks=ranks, part=part) for rank in range(ranks)]
    together = []
    for start in range(0, len(shares[0]), part):
        for share in shares:
            together += share[start : start + part]
    assert together == whole
    assert len(ResumableSampler(100, batch_size=24, epochs=3, ranks=ranks)) == len(shares[0])
