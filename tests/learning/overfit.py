"""What the tests that demand learning share: a phantom tree as the truth, and training on a few of its examples.

Training goes through a task's own loader. What is right about a film is looked up by its identifier in the files that
the data set was prepared from, and the film that is shown comes from there too: a loader that lays a film beside the
report, label or answer of another can be learnt by heart just as well, and is found out only this way.
"""

from __future__ import annotations

import csv
import functools
import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

import medvill_jax
from data_prep import mimic_cxr, vqa_rad
from data_prep.phantom import write_questions, write_tree
from medvill_jax.app.model import Model
from medvill_jax.data import loader, records
from medvill_jax.data.questions import clean_question
from medvill_jax.data.tokenizer import load_tokenizer
from medvill_jax.data.transforms import square_image, text_slots
from medvill_jax.hub.export import VOCAB_FILE
from medvill_jax.models.vit_patch import PatchConfig

STUDIES, SEED, PIXELS = 40, 7, 64
# Every findings section has more word pieces than this, so the length of a report gives nothing away.
TEXT_LEN = 14
# A question is kept if it is asked of so many films, and no answer is right for a larger share of them than this.
FEWEST_FILMS, MOST_OF_ONE_ANSWER = 3, 0.67
# Answers in the vocabulary; those to the other questions are unknown to the model, as rare ones are in real data.
ANSWERS = 4
# Patches as those of vit_patch16, with a sixteenth of its features.
ENCODER, NARROW = "patch16_narrow", PatchConfig(16, width=128)


class _Remembered(dict[int, int]):
    def __init__(self, order: Any):
        self._order = order

    def __missing__(self, place: int) -> int:
        return self.setdefault(place, int(self._order[place]))


@functools.cache
def shuffled(count: int, seed: int, own: Callable[[int, int], Any] = loader.shuffled) -> _Remembered:
    """`loader.shuffled`, computed once for all runs: of few records it takes more time than all other loading."""
    return _Remembered(own(count, seed))


@dataclass(frozen=True)
class Question:
    """A question as the phantom's question file has it; `film` is the identifier of its image."""

    text: str
    answer: str
    film: str


class Phantom:
    """A phantom tree, what was prepared from it, and the truth as its own files tell it.

    Attributes:
        reports, asked: the prepared data sets of reports and of questions.
        questions: by their identifier.
    """

    def __init__(self, folder: Path):
        tree = folder / "tree"
        write_tree(tree, studies=STUDIES, seed=SEED, image_size=PIXELS, progress=False)
        self.reports = folder / "reports"
        mimic_cxr.prepare(tree, self.reports, image_size=PIXELS, progress=False)
        write_questions(tree, folder / "all_questions")
        self.questions = _to_be_looked_at(folder / "all_questions", folder / "questions")
        self.asked = folder / "asked"
        vqa_rad.prepare(folder / "questions", self.asked, image_size=PIXELS, progress=False)
        vocabulary = self.asked / records.ANSWERS_FILE
        vocabulary.write_text(json.dumps(json.loads(vocabulary.read_text())[:ANSWERS]))
        self._files = {path.stem: path for path in tree.glob("files/*/*/*/*.jpg")}
        with gzip.open(tree / "mimic-cxr-2.0.0-chexpert.csv.gz", "rt") as table:
            self._labels = {row["study_id"]: row for row in csv.DictReader(table)}

    def films(self, names: Sequence[str]) -> np.ndarray:
        """The films with these identifiers, uint8 `[n, PIXELS, PIXELS]`."""
        films = [cv2.imread(str(self._files[name]), cv2.IMREAD_GRAYSCALE) for name in names]
        return np.stack([square_image(film, PIXELS, None, np.random.default_rng(0)) for film in films])

    def labels(self, name: str) -> dict[str, str]:
        """Column -> cell of the label table, "1.0", "0.0", "-1.0" or "", for the study of a film."""
        return self._labels[self._files[name].parent.name.removeprefix("s")]

    def positive(self, name: str) -> frozenset[str]:
        """The findings that the study of a film has for certain."""
        return frozenset(column for column, cell in self.labels(name).items() if cell == "1.0")

    def report(self, name: str) -> str:
        """The FINDINGS section of the report file of a film."""
        folder = self._files[name].parent
        section = re.search(r"FINDINGS:(.*?)\n\n", folder.with_name(f"{folder.name}.txt").read_text(), re.DOTALL)
        assert section
        return " ".join(section[1].split())

    def same_labels(self, names: Sequence[str]) -> np.ndarray:
        """bool `[n, n]`: which films have the same set of positive findings."""
        sets = [self.positive(name) for name in names]
        return np.array([[one == other for other in sets] for one in sets])


def _to_be_looked_at(source: Path, out: Path) -> dict[str, Question]:
    """Copies the questions of a folder whose words alone do not tell the answer; returns them by identifier."""
    rows = json.loads((source / vqa_rad.QUESTION_FILES[0]).read_text())
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        answers[row["question"]][row["answer"]] += 1

    def kept(counts: Counter[str]) -> bool:
        return counts.total() >= FEWEST_FILMS and max(counts.values()) <= MOST_OF_ONE_ANSWER * counts.total()

    rows = [row for row in rows if kept(answers[row["question"]])]
    out.mkdir()
    (out / vqa_rad.IMAGE_FOLDERS[0]).symlink_to(source / vqa_rad.IMAGE_FOLDERS[0])
    (out / vqa_rad.QUESTION_FILES[0]).write_text(json.dumps(rows))
    return {str(row["qid"]): Question(row["question"], row["answer"], Path(row["image_name"]).stem) for row in rows}


def blind(answers: Sequence[tuple[Any, Any]]) -> float:
    """The best share of right answers without looking: each question answered as it mostly is; (question, answer)."""
    counts: dict[Any, Counter[Any]] = defaultdict(Counter)
    for question, answer in answers:
        counts[question][answer] += 1
    return sum(max(of_one.values()) for of_one in counts.values()) / len(answers)


class _Shown:
    """A source of records that shows the film of another record; texts, labels and answers stay where they are."""

    def __init__(self, source: Any, other: Callable[[int, int], int]):
        self._source, self._other = source, other

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, record: int) -> Any:
        return self._source[record] | {"image": self._source[self._other(record, len(self))]["image"]}


def show_film(monkeypatch: pytest.MonkeyPatch, other: Callable[[int, int], int]) -> None:
    """From here on a record of a split shows the film of record `other(record, records)`."""
    own = records.open_split
    monkeypatch.setattr(records, "open_split", lambda *arguments: _Shown(own(*arguments), other))


def shrink(config: ConfigDict, data: Path, *, steps: int, **changes: Any) -> ConfigDict:
    """A configuration of the "small" variant made to learn some twenty examples by heart; `changes` by dotted name."""
    config.data.path = str(data)
    config.data.augment = False
    # Part of the records, so that their places among all records and among these differ.
    config.data.fraction, config.data.holdout = 0.7, 0.15
    config.steps, config.batch_size = steps, 16
    config.model.update(
        image_encoder=ENCODER,
        image_size=PIXELS,
        text_len=TEXT_LEN,
        hidden_size=64,
        num_layers=2,
        num_heads=2,
        intermediate_size=128,
        dropout=0.0,
        # A network this narrow needs larger weights for its first attention to differ from an average.
        initializer_range=0.16,
    )
    config.optimizer.update(learning_rate=3e-3, warmup_steps=5, weight_decay=0.0, beta2=0.98)
    config.log.every_steps = config.checkpoint.every_steps = config.eval.every_steps = 0
    config.eval.short_runs = False
    config.update_from_flattened_dict(changes)
    return config


def learn(task: ModuleType, config: ConfigDict, workdir: Path) -> tuple[Model, list[str]]:
    """Trains to the end; the model as its user gets it, and the identifiers of the records that it has seen."""
    run = task.Task(config, workdir)
    run.fit()
    seen = run.parts.train_records
    return medvill_jax.load(workdir / "export"), [seen.identifier(record) for record in range(len(seen))]


def words(workdir: Path, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """What an export reads of texts: ids int32 `[n, TEXT_LEN + 1]` and lengths int32 `[n]`."""
    tokenizer = load_tokenizer(workdir / "export" / VOCAB_FILE)
    slots = [text_slots(tokenizer.encode(text), TEXT_LEN, tokenizer.sep_id) for text in texts]
    return np.stack([ids for ids, _ in slots]), np.array([length for _, length in slots], np.int32)


def questions(workdir: Path, asked: Sequence[Question]) -> tuple[np.ndarray, np.ndarray]:
    """`words` of questions."""
    return words(workdir, [clean_question(question.text) for question in asked])


def found_first(phantom: Phantom, names: Sequence[str], scores: np.ndarray) -> float:
    """How often films and reports, scored `[films, reports]`, put a partner of their label set first."""
    right, each = phantom.same_labels(names), np.arange(len(names))
    assert right.mean() < 0.25
    return float((right[each, scores.argmax(1)].mean() + right[scores.argmax(0), each].mean()) / 2)


def judge(figure: float, *, reached: float, missed: float, rolled: bool) -> None:
    """A figure must be reached with every film in its place, and clearly missed with its neighbour's film."""
    assert figure <= missed if rolled else figure >= reached, f"{figure:.3f}, {rolled=}"
