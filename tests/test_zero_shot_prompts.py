"""The two sets of sentences that zero-shot classification asks with, beside what the phantom's reports say."""

import re
from collections.abc import Iterator

import numpy as np
import pytest

from configs import zero_shot
from configs.zero_shot import PROMPTS, REWORDED
from data_prep.phantom import phrases, tree
from data_prep.phantom.report import report_text

STUDIES = 3000


def parts(prompts: dict[str, tuple[tuple[str, ...], ...]]) -> set[str]:
    """Every sentence on its own, without its full stop."""
    asked = {sentence for sides in prompts.values() for side in sides for sentence in side}
    return {part.rstrip(".") for sentence in asked for part in re.split(r"(?<=\.) ", sentence)}


@pytest.fixture(scope="module")
def reports() -> str:
    """The training reports of a phantom of many studies, in small letters, one a line."""
    films = {film.number: film for film in tree.films(STUDIES, 0) if film.split == "train"}
    rng = np.random.default_rng(0)
    texts = (report_text(tree.study_of(0, film.number, film.subject), ["AP"], rng) for film in films.values())
    return "\n".join(" ".join(text.lower().split()) for text in texts)


def phantom_phrases() -> Iterator[str]:
    for table in (phrases.PRESENT, phrases.SUSPECTED, phrases.DENIED):
        for options in table.values():
            yield from options
    yield from (*phrases.CLEAR, *phrases.REMARKS, *phrases.NORMAL)
    yield from (f"{no}{name}" for name in phrases.LISTED.values() for no in ("No ", "There is no ", "No evidence of "))


def test_both_sets_ask_about_the_same_findings() -> None:
    assert PROMPTS.keys() == REWORDED.keys()
    config = zero_shot.get_config()
    assert set(config.prompts) == set(config.reworded) == set(PROMPTS)


def test_most_of_the_first_set_stands_in_the_training_reports(reports: str) -> None:
    """Counted as often as they are asked: the same denials serve several findings."""
    asked = [sentence for sides in PROMPTS.values() for side in sides for sentence in side]
    verbatim = [sentence for sentence in asked if all(part in reports for part in parts({"": ((sentence,),)}))]
    assert (len(verbatim), len(asked)) == (76, 133)


def test_the_second_set_is_worded_differently_from_every_phantom_phrase(reports: str) -> None:
    asked = parts(REWORDED)
    assert not [part for part in asked if part in reports]
    assert not asked & parts(PROMPTS)
    for phrase in phantom_phrases():
        pattern = re.sub(r"\\\{\w+\\\}", ".*", re.escape(phrase.rstrip(".").lower()))
        assert not [part for part in asked if re.search(rf"(?:^|\b){pattern}(?:\b|$)", part)], phrase
