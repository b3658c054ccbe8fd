"""Draws support devices (tubes, lines, pacemakers, leads) in frontal and lateral views."""

from __future__ import annotations

import numpy as np

from data_prep.phantom.anatomy import SIGN, Body
from data_prep.phantom.canvas import Canvas, Field, Points, curve, ellipse, over
from data_prep.phantom.findings import Sign

METAL = 1.05
PLASTIC = 0.98

Stroke = tuple[Points, float, float]


def frontal(canvas: Canvas, field: Field, body: Body, signs: list[Sign]) -> Field:
    """`field`, a frontal view, with the devices drawn over it."""
    rng = np.random.default_rng([body.tree_seed, 99])
    jitter = rng.normal(0, 0.012, 8)
    for sign in signs:
        lines, plates = _FRONTAL[sign.kind](sign, jitter)
        field = over(field, canvas.lines(lines, blur=0.002) * np.float32(0.85), PLASTIC)
        if plates:
            field = over(field, canvas.fill(*plates, blur=0.003) * np.float32(0.92), METAL)
    return field


def lateral(canvas: Canvas, field: Field, body: Body, signs: list[Sign]) -> Field:
    """`field`, a lateral view with the front of the patient on the left, with the devices drawn over it."""
    for sign in signs:
        lines: list[Stroke] = []
        plates: list[Points] = []
        if sign.kind == "pacemaker":
            plates = [ellipse(-0.52, -0.46, 0.035, 0.11, 15)]
            lines = [(curve([(-0.50, -0.44), (-0.25, -0.50), (-0.10, -0.2), (-0.25, 0.12), (-0.40, 0.22)]), 0.014, 0.9)]
        elif sign.kind == "endotracheal tube":
            lines = [(curve([(-0.05, -1.2), (-0.02, -0.7), (0.0, -0.42)]), 0.03, 0.9)]
        elif sign.kind == "nasogastric tube":
            lines = [(curve([(0.02, -1.2), (0.08, -0.4), (0.12, 0.1), (0.02, 0.55), (-0.2, 0.66)]), 0.02, 0.9)]
        elif sign.kind == "central line":
            lines = [(curve([(-0.15, -1.0), (-0.1, -0.6), (-0.1, -0.2)]), 0.016, 0.9)]
        elif sign.kind == "chest tube":
            lines = [(curve([(-0.1, 0.5), (0.05, 0.1), (0.1, -0.4)]), 0.032, 0.9)]
        else:
            lines = [(curve([(-0.7, -0.9), (-0.5, -0.3), (-0.6, 0.4)]), 0.012, 0.9)]
        field = over(field, canvas.lines(lines, blur=0.002) * np.float32(0.85), PLASTIC)
        if plates:
            field = over(field, canvas.fill(*plates, blur=0.003) * np.float32(0.92), METAL)
    return field


def _endotracheal(sign: Sign, j: Points) -> tuple[list[Stroke], list[Points]]:
    tip = -0.40 + j[0]
    path = curve([(0.02 + j[1], -1.4), (0.0 + j[2], -0.8), (0.008, tip)])
    walls = [(path + (dx, 0), 0.018, 0.95) for dx in (-0.022, 0.022)]
    return [(path, 0.050, 0.7), *walls], []


def _nasogastric(sign: Sign, j: Points) -> tuple[list[Stroke], list[Points]]:
    path = curve(
        [
            (-0.03 + j[0], -1.4),
            (-0.035, -0.6),
            (0.03, -0.1),
            (0.05, 0.28),
            (0.16, 0.46),
            (0.36 + j[1], 0.56),
            (0.40, 0.62),
        ]
    )
    return [(path, 0.036, 0.95)], []


def _central(sign: Sign, j: Points) -> tuple[list[Stroke], list[Points]]:
    s = SIGN[sign.side]
    if s < 0:
        path = [(-0.30 + j[0], -1.3), (-0.27 + j[1], -0.90), (-0.16, -0.60), (-0.105, -0.35), (-0.10, -0.10 + j[2])]
    else:
        path = [
            (0.30 + j[0], -1.3),
            (0.27 + j[1], -0.90),
            (0.14, -0.60),
            (-0.02, -0.50),
            (-0.10, -0.36),
            (-0.10, -0.08),
        ]
    return [(curve(path), 0.034, 0.95)], []


def _pacemaker(sign: Sign, j: Points) -> tuple[list[Stroke], list[Points]]:
    s = SIGN[sign.side]
    x, y = s * (0.56 + j[0]), -0.50 + j[1]
    box = ellipse(x, y, 0.135, 0.105, s * -18)
    # Turns the ellipse into a rounded rectangle.
    centre = np.array([x, y])
    offset = box - centre
    box = centre + offset * (1.12 - 0.12 * np.cos(4 * np.arctan2(offset[:, 1], offset[:, 0])))[:, None]
    entry = (s * 0.30, -0.62)
    top = (-0.09, -0.45)
    ventricle = curve([(x, y - 0.09), entry, (s * 0.12, -0.56), top, (-0.12, 0.0), (-0.02, 0.26), (0.22 + j[2], 0.30)])
    atrium = curve(
        [(x, y - 0.07), (entry[0], entry[1] + 0.02), (s * 0.11, -0.54), (-0.10, -0.40), (-0.13, 0.04), (-0.19, -0.02)]
    )
    tips = [ellipse(0.22 + j[2], 0.30, 0.022, 0.014), ellipse(-0.19, -0.02, 0.018, 0.014)]
    return [(ventricle, 0.017, 0.95), (atrium, 0.015, 0.95)], [box, *tips]


def _chest_tube(sign: Sign, j: Points) -> tuple[list[Stroke], list[Points]]:
    s = SIGN[sign.side]
    path = curve(
        [(s * 1.2, 0.42 + j[0]), (s * 0.84, 0.24), (s * 0.62, -0.05 + j[1]), (s * 0.44, -0.42), (s * 0.34, -0.58)]
    )
    return [(path, 0.056, 0.6), (path + (s * 0.024, 0), 0.018, 0.95), (path - (s * 0.024, 0), 0.016, 0.9)], []


def _leads(sign: Sign, j: Points) -> tuple[list[Stroke], list[Points]]:
    spots = [
        (-0.58 + j[0], -0.44 + j[1]),
        (0.60 + j[2], -0.40 + j[3]),
        (0.66 + j[4], 0.34 + j[5]),
        (-0.62 + j[1], 0.30),
    ]
    join = (0.10 + j[6], 1.3)
    wires = []
    for number, (x, y) in enumerate(spots):
        middle = (0.55 * x + 0.12 * np.sign(x) + 3 * j[number], 0.5 * y + 0.42)
        wires.append((curve([(x, y), middle, (0.4 * x, 0.95), join]), 0.020, 0.9))
    return wires, [ellipse(x, y, 0.055, 0.055) for x, y in spots]


_FRONTAL = {
    "endotracheal tube": _endotracheal,
    "nasogastric tube": _nasogastric,
    "central line": _central,
    "pacemaker": _pacemaker,
    "chest tube": _chest_tube,
    "monitoring leads": _leads,
}
