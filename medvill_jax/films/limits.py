"""The error for films that cannot be used, and the largest sizes of files and images."""

from __future__ import annotations

from PIL import Image

from medvill_jax.errors import UserError

# The largest radiographs have some 30 million pixels; more would exhaust the memory, at the latest on sixteen threads.
MAX_PIXELS = 64_000_000
MAX_BYTES = 512 << 20


class ImageError(UserError):
    """An image cannot be used; `reason` is the rejection reason and the message its detail."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


def check_size(width: int, height: int) -> None:
    """Raises `ImageError` for images without pixels, and for those that would exhaust the memory."""
    if width < 1 or height < 1:
        raise ImageError("unreadable_image", f"an image of {width} x {height} pixels is empty")
    if width * height > min(MAX_PIXELS, Image.MAX_IMAGE_PIXELS or MAX_PIXELS):
        raise ImageError("oversized_image", f"an image of {width} x {height} pixels exceeds the safety limit")
