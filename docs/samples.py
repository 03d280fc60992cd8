"""Draw the sample pictures of the page at /: `python docs/samples.py` from the project's root.

Four scenes from simple to complex, drawn here so that they are ours to give away.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
from pictures import street
from PIL import Image, ImageDraw, ImageFilter

SAMPLES = Path("service/web/static/samples")
WIDTH, HEIGHT = 640, 480
Colour = tuple[int, int, int]


def sunset() -> Image.Image:
    """Two gradients and a disc."""
    sky = np.linspace((250, 150, 90), (255, 220, 160), 300)
    water = np.linspace((190, 110, 100), (60, 50, 90), HEIGHT - 300)
    rows = np.concatenate([sky, water]).astype(np.uint8)  # [H, 3]
    image = Image.fromarray(np.repeat(rows[:, None, :], WIDTH, axis=1))
    ImageDraw.Draw(image).ellipse((270, 200, 370, 300), (255, 245, 200))
    return image.filter(ImageFilter.GaussianBlur(2))


def shapes() -> Image.Image:
    """Five flat shapes on paper."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (244, 240, 230))
    draw = ImageDraw.Draw(image)
    draw.ellipse((60, 60, 250, 250), (200, 60, 50))
    draw.rectangle((300, 90, 560, 200), (40, 80, 150))
    draw.polygon([(120, 430), (260, 280), (330, 440)], (240, 190, 50))
    draw.rectangle((400, 260, 470, 430), (30, 30, 30))
    draw.line((40, 330, 600, 240), (30, 30, 30), 6)
    return image


def market() -> Image.Image:
    """Some 1,500 things of all colours, sizes and shapes, one over the other."""
    rng = np.random.default_rng(7)
    image = Image.new("RGB", (WIDTH, HEIGHT), (90, 80, 70))
    draw = ImageDraw.Draw(image)

    def colour() -> Colour:
        red, green, blue = (int(c) for c in rng.integers(0, 256, 3))
        return red, green, blue

    for _ in range(1500):
        x, y, size = int(rng.integers(-20, WIDTH)), int(rng.integers(-20, HEIGHT)), int(rng.gamma(3, 6)) + 4
        box = (x, y, x + size, y + int(size * rng.uniform(0.5, 1.5)))
        match int(rng.integers(0, 4)):
            case 0:
                draw.ellipse(box, colour(), colour())
            case 1:
                draw.rectangle(box, colour(), colour())
            case 2:
                draw.polygon([(x, y), (x + size, y + size // 3), (x + size // 2, y + size)], colour())
            case _:
                draw.arc(box, int(rng.integers(0, 180)), int(rng.integers(180, 360)), colour(), 3)
    return image


def main() -> None:
    scenes = {"sunset": sunset(), "shapes": shapes(), "street": Image.open(BytesIO(street())), "market": market()}
    for name, image in scenes.items():
        image.save(SAMPLES / f"{name}.webp", quality=80, method=6)


if __name__ == "__main__":
    main()
