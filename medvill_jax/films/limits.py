"""Which films are refused: the error that says why, and sizes beyond which no file is a radiograph."""

from __future__ import annotations

from PIL import Image

from medvill_jax.errors import UserError

# The largest radiographs have some 30 million pixels; more is a bomb, or would be one on sixteen threads.
MAX_PIXELS = 64_000_000
MAX_BYTES = 512 << 20


class ImageError(UserError):
    """An image cannot be used; `reason` is a rejection reason and the message its detail."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


def check_size(width: int, height: int) -> None:
    """`ImageError` for images without pixels, and for those that would fill the memory."""
    if width < 1 or height < 1:
        raise ImageError("unreadable_image", f"{width} x {height} pixels are none")
    if width * height > min(MAX_PIXELS, Image.MAX_IMAGE_PIXELS or MAX_PIXELS):
        raise ImageError("oversized_image", f"{width} x {height} pixels are more than the safety limit")
