"""Draws lateral chest radiographs with their findings; the front of the patient is on the left of the image."""

from __future__ import annotations

import numpy as np

from data_prep.phantom import devices
from data_prep.phantom.anatomy import HEART_SCALE, MEDIASTINUM, ZONE_Y, Body
from data_prep.phantom.canvas import Canvas, Field, Points, curve, ellipse, over
from data_prep.phantom.findings import Sign

SIZE = {"small": 0.0, "moderate": 0.5, "large": 1.0}
WHITE = 0.72


def draw(canvas: Canvas, body: Body, signs: tuple[Sign, ...], hidden: str = "") -> Field:
    """The brightness of a lateral view, about 0 (air) to 1 (metal), before exposure and noise; without one finding."""
    drawn = tuple(sign for sign in signs if sign.finding != hidden)
    rng = np.random.default_rng([body.tree_seed, 7])
    deep = np.float32(body.width)
    heart, wide = body.heart, 0.0
    for sign in drawn:
        if sign.finding == "Cardiomegaly":
            heart = HEART_SCALE[sign.severity] if not sign.uncertain else 1.15
        elif sign.finding == "Enlarged Cardiomediastinum":
            wide = MEDIASTINUM[sign.severity] * sign.strength
    outline = curve(
        [(-0.20, -2), (-0.22, -0.98), (-0.52, -0.72), (-0.72, -0.3), (-0.80, 0.2), (-0.76, 2), (0.74, 2)]
        + [(0.76, 0.3), (0.74, -0.3), (0.60, -0.75), (0.30, -0.98), (0.26, -2)]
    ) * (float(deep), 1.0)
    inside = canvas.fill(outline, blur=0.012)
    field = inside * (0.42 + 0.22 * canvas.blurred(inside, 0.12) + 0.05 * body.fat)
    lung_shape = _lungs(body, deep)
    lung = np.float32(0.30) + np.float32(0.07) * canvas.noise(rng, 0.30) * np.float32(0.2) - np.float32(0.04) * canvas.y
    strokes = []
    for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False) + rng.normal(0, 0.15, 16):
        way = np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(0.2, 0.36)
        strokes.append((np.stack([(0.06, -0.08) + 0.1 * way, (0.06, -0.08) + way]), 0.018, 0.5))
    lung = lung + np.float32(0.07) * canvas.lines(strokes, blur=0.006)
    lung = lung + np.float32(0.16) * canvas.blob(0.06, -0.08, 0.11, 0.13)
    air = canvas.fill(lung_shape, blur=0.010)
    for sign in signs:
        # A hidden finding draws its random numbers too, so that those after it stay where they are.
        seen = _finding(canvas, lung, air, lung_shape, sign, rng)
        lung, air = (lung, air) if sign.finding == hidden else seen
    field = field * (1 - air) + lung * air
    heart_shape = ellipse(-0.30 + 0.04 * heart, 0.20, 0.25 * heart, 0.24 * heart**0.8, 40)
    field = over(field, canvas.fill(heart_shape, blur=0.016) * np.float32(0.75), 0.66)
    arch = curve([(-0.14 - wide, 0.0), (-0.12 - wide, -0.36), (0.04, -0.48), (0.20 + wide, -0.36), (0.24, 0.5)])
    field = over(field, canvas.lines([(arch, 0.10 + wide, 1.0)], blur=0.02) * np.float32(0.32 + wide), 0.66)
    breaks = any(sign.finding == "Fracture" for sign in drawn)
    field = field + _bones(canvas, body, breaks) * (np.float32(1.25) - field)
    trachea = canvas.lines([(curve([(-0.06, -1.2), (0.0, -0.6), (0.04, -0.22)]), 0.075, 1.0)], blur=0.014)
    field = field - np.float32(0.12) * trachea
    return devices.lateral(canvas, field, body, [sign for sign in drawn if sign.finding == "Support Devices"])


def _lungs(body: Body, deep: np.float32) -> Points:
    base = 0.36 * body.height
    front = [(0.02, -0.80), (-0.28, -0.66), (-0.52, -0.34), (-0.60, 0.05), (-0.58, base + 0.06)]
    floor = [(-0.58, base + 0.06), (-0.30, base - 0.08), (0.05, base - 0.04), (0.34, base + 0.12), (0.56, base + 0.30)]
    back = [(0.56, base + 0.30), (0.58, 0.1), (0.54, -0.35), (0.38, -0.68), (0.16, -0.80), (0.02, -0.80)]
    return np.concatenate([curve(front), curve(floor)[1:], curve(back)[1:]]) * (float(deep), 1.0)


def _finding(
    canvas: Canvas, lung: Field, air: Field, shape: Points, sign: Sign, rng: np.random.Generator
) -> tuple[Field, Field]:
    size, strength = SIZE[sign.severity], np.float32(sign.strength)
    x, y = rng.uniform(0.16, 0.34), ZONE_Y.get(sign.zone, 0.0)
    if sign.finding == "Pleural Effusion":
        level = shape[:, 1].max() - 0.16 - 0.34 * size
        back = np.clip(canvas.x / np.float32(0.55), -1, 1)
        fluid = 1 / (1 + np.exp(-np.clip((canvas.y - level + 0.14 * back**2) / np.float32(0.02), -30, 30)))
        air = air * (1 - fluid * (np.float32(0.5) + np.float32(0.5) * strength) * np.float32(0.95))
    elif sign.finding == "Edema":
        haze = canvas.blob(0.05, -0.05, 0.45, 0.50, 0, 1.3) * np.float32(0.4 + 0.3 * size)
        lung = over(lung, np.clip(haze + np.float32(0.05) * canvas.noise(rng, 0.04), 0, 0.9) * strength, WHITE)
    elif sign.finding in ("Consolidation", "Pneumonia") or (sign.finding == "Lung Opacity" and not sign.kind):
        reach = 0.17 + 0.1 * size
        patch = canvas.blob(x, y, reach * 1.2, reach, rng.uniform(-30, 30), 1.8)
        if sign.finding == "Pneumonia":
            patch = np.clip(patch * (np.float32(0.75) + np.float32(0.25) * canvas.noise(rng, 0.05)), 0, 1)
        dense = 0.55 if sign.finding == "Lung Opacity" else 0.8
        lung = over(lung, patch * np.float32(dense) * strength, WHITE)
    elif sign.finding == "Lung Lesion":
        radius = {"mass": 0.13 + 0.05 * size}.get(sign.kind, 0.075)
        for number in range(5 if sign.kind == "nodules" else 1):
            dx, dy = (rng.uniform(-0.3, 0.25), rng.uniform(-0.3, 0.3)) if number else (0.0, 0.0)
            lung = over(lung, canvas.blob(x + dx, y + dy, radius, radius, 0, 3.5) * np.float32(0.85) * strength, WHITE)
    elif sign.finding == "Atelectasis":
        lines = [
            (curve([(-0.1, 0.2 - 0.07 * k), (0.12, 0.19 - 0.07 * k), (0.34, 0.24 - 0.07 * k)]), 0.028, 1.0)
            for k in range(2 + round(2 * size))
        ]
        lung = over(lung, canvas.lines(lines, blur=0.006) * np.float32(0.7) * strength, WHITE)
    elif sign.finding == "Pneumothorax":
        inner = np.array([0.05, 0.0]) + (shape - (0.05, 0.0)) * (0.85 - 0.25 * size)
        dark = np.clip(air - canvas.fill(inner, blur=0.005), 0, 1) * (canvas.y < 0.2) * np.float32(0.7) * strength
        lung = lung * (1 - dark) + np.float32(0.12) * dark
        lung = over(lung, canvas.lines([(inner[:30], 0.012, 0.8)]) * strength, WHITE)
    elif sign.finding == "Pleural Other":
        band = canvas.lines([(shape[-45:-12] * (0.96, 0.98), 0.07 + 0.04 * size, 1.0)], blur=0.008)
        lung = over(lung, band * np.float32(0.75) * strength, WHITE)
    return lung, air


def _bones(canvas: Canvas, body: Body, broken: bool) -> Field:
    spine, plates = [], []
    for number in range(13):
        y = -0.85 + 0.14 * number
        x = 0.50 + 0.16 * np.sin((y + 0.6) * 1.4)
        plates.append(np.array([(x - 0.075, y), (x + 0.075, y + 0.02), (x + 0.075, y + 0.12), (x - 0.075, y + 0.10)]))
        rib = curve([(x - 0.03, y - 0.03), (x - 0.25, y + 0.12), (x - 0.60, y + 0.24), (x - 0.95, y + 0.20)])
        if 2 <= number <= 9:
            if broken and number in (5, 6):
                spine += [(rib[:12] - (0, 0.03), 0.034, 0.8), (rib[11:] + (0, 0.03), 0.034, 0.6)]
            else:
                spine.append((rib, 0.034, 0.38))
    breastbone = curve([(-0.34, -0.62), (-0.56, -0.30), (-0.66, 0.08)]) * (body.width, 1.0)
    spine.append((breastbone, 0.05, 0.8))
    return np.float32(0.14) * canvas.lines(spine, blur=0.006) + np.float32(0.13) * canvas.fill(*plates, blur=0.012)
