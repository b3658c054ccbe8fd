"""Samples the findings of a synthetic study, with their side, zone and severity.

The findings of a study are complete before its films are drawn and its report is written, so these cannot disagree.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

import numpy as np

from medvill_jax.findings import CHEXPERT_FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN

SIDES = ("left", "right")
ZONES = ("upper", "mid", "lower")
# Theme of a study -> its share. `_themed` samples the findings of a theme.
_THEMES = {
    "normal": 0.32,
    "heart_failure": 0.15,
    "infection": 0.19,
    "pneumothorax": 0.09,
    "effusion": 0.09,
    "lesion": 0.07,
    "trauma": 0.04,
    "mediastinum": 0.05,
}
# Finding that may be added to any theme but "normal" -> probability.
_EXTRAS = {
    "Atelectasis": 0.15,
    "Cardiomegaly": 0.10,
    "Enlarged Cardiomediastinum": 0.05,
    "Fracture": 0.05,
    "Lung Lesion": 0.03,
    "Lung Opacity": 0.06,
    "Pleural Effusion": 0.08,
    "Pleural Other": 0.20,
}
_MOST_FINDINGS = 4
# Finding -> probability that it is only suspected.
_UNCERTAIN = {
    "Atelectasis": 0.14,
    "Cardiomegaly": 0.06,
    "Consolidation": 0.16,
    "Edema": 0.12,
    "Fracture": 0.08,
    "Lung Lesion": 0.10,
    "Pleural Effusion": 0.08,
    "Pleural Other": 0.10,
    "Pneumonia": 0.22,
    "Pneumothorax": 0.06,
    "Enlarged Cardiomediastinum": 0.10,
}
# Finding -> probability that the report denies it if it is absent. Nearly every report describes heart and pleura.
_DENIED = {
    "Pleural Effusion": 0.97,
    "Pneumothorax": 0.97,
    "Consolidation": 0.75,
    "Edema": 0.25,
    "Cardiomegaly": 0.90,
    "Pneumonia": 0.10,
    "Fracture": 0.30,
    "Enlarged Cardiomediastinum": 0.25,
    "Lung Lesion": 0.10,
    "Lung Opacity": 0.10,
    "Atelectasis": 0.04,
    "Support Devices": 0.03,
}
_DEVICES = {
    "endotracheal tube": 0.22,
    "nasogastric tube": 0.18,
    "central line": 0.24,
    "pacemaker": 0.20,
    "chest tube": 0.04,
    "monitoring leads": 0.12,
}
SEVERITIES = ("small", "moderate", "large")


@dataclass(frozen=True)
class Sign:
    """One finding that is drawn and reported.

    Attributes:
      finding: a name of `CHEXPERT_FINDINGS`.
      side: the patient's "left" or "right", "bilateral", or "" where it has none.
      zone: "upper", "mid", "lower", or "".
      severity: "small", "moderate" or "large".
      kind: the kind of device, fracture, ...; "" if there is only one kind.
      uncertain: whether it is only suspected, and drawn faintly.
    """

    finding: str
    side: str = ""
    zone: str = ""
    severity: str = "moderate"
    kind: str = ""
    uncertain: bool = False

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides of the sign; a sign without side is on both."""
        return SIDES if self.side in ("bilateral", "") else (self.side,)

    @property
    def strength(self) -> float:
        """The contrast with which it is drawn: 1, or less if it is only suspected."""
        return 0.7 if self.uncertain else 1.0


@dataclass(frozen=True)
class Study:
    """The findings of a study, the absent findings that its report denies, and its patient."""

    signs: tuple[Sign, ...]
    denied: tuple[str, ...]
    findings_section: bool
    age: int
    sex: str
    # Finding and what became of it since the study before, one of `follow_ups.WORDS`; none in a first study.
    changes: tuple[tuple[str, str], ...] = ()

    def labels(self) -> dict[str, int]:
        """Finding -> 1 positive, 0 negative, -1 uncertain; findings that the report does not mention are left out."""
        labels = dict.fromkeys(self.denied, NEGATIVE)
        for sign in self.signs:
            if labels.get(sign.finding) != POSITIVE:
                labels[sign.finding] = UNCERTAIN if sign.uncertain else POSITIVE
        # As in CheXpert, support devices alone do not exclude "No Finding".
        if not any(value != NEGATIVE for name, value in labels.items() if name != "Support Devices"):
            labels["No Finding"] = POSITIVE
        return {name: labels[name] for name in CHEXPERT_FINDINGS if name in labels}


def sample(rng: np.random.Generator, age: int, sex: str) -> Study:
    """Samples the study of a patient of `age` years and `sex` "M" or "F"."""
    theme = _pick(rng, _THEMES)
    signs = _themed(rng, theme)
    if theme != "normal":
        names = list(_EXTRAS)
        rng.shuffle(names)
        for name in names:
            names_present = {sign.finding for sign in signs}
            if rng.random() < _EXTRAS[name] and name not in names_present and len(names_present) < _MOST_FINDINGS:
                signs += [sign for sign in _one(rng, name) if _fits(sign, signs)]
    signs = in_sight(signs)
    devices = _devices(rng, signs)
    present = {sign.finding for sign in signs + devices}
    denied = [name for name, chance in _DENIED.items() if rng.random() < chance and name not in present]
    denied = [name for name in denied if name not in not_deniable(present)]
    if not signs and not denied:
        denied = ["Pleural Effusion", "Pneumothorax"]
    return Study(
        signs=tuple(signs + devices),
        denied=tuple(denied),
        findings_section=bool(rng.random() >= 0.08),
        age=age,
        sex=sex,
    )


def not_deniable(present: Set[str]) -> set[str]:
    """Absent findings that a report with the findings `present` cannot deny without contradiction.

    Examples are "no consolidation" in a report of pneumonia, and "no opacity" with any shadow in the lung.
    """
    names = set()
    shadows = {"Pneumonia", "Consolidation", "Lung Opacity", "Edema", "Lung Lesion", "Atelectasis"} & present
    if shadows:
        names |= {"Lung Opacity", "Consolidation", "Pneumonia"} if shadows - {"Atelectasis"} else {"Lung Opacity"}
    heart = {"Cardiomegaly", "Enlarged Cardiomediastinum"}
    return names | heart if heart & present else names


def _pick(rng: np.random.Generator, shares: dict[str, float]) -> str:
    chances = np.array(list(shares.values()))
    return list(shares)[int(rng.choice(len(chances), p=chances / chances.sum()))]


def _side(rng: np.random.Generator, bilateral: float = 0.0) -> str:
    return "bilateral" if rng.random() < bilateral else SIDES[int(rng.integers(2))]


def _zone(rng: np.random.Generator, upper: float = 0.3, mid: float = 0.25) -> str:
    return _pick(rng, {"upper": upper, "mid": mid, "lower": 1 - upper - mid})


def _severity(rng: np.random.Generator, small: float = 0.35, moderate: float = 0.4) -> str:
    return _pick(rng, dict(zip(SEVERITIES, (small, moderate, 1 - small - moderate), strict=True)))


def _themed(rng: np.random.Generator, theme: str) -> list[Sign]:
    chance = rng.random
    signs: list[Sign] = []
    if theme == "heart_failure":
        if chance() < 0.75:
            signs += _one(rng, "Cardiomegaly")
        if chance() < 0.75 or not signs:
            signs += _one(rng, "Edema")
        if chance() < 0.55:
            signs += _one(rng, "Pleural Effusion", bilateral=0.6)
    elif theme == "infection":
        name = "Consolidation" if chance() < 0.46 else "Pneumonia"
        signs += _one(rng, name)
        main = signs[0]
        if chance() < 0.3 and main.zone == "lower":
            signs.append(_new(rng, "Pleural Effusion", side=main.side, severity="small"))
    elif theme == "pneumothorax":
        signs += _one(rng, "Pneumothorax")
        if chance() < 0.25:
            signs += [sign for sign in _one(rng, "Fracture") if _fits(sign, signs)]
        if chance() < 0.3:
            signs.append(Sign("Support Devices", side=signs[0].side, kind="chest tube"))
    elif theme == "effusion":
        signs += _one(rng, "Pleural Effusion")
        if chance() < 0.55:
            signs.append(_new(rng, "Atelectasis", side=signs[0].side, zone="lower"))
    elif theme == "lesion":
        signs += _one(rng, "Lung Lesion")
    elif theme == "trauma":
        signs += _one(rng, "Fracture")
        if chance() < 0.2:
            signs.append(_new(rng, "Pleural Effusion", side=signs[0].side))
    elif theme == "mediastinum":
        signs += _one(rng, "Enlarged Cardiomediastinum")
    return signs


def _new(rng: np.random.Generator, finding: str, **values: str) -> Sign:
    values.setdefault("severity", _severity(rng))
    uncertain = bool(rng.random() < _UNCERTAIN.get(finding, 0.0))
    if uncertain and values["severity"] == "large":
        # A large finding would not be in doubt.
        values["severity"] = "moderate"
    return Sign(finding, uncertain=uncertain, **values)


def _one(rng: np.random.Generator, finding: str, bilateral: float | None = None) -> list[Sign]:
    """Samples the sign or signs of a finding."""
    if finding == "Pleural Effusion":
        return [_new(rng, finding, side=_side(rng, 0.3 if bilateral is None else bilateral))]
    if finding == "Pneumothorax":
        return [_new(rng, finding, side=_side(rng), severity=_severity(rng, 0.3, 0.4))]
    if finding == "Edema":
        return [_new(rng, finding, side="bilateral", severity=_severity(rng, 0.3, 0.4))]
    if finding == "Cardiomegaly":
        return [_new(rng, finding, severity=_severity(rng, 0.25, 0.45))]
    if finding == "Enlarged Cardiomediastinum":
        return [_new(rng, finding, severity=_severity(rng, 0.3, 0.4))]
    if finding == "Atelectasis":
        return [_new(rng, finding, side=_side(rng, 0.35), zone=_zone(rng, 0.05, 0.2))]
    if finding == "Consolidation":
        sign = _new(rng, finding, side=_side(rng), zone=_zone(rng), severity=_severity(rng, 0.2, 0.45))
        return [sign]
    if finding == "Pneumonia":
        sign = _new(rng, finding, side=_side(rng, 0.15), zone=_zone(rng), severity=_severity(rng, 0.2, 0.45))
        # The visible sign of pneumonia is an opacity, which the report always describes.
        return [Sign("Lung Opacity", sign.side, sign.zone, sign.severity, kind="pneumonia"), sign]
    if finding == "Lung Opacity":
        return [_new(rng, finding, side=_side(rng, 0.15), zone=_zone(rng))]
    if finding == "Lung Lesion":
        kind = _pick(rng, {"nodule": 0.45, "mass": 0.35, "nodules": 0.2})
        if kind == "nodules":
            return [_new(rng, finding, side="bilateral", kind=kind)]
        return [_new(rng, finding, side=_side(rng), zone=_zone(rng, 0.4, 0.35), kind=kind)]
    if finding == "Pleural Other":
        return [_new(rng, finding, side=_side(rng, 0.2), kind=_pick(rng, {"thickening": 0.6, "plaques": 0.4}))]
    if finding == "Fracture":
        return [_new(rng, finding, side=_side(rng), kind=_pick(rng, {"ribs": 0.55, "rib": 0.2, "clavicle": 0.25}))]
    raise ValueError(f"no such finding: {finding}")


def _fits(new: Sign, signs: list[Sign]) -> bool:
    """Whether a sign is visible with the others: air and fluid on one side hide each other, opacities merge."""
    rivals = {
        "Pleural Effusion": {"Pneumothorax"},
        "Pneumothorax": {"Pleural Effusion", "Pleural Other"},
        "Pleural Other": {"Pneumothorax", "Pleural Effusion"},
        "Lung Opacity": {"Consolidation", "Pneumonia", "Lung Opacity", "Edema"},
        "Lung Lesion": {"Consolidation", "Pneumonia", "Lung Opacity", "Edema"},
        "Atelectasis": {"Pneumothorax"},
    }.get(new.finding, set())
    return not any(sign.finding in rivals and set(sign.sides) & set(new.sides) for sign in signs)


def in_sight(signs: list[Sign]) -> list[Sign]:
    """Moves findings that a large heart or an effusion would hide to a visible zone."""
    wide = any(sign.finding == "Cardiomegaly" and sign.severity != "small" for sign in signs)
    behind = {"left"} if wide else set()
    drowned = {side: sign.severity for sign in signs if sign.finding == "Pleural Effusion" for side in sign.sides}
    moved = []
    for sign in signs:
        if sign.finding in ("Lung Lesion", "Consolidation", "Pneumonia", "Lung Opacity"):
            levels = {drowned.get(side) for side in sign.sides}
            if "large" in levels and sign.zone in ("mid", "lower"):
                sign = replace(sign, zone="upper")
            elif sign.zone == "lower" and (behind & set(sign.sides) or "moderate" in levels):
                sign = replace(sign, zone="mid")
        moved.append(sign)
    return moved


def _devices(rng: np.random.Generator, signs: list[Sign]) -> list[Sign]:
    kinds = {sign.kind for sign in signs}
    if rng.random() > (0.35 if signs else 0.15):
        return []
    devices: list[Sign] = []
    for _ in range(1 + int(rng.random() < 0.4)):
        kind = _pick(rng, _DEVICES)
        if kind in kinds:
            continue
        kinds.add(kind)
        side = ""
        if kind == "pacemaker":
            side = "left" if rng.random() < 0.75 else "right"
        elif kind == "central line":
            side = _side(rng)
        elif kind == "chest tube":
            side = next((sign.side for sign in signs if sign.finding == "Pleural Effusion"), "")
            side = side if side in SIDES else _side(rng)
        devices.append(Sign("Support Devices", side=side, kind=kind))
    return devices
