"""What a phantom patient has: sampled findings with side, zone and severity, and how surely the report speaks of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medvill_jax.data.records import ABSENT, CHEXPERT_FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN

SIDES = ("left", "right")
ZONES = ("upper", "mid", "lower")
DEVICES = ("endotracheal tube", "central venous catheter", "pacemaker", "enteric tube", "sternal wires")


@dataclass(frozen=True)
class Kind:
    """How one finding is sampled.

    Attributes:
        rate: chance in a study that is not normal (devices: in any study).
        sides: sides it may be on; empty where the finding has none.
        zones: zones of the lung it may be in; empty where it has none.
        severities: grades, mildest first, each visible on the film.
        uncertain: chance that the report hedges and the film shows it faintly.
        negated: chance that a report mentions its absence.
    """

    rate: float
    sides: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    severities: tuple[str, ...] = ("",)
    uncertain: float = 0.08
    negated: float = 0.3


BOTH = (*SIDES, "bilateral")
KINDS = {
    "Atelectasis": Kind(0.22, SIDES, (), ("",), negated=0.1),
    "Cardiomegaly": Kind(0.30, (), (), ("mild", "severe"), uncertain=0.04, negated=0.6),
    "Consolidation": Kind(0.20, SIDES, ZONES, ("",), negated=0.45),
    "Edema": Kind(0.22, (), (), ("mild", "severe"), negated=0.35),
    "Enlarged Cardiomediastinum": Kind(0.14, uncertain=0.04, negated=0.35),
    "Fracture": Kind(0.12, SIDES, negated=0.15),
    "Lung Lesion": Kind(0.16, SIDES, ZONES, negated=0.1),
    "Lung Opacity": Kind(0.16, SIDES, ZONES, uncertain=0.0, negated=0.15),
    "Pleural Effusion": Kind(0.36, BOTH, (), ("small", "moderate", "large"), uncertain=0.05, negated=0.7),
    "Pleural Other": Kind(0.10, SIDES, negated=0.05),
    "Pneumonia": Kind(0.18, SIDES, ZONES, uncertain=0.15, negated=0.3),
    "Pneumothorax": Kind(0.22, SIDES, (), ("small", "large"), uncertain=0.04, negated=0.7),
}
NORMAL_RATE = 0.33
DEVICE_RATE = 0.4


@dataclass(frozen=True)
class Finding:
    """One finding that is present. `strength` scales its contrast on the film: 1, or less for a hedged one."""

    name: str
    side: str = ""
    zone: str = ""
    severity: str = ""
    uncertain: bool = False
    device: str = ""

    @property
    def strength(self) -> float:
        """Contrast on the film."""
        return 0.55 if self.uncertain else 1.0

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides it shows on."""
        return SIDES if self.side == "bilateral" else (self.side,) if self.side else ()


@dataclass(frozen=True)
class Study:
    """The findings of one study: those present, and the names whose absence the report states."""

    present: tuple[Finding, ...]
    negated: tuple[str, ...]

    @property
    def normal(self) -> bool:
        """Nothing but devices, which CheXpert's "No Finding" allows."""
        return all(finding.device for finding in self.present)

    def labels(self) -> tuple[int, ...]:
        """One value a CheXpert finding, in their order (see `records`)."""
        values = dict.fromkeys(CHEXPERT_FINDINGS, ABSENT) | dict.fromkeys(self.negated, NEGATIVE)
        for finding in self.present:
            values[finding.name] = UNCERTAIN if finding.uncertain else POSITIVE
        if self.normal:
            values["No Finding"] = POSITIVE
        return tuple(values.values())


def sample_study(rng: np.random.Generator) -> Study:
    """A study's findings."""
    present: list[Finding] = []
    if rng.random() >= NORMAL_RATE:
        while not present:
            present = [_sample(name, kind, rng) for name, kind in KINDS.items() if rng.random() < kind.rate]
    names = {finding.name for finding in present}
    negated = [name for name, kind in KINDS.items() if name not in names and rng.random() < kind.negated]
    if rng.random() < DEVICE_RATE:
        chosen = rng.choice(DEVICES, rng.choice([1, 2], p=[0.7, 0.3]), replace=False)
        for device in chosen:
            side = str(rng.choice(SIDES)) if device in ("central venous catheter", "pacemaker") else ""
            present.append(Finding("Support Devices", side=side, device=str(device)))
    return Study(tuple(present), tuple(negated))


def _sample(name: str, kind: Kind, rng: np.random.Generator) -> Finding:
    def pick(options: tuple[str, ...]) -> str:
        return str(rng.choice(options)) if options else ""

    return Finding(
        name, pick(kind.sides), pick(kind.zones), pick(kind.severities), uncertain=bool(rng.random() < kind.uncertain)
    )
