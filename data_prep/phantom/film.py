"""Renders a phantom chest film: varied anatomy, the findings drawn into it, exposure and noise on top.

Coordinates are fractions of the image: x to the right, y down. As on a real frontal film the patient's left is on the
right of the image. Brightness is attenuation: bone and fluid white, air black.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.phantom.findings import Finding

Array = np.ndarray
ZONE_Y = {"upper": 0.27, "mid": 0.45, "lower": 0.62}
SEVERITY = {"": 1.0, "small": 0.55, "moderate": 1.0, "large": 1.6, "mild": 0.75, "severe": 1.35}
AIR, TISSUE, LUNG, ORGAN = 0.03, 0.52, 0.17, 0.66


@dataclass(frozen=True)
class Anatomy:
    """One patient's build; all lengths are fractions of the image."""

    center: float
    lung_width: float
    lung_top: float
    dome: tuple[float, float]  # y of the right and the left diaphragm
    heart_width: float
    heart_y: float
    mediastinum: float
    rib_phase: float
    rib_contrast: float
    vessels: float
    tilt: float
    marker: str
    texture_seed: int


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """A patient."""
    right_dome = rng.uniform(0.71, 0.77)
    return Anatomy(
        center=0.5 + rng.normal(0, 0.012),
        lung_width=rng.uniform(0.152, 0.178),
        lung_top=rng.uniform(0.10, 0.14),
        dome=(right_dome, right_dome + rng.uniform(0.0, 0.025)),
        heart_width=rng.uniform(0.105, 0.128),
        heart_y=rng.uniform(0.60, 0.64),
        mediastinum=rng.uniform(0.042, 0.054),
        rib_phase=rng.uniform(0, 1),
        rib_contrast=rng.uniform(0.035, 0.075),
        vessels=rng.uniform(0.5, 1.0),
        tilt=rng.normal(0, 1.5),
        marker=str(rng.choice(["", "L", "R"], p=[0.4, 0.4, 0.2])),
        texture_seed=int(rng.integers(1 << 31)),
    )


def render(
    anatomy: Anatomy, findings: Sequence[Finding], view: str, shape: tuple[int, int], rng: np.random.Generator
) -> Array:
    """One film.

    Args:
        anatomy: the patient.
        findings: what is drawn.
        view: "AP", "PA" or "LATERAL".
        shape: (height, width), pixels.
        rng: exposure, noise, and where within its zone a finding lies.

    Returns:
        float32 `[height, width]` attenuation in 0..1.
    """
    canvas = _Lateral(anatomy, shape, rng) if view == "LATERAL" else _Frontal(anatomy, shape, rng, view)
    for finding in findings:
        canvas.add(finding)
    image = canvas.finish()
    scale = rng.uniform(0.97, 1.03)
    turn = cv2.getRotationMatrix2D((shape[1] / 2, shape[0] / 2), anatomy.tilt, scale)
    image = cv2.warpAffine(image, turn, (shape[1], shape[0]), borderMode=cv2.BORDER_CONSTANT, borderValue=AIR)
    image = np.clip(image, 0, 1.1) ** rng.uniform(0.85, 1.15) * rng.uniform(0.9, 1.05) + rng.uniform(-0.02, 0.03)
    grain = rng.normal(0, rng.uniform(0.008, 0.018), shape).astype(np.float32)
    return np.clip(image + grain, 0, 1).astype(np.float32)


def _soft(distance: Array, width: float) -> Array:
    """1 where `distance` is well below 0, 0 well above, with an edge of the given width."""
    return 1 / (1 + np.exp(np.clip(distance / width, -30, 30)))


def _blob(x: Array, y: Array, cx: float, cy: float, rx: float, ry: float, power: float = 2.0) -> Array:
    """A soft-edged ellipse of height 1."""
    return np.exp(-((((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2) ** (power / 2)))


class _Canvas:
    """What both projections share: the pixel grid, strokes, texture."""

    def __init__(self, anatomy: Anatomy, shape: tuple[int, int], rng: np.random.Generator):
        self.anatomy, self.shape, self.rng = anatomy, shape, rng
        height, width = shape
        grid = np.mgrid[0:height, 0:width].astype(np.float32)
        self.y, self.x = (grid[0] + 0.5) / height, (grid[1] + 0.5) / width
        self.overlay: list[tuple[Array, float]] = []

    def stroke(self, points: Sequence[tuple[float, float]], width: float) -> Array:
        """A polyline through `points` (x, y), anti-aliased, float32 0..1."""
        height, columns = self.shape
        canvas = np.zeros(self.shape, np.uint8)
        fixed = np.round(np.array(points) * [columns, height] * 16).astype(np.int32)
        thickness = max(1, round(width * columns))
        cv2.polylines(canvas, [fixed.reshape(-1, 1, 2)], False, 255, thickness, cv2.LINE_AA, shift=4)
        return canvas.astype(np.float32) / 255

    def curve(self, points: Sequence[tuple[float, float]], width: float) -> Array:
        """A smooth curve through three or more control points (a Bezier of their order)."""
        t = np.linspace(0, 1, 40)[:, None, None]
        layer = np.broadcast_to(np.array(points, np.float64), (40, len(points), 2))
        while layer.shape[1] > 1:
            layer = layer[:, :-1] * (1 - t) + layer[:, 1:] * t
        return self.stroke([(x, y) for x, y in layer[:, 0]], width)

    def texture(self, cells: int, seed: int) -> Array:
        """Smooth noise of mean 0 and deviation about 1, `cells` bumps across; the same at every resolution."""
        noise = np.random.default_rng((self.anatomy.texture_seed, seed)).normal(size=(cells, cells))
        return cv2.resize(noise.astype(np.float32), self.shape[::-1], interpolation=cv2.INTER_CUBIC)

    def add(self, finding: Finding) -> None:
        """Draws one finding."""
        method = getattr(self, "_" + (finding.device or finding.name).lower().replace(" ", "_"))
        method(finding)

    def finish(self) -> Array:
        """The film before exposure: float32 attenuation."""
        raise NotImplementedError


class _Frontal(_Canvas):
    """AP and PA films."""

    def __init__(self, anatomy: Anatomy, shape: tuple[int, int], rng: np.random.Generator, view: str):
        super().__init__(anatomy, shape, rng)
        self.mid = anatomy.center
        self.heart = anatomy.heart_width * (1.06 if view == "AP" else 0.96)
        self.mediastinum = anatomy.mediastinum
        self.dome = dict(zip(("right", "left"), anatomy.dome, strict=True))
        self.in_lung: list[tuple[str, Array]] = []  # (side, attenuation to add within that lung)
        self.fluid: dict[str, tuple[float, float]] = {}
        self.air: dict[str, tuple[float, float]] = {}
        self.fracture_sides: list[tuple[str, float]] = []

    def sign(self, side: str) -> int:
        """Direction of a side on the image: the patient's left is to the right."""
        return 1 if side == "left" else -1

    def lung_x(self, side: str) -> float:
        """Where a lung's axis lies."""
        return self.mid + self.sign(side) * (0.045 + self.anatomy.lung_width)

    def outward(self, side: str) -> Array:
        """-1 at the medial and 1 at the lateral border of a lung."""
        return (self.x - self.lung_x(side)) * self.sign(side) / self.anatomy.lung_width

    def lung_distance(self, side: str, inset: float = 0.0) -> Array:
        """Below 0 inside the lung, its diaphragm left out; about 1 lung width per unit."""
        a = self.anatomy
        top = a.lung_top + inset * 1.6
        half_height = (0.86 - top) / 2
        u = np.abs(self.outward(side)) / (1 - inset / a.lung_width)
        # The apex narrows towards the neck.
        v = np.abs(self.y - top - half_height) / half_height
        return (u**2.6 + v**3.2) ** (1 / 2.8) - 1

    def diaphragm(self, side: str) -> Array:
        """y of the dome at every x."""
        return self.dome[side] + 0.075 * np.clip(self.outward(side) + 0.15, -2, 2) ** 2

    def finish(self) -> Array:
        a, x, y = self.anatomy, self.x, self.y
        dx = np.abs(x - self.mid)
        body_half = 0.13 + 0.33 * _soft(0.11 - y, 0.022) + 0.02 * y
        body = _soft(dx - body_half, 0.008)
        film = AIR + (TISSUE - AIR) * body
        film += 0.16 * _soft(0.30 - dx, 0.03) * body * _soft(y - 0.45, 0.2)  # shoulder and arm muscle

        for side in ("right", "left"):
            inside = _soft(self.lung_distance(side), 0.035)
            below = _soft(self.diaphragm(side) - y, 0.006)
            lung = inside * (1 - below)
            content = LUNG + 0.02 * self.texture(24, 1) + self._vessels(side)
            for where, extra in self.in_lung:
                if where == side:
                    content = content + extra
            if side in self.air:
                content = self._collapse(side, content)
            if side in self.fluid:
                height, strength = self.fluid[side]
                level = self.diaphragm(side) - height - 0.10 * np.clip(self.outward(side), 0, 1.2) ** 2
                content = content + (0.74 - content) * _soft(level - y, 0.012) * strength
            film = film * (1 - lung) + content * lung
            abdomen = _soft(0.0 - (y - self.diaphragm(side)), 0.006) * _soft(-(x - self.mid) * self.sign(side), 0.02)
            film = film + (ORGAN - film) * abdomen * body
        if a.texture_seed % 3:
            film -= 0.3 * _blob(x, y, self.mid + 0.16, self.dome["left"] + 0.10, 0.06, 0.03, 4)

        spine = _soft(dx - 0.032, 0.008)
        film += spine * (0.10 + 0.03 * np.sin(2 * np.pi * (y * 17 + a.rib_phase)))
        chest = _soft(y - 0.80, 0.03)
        middle = _soft(dx - self.mediastinum * (1 + 0.35 * y), 0.010) * chest
        film = np.maximum(film, 0.62 * middle * body + film * (1 - middle))
        heart = self._heart()
        film = np.maximum(film, 0.68 * heart + film * (1 - heart))
        knob = _soft(np.hypot(x - self.mid - self.mediastinum, y - 0.285) - 0.035, 0.006)
        film = np.maximum(film, 0.63 * knob)
        film -= 0.16 * _soft(dx - 0.013, 0.005) * _soft(y - 0.27, 0.02)  # trachea
        film += self._bones() * body
        for layer, brightness in self.overlay:
            film = film + (brightness - film) * layer
        if a.marker:
            place = (0.06 if a.marker == "R" else 0.90, 0.10)
            film = np.maximum(film, 0.95 * self._letter(a.marker, place))
        return film

    def _heart(self) -> Array:
        y0, width = self.anatomy.heart_y, self.heart
        x0 = self.mid + 0.32 * width
        height = 0.115 + 0.35 * (width - 0.11)
        u, v = (self.x - x0) / (width * 1.05), (self.y - y0) / height
        turned = 0.25 * u * v
        return _soft(np.sqrt(u**2 + v**2 - turned) - 1, 0.035) * _soft(self.y - 0.80, 0.02)

    def _vessels(self, side: str) -> Array:
        """Branches fanning out of the hilum, and the hilum itself."""
        rng = np.random.default_rng((self.anatomy.texture_seed, 2 + (side == "left")))
        sign, total = self.sign(side), np.zeros(self.shape, np.float32)
        hilum = (self.mid + sign * 0.075, 0.43)
        for _ in range(9):
            angle, reach = rng.uniform(-1.25, 1.25), rng.uniform(0.12, 0.24)
            end = (hilum[0] + sign * reach * np.cos(angle), hilum[1] + 1.15 * reach * np.sin(angle))
            bend = ((hilum[0] + end[0]) / 2 + rng.normal(0, 0.015), (hilum[1] + end[1]) / 2 + rng.normal(0, 0.015))
            total = np.maximum(total, self.curve([hilum, bend, end], rng.uniform(0.004, 0.008)))
        total = cv2.GaussianBlur(total, (0, 0), max(0.6, 0.003 * self.shape[1]))
        return self.anatomy.vessels * (0.09 * total + 0.16 * _blob(self.x, self.y, *hilum, 0.035, 0.06))

    def _collapse(self, side: str, content: Array) -> Array:
        """Free air outside a retracted lung, whose edge is a thin white line."""
        inset, strength = self.air[side]
        edge = self.lung_distance(side, inset)
        # The lung falls away from the apex and the side wall, not from the mediastinum.
        outside = np.clip(1 - _soft(edge, 0.02), 0, 1) * _soft(-(self.outward(side) + 0.2), 0.05)
        line = np.exp(-((edge / 0.022) ** 2)) * _soft(-(self.outward(side) + 0.2), 0.05)
        return content + (0.02 - content) * outside * strength + 0.22 * line * strength

    def _bones(self) -> Array:
        a, bones = self.anatomy, np.zeros(self.shape, np.float32)
        for side in ("right", "left"):
            sign = self.sign(side)
            breaks = [y for where, y in self.fracture_sides if where == side]
            for number in range(8):
                y0 = 0.15 + 0.075 * number + 0.02 * a.rib_phase
                outer = self.mid + sign * (0.36 - 0.10 * max(0.0, 0.35 - y0))
                back = [(self.mid + sign * 0.03, y0), (self.mid + sign * 0.20, y0 - 0.045), (outer, y0 + 0.075)]
                front = [(outer, y0 + 0.075), (self.mid + sign * 0.30, y0 + 0.15), (self.mid + sign * 0.14, y0 + 0.17)]
                bones += a.rib_contrast * (self.curve(back, 0.016) + 0.6 * self.curve(front, 0.014))
                if breaks and abs(y0 - breaks[0]) < 0.038:
                    self._break(bones, sign, y0)
            collar = [(self.mid + sign * 0.03, 0.185), (self.mid + sign * 0.17, 0.135), (self.mid + sign * 0.34, 0.125)]
            bones += 0.13 * self.curve(collar, 0.022)
        return cv2.GaussianBlur(bones, (0, 0), max(0.5, 0.0025 * self.shape[1]))

    def _break(self, bones: Array, sign: int, y0: float) -> None:
        """A displaced rib: the outer fragment steps down, both ends dense."""
        x0, x1 = self.mid + sign * 0.24, self.mid + sign * 0.36
        bones += 0.34 * self.stroke([(x0 - sign * 0.07, y0 - 0.012), (x0, y0)], 0.022)
        bones += 0.34 * self.stroke([(x0, y0 + 0.034), (x1, y0 + 0.085)], 0.022)
        bones += 0.25 * _blob(self.x, self.y, x0, y0 + 0.017, 0.02, 0.028, 4)

    def _letter(self, letter: str, place: tuple[float, float]) -> Array:
        canvas = np.zeros(self.shape, np.uint8)
        height, width = self.shape
        origin = (round(place[0] * width), round(place[1] * height))
        cv2.putText(
            canvas, letter, origin, cv2.FONT_HERSHEY_SIMPLEX, width / 500, 255, max(1, width // 200), cv2.LINE_AA
        )
        return canvas.astype(np.float32) / 255

    def _in_zone(self, finding: Finding) -> tuple[str, float, float]:
        """Side and a place within the finding's zone."""
        jitter = self.rng.uniform(-1, 1, 2)
        side = finding.sides[0]
        return side, self.lung_x(side) + 0.05 * jitter[0], ZONE_Y[finding.zone] + 0.03 * jitter[1]

    def _cardiomegaly(self, finding: Finding) -> None:
        self.heart *= 1 + finding.strength * (0.42 if finding.severity == "mild" else 0.80)

    def _enlarged_cardiomediastinum(self, finding: Finding) -> None:
        self.mediastinum *= 1 + 1.15 * finding.strength

    def _pleural_effusion(self, finding: Finding) -> None:
        for side in finding.sides:
            height = {"small": 0.045, "moderate": 0.15, "large": 0.30}[finding.severity]
            self.fluid[side] = (height, 0.95 if not finding.uncertain else 0.6)

    def _pneumothorax(self, finding: Finding) -> None:
        self.air[finding.side] = (0.035 if finding.severity == "small" else 0.075, finding.strength)

    def _edema(self, finding: Finding) -> None:
        amount = finding.strength * (0.16 if finding.severity == "mild" else 0.30)
        for side in ("right", "left"):
            hilum = self.mid + self.sign(side) * 0.12
            haze = _blob(self.x, self.y, hilum, 0.46, 0.13, 0.22) * (1 + 0.3 * self.texture(30, 7))
            lines = np.zeros(self.shape, np.float32)
            for y0 in np.linspace(0.54, 0.70, 6):
                x1 = self.lung_x(side) + self.sign(side) * 0.15
                lines += self.stroke([(x1, y0), (x1 - self.sign(side) * 0.06, y0)], 0.005)
            self.in_lung.append((side, amount * haze + 0.7 * amount * lines))

    def _consolidation(self, finding: Finding) -> None:
        side, cx, cy = self._in_zone(finding)
        patch = _blob(self.x, self.y, cx, cy, 0.105, 0.085, 5)
        bronchi = np.zeros(self.shape, np.float32)
        for angle in (-0.6, 0.0, 0.6):
            end = (cx + self.sign(side) * 0.08 * np.cos(angle), cy + 0.08 * np.sin(angle))
            bronchi += self.stroke([(cx - self.sign(side) * 0.05, cy), end], 0.007)
        self.in_lung.append((side, finding.strength * patch * (0.46 - 0.2 * np.clip(bronchi, 0, 1))))

    def _pneumonia(self, finding: Finding) -> None:
        side, cx, cy = self._in_zone(finding)
        patches = np.zeros(self.shape, np.float32)
        for dx, dy in self.rng.uniform(-1, 1, (7, 2)):
            patches = np.maximum(patches, _blob(self.x, self.y, cx + 0.08 * dx, cy + 0.075 * dy, 0.03, 0.027, 3))
        self.in_lung.append((side, 0.36 * finding.strength * patches))

    def _lung_opacity(self, finding: Finding) -> None:
        side, cx, cy = self._in_zone(finding)
        self.in_lung.append((side, 0.24 * finding.strength * _blob(self.x, self.y, cx, cy, 0.13, 0.10)))

    def _lung_lesion(self, finding: Finding) -> None:
        side, cx, cy = self._in_zone(finding)
        radius = self.rng.uniform(0.034, 0.048)
        edge = np.hypot(self.x - cx, (self.y - cy) * self.shape[0] / self.shape[1]) - radius
        self.in_lung.append((side, 0.46 * finding.strength * _soft(edge, 0.004)))

    def _atelectasis(self, finding: Finding) -> None:
        side, sign = finding.side, self.sign(finding.side)
        self.dome[side] -= 0.045 * finding.strength
        bands = np.zeros(self.shape, np.float32)
        for y0 in (self.dome[side] - 0.045, self.dome[side] - 0.095):
            tilt = self.rng.uniform(-0.015, 0.015)
            x0 = self.lung_x(side)
            bands += self.stroke([(x0 - sign * 0.09, y0 - tilt), (x0 + sign * 0.11, y0 + tilt)], 0.017)
        self.in_lung.append((side, 0.42 * finding.strength * np.clip(bands, 0, 1)))

    def _pleural_other(self, finding: Finding) -> None:
        edge = self.lung_distance(finding.side)
        rim = _soft(-(edge + 0.26), 0.03) * _soft(-(self.outward(finding.side) - 0.05), 0.08) * _soft(self.y - 0.62, 0.03)
        self.in_lung.append((finding.side, 0.40 * finding.strength * rim * (1 + 0.25 * self.texture(40, 9))))

    def _fracture(self, finding: Finding) -> None:
        self.fracture_sides.append((finding.side, float(self.rng.choice([0.30, 0.375, 0.45]))))

    def _endotracheal_tube(self, finding: Finding) -> None:
        line = [(self.mid + 0.004, 0.0), (self.mid, 0.15), (self.mid + 0.002, 0.30)]
        self.overlay.append((self.curve(line, 0.016), 0.92))

    def _enteric_tube(self, finding: Finding) -> None:
        end = (self.mid + 0.15, self.dome["left"] + 0.10)
        path = [(self.mid + 0.02, 0.0), (self.mid + 0.02, 0.45), (self.mid + 0.02, 0.85), end]
        self.overlay.append((self.curve(path, 0.011), 0.90))

    def _central_venous_catheter(self, finding: Finding) -> None:
        sign = self.sign(finding.side)
        path = [
            (self.mid + sign * 0.36, 0.08),
            (self.mid + sign * 0.18, 0.20),
            (self.mid - 0.02, 0.17),
            (self.mid - 0.045, 0.50),
        ]
        self.overlay.append((self.curve(path, 0.012), 0.92))

    def _pacemaker(self, finding: Finding) -> None:
        sign = self.sign(finding.side)
        cx, cy = self.mid + sign * 0.27, 0.215
        box = _soft(np.maximum(np.abs(self.x - cx) / 0.055, np.abs(self.y - cy) / 0.045) - 1, 0.06)
        self.overlay.append((box, 0.97))
        for end in ((self.mid - 0.03, 0.62), (self.mid + 0.10, 0.70)):
            path = [(cx, cy), (self.mid, 0.16), (self.mid - 0.05, 0.45), end]
            self.overlay.append((self.curve(path, 0.010), 0.93))

    def _sternal_wires(self, finding: Finding) -> None:
        for y0 in np.linspace(0.30, 0.66, 5):
            angles = np.linspace(0, 2 * np.pi, 24)
            ring = [(self.mid + 0.024 * np.cos(t), y0 + 0.014 * np.sin(t)) for t in angles]
            self.overlay.append((self.stroke(ring, 0.008), 0.97))


class _Lateral(_Canvas):
    """The lateral film: sternum on the left, spine on the right; both lungs project onto one field."""

    def finish(self) -> Array:
        x, y, a = self.x, self.y, self.anatomy
        body = _soft(np.abs(x - 0.5) - 0.33 - 0.05 * y, 0.01)
        film = AIR + (TISSUE + 0.08 - AIR) * body
        field = _soft((np.abs((x - 0.50) / 0.25) ** 2.4 + np.abs((y - 0.46) / 0.36) ** 3) ** 0.4 - 1, 0.03)
        dome = 0.72 + 0.5 * (x - 0.45) ** 2
        lung = field * _soft(y - dome, 0.006)
        content = LUNG + 0.06 + 0.025 * self.texture(24, 4) + 0.12 * _blob(x, y, 0.52, 0.44, 0.06, 0.07)
        film = film * (1 - lung) + content * lung
        film = film + (ORGAN - film) * (1 - _soft(y - dome, 0.006)) * body
        spine = _soft(np.abs(x - 0.74 - 0.03 * np.sin(3 * y)) - 0.035, 0.006)
        film += spine * (0.14 + 0.05 * np.sin(2 * np.pi * (y * 15 + a.rib_phase))) * body
        heart = _soft(np.hypot((x - 0.40) / (a.heart_width * 1.1), (y - 0.60) / 0.12) - 1, 0.04)
        film = np.maximum(film, 0.64 * heart * lung + film * (1 - heart * lung))
        for layer, brightness in self.overlay:
            film = film + (brightness - film) * layer * body
        return film

    def add(self, finding: Finding) -> None:
        """The same findings in this projection, where the two sides cannot be told apart."""
        x, y, name = self.x, self.y, finding.device or finding.name
        depth = float(np.random.default_rng((self.anatomy.texture_seed, 5)).uniform(0.42, 0.62))
        zone_y = ZONE_Y[finding.zone] if finding.zone else 0.5
        strength = finding.strength * SEVERITY[finding.severity]
        if name == "Pleural Effusion":
            layer = _soft(0.70 - 0.10 * SEVERITY[finding.severity] - 0.25 * (x - 0.5) - y, 0.015) * _soft(y - 0.74, 0.02)
            self.overlay.append((0.8 * finding.strength * layer, 0.72))
        elif name == "Cardiomegaly":
            self.overlay.append((0.8 * _soft(np.hypot((x - 0.42) / 0.19, (y - 0.58) / 0.16) - 1, 0.05), 0.64))
        elif name == "Enlarged Cardiomediastinum":
            self.overlay.append((0.5 * finding.strength * _blob(x, y, 0.48, 0.27, 0.10, 0.10, 4), 0.60))
        elif name == "Edema":
            self.overlay.append((min(1.0, 0.35 * strength) * _blob(x, y, 0.52, 0.46, 0.18, 0.22), 0.60))
        elif name in ("Consolidation", "Pneumonia", "Lung Opacity", "Lung Lesion"):
            radius = {"Consolidation": 0.09, "Pneumonia": 0.08, "Lung Opacity": 0.11, "Lung Lesion": 0.035}[name]
            dense = 0.45 if name in ("Pneumonia", "Lung Opacity") else 0.8
            patch = _blob(x, y, depth, zone_y, radius, radius, 4)
            self.overlay.append((dense * finding.strength * patch, 0.66))
        elif name == "Atelectasis":
            self.overlay.append((0.6 * finding.strength * self.stroke([(0.38, 0.64), (0.62, 0.60)], 0.016), 0.66))
        elif name == "Pneumothorax":
            self.overlay.append((0.7 * finding.strength * _blob(x, y, 0.48, 0.17, 0.15, 0.05, 4), 0.05))
        elif name in ("Pleural Other", "Fracture"):
            at = 0.30 if name == "Fracture" else 0.22
            self.overlay.append((0.7 * finding.strength * self.stroke([(0.66, at), (0.69, at + 0.10)], 0.02), 0.80))
        elif name in ("endotracheal tube", "enteric tube"):
            reach = 0.30 if name == "endotracheal tube" else 0.80
            self.overlay.append((self.curve([(0.50, 0.0), (0.52, reach / 2), (0.55, reach)], 0.012), 0.90))
        elif name == "pacemaker":
            self.overlay.append((_blob(x, y, 0.24, 0.25, 0.03, 0.05, 6), 0.96))
            self.overlay.append((self.curve([(0.24, 0.25), (0.45, 0.25), (0.42, 0.65)], 0.01), 0.92))
        elif name == "central venous catheter":
            self.overlay.append((self.curve([(0.30, 0.10), (0.45, 0.15), (0.48, 0.42)], 0.011), 0.90))
        else:
            for y0 in np.linspace(0.30, 0.62, 5):
                self.overlay.append((_blob(x, y, 0.24, y0, 0.010, 0.010, 6), 0.96))
