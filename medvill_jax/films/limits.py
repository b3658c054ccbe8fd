"""The error for films that cannot be used, and the largest sizes of files and images."""

from __future__ import annotations

from PIL import Image

from medvill_jax.errors import UserError

# The largest radiographs have some 30 million pixels; more would exhaust the memory, at the latest on sixteen threads.
MAX_PIXELS = 64_000_000
MAX_BYTES = 512 << 20
# Of the long side to the short one; a film of the whole spine has some 3. The network sees a film padded to a square,
# and JPEG ends at 65,500 pixels a side, which no image of `MAX_PIXELS` within this ratio reaches.
MAX_RATIO = 16


class ImageError(UserError):
    """An image cannot be used; `reason` is the rejection reason and the message its detail."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


def check_size(width: int, height: int) -> None:
    """Raises `ImageError` for images without pixels, and for those that would exhaust the memory, also as squares."""
    if width < 1 or height < 1:
        raise ImageError("unreadable_image", f"an image of {width} x {height} pixels is empty")
    if width * height > min(MAX_PIXELS, Image.MAX_IMAGE_PIXELS or MAX_PIXELS):
        raise ImageError("oversized_image", f"an image of {width} x {height} pixels exceeds the safety limit")
    if max(width, height) > MAX_RATIO * min(width, height):
        ratio = f"one side is more than {MAX_RATIO} times the other"
        raise ImageError("oversized_image", f"an image of {width} x {height} pixels is no radiograph: {ratio}")
