"""Draw the pictures of the README with the shipped model: `python docs/pictures.py` from the project's root.

Left a public-domain photograph that matplotlib ships (Grace Hopper, James S. Davis, US Navy), right
a scene drawn here; each beside its heatmap, with the scale that all heatmaps share.
"""

from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import onnxruntime
from matplotlib import cbook
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from clicv2 import contract
from clicv2.heatmap import DEFAULT_COLORMAP, overlay
from clicv2.imaging import decode, to_model_input

DOCS = Path(__file__).parent


def photograph() -> bytes:
    return cbook.get_sample_data("grace_hopper.jpg", asfileobj=True).read()


def street(width: int = 640, height: int = 480) -> bytes:
    """A calm sky over a busy street: simple above, complex below."""
    rng = np.random.default_rng(4)
    sky = np.linspace((120, 170, 220), (225, 235, 240), height).astype(np.uint8)  # [H, 3]
    image = Image.fromarray(np.repeat(sky[:, None, :], width, axis=1))
    draw = ImageDraw.Draw(image)
    left = 0
    while left < width:
        wide, top = int(rng.integers(50, 110)), int(rng.integers(180, 300))
        draw.rectangle((left, top, left + wide, height), tuple(int(c) for c in rng.integers(60, 190, 3)))
        for x in range(left + 6, left + wide - 8, 14):
            for y in range(top + 8, height - 90, 18):
                draw.rectangle((x, y, x + 7, y + 10), (250, 235, 150) if rng.random() < 0.5 else (40, 45, 60))
        left += wide + int(rng.integers(0, 12))
    for _ in range(220):
        x, y, size = int(rng.integers(0, width)), int(rng.integers(height - 95, height - 8)), int(rng.integers(4, 12))
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        draw.ellipse((x, y, x + size, y + size), colour)
        draw.rectangle((x + 1, y + size, x + size - 1, y + 2 * size + 4), tuple(reversed(colour)))
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def main() -> None:
    version = contract.open_version(Path("model_repository/clicv2"))
    session = onnxruntime.InferenceSession(version.model_file)
    with mpl.rc_context({"font.size": 10}):
        figure = Figure(figsize=(13, 3.9), layout="constrained")
        panels = figure.subplots(1, 4, width_ratios=[0.85, 0.85, 1.33, 1.33])
        for data, pair in ((photograph(), panels[:2]), (street(), panels[2:])):
            picture = decode(data, version.manifest.preprocess)
            pixels = to_model_input(picture.image, version.manifest.preprocess)[None]
            score, heatmap = session.run([contract.SCORE, contract.HEATMAP], {contract.INPUT: pixels})
            size = (picture.width, picture.height)
            pair[0].imshow(picture.image.resize(size))
            pair[0].set_title(f"score {score[0]:.2f}, percentile {version.manifest.percentile(float(score[0])):.0f}")
            pair[1].imshow(overlay(picture.image.resize(size), contract.local_score(heatmap[0]), size))
            pair[1].set_title("where it is complex")
        for panel in panels:
            panel.set_axis_off()
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), DEFAULT_COLORMAP)
        figure.colorbar(scale, ax=panels, shrink=0.8, pad=0.01, label="local score")
        figure.savefig(DOCS / "heatmap.jpg", dpi=110, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()
