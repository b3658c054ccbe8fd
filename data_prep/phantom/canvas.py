"""Draws soft shapes in patient coordinates on a pixel grid of any size.

Patient coordinates: x to the right of the image, y down, the origin in the middle; the short side of the image spans
-1 to 1 in a neutral pose. Lengths and blurs have the same unit, so a film looks the same at any resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating]
Points = npt.NDArray[np.float64]

_SHIFT = 4


@dataclass(frozen=True)
class Pose:
    """The position of the patient: rotation in degrees, scale, and shift in half short sides of the image."""

    angle: float = 0.0
    scale: float = 1.0
    dx: float = 0.0
    dy: float = 0.0


class Canvas:
    """A pixel grid with the patient coordinates of its pixels.

    Attributes:
      shape: (rows, columns).
      unit: pixels per patient unit.
      x, y: float32 `[rows, columns]`, patient coordinates of the pixel centres.
    """

    def __init__(self, shape: tuple[int, int], pose: Pose):
        rows, columns = shape
        self.shape = shape
        self.unit = min(shape) / 2 * pose.scale
        turn = np.deg2rad(pose.angle)
        self._turn = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        self._origin = np.array([columns / 2 - 0.5, rows / 2 - 0.5]) + np.array([pose.dx, pose.dy]) * min(shape) / 2
        px = (np.arange(columns, dtype=np.float32) - np.float32(self._origin[0]))[None, :] / np.float32(self.unit)
        py = (np.arange(rows, dtype=np.float32) - np.float32(self._origin[1]))[:, None] / np.float32(self.unit)
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        self.x: Field = cos * px + sin * py
        self.y: Field = cos * py - sin * px

    def pixels(self, points: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Patient coordinates `[n, 2]` -> pixel coordinates int32 `[n, 2]` in the fixed-point format of OpenCV."""
        placed = np.asarray(points, np.float64) @ self._turn.T * self.unit + self._origin
        return np.round(placed * (1 << _SHIFT)).astype(np.int32)

    def fill(self, *outlines: npt.ArrayLike, blur: float = 0.0) -> Field:
        """The inside of closed outlines, 0 to 1, float32 `[rows, columns]`."""
        mask = np.zeros(self.shape, np.uint8)
        for outline in outlines:
            cv2.fillPoly(mask, [self.pixels(outline)], (255,), cv2.LINE_AA, _SHIFT)
        return self.blurred(mask.astype(np.float32) / 255, blur)

    def lines(self, strokes: Sequence[tuple[npt.ArrayLike, float, float]], blur: float = 0.0) -> Field:
        """Polylines, each (points, width, value in 0..1); the brightest covers the others; float32 `[rows, columns]`.

        A line thinner than a pixel is drawn one pixel wide and fainter.
        """
        mask = np.zeros(self.shape, np.uint8)
        for points, width, value in sorted(strokes, key=lambda stroke: stroke[2]):
            thick = width * self.unit
            level = round(255 * value * min(1.0, max(thick, 0.55)))
            cv2.polylines(mask, [self.pixels(points)], False, (level,), max(1, round(thick)), cv2.LINE_AA, _SHIFT)
        return self.blurred(mask.astype(np.float32) / 255, blur)

    def blurred(self, field: Field, blur: float) -> Field:
        """Gaussian blur with a standard deviation in patient units; a wide one is computed on a smaller grid."""
        sigma = blur * self.unit
        if sigma < 0.3:
            return field
        shrink = int(sigma // 3)
        if shrink < 2:
            return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)
        rows, columns = self.shape
        small = cv2.resize(field, (max(2, columns // shrink), max(2, rows // shrink)), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma / shrink, borderType=cv2.BORDER_REPLICATE)
        return np.asarray(cv2.resize(small, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32)

    def blob(self, x: float, y: float, rx: float, ry: float, angle: float = 0.0, power: float = 1.0) -> Field:
        """A soft ellipse exp(-r^(2 power)), 1 at its centre; a higher power gives a flatter top and a sharper edge."""
        dx, dy = self.x - np.float32(x), self.y - np.float32(y)
        if angle:
            cos, sin = np.float32(np.cos(np.deg2rad(angle))), np.float32(np.sin(np.deg2rad(angle)))
            dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
        radius = (dx / np.float32(rx)) ** 2 + (dy / np.float32(ry)) ** 2
        if power != 1.0:
            radius = np.minimum(radius, np.float32(30)) ** np.float32(power)
        return np.exp(-np.minimum(radius, np.float32(80)))

    def noise(self, rng: np.random.Generator, size: float) -> Field:
        """Smooth random texture of mean 0 and deviation about 1, with details of `size` patient units."""
        cells = max(3, round(2.6 / size))
        # Sampled on a grid of fixed size, so that the texture is the same at every resolution.
        coarse = rng.standard_normal((cells, cells)).astype(np.float32)
        return np.asarray(cv2.resize(coarse, self.shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def curve(points: npt.ArrayLike, steps: int = 10) -> Points:
    """A smooth open curve through the points (Catmull-Rom), `[(n - 1) * steps + 1, 2]`."""
    knots = np.asarray(points, np.float64)
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = (padded[i : len(padded) - 3 + i, None, :] for i in range(4))
    body = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - 3 * c + d - a) * t**3)
    return np.concatenate([body.reshape(-1, 2), knots[-1:]])


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> Points:
    """The outline of an ellipse turned by `angle` degrees, `[48, 2]`."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    turn = np.deg2rad(angle)
    px, py = rx * np.cos(t), ry * np.sin(t)
    return np.stack([x + px * np.cos(turn) - py * np.sin(turn), y + px * np.sin(turn) + py * np.cos(turn)], axis=1)


def over(field: Field, alpha: Field, white: float) -> Field:
    """`field` covered by brightness `white` with opacity `alpha`; no pixel becomes darker."""
    return field + alpha * np.maximum(np.float32(white) - field, 0)
