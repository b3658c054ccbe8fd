"""The HTML of an audit, from its JSON: numbers, names of findings, and no film, report, question or identifier."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from medvill_jax.audit.card import COPIES
from medvill_jax.audit.conditions import ANOTHER, BLACK, CONTROL, ERASED, KEPT, MIRRORED, TRUE, WORDS
from medvill_jax.audit.scoring import floor
from medvill_jax.audit.verdict import FEWEST
from medvill_jax.audit.words import measured, named, share
from medvill_jax.pages import figures, markup
from medvill_jax.pages.markup import Child, Element, element, items, more, table

NOTICE = (
    "Research use only, not a medical device. An audit says whether answers depend on the film, not whether they are "
    "good enough for anything."
)
# What the training split says most often.
GUESSED = "most frequent in training"
_TASKS = {"findings": "findings", "report": "reports", "ask": "answers to questions"}


def page(result: Mapping[str, Any]) -> str:
    """The HTML of the result of `audit.Audit.result`."""
    chapters = {
        "Verdict": _verdict(result),
        "Figures by condition": _figures(result),
        "Do answers follow the film?": _behaviour(result),
        **({"Copied reports": _copies(result["copies"])} if result.get("copies") else {}),
        "Counts": _counts(result),
        "How to read this": _reading(result),
    }
    anchors = {heading: f"part-{place}" for place, heading in enumerate(chapters)}
    title = f"Does it look? Audit of {_TASKS[result['task']]}"
    data = result["data"]
    return markup.page(
        title,
        element(
            "header",
            element("h1", title),
            element(
                "p",
                f"{data['requests']:,} requests about {data['films']:,} films of {data['patients']:,} patients, split "
                f"{data['split']}. Written by medvill_jax {result['version']}.",
            ),
            element("p", NOTICE, class_="notice"),
            element(
                "nav",
                items(element("a", heading, href=f"#{one}") for heading, one in anchors.items()),
                aria_label="Contents",
            ),
        ),
        element(
            "main",
            *(
                element(
                    "section", element("h2", heading, id=anchors[heading]), *content, aria_labelledby=anchors[heading]
                )
                for heading, content in chapters.items()
            ),
        ),
    )


def _verdict(result: Mapping[str, Any]) -> Iterator[Child]:
    yield element("p", element("strong", result["verdict"].capitalize()), f": {result['why']}.")
    figure = result["figures"][result["figure"]]
    if (another := figure.get(ANOTHER)) and another["share"]["value"] is not None:
        least = floor(result["figure"])
        above = f", as far as it is above {least:g}" if least else ""
        yield element(
            "p",
            f"Of the {named(result['figure'])}{above}, {share(another['share'])} is lost with another patient's film, "
            "and so is due to the film.",
        )
    points = {WORDS[TRUE]: _point(figure[TRUE])}
    points |= {WORDS[name]: _point(one["other"]) for name, one in figure.items() if name != TRUE}
    if result["without_film"]:
        points[GUESSED] = _point(result["without_film"][result["figure"]])
    yield figures.intervals(named(result["figure"]), points)


def _figures(result: Mapping[str, Any]) -> Iterator[Child]:
    guessed = result["without_film"] or {}
    for name, one in result["figures"].items():
        if "/" not in name:
            yield _conditions(named(name), one, guessed.get(name))
    if parts := {name: one for name, one in result["figures"].items() if "/" in name}:
        rows = [
            (
                named(name),
                measured(one[TRUE]),
                *(measured(one[ANOTHER][part], form) for part, form in (("other", "z.3f"), ("difference", "+z.3f"))),
            )
            for name, one in parts.items()
            if ANOTHER in one
        ]
        head = ("figure", WORDS[TRUE], WORDS[ANOTHER], "lost")
        yield more(f"{len(parts)} single findings", table("Single findings", head, rows, (1, 2, 3)))


def _conditions(caption: str, one: Mapping[str, Any], guessed: Mapping[str, Any] | None) -> Element:
    """A figure under every condition."""
    rows = [(WORDS[TRUE], measured(one[TRUE]), "", "")]
    for name in (ANOTHER, BLACK, MIRRORED):
        if told := one.get(name):
            due = share(told["share"]) if "share" in told else ""
            rows.append((WORDS[name], measured(told["other"]), measured(told["difference"], "+z.3f"), due))
    if guessed:
        rows.append((GUESSED, measured(guessed), "", ""))
    return table(caption[0].upper() + caption[1:], ("with", "value", "lost", "share due to the film"), rows, (1, 2, 3))


def _behaviour(result: Mapping[str, Any]) -> Iterator[Child]:
    rows = [(WORDS[name], f"{one['requests']:,}", share(one)) for name, one in result["unchanged"].items()]
    yield table("Answers that are the same as with the true film", ("with", "requests", "the same"), rows, (1, 2))
    if sides := result["sides"]:
        rows = [
            ("the other side", share(sides["swapped"])),
            ("the same side", share(sides["kept"])),
        ]
        caption = f"Of {sides['requests']:,} answers that name one side, with the film mirrored"
        yield table(caption, ("name", "share"), rows, (1,))
    if "erased" in result:
        yield from _erased(result["erased"], result["controls"])


def _erased(erased: Mapping[str, Any] | None, controls: Mapping[str, Any]) -> Iterator[Child]:
    yield element("h3", "Erased findings")
    if controls["left_out"]:
        yield element(
            "p",
            f"{controls['left_out']:,} erased films are left out, because no other place of the film is bright or dark "
            f"enough for {KEPT:.0%} of the same change.",
        )
    if erased is None:
        yield element("p", "No finding that was erased can be compared.")
        return
    head = ("finding", "pairs", ERASED, CONTROL, "difference", "more when erased")
    rows = [
        (
            name,
            f"{one['pairs']:,}",
            *(measured(one[part], "z.2f") for part in (ERASED, CONTROL, "difference")),
            share(one["erased_more"]),
        )
        for name, one in {"all": erased, **erased["findings"]}.items()
    ]
    caption = f"{erased['is'].capitalize()}: when it is erased, and when the same change is made at another place"
    yield table(caption, head, rows, range(1, 6))
    yield element("p", f"At another place {controls['kept']:.0%} of the change is made, on average.")


def _copies(copies: Mapping[str, Any]) -> Iterator[Child]:
    rows = [
        (words, *(f"{copies[kind][part]['reports']:,}: {share(copies[kind][part])}" for kind in ("written", "real")))
        for part, words in COPIES.items()
    ]
    head = (
        "stand in the training split",
        f"{copies['written']['reports']:,} written",
        f"{copies['real']['reports']:,} real ones",
    )
    yield table(
        f"Reports, among {copies['training_reports']:,} of the training split of this data set", head, rows, (1, 2)
    )
    yield element(
        "p",
        f"Nearly: at least {copies['near']:.0%} of the words of both are one sequence, 2 LCS / (n + m). Case, accents "
        "and spaces do not count. Short reports and those made of common phrases repeat by nature; the real reports of "
        "this split show how much. A report that stands with one training patient alone is no common phrase. The "
        "training split is that of this data set: whether the model was trained on it, this page does not know.",
    )


def _counts(result: Mapping[str, Any]) -> Iterator[Child]:
    rows = [
        (WORDS[name], *(f"{one[part]:,}" for part in ("requests", "answered", "missing")))
        for name, one in result["conditions"].items()
    ]
    yield table(
        "Requests are those answered and those missing", ("with", "requests", "answered", "missing"), rows, (1, 2, 3)
    )
    if unnamed := result["unnamed_labels"]:
        rows = [(WORDS[name], f"{count:,}") for name, count in unnamed.items()]
        yield table("Labels of findings that answers do not name, and so do not count", ("with", "labels"), rows, (1,))
    missing = {name: one["missing_ids"] for name, one in result["conditions"].items() if one["missing"]}
    for name, ids in missing.items():
        yield more(f"missing with {WORDS[name]}", element("p", element("code", ", ".join(ids))))


def _reading(result: Mapping[str, Any]) -> Iterator[Child]:
    settings = result["settings"]
    yield items(
        [
            "Intervals are 95 %, from the bootstrap over patients; a difference draws the same patients for both.",
            "Lost: the figure with the true film less the figure with the other, on the requests that both answer "
            "and the findings that both name. "
            "Another patient's film is drawn without regard to what it shows, so a model that does not look loses "
            "nothing.",
            "Share due to the film: what is lost with another patient's film, of what the true film gives above 0, "
            "for AUROC above 0.5.",
            "It looks if the intervals of what is lost with another patient's and with a black film lie above zero. "
            f"It does not look if one of them does not and ends below {settings['margin']:g}. Otherwise, or if one "
            f"compares answers of fewer than {FEWEST} patients, it cannot be told.",
        ]
    )
    told = {
        **{name: str(value) for name, value in settings.items()},
        "records": result["data"]["fingerprint"],
        "asked": json.dumps(result["asked"]),
    }
    yield more(
        "what it was made with",
        element("dl", *(part for name, value in told.items() for part in (element("dt", name), element("dd", value)))),
    )


def _point(one: Mapping[str, Any]) -> tuple[float, float, float] | None:
    if one["value"] is None or one["ci95"] is None:
        return None
    return one["value"], *one["ci95"]
