"""The result of an audit as a section of a model card: numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medvill_jax.audit.conditions import TRUE, WORDS
from medvill_jax.audit.verdict import OPEN
from medvill_jax.audit.words import measured, named, share

TITLES = {
    "findings": "Does it look? Findings",
    "report": "Does it look? Reports",
    "ask": "Does it look? Answers",
}


def section(result: Mapping[str, Any]) -> tuple[str, str]:
    """Title and text, Markdown, of the result of `audit.Audit.result`."""
    data, figure = result["data"], result["figures"][result["figure"]]
    lines = [
        f"**It {result['verdict']}{', if it looks' * (result['verdict'] == OPEN)}.** "
        f"`medvill audit` {result['version']} asked about {data['films']:,} films of {data['patients']:,} patients of "
        f"the {data['split']} split; intervals are 95 % and resample patients.",
        "",
        f"| {named(result['figure'])} | value | lost |",
        "|---|---|---|",
        f"| {WORDS[TRUE]} | {measured(figure[TRUE])} | |",
        *(
            f"| {WORDS[name]} | {measured(one['other'])} | {measured(one['difference'])} |"
            for name, one in figure.items()
            if name != TRUE
        ),
    ]
    if copies := result.get("copies"):
        lines += [
            "",
            f"| reports that stand in the training split | written ({copies['written']['reports']:,}) | "
            f"real ones of this split ({copies['real']['reports']:,}) |",
            "|---|---|---|",
            *(
                f"| {words} | {share(copies['written'][part])} | {share(copies['real'][part])} |"
                for part, words in COPIES.items()
            ),
        ]
    return TITLES[result["task"]], "\n".join(lines)


COPIES = {
    "verbatim": "word for word",
    "near": "word for word or nearly",
    "own": "so, of one training patient alone",
}
