"""Writes the report of a synthetic study in the layout of MIMIC-CXR reports, in varied words."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from data_prep.phantom import phrases
from data_prep.phantom.findings import Sign, Study

T = TypeVar("T")

_BLOCKS = (
    ("Cardiomegaly", "Enlarged Cardiomediastinum"),
    ("Consolidation", "Lung Opacity", "Pneumonia", "Edema", "Lung Lesion", "Atelectasis"),
    ("Pleural Effusion", "Pneumothorax", "Pleural Other"),
    ("Fracture",),
)
_DEGREE = {"small": "mild", "moderate": "moderate", "large": "severe"}
# A report without these findings may call the lungs clear.
_LUNG = {*_BLOCKS[1], *_BLOCKS[2]}
# Findings sections of fewer words are extended by remarks that concern no finding.
_FEW_WORDS = 15


def report_text(study: Study, views: Sequence[str], rng: np.random.Generator) -> str:
    """The whole text of a report file.

    Args:
      study: the findings that are present, suspected and denied.
      views: ViewPosition of the images of the study.
      rng: samples the wordings.
    """
    lateral = "LATERAL" in views
    view = "LATERAL" if lateral else "AP" if "AP" in views else "PA"
    examination = phrases.EXAMINATIONS[view]
    if lateral and "AP" in views:
        examination = "CHEST (AP AND LAT)"
    person = "man" if study.sex == "M" else "woman"
    header = _pick(rng, ("INDICATION", "INDICATION", "HISTORY", "REASON FOR EXAM"))
    sections = {
        "EXAMINATION": examination,
        header: f"___ year old {person} with {_pick(rng, phrases.INDICATIONS)}.",
        "TECHNIQUE": _pick(rng, phrases.TECHNIQUES[view]).replace("PA", "AP" if "AP" in views else "PA"),
        "COMPARISON": _pick(rng, phrases.COMPARISONS if not study.changes else phrases.COMPARED),
    }
    if rng.random() < 0.25:
        del sections[_pick(rng, ("EXAMINATION", "TECHNIQUE", "COMPARISON"))]
    if study.findings_section:
        sections["FINDINGS"] = findings_text(study, rng)
    sections["IMPRESSION"] = impression_text(study, rng)
    body = "\n\n".join(f" {name}:  {_wrapped(text)}" for name, text in sections.items())
    return f"{'FINAL REPORT':>45}\n{body}\n"


def findings_text(study: Study, rng: np.random.Generator) -> str:
    """The FINDINGS section: all findings and denials, in the order in which radiologists read a film."""
    denied = list(study.denied)
    listed = _list_of_denied(denied, rng)
    devices = [sentence(sign, rng) for sign in study.signs if sign.finding == "Support Devices"]
    devices += [_pick(rng, phrases.DENIED[name]) for name in denied if name == "Support Devices"]
    blocks = [devices]
    for names in _BLOCKS:
        block = [_stated(study, sign, rng) for sign in study.signs if sign.finding in names]
        block += [_pick(rng, phrases.DENIED[name]) for name in denied if name in names]
        if "Consolidation" in names and _lungs_clear(study) and rng.random() < 0.6:
            block.insert(0, _pick(rng, phrases.CLEAR))
        if "Pleural Effusion" in names and listed:
            block.append(listed)
        blocks.append(block)
    sentences = [text for block in blocks for text in block]
    remarks = [phrases.REMARKS[number] for number in rng.permutation(len(phrases.REMARKS))]
    while remarks and sum(len(text.split()) for text in sentences) < _FEW_WORDS:
        sentences.append(remarks.pop())
    return " ".join(sentences)


def impression_text(study: Study, rng: np.random.Generator) -> str:
    """The IMPRESSION section: the main points, sometimes numbered; all points in a report without findings section."""
    points: list[str] = []
    for sign in study.signs:
        if sign.finding == "Support Devices" and study.findings_section:
            continue
        text = _stated(study, sign, rng)
        if sign.finding == "Pneumonia" and points:
            points[-1] += f" {text}"
        else:
            points.append(text)
    if study.findings_section:
        points = points[:3]
    if not study.findings_section:
        points += [_pick(rng, phrases.DENIED[name]) for name in study.denied]
    if not any(sign.finding != "Support Devices" for sign in study.signs):
        points.insert(0, _pick(rng, phrases.NORMAL))
    if len(points) == 1 or rng.random() < 0.4:
        return " ".join(points)
    return "\n".join(f"{number}. {text}" for number, text in enumerate(points, 1))


def _stated(study: Study, sign: Sign, rng: np.random.Generator) -> str:
    """The sentence of a sign, and what became of it since the study before."""
    text, word = sentence(sign, rng), dict(study.changes).get(sign.finding)
    if word is None:
        return text
    changed = _pick(rng, phrases.CHANGED[word]).format(finding=phrases.NAMES[sign.finding])
    return f"{text} {changed[0].upper()}{changed[1:]}"


def sentence(sign: Sign, rng: np.random.Generator) -> str:
    """One sentence that states a sign, no more and no less."""
    table = phrases.SUSPECTED if sign.uncertain else phrases.PRESENT
    options = table.get(f"{sign.finding}:{sign.kind}") or table[sign.finding]
    bilateral = sign.side == "bilateral"
    article = "" if bilateral else "a "
    text = _pick(rng, options).format(
        side=sign.side,
        place=_place(sign, rng),
        size=sign.severity,
        degree=_DEGREE[sign.severity],
        a=article,
        A=article.capitalize(),
        s="s" if bilateral else "",
        bone="clavicle" if sign.kind == "clavicle" else "rib",
        pleura=sign.kind,
        **{"is": "are" if bilateral else "is"},
    )
    return text[0].upper() + text[1:]


def _place(sign: Sign, rng: np.random.Generator) -> str:
    if not sign.zone:
        return ""
    if sign.side == "bilateral":
        return {"upper": "both upper lungs", "mid": "both mid lungs", "lower": "both lung bases"}[sign.zone]
    options = {
        "upper": ("upper lobe", "upper lung zone"),
        "mid": ("mid lung", "mid lung zone"),
        "lower": ("lower lobe", "lung base", "lower lung zone"),
    }[sign.zone]
    return f"the {sign.side} {_pick(rng, options)}"


def _lungs_clear(study: Study) -> bool:
    return not any(sign.finding in _LUNG for sign in study.signs)


def _list_of_denied(denied: list[str], rng: np.random.Generator) -> str:
    """One sentence that denies several findings, which are removed from `denied`; "" if there are fewer than two."""
    names = [name for name in phrases.LISTED if name in denied]
    if len(names) < 2:
        return ""
    for name in names:
        denied.remove(name)
    words = [phrases.LISTED[name] for name in names]
    listed = f"{', '.join(words[:-1])}, or {words[-1]}" if len(words) > 2 else " or ".join(words)
    return _pick(rng, ("No {}.", "There is no {}.", "No evidence of {}.")).format(listed)


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _wrapped(text: str) -> str:
    lines = (textwrap.fill(line, 76, subsequent_indent=" ") for line in text.split("\n"))
    return "\n ".join(lines)
