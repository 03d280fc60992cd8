"""The picture that is sent: procedural, so that every machine sends the same bytes."""

from io import BytesIO

import numpy as np
from PIL import Image

SIZE = (640, 480)


def jpeg(seed: int = 0) -> bytes:
    """A 640 x 480 JPEG with structure at several scales: about 35 kB, as a photograph of the size has."""
    rng = np.random.default_rng(seed)
    width, height = SIZE
    layers = np.zeros((height, width, 3), np.float32)
    for scale in (4, 16, 64, 256):
        coarse = rng.integers(0, 256, (-(-height // scale), -(-width // scale), 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
        layers += np.asarray(smooth, np.float32) * scale**0.5
    buffer = BytesIO()
    Image.fromarray((layers / layers.max() * 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
