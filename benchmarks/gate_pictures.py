"""Pictures that are no chest film, drawn by rules.

All functions take a `numpy.random.Generator` and give uint8 `[H, W]`.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Picture = np.ndarray
_SIDE = 96
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX)
LETTERS = "etaoinshrdlucmfwygpbvkABCDEFGHIJKLMNOPRSTW0123456789.,-:"


def noise(rng: np.random.Generator) -> Picture:
    """Gaussian noise with a spectrum of 1/f^0 (white) to 1/f^2 (clouds)."""
    spectrum = np.fft.rfft2(rng.standard_normal((_SIDE, _SIDE)))
    distance = np.hypot(np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE)[None]) + 0.5 / _SIDE
    return _stretched(np.fft.irfft2(spectrum / distance ** rng.uniform(0, 2)), rng)


def gradient(rng: np.random.Generator) -> Picture:
    """Smooth shading: a slope, a vignette, waves or their sum."""
    y, x = _grid()
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    along = x * np.cos(angle) + y * np.sin(angle)
    shades = [
        along,
        -np.hypot(x - rng.uniform(-1, 1), y - rng.uniform(-1, 1)),
        np.sin(along * rng.uniform(1, 12) + phase),
    ]
    weights = rng.uniform(-1, 1, 3) * (rng.random(3) < 0.6)
    weights[rng.integers(3)] = rng.choice([-1, 1])
    return _stretched(sum(w * s for w, s in zip(weights, shades, strict=True)), rng)


def text(rng: np.random.Generator) -> Picture:
    """A page of one or two columns, dark on light or light on dark."""
    height, width = int(rng.integers(128, 260)), int(rng.integers(128, 260))
    page = np.full((height, width), 255, np.uint8)
    columns, size = int(rng.integers(1, 3)), rng.uniform(0.2, 0.8)
    step = round(30 * size) + int(rng.integers(2, 12))
    for column in range(columns):
        left, right = 8 + column * width // columns, (column + 1) * width // columns - 6
        for y in range(12 + step, height - 4, step):
            if rng.random() < 0.1:
                continue
            words = "".join(rng.choice(list(LETTERS + "      "), 60))
            cv2.putText(page, words, (left, y), int(rng.choice(FONTS)), size, (int(rng.integers(0, 90)),), 1)
        page[:, right : right + 6] = 255
    return _maybe_negative(page, rng)


def chart(rng: np.random.Generator) -> Picture:
    """Axes with curves, bars, points or sectors."""
    height, width = int(rng.integers(100, 240)), int(rng.integers(100, 240))
    page = np.full((height, width), 255, np.uint8)
    left, bottom = round(width * 0.12), round(height * 0.88)
    cv2.line(page, (left, round(height * 0.06)), (left, bottom), (0,), 1)
    cv2.line(page, (left, bottom), (round(width * 0.95), bottom), (0,), 1)
    kind, number = rng.integers(4), int(rng.integers(2, 12))
    xs = np.linspace(left + 6, width * 0.92, number).astype(int)
    for _ in range(int(rng.integers(1, 4))):
        ys = (bottom - rng.random(number) * height * 0.75).astype(int)
        shade, pale = int(rng.integers(0, 200)), int(rng.integers(0, 230))
        if kind == 0:
            cv2.polylines(page, [np.stack([xs, ys], 1)], False, (shade,), int(rng.integers(1, 4)))
        elif kind == 1:
            for x, y in zip(xs, ys, strict=True):
                cv2.rectangle(page, (x, y), (x + max(2, width // (2 * number)), bottom), (pale,), -1)
        elif kind == 2:
            for _ in range(12 * number):
                place = (int(rng.normal(width / 2, width / 6)), int(rng.normal(height / 2, height / 6)))
                cv2.circle(page, place, int(rng.integers(1, 4)), (shade,), -1)
        else:
            turn = 0.0
            for part in rng.dirichlet(np.ones(number)) * 360:
                centre, radius = (width // 2, height // 2), min(height, width) // 3
                cv2.ellipse(page, centre, (radius, radius), 0, turn, turn + part, (int(rng.integers(0, 240)),), -1)
                turn += part
    cv2.putText(page, "".join(rng.choice(list(LETTERS), 14)), (left, 12), FONTS[0], 0.35, (0,), 1)
    return _maybe_negative(page, rng)


def scene(rng: np.random.Generator) -> Picture:
    """A horizon with boxes, discs and streaks before it, lit and blurred."""
    horizon = int(_SIDE * rng.uniform(0.2, 0.8))
    field = np.empty((_SIDE, _SIDE), np.float32)
    field[:horizon] = np.linspace(*rng.uniform(40, 255, 2), horizon)[:, None]
    field[horizon:] = np.linspace(*rng.uniform(0, 200, 2), _SIDE - horizon)[:, None]
    for _ in range(int(rng.integers(1, 16))):
        x, y = (int(v) for v in rng.integers(-10, _SIDE, 2))
        w, h = (int(v) for v in rng.integers(4, _SIDE // 2, 2))
        shade = float(rng.uniform(0, 255))
        if (shape := rng.integers(3)) == 0:
            cv2.rectangle(field, (x, y), (x + w, y + h), (shade,), -1)
        elif shape == 1:
            cv2.ellipse(field, (x, y), (w // 2, h // 2), float(rng.uniform(0, 180)), 0, 360, (shade,), -1)
        else:
            cv2.line(field, (x, y), (x + w, y - h), (shade,), int(rng.integers(1, 8)))
    field += 30 * gradient(rng)[:_SIDE, :_SIDE] / 255 + rng.normal(0, 4, field.shape)
    return _stretched(cv2.GaussianBlur(field, (0, 0), rng.uniform(0.4, 2.5)), rng)


def leaves(rng: np.random.Generator) -> Picture:
    """Dead leaves: discs on discs, radii by a power law, with the statistics of photographs (Lee et al. 2001)."""
    field = np.zeros((_SIDE, _SIDE), np.float32)
    small, large = rng.uniform(1, 4), rng.uniform(15, 60)
    for _ in range(250):
        radius = 1 / np.sqrt(rng.uniform(1 / large**2, 1 / small**2))
        centre = (int(rng.integers(_SIDE)), int(rng.integers(_SIDE)))
        axes = (max(1, round(radius)), max(1, round(radius * rng.uniform(0.3, 1))))
        cv2.ellipse(field, centre, axes, float(rng.uniform(0, 180)), 0, 360, (float(rng.uniform(0, 255)),), -1)
    return _stretched(cv2.GaussianBlur(field, (0, 0), rng.uniform(0.3, 1.5)), rng)


def section(rng: np.random.Generator) -> Picture:
    """An oval body on black with organs in it and perhaps a bright rim, as in tomography."""
    side = 160
    field = np.full((side, side), rng.uniform(0, 12), np.float32)
    centre = (side // 2 + int(rng.integers(-12, 12)), side // 2 + int(rng.integers(-12, 12)))
    wide, high = (int(v) for v in rng.uniform(0.22, 0.47, 2) * side)
    turn = float(rng.uniform(-15, 15))
    rim = int(rng.integers(1, 9))
    cv2.ellipse(field, centre, (wide, high), turn, 0, 360, (float(rng.uniform(20, 255)),), -1)
    body = float(rng.uniform(40, 170))
    cv2.ellipse(field, centre, (max(2, wide - rim), max(2, high - rim)), turn, 0, 360, (body,), -1)
    inside = np.zeros((side, side), np.uint8)
    cv2.ellipse(inside, centre, (max(2, wide - 2 * rim), max(2, high - 2 * rim)), turn, 0, 360, (1,), -1)
    organs = field.copy()
    mirrored = rng.random() < 0.5
    for _ in range(int(rng.integers(2, 30))):
        dx, dy = rng.normal(0, 0.45, 2) * (wide, high)
        axes = (int(rng.integers(2, max(4, wide // 2))), int(rng.integers(2, max(4, high // 2))))
        tilt, shade = float(rng.uniform(0, 180)), float(np.clip(rng.normal(body, 60), 0, 255))
        for sign in (-1, 1) if mirrored else (1,):
            place = (round(centre[0] + sign * dx), round(centre[1] + dy))
            cv2.ellipse(organs, place, axes, sign * tilt, 0, 360, (shade,), -1)
    field = np.where(inside > 0, cv2.GaussianBlur(organs, (0, 0), rng.uniform(0.3, 2)), field)
    return _stretched(field + rng.normal(0, rng.uniform(0, 8), field.shape), rng)


def limb(rng: np.random.Generator) -> Picture:
    """Tapering soft parts with one to five bones along them, as in films of arms, legs, hands and spines."""
    side = 160
    soft, bone = np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)
    rays = int(rng.integers(1, 6))
    spread = rng.uniform(0, 12) if rays < 3 else rng.uniform(8, 20)
    for ray in range(rays):
        angle = np.deg2rad(rng.normal(0, 6) + spread * (ray - (rays - 1) / 2))
        start = np.array(
            [side / 2 + rng.normal(0, 4) + (ray - (rays - 1) / 2) * rng.uniform(4, 16), side * rng.uniform(0.9, 1.1)]
        )
        thick = rng.uniform(5, 14) if rays < 3 else rng.uniform(3, 6)
        for _ in range(int(rng.integers(1, 9))):
            end = start + np.array([np.sin(angle), -np.cos(angle)]) * rng.uniform(0.12, 0.8) * side
            a, b = (tuple(int(v) for v in p) for p in (start, end))
            cv2.line(soft, a, b, (1.0,), round(thick * rng.uniform(2, 5)))
            cv2.line(bone, a, b, (1.0,), round(thick))
            for joint in (a, b):
                cv2.circle(bone, joint, round(thick * rng.uniform(0.6, 1.1)), (1.0,), -1)
            start, angle = end, angle + rng.normal(0, 0.15)
            if not -side < start[1] < side or start[1] < 0:
                break
    soft = cv2.GaussianBlur(soft, (0, 0), rng.uniform(2, 6))
    marrow = cv2.GaussianBlur(bone, (0, 0), rng.uniform(1, 4))
    bone = cv2.GaussianBlur(bone, (0, 0), rng.uniform(0.5, 1.5)) - rng.uniform(0, 0.4) * marrow
    field = rng.uniform(0.15, 0.6) * soft + rng.uniform(0.3, 0.9) * bone + rng.normal(0, 0.02, soft.shape)
    return np.rot90(_stretched(field, rng), int(rng.integers(4))).copy()


def pattern(rng: np.random.Generator) -> Picture:
    """Tiles, bars or rings."""
    y, x = _grid()
    wide, high = rng.uniform(2, 14, 2)
    fields = (np.sign(np.sin(wide * x) * np.sin(high * y)), np.sign(np.sin(wide * x)), np.sin(wide * np.hypot(x, y)))
    return _stretched(fields[rng.integers(3)] + rng.normal(0, 0.05, x.shape), rng)


DRAWN: dict[str, Callable[[np.random.Generator], Picture]] = {
    function.__name__: function for function in (noise, gradient, text, chart, scene, leaves, section, limb, pattern)
}


def drawn(rng: np.random.Generator) -> Picture:
    """A picture of any of the kinds."""
    return list(DRAWN.values())[rng.integers(len(DRAWN))](rng)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[-1 : 1 : 1j * _SIDE, -1 : 1 : 1j * _SIDE]
    return y, x


def _stretched(field: np.ndarray, rng: np.random.Generator) -> Picture:
    low, high = field.min(), field.max()
    field = (field - low) / max(high - low, 1e-6)
    dark, light = sorted(rng.uniform(0, 255, 2)) if rng.random() < 0.2 else (0, 255)
    return np.round(dark + field * (light - dark)).astype(np.uint8)


def _maybe_negative(page: Picture, rng: np.random.Generator) -> Picture:
    return 255 - page if rng.random() < 0.2 else page
