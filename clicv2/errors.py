"""Everything that can be wrong with an uploaded picture or with a served model.

ImageError
+-- Empty          no bytes at all
+-- Unsupported    not one of the formats in `imaging.FORMATS`
+-- Corrupt        a known format, but truncated, damaged or lying about itself
+-- TooLarge       over one of `headers.Limits`; found in the header, before any pixel is decoded
ContractError      a model, its manifest or its preprocessing is not what this code expects
"""


class ImageError(Exception):
    """A picture that cannot be scored; the message is meant for the person who sent it."""


class Empty(ImageError):
    """There are no bytes."""


class Unsupported(ImageError):
    """The bytes are not a picture in a supported format."""


class Corrupt(ImageError):
    """The picture is truncated, damaged, or its header and its data disagree."""


class TooLarge(ImageError):
    """The picture exceeds a limit.

    Attributes:
        limit: which one: "bytes", "pixels", "side", "frames", "segments" or "scans".
        actual, maximum: what the picture has and what is allowed, in that limit's unit.
    """

    def __init__(self, limit: str, actual: int, maximum: int) -> None:
        super().__init__(f"the picture has {actual} {limit}, the limit is {maximum}")
        self.limit = limit
        self.actual = actual
        self.maximum = maximum


class ContractError(Exception):
    """A model repository that this code must not serve: missing, altered, or made for other preprocessing."""
