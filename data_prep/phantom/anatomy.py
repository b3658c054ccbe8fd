"""The healthy chest in a frontal view: its variation between patients, its outlines and its drawing.

The patient's left is on the right of the image (+x), as radiographs are viewed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from data_prep.phantom.canvas import Canvas, Field, Points, Pose, curve, ellipse
from data_prep.phantom.findings import Sign

SIGN = {"left": 1.0, "right": -1.0}
ZONE_Y = {"upper": -0.42, "mid": -0.10, "lower": 0.20}
HEART_SCALE = {"small": 1.30, "moderate": 1.47, "large": 1.66}
MEDIASTINUM = {"small": 0.10, "moderate": 0.15, "large": 0.21}


@dataclass(frozen=True)
class Body:
    """The variation between healthy patients, exposures and positions; sampled before any finding is drawn."""

    pose: Pose
    width: float
    height: float
    top: float
    dome: tuple[float, float]
    heart: float
    heart_tilt: float
    knob: float
    shoulder: float
    waist: float
    fat: float
    breasts: float
    gas: float
    rib_slope: float
    gamma: float
    gain: float
    offset: float
    noise: float
    marker: str
    collimation: tuple[float, float]
    tree_seed: int
    noise_seed: int


def body(rng: np.random.Generator, view: str, sex: str) -> Body:
    """Samples a body for a `view` "AP", "PA" or "LATERAL" of a patient of `sex` "M" or "F"."""
    u = rng.uniform
    portable = view == "AP"
    return Body(
        pose=Pose(
            angle=float(rng.normal(0, 2.2 if portable else 1.0)),
            scale=float(u(1.05, 1.17)),
            dx=float(rng.normal(0, 0.035)),
            dy=float(rng.normal(0.12, 0.035)),
        ),
        width=float(u(0.93, 1.06)),
        height=float(u(0.90, 1.02) if portable else u(0.98, 1.1)),
        top=float(u(-0.78, -0.70)),
        dome=(float(u(0.26, 0.32)), float(u(0.30, 0.37))),
        heart=float(u(0.93, 1.06) if portable else u(0.88, 1.0)),
        heart_tilt=float(u(20, 42)),
        knob=float(u(0.07, 0.12)),
        shoulder=float(u(-0.03, 0.06)),
        waist=float(u(0.93, 1.08)),
        fat=float(u(0, 1)),
        breasts=float(u(0.4, 1.0)) if sex == "F" and u() < 0.8 else 0.0,
        gas=float(u(0.5, 1.0)) if u() < 0.5 else 0.0,
        rib_slope=float(u(0.8, 1.2)),
        gamma=float(u(0.95, 1.35)),
        gain=float(u(0.84, 1.04)),
        offset=float(u(-0.03, 0.05)),
        noise=float(u(0.008, 0.022)),
        marker=("L" if u() < 0.7 else "R") if u() < 0.6 else "",
        collimation=(float(u(0.0, 0.05)) if u() < 0.3 else 0.0, float(u(0.0, 0.05)) if u() < 0.3 else 0.0),
        tree_seed=int(rng.integers(2**31)),
        noise_seed=int(rng.integers(2**31)),
    )


def retaken(body: Body, other: Body) -> Body:
    """A body in the position, and with the exposure and noise, of another."""
    names = ("pose", "gamma", "gain", "offset", "noise", "noise_seed", "marker", "collimation")
    return replace(body, **{name: getattr(other, name) for name in names})


@dataclass(frozen=True)
class Chest:
    """The outlines of a chest with its findings, in patient coordinates.

    `lungs`, `lateral` (apex to costophrenic angle), `floor` (costophrenic angle to the heart) and `angle` (the
    costophrenic angle) are by side.
    """

    lungs: dict[str, Points]
    lateral: dict[str, Points]
    floor: dict[str, Points]
    angle: dict[str, tuple[float, float]]
    heart: tuple[Points, ...]
    mediastinum: Points
    knob: Points


def chest(body: Body, signs: tuple[Sign, ...]) -> Chest:
    """The outlines of a body with these findings, which change heart, mediastinum and diaphragm."""
    raised = {"left": 0.0, "right": 0.0}
    heart, extra = body.heart, 0.0
    for sign in signs:
        if sign.finding == "Atelectasis" and sign.zone == "lower":
            for side in sign.sides:
                lift = {"small": 0.03, "moderate": 0.07, "large": 0.12}[sign.severity]
                raised[side] = max(raised[side], lift * sign.strength)
        elif sign.finding == "Cardiomegaly":
            heart = (HEART_SCALE[sign.severity] if not sign.uncertain else 1.2) * (0.97 + 0.06 * body.fat)
        elif sign.finding == "Enlarged Cardiomediastinum":
            extra = MEDIASTINUM[sign.severity] * (1 if not sign.uncertain else 0.7)
    w, h = body.width, body.height
    lungs, lateral, floor, angles = {}, {}, {}, {}
    for number, side in enumerate(("right", "left")):
        s = SIGN[side]
        peak = body.dome[number] * h - raised[side]
        corner = (s * 0.80 * w, 0.47 * h - 0.4 * raised[side])
        outer = curve(
            [
                (s * 0.15, body.top * 0.80),
                (s * 0.22 * w, body.top * 0.95),
                (s * 0.34 * w, body.top),
                (s * 0.50 * w, body.top * 0.87),
                (s * 0.64 * w, body.top * 0.57),
                (s * 0.74 * w, -0.12),
                (s * 0.79 * w, 0.16),
                corner,
            ]
        )
        base = curve(
            [
                corner,
                (s * 0.71 * w, (corner[1] + 2 * peak) / 3),
                (s * 0.50 * w, peak),
                (s * 0.33 * w, peak + 0.015),
                (s * 0.06, peak + 0.13),
            ]
        )
        inner = curve([(s * 0.06, peak + 0.13), (s * 0.05, 0.0), (s * 0.06, -0.3), (s * 0.15, body.top * 0.80)])
        lungs[side] = np.concatenate([outer, base[1:], inner[1:]])
        lateral[side], floor[side], angles[side] = outer, base, corner
    middle = 0.23 * h
    ventricle = ellipse(
        0.07 + 0.125 * heart, middle - 0.10 * (heart - 1), 0.305 * heart, 0.225 * heart**0.9, body.heart_tilt
    )
    atrium = ellipse(-0.02 - 0.05 * heart, middle - 0.02, 0.185 * heart, 0.23 * heart**0.8, -8)
    ventricle = ventricle[ventricle[:, 1] < 0.75]
    right, left = 0.115 + 0.9 * extra, 0.11 + extra
    centre = np.array(
        [
            (-0.09, -1.3),
            (-0.10 - 0.25 * extra, -0.85),
            (-right, -0.50),
            (-right - 0.01, -0.22),
            (-0.15 - 0.4 * extra, 0.0),
            (-0.15, 0.6),
            (0.20, 0.6),
            (0.24 + 0.4 * extra, 0.0),
            (left + 0.075, -0.15),
            (left, -0.48),
            (0.10 + 0.25 * extra, -0.85),
            (0.09, -1.3),
        ]
    )
    return Chest(
        lungs=lungs,
        lateral=lateral,
        floor=floor,
        angle=angles,
        heart=(ventricle, atrium),
        mediastinum=curve(np.concatenate([centre, centre[:1]]), 6),
        knob=ellipse(left - 0.015, -0.30, body.knob + 0.3 * extra, body.knob * 1.15 + 0.2 * extra),
    )


def tissue(canvas: Canvas, body: Body, chest: Chest) -> Field:
    """The brightness of body, mediastinum and heart, without lung air; float32 `[rows, columns]`, 0 to 1."""
    shoulder = -0.66 + body.shoulder
    half = [
        (0.20, -2.0),
        (0.21, -1.02),
        (0.30, -0.90),
        (0.62, shoulder - 0.08),
        (0.90, shoulder + 0.02),
        (1.10, shoulder + 0.22),
        (1.02 * body.waist, 0.1),
        (0.97 * body.waist, 0.5),
        (0.99 * body.waist, 2.0),
    ]
    outline = np.concatenate([curve(half, 6), curve([(-x, y) for x, y in half[::-1]], 6)])
    inside = canvas.fill(outline, blur=0.012)
    depth = canvas.blurred(inside, 0.12)
    field = inside * (0.30 + 0.28 * depth + 0.05 * body.fat)
    below = 1 / (1 + np.exp(-(canvas.y - np.float32(0.38)) / np.float32(0.09)))
    field += inside * below * np.float32(0.17) * np.exp(-((canvas.x / np.float32(0.95)) ** 4))
    if body.gas:
        bubble = canvas.blob(0.42, 0.60, 0.20 * body.gas, 0.13 * body.gas, -15, 3)
        field -= np.float32(0.22) * bubble * inside
    silhouette = canvas.fill(chest.mediastinum, chest.knob, blur=0.010)
    field = field + silhouette * np.maximum(np.float32(0.70) - field, 0)
    heart = canvas.fill(*chest.heart, blur=0.010)
    return field + heart * np.maximum(np.float32(0.71) - field, 0)


def air(canvas: Canvas, chest: Chest) -> Field:
    """The share of each pixel that is lung, not covered by mediastinum and heart; float32 `[rows, columns]`, 0 to 1."""
    lungs = canvas.fill(chest.lungs["left"], chest.lungs["right"], blur=0.009)
    centre = canvas.fill(chest.mediastinum, chest.knob, *chest.heart, blur=0.009)
    return lungs * (1 - np.float32(0.94) * centre)


def vessels(canvas: Canvas, body: Body) -> Field:
    """Pulmonary vessels, which branch from both hila and become thinner; float32 `[rows, columns]`, 0 to 1."""
    rng = np.random.default_rng(body.tree_seed)
    strokes: list = []
    for side in ("left", "right"):
        s = SIGN[side]
        hilum = np.array([s * 0.17, -0.05])
        for number in range(9):
            heading = np.deg2rad(-82 + 158 * (number + rng.uniform(0.1, 0.9)) / 9)
            _grow(rng, strokes, hilum + rng.normal(0, 0.025, 2), heading, s, 0.022, 0)
        strokes.append((np.stack([hilum + (s * 0.02, -0.09), hilum, hilum + (s * 0.05, 0.17)]), 0.055, 0.75))
    return canvas.lines(strokes, blur=0.004)


def _grow(
    rng: np.random.Generator, strokes: list, start: Points, heading: float, s: float, width: float, depth: int
) -> None:
    steps = 4
    points = [start]
    for _ in range(steps):
        heading += rng.normal(0, 0.13)
        points.append(points[-1] + 0.055 * np.array([s * np.cos(heading), np.sin(heading)]))
    strokes.append((np.array(points), width, 0.85 * (width / 0.022) ** 0.6))
    if depth < 2:
        for turn in (-0.32, 0.3):
            _grow(rng, strokes, points[-1], heading + turn + rng.normal(0, 0.1), s, width * 0.62, depth + 1)


def rib_curve(body: Body, side: str, number: int) -> Points:
    """The posterior arc of rib `number` (1 to 10) from the spine to the flank, `[n, 2]`."""
    s = SIGN[side]
    root = body.top + 0.03 + 0.118 * body.height * (number - 1)
    reach = (0.36 + 0.50 * (1 - np.exp(-0.48 * number))) * body.width
    drop = (0.05 + 0.026 * number) * body.rib_slope
    return curve(
        [
            (s * 0.07, root),
            (s * reach * 0.35, root - 0.045 * body.rib_slope),
            (s * reach * 0.72, root + 0.25 * drop),
            (s * reach * 0.94, root + 0.85 * drop),
            (s * reach, root + 1.35 * drop),
        ]
    )


def clavicle_curve(body: Body, side: str) -> Points:
    """The clavicle from the sternum to the shoulder, `[n, 2]`."""
    s, tilt = SIGN[side], body.shoulder
    return curve([(s * 0.10, -0.56), (s * 0.30, -0.60 + tilt), (s * 0.52, -0.70 + tilt), (s * 0.80, -0.70 + tilt)])


def bones(
    canvas: Canvas, body: Body, ribs: dict[tuple[str, int], list[Points]], clavicles: dict[str, list[Points]]
) -> Field:
    """The brightness that ribs, clavicles, scapulae and spine add; float32 `[rows, columns]`.

    Args:
      canvas, body: of the film.
      ribs: the pieces of broken ribs, by (side, number).
      clavicles: the pieces of broken clavicles, by side.
    """
    outer, inner = [], []
    for side in ("left", "right"):
        s = SIGN[side]
        for number in range(1, 11):
            for piece in ribs.get((side, number), [rib_curve(body, side, number)]):
                outer.append((piece, 0.042, 0.80))
                inner.append((piece, 0.024, 1.0))
            if 2 <= number <= 5:
                end = rib_curve(body, side, number)[-1]
                low = end[1] + 0.17 + 0.02 * number
                front = curve([end, (end[0] * 0.86, end[1] + 0.10), (end[0] * 0.55, low)])
                outer.append((front, 0.044, 0.36))
        blade = curve([(s * 0.92, -0.62), (s * 0.74, -0.40), (s * 0.70, -0.12), (s * 0.80, -0.02)])
        outer.append((blade, 0.022, 0.5))
    shell = canvas.lines(outer, blur=0.005) - np.float32(0.28) * canvas.lines(inner, blur=0.004)
    collar = [
        (piece, 0.055, 1.0) for side in ("left", "right") for piece in clavicles.get(side, [clavicle_curve(body, side)])
    ]
    hollow = [(piece, 0.028, 1.0) for piece, _, _ in collar]
    bars = canvas.lines(collar, blur=0.005) - np.float32(0.35) * canvas.lines(hollow, blur=0.004)
    column = np.exp(-((canvas.x / np.float32(0.085)) ** 4))
    wave = np.cos((canvas.y - np.float32(body.top)) * np.float32(2 * np.pi / 0.118))
    discs = np.float32(0.75) + np.float32(0.25) * wave
    return np.float32(0.13) * shell + np.float32(0.20) * bars + np.float32(0.065) * column * discs
