"""Draws frontal chest radiographs (AP and PA): a healthy chest and the appearance of every finding."""

from __future__ import annotations

import numpy as np

from data_prep.phantom import anatomy, devices
from data_prep.phantom.anatomy import SIGN, ZONE_Y, Body, Chest
from data_prep.phantom.canvas import Canvas, Field, Points, curve, ellipse, over
from data_prep.phantom.findings import Sign
from medvill_jax.findings import CHEXPERT_FINDINGS

SIZE = {"small": 0.0, "moderate": 0.5, "large": 1.0}
WHITE = 0.74


def draw(canvas: Canvas, body: Body, signs: tuple[Sign, ...]) -> Field:
    """The brightness of a frontal view, about 0 (air) to 1 (metal), before exposure and noise."""
    chest = anatomy.chest(body, signs)
    by_name: dict[str, list[Sign]] = {}
    for sign in signs:
        by_name.setdefault(sign.finding, []).append(sign)
    air = anatomy.air(canvas, chest)
    solid = anatomy.tissue(canvas, body, chest)
    tree = anatomy.vessels(canvas, body)

    lung = np.float32(0.20) + np.float32(0.07) * np.abs(canvas.x) + np.float32(0.03) * canvas.y
    lung = lung + np.float32(0.03 * body.fat)
    if body.breasts:
        for s in (-1, 1):
            breast = canvas.blob(s * 0.50, 0.28, 0.34, 0.24 * body.breasts, 0, 3)
            lung = lung + np.float32(0.07 * body.breasts) * breast
    for sign in by_name.get("Edema", []):
        tree = canvas.blurred(tree, 0.012) * np.float32(1 + 0.5 * sign.strength)
    lung = lung + np.float32(0.15) * tree
    for sign in by_name.get("Edema", []):
        lung = _edema(canvas, lung, sign, _rng(body, sign))
    for sign in by_name.get("Consolidation", []):
        lung = _consolidation(canvas, lung, sign, _rng(body, sign))
    for sign in by_name.get("Pneumonia", []):
        lung = _pneumonia(canvas, lung, sign, _rng(body, sign))
    for sign in by_name.get("Lung Opacity", []):
        if not sign.kind:
            lung = _opacity(canvas, lung, sign, _rng(body, sign))
    for sign in by_name.get("Lung Lesion", []):
        lung = _lesion(canvas, lung, sign, _rng(body, sign))
    edge = None
    for sign in by_name.get("Pneumothorax", []):
        lung, edge = _pneumothorax(canvas, lung, chest, sign)
    for sign in by_name.get("Pleural Effusion", []):
        for side in sign.sides:
            air = air * (1 - _fluid(canvas, chest, side, sign))
    field = solid * (1 - air) + lung * air
    for sign in by_name.get("Pneumonia", []) + by_name.get("Consolidation", []):
        # Its part behind the heart and the diaphragm is visible through them.
        if sign.zone == "lower":
            for side in sign.sides:
                patch = canvas.blob(SIGN[side] * 0.3, 0.28, 0.2, 0.15)
                field = field + np.float32(0.06 * sign.strength) * patch * (1 - air)
    for sign in by_name.get("Atelectasis", []):
        field = _atelectasis(canvas, field, body, chest, sign, _rng(body, sign))
    for sign in by_name.get("Pleural Other", []):
        field = _pleura(canvas, field, chest, sign, _rng(body, sign))
    ribs: dict[tuple[str, int], list[Points]] = {}
    clavicles: dict[str, list[Points]] = {}
    callus: list = []
    for sign in by_name.get("Fracture", []):
        callus += _fracture(body, sign, _rng(body, sign), ribs, clavicles)
    field = field + anatomy.bones(canvas, body, ribs, clavicles) * (np.float32(1.25) - field)
    if callus:
        field = over(field, canvas.lines(callus, blur=0.004), 0.95)
    if edge is not None:
        field = over(field, edge, 0.80)
    trachea = canvas.lines([(curve([(0.0, -1.3), (0.005, -0.6), (0.012, -0.27)]), 0.075, 1.0)], blur=0.014)
    bronchi = [
        (curve([(0.012, -0.29), (-0.06, -0.20), (-0.13, -0.12)]), 0.045, 0.7),
        (curve([(0.012, -0.29), (0.09, -0.19), (0.19, -0.12)]), 0.040, 0.7),
    ]
    field = field - np.float32(0.10) * trachea - np.float32(0.05) * canvas.lines(bronchi, blur=0.012)
    return devices.frontal(canvas, field, body, by_name.get("Support Devices", []))


def _rng(body: Body, sign: Sign) -> np.random.Generator:
    # One random stream per finding, so that one finding does not change the appearance of others.
    return np.random.default_rng([body.tree_seed, CHEXPERT_FINDINGS.index(sign.finding)])


def _size(sign: Sign) -> float:
    return SIZE[sign.severity]


def _centre(sign: Sign, side: str, rng: np.random.Generator) -> tuple[float, float]:
    x = SIGN[side] * {"upper": 0.38, "mid": 0.46, "lower": 0.50}[sign.zone]
    return x + rng.uniform(-0.05, 0.05), ZONE_Y[sign.zone] + rng.uniform(-0.04, 0.04)


def _edema(canvas: Canvas, lung: Field, sign: Sign, rng: np.random.Generator) -> Field:
    size, haze = _size(sign), np.zeros(canvas.shape, np.float32)
    for side in ("left", "right"):
        s = SIGN[side]
        reach = 0.30 + 0.16 * size
        haze = np.maximum(haze, canvas.blob(s * 0.30, 0.0, reach, reach * 1.35, s * 8, 1.3))
    texture = canvas.noise(rng, 0.05) + canvas.noise(rng, 0.025)
    haze = haze * (np.float32(0.36 + 0.24 * size) + np.float32(0.06) * texture)
    haze = haze + np.float32(0.08 + 0.06 * size) * np.clip((canvas.y + 0.3) / np.float32(0.6), 0, 1)
    lung = over(lung, np.clip(haze * np.float32(0.55 + 0.45 * sign.strength), 0, 0.8), WHITE - 0.04)
    lines = []
    for side in ("left", "right"):
        s = SIGN[side]
        for row in np.linspace(0.02, 0.36, 8):
            y, edge = row + rng.normal(0, 0.008), s * (0.73 + 0.03 * row)
            lines.append((np.array([(edge, y), (edge - s * rng.uniform(0.08, 0.15), y - 0.008)]), 0.011, 0.8))
    return over(lung, canvas.lines(lines) * np.float32(0.7 * sign.strength), 0.70)


def _consolidation(canvas: Canvas, lung: Field, sign: Sign, rng: np.random.Generator) -> Field:
    radius = 0.20 + 0.10 * _size(sign)
    for side in sign.sides:
        x, y = _centre(sign, side, rng)
        patch = canvas.blob(x, y, radius * 1.15, radius, rng.uniform(-20, 20), 2.0)
        for _ in range(3):
            dx, dy = rng.normal(0, 0.5 * radius, 2)
            patch = np.maximum(patch, canvas.blob(x + dx, y + dy, radius * 0.7, radius * 0.6, 0, 2.0))
        patch = np.clip(patch * (np.float32(1) + np.float32(0.06) * canvas.noise(rng, 0.05)), 0, 1)
        s = SIGN[side]
        tubes = []
        for heading in (-0.5, -0.1, 0.3, 0.65):
            start = np.array([x - s * radius * 0.75, y - 0.05 * heading])
            way = radius * 1.35 * np.array([s * np.cos(heading), np.sin(heading)])
            tubes.append((curve([start, start + 0.5 * way + (0, 0.012), start + way]), 0.032, 0.9))
        branches = canvas.lines(tubes, blur=0.005)
        alpha = np.float32(0.96 * sign.strength) * patch
        lung = over(lung, alpha * (1 - np.float32(0.60) * branches), WHITE)
    return lung


def _pneumonia(canvas: Canvas, lung: Field, sign: Sign, rng: np.random.Generator) -> Field:
    reach = 0.26 + 0.10 * _size(sign)
    for side in sign.sides:
        x, y = _centre(sign, side, rng)
        patch = np.zeros(canvas.shape, np.float32)
        for _ in range(9):
            dx, dy = rng.normal(0, 0.55 * reach, 2)
            r = rng.uniform(0.25, 0.5) * reach
            patch = np.maximum(patch, np.float32(rng.uniform(0.6, 1)) * canvas.blob(x + dx, y + dy, r * 1.1, r, 0, 1.3))
        patch = np.maximum(patch, np.float32(0.45) * canvas.blob(x, y, reach, reach * 0.9))
        patch = patch * (np.float32(0.9) + np.float32(0.22) * canvas.noise(rng, 0.035))
        lung = over(lung, np.clip(np.float32(0.92 * sign.strength) * patch, 0, 0.95), WHITE - 0.04)
    return lung


def _opacity(canvas: Canvas, lung: Field, sign: Sign, rng: np.random.Generator) -> Field:
    reach = 0.28 + 0.10 * _size(sign)
    for side in sign.sides:
        x, y = _centre(sign, side, rng)
        haze = canvas.blob(x, y, reach * 1.1, reach * 0.9, rng.uniform(-30, 30), 1.4)
        haze = haze * (np.float32(0.70) + np.float32(0.05) * canvas.noise(rng, 0.08))
        lung = over(lung, np.clip(haze * np.float32(sign.strength), 0, 1), WHITE - 0.06)
    return lung


def _lesion(canvas: Canvas, lung: Field, sign: Sign, rng: np.random.Generator) -> Field:
    spots: list[tuple[float, float, float]] = []
    if sign.kind == "nodules":
        count = 6 + 3 * round(2 * _size(sign))
        for number in range(count):
            side = SIGN["left" if number % 2 else "right"]
            spots.append((side * rng.uniform(0.28, 0.64), rng.uniform(-0.45, 0.25), rng.uniform(0.060, 0.085)))
    else:
        low, high = (0.095, 0.120) if sign.kind == "nodule" else (0.17, 0.22)
        x, y = _centre(sign, sign.side, rng)
        spots.append((x, y, low + (high - low) * _size(sign)))
    for x, y, radius in spots:
        ball = canvas.blob(x, y, radius, radius * rng.uniform(0.88, 1.12), rng.uniform(0, 90), 3.5)
        lung = over(lung, ball * np.float32(0.95 * sign.strength), WHITE)
    return lung


def _pneumothorax(canvas: Canvas, lung: Field, chest: Chest, sign: Sign) -> tuple[Field, Field]:
    """The lung with pleural air on one side, and the visceral pleural line."""
    s, size = SIGN[sign.side], _size(sign)
    keep = (0.84 - 0.33 * size) if not sign.uncertain else 0.87
    hilum = np.array([s * 0.16, -0.02])
    whole = chest.lungs[sign.side]
    # Air rises: the lower lung stays at the chest wall unless the pneumothorax is large.
    floor = 0.9 if size == 1 else 0.0
    taper = np.clip((0.47 - whole[:, 1]) / 0.45, floor, 1)[:, None]
    shrunk = hilum + (whole - hilum) * (1 - (1 - keep) * taper * (1.0, 0.8))
    outer = len(chest.lateral[sign.side])
    shell = np.concatenate([shrunk[: outer if size < 1 else outer + 20], chest.lungs[sign.side][outer:]])
    inside = canvas.fill(shrunk, blur=0.004)
    half = canvas.fill(whole, blur=0.004)
    dark = np.clip(half - inside, 0, 1) * np.float32(0.95 if not sign.uncertain else 0.6)
    lung = lung * (1 - dark) + np.float32(0.07) * dark
    lung = over(lung, inside * np.float32(0.10 + 0.16 * size), WHITE)
    line = canvas.lines([(shell[4 : outer - 7], 0.014, 1.0)])
    return lung, line * np.float32(0.62 if not sign.uncertain else 0.35)


def _fluid(canvas: Canvas, chest: Chest, side: str, sign: Sign) -> Field:
    """The share of the air that pleural fluid replaces, 0 to 1: a meniscus that rises towards the chest wall."""
    s, size = SIGN[side], _size(sign)
    wall = abs(chest.angle[side][0])
    bottom = chest.angle[side][1]
    out = np.clip(np.float32(s) * canvas.x / np.float32(wall), 0, 1.1)
    level = bottom - (0.12 + 0.28 * size) - (0.02 if not sign.uncertain else 0)
    climb = 0.20 + 0.08 * size
    meniscus = np.float32(level) - np.float32(climb) * out**4 + np.float32(0.05) * (1 - out)
    fluid = 1 / (1 + np.exp(-np.clip((canvas.y - meniscus) / np.float32(0.020), -30, 30)))
    return fluid * (np.float32(s) * canvas.x > 0) * np.float32(0.97 if not sign.uncertain else 0.7)


def _atelectasis(canvas: Canvas, field: Field, body: Body, chest: Chest, sign: Sign, rng: np.random.Generator) -> Field:
    plates = []
    for side in sign.sides:
        s = SIGN[side]
        y0 = float(chest.floor[side][:, 1].min()) - 0.07 if sign.zone == "lower" else ZONE_Y[sign.zone] + 0.1
        for number in range(2 + round(2 * _size(sign))):
            y = y0 - 0.075 * number + rng.normal(0, 0.01)
            x, length = s * rng.uniform(0.34, 0.42), rng.uniform(0.26, 0.34)
            tilt = rng.uniform(-0.05, 0.10)
            plates.append((curve([(x, y), (x + s * length / 2, y - 0.012), (x + s * length, y + tilt)]), 0.042, 1.0))
    field = over(field, canvas.lines(plates, blur=0.006) * np.float32(0.92 * sign.strength), WHITE)
    if sign.zone == "lower" and sign.severity != "small":
        for side in sign.sides:
            base = canvas.blob(SIGN[side] * 0.34, float(chest.floor[side][:, 1].min()), 0.30, 0.10, 0, 1.5)
            field = over(field, base * np.float32(0.50 * sign.strength), WHITE)
    return field


def _pleura(canvas: Canvas, field: Field, chest: Chest, sign: Sign, rng: np.random.Generator) -> Field:
    for side in sign.sides:
        s = SIGN[side]
        wall = chest.lateral[side]
        if sign.kind == "thickening":
            rim = wall[len(wall) // 3 :] * (1.0, 0.97) - (s * (0.020 + 0.02 * _size(sign)), 0.0)
            cap = wall[8 : len(wall) // 2] + (0.0, 0.03)
            width = 0.105 + 0.045 * _size(sign)
            band = canvas.lines([(rim, width, 1.0), (cap, width * 0.8, 1.0)], blur=0.008)
            field = over(field, band * np.float32(0.95 * sign.strength), WHITE)
        else:
            spots = []
            for number in range(4 + round(2 * _size(sign))):
                x = s * (0.40 + 0.26 * rng.random())
                y = -0.30 + 0.11 * number + rng.uniform(-0.02, 0.02)
                spots.append(ellipse(x, y, rng.uniform(0.07, 0.105), rng.uniform(0.026, 0.038), rng.uniform(-50, 50)))
            plates = canvas.fill(*spots, blur=0.004)
            field = over(field, plates * np.float32(0.95 * sign.strength), 1.0)
    return field


def _fracture(
    body: Body,
    sign: Sign,
    rng: np.random.Generator,
    ribs: dict[tuple[str, int], list[Points]],
    clavicles: dict[str, list[Points]],
) -> list[tuple[Points, float, float]]:
    """Adds the displaced pieces of broken bones to `ribs` or `clavicles`; returns their bright edges as strokes."""
    step = 0.055 + 0.02 * _size(sign) if not sign.uncertain else 0.040
    side = sign.side
    edges: list[tuple[Points, float, float]] = []
    if sign.kind == "clavicle":
        whole = anatomy.clavicle_curve(body, side)
        cut = int(len(whole) * rng.uniform(0.45, 0.6))
        broken = [whole[: cut + 2] - (0, 0.03 + step), whole[cut - 2 :] + (0, 0.02 + step)]
        clavicles[side] = broken
        return [(piece[-4:] if number == 0 else piece[:4], 0.065, 0.95) for number, piece in enumerate(broken)]
    first = int(rng.integers(4, 7))
    for number in range(first, first + (1 if sign.kind == "rib" else 3)):
        whole = anatomy.rib_curve(body, side, number)
        cut = int(len(whole) * rng.uniform(0.60, 0.70))
        broken = [whole[: cut + 1] - (0, step), whole[cut - 1 :] + (0, step)]
        ribs[side, number] = broken
        edges += [(broken[0][-5:], 0.052, 0.70 * sign.strength), (broken[1][:5], 0.052, 0.70 * sign.strength)]
        # The overlap of the two ends is a short bright step.
        edges.append((np.stack([broken[0][-1], broken[1][0]]), 0.040, 0.95 * sign.strength))
    return edges
