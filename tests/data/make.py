"""Writes the pictures of this folder and golden.json.

The files are committed, so that the golden hashes do not depend on the encoders of the day; run this
only to add a picture (`python tests/data/make.py NAME...`) or, with no name, to record the hashes
anew after a deliberate change of the preprocessing (and of `clicv2.spec.ALGORITHM`).
"""

import json
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent / "support"))

import pictures as p  # noqa: E402  # found by the line above

from clicv2.imaging import decode, to_model_input  # noqa: E402  # sorted after it
from clicv2.spec import PreprocessSpec  # noqa: E402  # sorted after it

SCENE = p.scene()
LARGE = np.clip(p.scene(900, 700) // 2 + p.noise(900, 700) // 8, 0, 255).astype(np.uint8)
LEVELS = np.add.outer(np.arange(32), np.arange(48))  # [H, W], a ramp for the indexed and grey ones
COLOURS = [(i * 37 % 256, i * 91 % 256, 255 - i) for i in range(256)]
ALPHA = np.dstack([SCENE, SCENE[..., 0]])  # opaque to the right
SIXTEEN = (LEVELS * 800).astype(np.uint16)
STILL = Image.fromarray(SCENE)
OTHER = Image.fromarray(255 - SCENE)


def _oriented(n: int) -> Callable[[], bytes]:
    stored = p.stored_sideways(SCENE, n)
    return lambda: p.into_jpeg(p.encode(stored, "JPEG", quality=90), p.segment(0xE1, b"Exif\0\0" + p.exif(n)))


MAKERS: Mapping[str, Callable[[], bytes]] = {
    "baseline.jpg": lambda: p.encode(SCENE, "JPEG", quality=85),
    "baseline-444.jpg": lambda: p.encode(SCENE, "JPEG", quality=85, subsampling=0),
    "progressive.jpg": lambda: p.encode(SCENE, "JPEG", quality=85, progressive=True),
    "large.jpg": lambda: p.encode(LARGE, "JPEG", quality=40),
    "grey.jpg": lambda: p.encode(STILL.convert("L"), "JPEG", quality=85),
    "cmyk.jpg": lambda: p.encode(STILL.convert("CMYK"), "JPEG", quality=85),
    **{f"exif-{n}.jpg": _oriented(n) for n in range(1, 9)},
    "first-of-two.mpo": lambda: p.encode(STILL, "MPO", save_all=True, append_images=[OTHER]),
    **{f"grey-{b}.png": lambda b=b: p.png(LEVELS % 2**b, b, p.GREY) for b in (1, 2, 4, 8)},
    **{
        f"palette-{b}.png": lambda b=b: p.png(LEVELS % 2**b, b, p.PALETTE, palette=COLOURS[: 2**b])
        for b in (1, 2, 4, 8)
    },
    "palette-alpha.png": lambda: p.png(
        LEVELS % 16, 4, p.PALETTE, palette=COLOURS[:16], transparency=bytes(range(0, 256, 17))
    ),
    "grey-16.png": lambda: p.png(SIXTEEN, 16, p.GREY),
    "grey-16-transparent.png": lambda: p.png(SIXTEEN, 16, p.GREY, transparency=(8000).to_bytes(2, "big")),
    "grey-alpha.png": lambda: p.png(ALPHA[..., 2:], 8, p.GREY_ALPHA),
    "grey-alpha-16.png": lambda: p.png(ALPHA[..., 2:].astype(np.uint16) * 257, 16, p.GREY_ALPHA),
    "rgb.png": lambda: p.png(SCENE, 8, p.RGB),
    "rgb-transparent.png": lambda: p.png(SCENE // 64 * 64, 8, p.RGB, transparency=b"\0\x40\0\x40\0\x80"),
    "rgb-16.png": lambda: p.png(SCENE.astype(np.uint16) * 257, 16, p.RGB),
    "rgb-interlaced.png": lambda: p.png(SCENE, 8, p.RGB, interlaced=True),
    "rgba.png": lambda: p.png(ALPHA, 8, p.RGBA),
    "rgba-16.png": lambda: p.png(ALPHA.astype(np.uint16) * 257, 16, p.RGBA),
    "animated.png": lambda: p.encode(STILL, "PNG", save_all=True, append_images=[OTHER]),
    "lossy.webp": lambda: p.encode(SCENE, "WEBP", quality=80),
    "lossless.webp": lambda: p.encode(SCENE, "WEBP", lossless=True),
    "alpha.webp": lambda: p.encode(ALPHA, "WEBP", quality=80),
    "animated.webp": lambda: p.encode(STILL, "WEBP", save_all=True, append_images=[OTHER], duration=100),
}


def facts(path: Path) -> dict[str, object]:
    """What golden.json holds of a picture, with the default spec."""
    spec = PreprocessSpec()
    picture = decode(path.read_bytes(), spec)
    return {
        "format": picture.format,
        "size": [picture.width, picture.height],
        "frames": picture.frames,
        "sha256": sha256(to_model_input(picture.image, spec).tobytes()).hexdigest(),
    }


def main(names: list[str]) -> None:
    for name in names:
        (FOLDER / name).write_bytes(MAKERS[name]())
    golden = {name: facts(FOLDER / name) for name in sorted(MAKERS)}
    (FOLDER / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
