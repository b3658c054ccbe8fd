"""Examples for the gate before the networks: films and other pictures as they may arrive, made from few sources.

All functions take a `numpy.random.Generator` and give uint8 `[H, W]`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from benchmarks.gate_pictures import FONTS, LETTERS, Picture, drawn
from data_prep.phantom.film import eight_bit, render
from data_prep.phantom.findings import sample
from data_prep.phantom.hard import DIFFICULTIES
from medvill_jax.app import gate

# Quarters clockwise by kind.
TURNS = {"clockwise": 1, "upside_down": 2, "anticlockwise": 3}


def phantoms(view: str, seeds: Iterable[int]) -> list[Picture]:
    """Phantom films with findings, easy and hard ones in turn."""
    films = []
    for seed in seeds:
        rng = np.random.default_rng([seed, 1])
        sex = "MF"[seed % 2]
        signs = sample(rng, int(rng.integers(18, 90)), sex).signs
        hard = DIFFICULTIES[seed // 2 % 2]
        films.append(eight_bit(render(seed, view, signs, image_size=64, sex=sex, difficulty=hard)))
    return films


def folded(film: Picture, rng: np.random.Generator) -> Picture:
    """The halves of a frontal film on top of each other, inside of a trunk: real lungs as a lateral view has them.

    The midline, which is as bright as a spine, comes to lie on one side or on both.
    """
    film = cv2.resize(film, (96, 96), interpolation=cv2.INTER_AREA).astype(np.float32)
    share = rng.uniform(0.3, 0.7)
    lungs = share * film[:, :48] + (1 - share) * (film[:, :47:-1] if rng.random() < 0.5 else film[:, 48:])
    height, width = 96, int(rng.integers(52, 97))
    lungs = cv2.resize(lungs, (width, height))
    trunk = np.zeros_like(lungs)
    axes = (round(width * rng.uniform(0.42, 0.75)), round(height * rng.uniform(0.5, 0.8)))
    centre = (width // 2, round(height * rng.uniform(0.48, 0.62)))
    cv2.ellipse(trunk, centre, axes, float(rng.uniform(-10, 10)), 0, 360, (1.0,), -1)
    depth = cv2.GaussianBlur(trunk, (0, 0), rng.uniform(4, 9))
    trunk = cv2.GaussianBlur(trunk, (0, 0), 1.2)
    wall = rng.uniform(60, 180) * (1 - np.clip(2 * depth - 1, 0, 1)) * rng.uniform(0, 0.8)
    air = rng.uniform(0, 30)
    out = np.full((96, 96), air, np.float32)
    left = int(rng.integers(0, 96 - width + 1))
    out[:, left : left + width] = trunk * np.clip(lungs * rng.uniform(0.6, 1) + wall, 0, 255) + (1 - trunk) * air
    return out.astype(np.uint8)


def veiled(film: Picture, rng: np.random.Generator) -> Picture:
    """A film with a large opacity: effusions and collapsed lungs are rarer in a training set than in wards."""
    height, width = film.shape
    veil = np.zeros(film.shape, np.float32)
    centre = (round(width * rng.uniform(0.1, 0.9)), round(height * rng.uniform(0.2, 1)))
    axes = (round(width * rng.uniform(0.1, 0.35)), round(height * rng.uniform(0.1, 0.6)))
    cv2.ellipse(veil, centre, axes, float(rng.uniform(-20, 20)), 0, 360, (float(rng.uniform(0.4, 1)),), -1)
    veil = cv2.GaussianBlur(veil, (0, 0), width * rng.uniform(0.02, 0.08))
    return (film + veil * (np.quantile(film[::4, ::4], rng.uniform(0.6, 0.95)) - film)).clip(0, 255).astype(np.uint8)


def bent(film: Picture, reach: float, rng: np.random.Generator) -> Picture:
    """A film whose corners are moved by `reach` of its sides: bodies differ more than phantoms do."""
    height, width = film.shape
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    moved = corners + rng.normal(0, reach, corners.shape) * (width, height)
    matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    return cv2.warpPerspective(film, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)


def broken(film: Picture, rng: np.random.Generator) -> Picture:
    """A film of which only a part is left, or whose parts are in the wrong places."""
    height, width = film.shape
    if (kind := rng.integers(4)) == 0:  # one lung
        cut = round(width * rng.uniform(0.3, 0.45))
        return film[:, :cut] if rng.random() < 0.5 else film[:, -cut:]
    if kind == 1:  # a detail
        rows, columns = round(height * rng.uniform(0.2, 0.4)), round(width * rng.uniform(0.2, 0.4))
        top, left = rng.integers(height - rows), rng.integers(width - columns)
        return film[top : top + rows, left : left + columns]
    if kind == 2:  # upper or lower part
        cut = round(height * rng.uniform(0.2, 0.33))
        return film[:cut] if rng.random() < 0.5 else film[-cut:]
    parts = int(rng.integers(2, 5))
    small = cv2.resize(film, (24 * parts, 24 * parts), interpolation=cv2.INTER_AREA)
    tiles = small.reshape(parts, 24, parts, 24).swapaxes(1, 2).reshape(-1, 24, 24)
    tiles = tiles[rng.permutation(len(tiles))].reshape(parts, parts, 24, 24)
    return tiles.swapaxes(1, 2).reshape(small.shape)


def handled(picture: Picture, rng: np.random.Generator, side: int = 64) -> Picture:
    """A picture as it may arrive, uint8 `[side, side]`: tilted, cut or with margins, over- or underexposed, annotated.

    What it shows and which way up is the same; left and right may be exchanged.
    """
    height, width = picture.shape
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    picture = _exposed(np.ascontiguousarray(picture), rng)
    scale = np.exp(rng.normal(0, 0.13)) * np.array([1.0, np.exp(rng.normal(0, 0.18))])
    centre = np.array([width, height]) * rng.normal(0.5, 0.07, 2)
    matrix = cv2.getRotationMatrix2D((0, 0), rng.normal(0, 6), 1.0)[:, :2] @ np.diag(side * scale / (width, height))
    shift = side / 2 - matrix @ centre
    edge = int(rng.choice([cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT], p=[0.4, 0.4, 0.2]))
    margin = 0 if rng.random() < 0.75 else 255 if rng.random() < 0.5 else int(rng.integers(256))
    soft = (
        cv2.GaussianBlur(picture, (0, 0), max(0.3, 0.4 * max(height, width) / side))
        if max(height, width) > side
        else picture
    )
    picture = cv2.warpAffine(
        soft, np.column_stack([matrix, shift]), (side, side), borderMode=edge, borderValue=(margin,)
    )
    return _annotated(picture, rng)


def _exposed(picture: Picture, rng: np.random.Generator) -> Picture:
    field = picture.astype(np.float32) / 255
    if rng.random() < 0.8:
        low, high = np.quantile(field[::4, ::4], [rng.uniform(0, 0.15), 1 - rng.uniform(0, 0.2)])
        field = np.clip((field - low) / max(high - low, 0.05), 0, 1)
    field = field ** np.exp(rng.normal(0, 0.4))
    if rng.random() < 0.3:
        y, x = np.mgrid[-1 : 1 : 1j * field.shape[0], -1 : 1 : 1j * field.shape[1]]
        field = field + rng.normal(0, 0.15) * x + rng.normal(0, 0.15) * y
    if rng.random() < 0.3:
        field = rng.uniform(0, 0.4) + field * rng.uniform(0.3, 0.7)
    if rng.random() < 0.3:
        field = field + rng.normal(0, rng.uniform(0, 0.06), field.shape)
    return (255 * np.clip(field, 0, 1)).astype(np.uint8)


def _annotated(picture: Picture, rng: np.random.Generator) -> Picture:
    side = picture.shape[0]
    if rng.random() < 0.25:
        for _ in range(int(rng.integers(1, 5))):
            a = tuple(int(v) for v in rng.integers(0, side, 2))
            b = tuple(int(v) for v in np.add(a, rng.integers(-side // 5, side // 5, 2)))
            shade = (int(rng.choice([0, 255])),)
            if rng.random() < 0.7:
                cv2.arrowedLine(picture, a, b, shade, int(rng.integers(1, 4)), tipLength=0.4)
            else:
                cv2.putText(
                    picture, "".join(rng.choice(list(LETTERS), 3)), a, FONTS[0], rng.uniform(0.2, 0.6), shade, 1
                )
    if rng.random() < 0.15:
        x, y = (int(v) for v in rng.integers(0, side, 2))
        picture[y : y + int(rng.integers(4, 16)), x : x + int(rng.integers(6, 30))] = rng.choice([0, 255])
    if rng.random() < 0.2:
        shade = rng.choice([0, 0, 255])
        top, right, bottom, left = rng.integers(0, side // 6, 4) * (rng.random(4) < 0.6)
        picture[:top], picture[side - bottom :] = shade, shade
        picture[:, :left], picture[:, side - right :] = shade, shade
    return picture


@dataclass(frozen=True)
class Sources:
    """What examples are made of: real frontal films, frontal and lateral phantoms, pictures that are no chest films."""

    real: list[Picture]
    phantom: list[Picture]
    lateral: list[Picture]
    other: list[Picture]

    def examples(self, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures as the gate looks at them, uint8 `[N, SIDE, SIDE]`, and their kinds, int `[N]`.

        Each frontal film comes twice: as it is, and inverted or turned.
        """
        rng = np.random.default_rng(seed)
        shown, kinds = [], []
        for _ in range(draws):
            kind = str(rng.choice([gate.FRONTAL, "lateral", "other"], p=[0.45, 0.25, 0.3]))
            film = handled(np.ascontiguousarray(getattr(self, f"_{kind}")(rng)), rng)
            shown.append(gate.picture(film))
            kinds.append(gate.KINDS.index(kind))
            if kind == gate.FRONTAL:
                kind, film = _spoilt(film, rng)
                shown.append(gate.picture(np.ascontiguousarray(film)))
                kinds.append(gate.KINDS.index(kind))
        return np.stack(shown), np.array(kinds)

    def _frontal(self, rng: np.random.Generator) -> Picture:
        film = _one(self.real if rng.random() < 0.85 else self.phantom, rng)
        film = veiled(film, rng) if rng.random() < 0.2 else film
        return bent(film, 0.04, rng)

    def _lateral(self, rng: np.random.Generator) -> Picture:
        phantom, real = _one(self.lateral, rng), folded(_one(self.real, rng), rng)
        draw, share = rng.random(), rng.uniform(0.3, 0.7)
        if draw < 0.7:
            return bent(phantom if draw < 0.3 else real, 0.1, rng)
        phantom = cv2.resize(bent(phantom, 0.1, rng), real.shape[::-1])
        return cv2.addWeighted(phantom, share, bent(real, 0.1, rng), 1 - share, 0)

    def _other(self, rng: np.random.Generator) -> Picture:
        draw = rng.random()
        if draw < 0.4:
            return drawn(rng)
        if draw < 0.75:
            picture = _one(self.other, rng)
            return _part(picture, rng) if rng.random() < 0.5 else picture
        return broken(_one(self.real if rng.random() < 0.85 else self.phantom, rng), rng)


def _spoilt(film: Picture, rng: np.random.Generator) -> tuple[str, Picture]:
    if (draw := rng.random()) < 0.3:
        return "inverted", 255 - film
    if draw < 0.9:
        kind, quarters = list(TURNS.items())[rng.integers(3)]
        return kind, np.rot90(film, -quarters)
    return "other", np.rot90(255 - film, int(rng.integers(1, 4)))


def _one(films: list[Picture], rng: np.random.Generator) -> Picture:
    return films[rng.integers(len(films))]


def _part(film: Picture, rng: np.random.Generator) -> Picture:
    rows, columns = (max(16, round(length * rng.uniform(0.3, 1))) for length in film.shape)
    top, left = rng.integers(max(1, film.shape[0] - rows)), rng.integers(max(1, film.shape[1] - columns))
    return film[top : top + rows, left : left + columns]
