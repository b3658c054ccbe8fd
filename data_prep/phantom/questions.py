"""Questions about a synthetic film and their answers, from the findings of its study, not from its report.

No question is about a suspected finding, or about an absent finding that a present one resembles, so every question has
one right answer. A new topic or wording is one more line in the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from data_prep.phantom.findings import SIDES, Sign, Study, not_deniable

T = TypeVar("T")

CLOSED, OPEN = "CLOSED", "OPEN"
DEVICES = "Support Devices"
# Share of abnormal films with the question whether the film is normal; with it, yes and no are equally frequent.
_ASK_NORMAL = 0.4
# Share of normal films with the question what is abnormal.
_ASK_NOTHING = 0.35
_FEWEST, _MOST = 3, 5
_DEGREES = {"small": "mild", "moderate": "moderate", "large": "severe"}


@dataclass(frozen=True)
class Question:
    """One question; `question_type` is PRES, POS, ABN or SIZE as in VQA-RAD, `answer_type` is CLOSED or OPEN."""

    text: str
    question_type: str
    answer: str
    answer_type: str


@dataclass(frozen=True)
class Topic:
    """A subject of questions.

    Attributes:
      names: its names; the first is also the answer to the question what is seen.
      finding: the finding of its `Sign`.
      kinds: the kinds of the sign, () for any.
      share: share of films that show it. Absent topics are sampled by these shares, so that a question does not reveal
        its answer.
      place: answers about the place: "side", "zone" (side and zone) or "" for none.
      size: answers about the size: "size" (small to large), "degree" (mild to severe) or "" for none.
      counted: whether the name takes an article.
      plural: whether the name is a plural.
      asked: wordings of the question whether it is present; () for the common ones, `PRESENCE`.
      asked_type: the `question_type` of that question.
    """

    names: tuple[str, ...]
    finding: str
    share: float
    kinds: tuple[str, ...] = ()
    place: str = ""
    size: str = ""
    counted: bool = False
    plural: bool = False
    asked: tuple[str, ...] = ()
    asked_type: str = "PRES"

    def sign(self, study: Study) -> Sign | None:
        """The sign of this topic in a study; None if it is absent or only suspected."""
        signs = (sign for sign in study.signs if sign.finding == self.finding and not sign.uncertain)
        return next((sign for sign in signs if not self.kinds or sign.kind in self.kinds), None)

    def absent(self, study: Study) -> bool:
        """Whether a question about its presence has the answer no for certain."""
        signs = [sign for sign in study.signs if sign.finding == self.finding]
        if self.finding == DEVICES:
            signs = [sign for sign in signs if sign.kind in self.kinds]
        return not signs and self.finding not in not_deniable({sign.finding for sign in study.signs})


TOPICS = (
    Topic(("pleural effusion", "effusion"), "Pleural Effusion", 0.22, place="side", size="size", counted=True),
    Topic(("pneumothorax",), "Pneumothorax", 0.08, place="side", size="size", counted=True),
    Topic(("pulmonary edema", "edema"), "Edema", 0.10, size="degree"),
    Topic(
        ("cardiomegaly",),
        "Cardiomegaly",
        0.15,
        size="degree",
        asked=("Is the heart enlarged?", "Is the cardiac silhouette enlarged?", "Is there cardiomegaly?"),
        asked_type="SIZE",
    ),
    Topic(
        ("mediastinal widening",),
        "Enlarged Cardiomediastinum",
        0.07,
        size="degree",
        asked=("Is the mediastinum widened?", "Is there mediastinal widening?", "Is the upper mediastinum wide?"),
        asked_type="SIZE",
    ),
    Topic(("consolidation",), "Consolidation", 0.07, place="zone", size="size", counted=True),
    Topic(("pneumonia",), "Pneumonia", 0.08, place="zone"),
    Topic(("atelectasis",), "Atelectasis", 0.12, place="zone"),
    Topic(("hazy opacity",), "Lung Opacity", 0.025, kinds=("",), place="zone", counted=True),
    Topic(("nodule", "lung nodule"), "Lung Lesion", 0.033, kinds=("nodule",), place="zone", counted=True),
    Topic(("mass", "lung mass"), "Lung Lesion", 0.025, kinds=("mass",), place="zone", counted=True),
    Topic(("multiple nodules", "nodules in both lungs"), "Lung Lesion", 0.014, kinds=("nodules",), plural=True),
    Topic(("pleural thickening",), "Pleural Other", 0.048, kinds=("thickening",), place="side"),
    Topic(("pleural plaques",), "Pleural Other", 0.034, kinds=("plaques",), place="side", plural=True),
    Topic(("rib fracture",), "Fracture", 0.065, kinds=("rib", "ribs"), place="side", counted=True),
    Topic(("clavicle fracture",), "Fracture", 0.02, kinds=("clavicle",), place="side", counted=True),
    Topic(("endotracheal tube",), DEVICES, 0.08, kinds=("endotracheal tube",), counted=True),
    Topic(("nasogastric tube",), DEVICES, 0.067, kinds=("nasogastric tube",), counted=True),
    Topic(("central line",), DEVICES, 0.087, kinds=("central line",), place="side", counted=True),
    Topic(("pacemaker",), DEVICES, 0.074, kinds=("pacemaker",), place="side", counted=True),
    Topic(("chest tube",), DEVICES, 0.042, kinds=("chest tube",), place="side", counted=True),
    Topic(("monitoring leads",), DEVICES, 0.046, kinds=("monitoring leads",), plural=True),
)

# Fields: {it} is the name with its article, {name} without; {is} is "is" or "are", {Is} the same in upper case.
PRESENCE = (
    "{Is} there {it}?",
    "{Is} {it} present?",
    "Does this film show {it}?",
    "Can {it} be seen?",
    "Do you see {it}?",
    "Is there evidence of {it}?",
)
WHICH_SIDE = (
    "{Is} the {name} on the left or the right?",
    "{Is} the {name} on the right or the left side?",
    "Which side {is} the {name} on, left or right?",
)
WHERE = {
    "side": ("On which side {is} the {name}?", "Where {is} the {name}?", "Where {is} the {name} located?"),
    "zone": ("Where {is} the {name}?", "Where {is} the {name} located?", "Which part of the lungs has the {name}?"),
}
HOW_MUCH = {
    "size": ("How large {is} the {name}?", "What is the size of the {name}?", "How big {is} the {name}?"),
    "degree": ("How severe {is} the {name}?", "What is the degree of the {name}?"),
}
# Wording -> the answer for a normal film.
NORMAL = {
    "Is this film normal?": "yes",
    "Is the chest normal?": "yes",
    "Is there any abnormality?": "no",
    "Is anything abnormal?": "no",
}
WHAT = ("What abnormality is seen?", "Which abnormality is present?", "What is abnormal?")
NOTHING = "none"


def ask(study: Study, rng: np.random.Generator) -> list[Question]:
    """Three to five different questions about a frontal film of a study; `rng` samples topics and wordings."""
    signs = {topic: sign for topic in TOPICS if (sign := topic.sign(study)) is not None}
    present = [list(signs)[place] for place in rng.permutation(len(signs))[:2]]
    questions = [_presence(topic, True, rng) for topic in present]
    further = [question for topic in present for question in _further(topic, signs[topic], rng)]
    further += _what(study, list(signs), rng)
    questions += _normal(study, rng)
    questions += [_presence(topic, False, rng) for topic in _absent(study, 1 if present else 2, rng)]
    count = max(1, int(rng.integers(_MOST - 1, _MOST + 1)) - len(questions))
    questions += [further[place] for place in rng.permutation(len(further))[:count]]
    if len(questions) < _FEWEST:
        texts = {question.text for question in questions}
        candidates = (_presence(topic, False, rng) for topic in _absent(study, _MOST, rng))
        questions += [question for question in candidates if question.text not in texts][: _FEWEST - len(questions)]
    return questions


def _presence(topic: Topic, present: bool, rng: np.random.Generator) -> Question:
    return Question(_worded(topic, topic.asked or PRESENCE, rng), topic.asked_type, "yes" if present else "no", CLOSED)


def _further(topic: Topic, sign: Sign, rng: np.random.Generator) -> list[Question]:
    """Further questions about a present topic: its side, place and size."""
    questions = []
    if topic.place and sign.side in SIDES:
        questions.append(Question(_worded(topic, WHICH_SIDE, rng), "POS", sign.side, CLOSED))
    if topic.place:
        questions.append(Question(_worded(topic, WHERE[topic.place], rng), "POS", _place(topic, sign), OPEN))
    if topic.size:
        answer = sign.severity if topic.size == "size" else _DEGREES[sign.severity]
        questions.append(Question(_worded(topic, HOW_MUCH[topic.size], rng), "SIZE", answer, OPEN))
    return questions


def _place(topic: Topic, sign: Sign) -> str:
    if topic.place == "side":
        return "both sides" if sign.side == "bilateral" else f"{sign.side} side"
    return f"both {sign.zone} lungs" if sign.side == "bilateral" else f"{sign.side} {sign.zone} lung"


def _what(study: Study, present: Sequence[Topic], rng: np.random.Generator) -> list[Question]:
    """The question what is seen, if the answer is one topic or nothing."""
    seen = [topic for topic in present if topic.finding != DEVICES]
    if any(sign.uncertain for sign in study.signs) or len(seen) > 1 or (present and not seen):
        return []
    if not seen and rng.random() >= _ASK_NOTHING:
        return []
    return [Question(_pick(rng, WHAT), "ABN", seen[0].names[0] if seen else NOTHING, OPEN)]


def _normal(study: Study, rng: np.random.Generator) -> list[Question]:
    """The question whether the film is normal: for all empty films, some with findings, none with devices alone."""
    findings = [sign for sign in study.signs if sign.finding != DEVICES]
    certain = any(not sign.uncertain for sign in findings)
    if (study.signs and not certain) or (findings and rng.random() >= _ASK_NORMAL):
        return []
    text = _pick(rng, list(NORMAL))
    answer = NORMAL[text]
    return [Question(text, "ABN", {"yes": "no", "no": "yes"}[answer] if findings else answer, CLOSED)]


def _absent(study: Study, count: int, rng: np.random.Generator) -> list[Topic]:
    topics = [topic for topic in TOPICS if topic.absent(study)]
    shares = np.array([topic.share for topic in topics])
    chosen = rng.choice(len(topics), min(count, len(topics)), replace=False, p=shares / shares.sum())
    return [topics[place] for place in chosen]


def _worded(topic: Topic, wordings: Sequence[str], rng: np.random.Generator) -> str:
    name = _pick(rng, topic.names)
    verb = "are" if topic.plural else "is"
    it = f"{'an' if name[0] in 'aeiou' else 'a'} {name}" if topic.counted else name
    return _pick(rng, wordings).format(it=it, name=name, Is=verb.capitalize(), **{"is": verb})


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]
