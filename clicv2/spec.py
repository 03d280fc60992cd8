"""What happens to a picture between its bytes and the model, stated once.

Training, evaluation and serving all call `clicv2.imaging` with the same `PreprocessSpec`; its
fingerprint travels with the exported model, so that a gateway can refuse a model made otherwise.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

# Raised whenever the code in imaging.py changes the pixels that it yields for the same settings.
ALGORITHM = 1


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """Settings of the one preprocessing.

    Attributes:
        height, width: size of the model's input in pixels. The picture is squashed to it, never
            cropped: what lies at the border counts as much as the rest, and cells of the heatmap
            map back onto the picture by plain scaling.
        background: RGB colour that transparent pixels are composited on; white, as a page would be.
        resample: Pillow's antialiased filter.
        reducing_gap: pictures larger than this many times the input are first shrunk by an
            integer factor (Pillow's `reducing_gap`): many times faster on large ones.
        dct_scaling: decode JPEGs at the smallest eighth that is not below the input's size.
        exif_orientation: turn the picture upright first.
        sixteen_bit: 16-bit samples are scaled to 8 bits (not clipped, as Pillow's `convert` does).
        frame: which frame of an animation is scored.
    """

    height: int = 192
    width: int = 192
    background: tuple[int, int, int] = (255, 255, 255)
    resample: str = "bicubic"
    reducing_gap: float = 3.0
    dct_scaling: bool = True
    exif_orientation: bool = True
    sixteen_bit: str = "scale"
    frame: int = 0

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"input size must be positive, got {self.height} x {self.width}")
        channels = list(self.background)  # read from JSON, it may be of any length
        if len(channels) != 3 or not all(0 <= c <= 255 for c in channels):
            raise ValueError(f"background must be three values of 0 to 255, got {self.background}")
        if not self.reducing_gap >= 1.0:
            raise ValueError(f"reducing_gap must be at least 1, got {self.reducing_gap}")
        for field, only in (("resample", "bicubic"), ("sixteen_bit", "scale"), ("frame", 0)):
            if getattr(self, field) != only:
                raise ValueError(f"{field}: only {only!r} is implemented, got {getattr(self, field)!r}")

    def to_dict(self) -> dict[str, object]:
        return {**asdict(self), "background": list(self.background), "algorithm": ALGORITHM}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> "PreprocessSpec":
        """The spec written by `to_dict`. Raises ValueError if it is of another algorithm or has other fields."""
        fields = dict(data)
        algorithm = fields.pop("algorithm", None)
        if algorithm != ALGORITHM:
            raise ValueError(f"preprocessing algorithm {algorithm}, this code implements {ALGORITHM}")
        background = fields.pop("background", None)
        if not isinstance(background, list | tuple):
            raise ValueError("background is missing")
        try:
            return cls(background=tuple(background), **fields)  # type: ignore[arg-type]  # checked by __post_init__
        except TypeError as error:
            raise ValueError(f"preprocessing spec: {error}") from error

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that differ whenever the pixels might."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]
