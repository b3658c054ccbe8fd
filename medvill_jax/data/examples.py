"""The examples of each task from a prepared data set: films, reports or questions, and their targets.

An example is a function of the record and of its place in the global stream, so it is the same on any number of hosts.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from medvill_jax.batch import HostBatch, companions
from medvill_jax.data import records
from medvill_jax.data.index import read_index
from medvill_jax.data.labels import targets
from medvill_jax.data.negatives import Negatives, other_images
from medvill_jax.data.questions import clean_question
from medvill_jax.data.tokenizer import Tokenizer
from medvill_jax.data.transforms import (
    Crop,
    MlmConfig,
    mask_report,
    mask_tokens,
    read_image,
    square_image,
    text_slots,
)
from medvill_jax.findings import POSITIVE
from medvill_jax.paths import Place

log = logging.getLogger(__name__)

# The source of which data preparation stores films beside the record's own.
_STORES_FILMS = "mimic_cxr"

ChooseSentence = Callable[[str, str, np.random.Generator], tuple[str, str, bool] | None]


class Records:
    """One split of a prepared data set: films and reports, ready for a batch.

    Args:
        data_dir: a prepared data set.
        split: "train", "validation" or "test".
        tokenizer: of the texts.
        image_size: side of the square image, pixels.
        text_len: word pieces kept of a text.
        crop: random crop, or None for the whole film.
        seed: all randomness is a function of it and of the place in the stream.
        rows: int `[n]`, the records of the split that are used; None for all.
        views: films of an example at most, see `batch.film_keys`.
        films_required: False for a data set whose records may all lack the films that `views` adds.

    Raises:
        DataError: no such data set or split, or the data set has no such films.
    """

    def __init__(
        self,
        data_dir: Place,
        split: str,
        *,
        tokenizer: Tokenizer,
        image_size: int,
        text_len: int,
        crop: Crop | None,
        seed: int,
        rows: np.ndarray | None = None,
        views: int = 1,
        films_required: bool = True,
    ):
        self._data_dir, self._split = data_dir, split
        self._source = records.open_split(data_dir, split)
        self._rows = np.arange(len(self._source)) if rows is None else rows
        self._index = {name: column[self._rows] for name, column in read_index(data_dir, split).items()}
        self._other_images = other_images(_report_numbers(self._index["text_hash"]), seed)
        self._tokenizer = tokenizer
        self._image_size, self._text_len = image_size, text_len
        self._crop, self._seed = crop, seed
        self._companions = companions(views)
        _check_films(data_dir, views, required=films_required)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, record: int) -> Mapping[str, Any]:
        return self._source[int(self._rows[record])]

    def pieces(self, record: int) -> np.ndarray:
        """Word-piece ids of one whole text, without specials."""
        return self._tokenizer.encode(self.text(record))

    def text_ids(self, record: int) -> np.ndarray:
        """Word-piece ids of one text, cut to `text_len`."""
        return self.pieces(record)[: self._text_len]

    def text(self, record: int) -> str:
        """One whole text."""
        return self[record]["text"].decode()

    def identifier(self, record: int) -> str:
        """The `id` of one record."""
        return self[record]["id"].decode()

    def fingerprint(self) -> str:
        """A hash of the contents and order of these records, and of the tokenizer's vocabulary; identifies no record.

        Reads every record once.
        """
        digest = hashlib.blake2b("\n".join(self._tokenizer.tokens).encode(), digest_size=16)
        for record in range(len(self)):
            for name, value in sorted(self[record].items()):
                content = value if isinstance(value, bytes) else np.asarray(value).tobytes()
                digest.update(f"{name} {len(content)} ".encode())
                digest.update(content)
        return digest.hexdigest()

    def characteristics(self, chosen: np.ndarray | None = None) -> dict[str, list[str]]:
        """Sex, age, view and source of some of the records, or of all, "" where unknown; those that the data hold.

        Args:
            chosen: int `[n]`; None for all.

        Returns:
            Feature -> n values. Reads every record once.
        """
        held = ("view", *records.further(self._data_dir))
        columns: dict[str, list[str]] = {name: [] for name in ("sex", "age", "view", "source") if name in held}
        for place in range(len(self)) if chosen is None else chosen.tolist():
            record = self[place]
            for name, column in columns.items():
                column.append(record.get(name, b"").decode())
        return columns

    def subjects(self) -> np.ndarray:
        """int64 `[n]`: a number for each record, equal for records of one `subject_id`, and otherwise meaningless."""
        hashes = read_index(self._data_dir, self._split, ["subject_hash"])["subject_hash"][self._rows]
        numbers: dict[int, int] = {}
        return np.array([numbers.setdefault(subject, len(numbers)) for subject in hashes.tolist()], np.int64)

    def rng(self, place: int) -> np.random.Generator:
        """The random generator of one place in the global stream."""
        return np.random.default_rng((self._seed, place))

    def image(self, record: int, rng: np.random.Generator, *, own_image: bool) -> np.ndarray:
        """The film uint8 `[S, S]` of a record, or that of another report, for metrics with shuffled images."""
        image_of = record if own_image else int(self._other_images[record])
        return square_image(read_image(self[image_of]["image"]), self._image_size, self._crop, rng)

    def films(self, record: int, place: int, rng: np.random.Generator, *, own_image: bool = True) -> HostBatch:
        """The batch keys of `batch.film_keys`.

        Args:
            record, own_image: as for `image`.
            place: index in the global stream; seeds the crops of all films but the first.
            rng: samples the crop of the first.
        """
        keys: HostBatch = {"image": self.image(record, rng, own_image=own_image)}
        shown = self[record if own_image else int(self._other_images[record])] if self._companions else {}
        for number, name in enumerate(self._companions, 1):
            encoded, size = shown.get(f"{name}_image", b""), self._image_size
            # A generator of its own, so that an example has the same draws with any number of films.
            crop = np.random.default_rng((self._seed, place, number))
            pixels = square_image(read_image(encoded), size, self._crop, crop) if encoded else None
            keys[f"{name}_image"] = np.zeros((size, size), np.uint8) if pixels is None else pixels
            keys[f"{name}_present"] = np.asarray(pixels is not None, np.int32)
        return keys

    def text_arrays(self, record: int) -> HostBatch:
        """The batch keys `text_ids` and `text_lens` of an unmasked text."""
        slots, length = self.slots(record)
        return {"text_ids": slots, "text_lens": np.asarray(length, np.int32)}

    def slots(self, record: int) -> tuple[np.ndarray, int]:
        """The text in its slots, int32 `[T+1]`, and the number of slots that are not padding."""
        return text_slots(self.text_ids(record), self._text_len, self._tokenizer.sep_id)


def lacking_films(data_dir: Place, views: int) -> tuple[str, ...]:
    """Those of `batch.companions(views)` that no record of a data set has."""
    present = records.further(data_dir) if views > 1 else ()
    return tuple(name for name in companions(views) if f"{name}_image" not in present)


def lacks_last_film(data_dir: Place, views: int) -> bool:
    """Whether no record of a data set has the last of several views."""
    return bool(lacking := lacking_films(data_dir, views)) and lacking[-1] == companions(views)[-1]


def _check_films(data_dir: Place, views: int, *, required: bool) -> None:
    """Raises `DataError` if a required last film is lacking; warns of others, which are absent then."""
    lacking = lacking_films(data_dir, views)
    if required and lacks_last_film(data_dir, views):
        films, source = " and no ".join(f"{name}_image" for name in lacking), records.made_as(data_dir)
        if source == _STORES_FILMS:
            flags = " ".join({"second": "--second_view", "prior": "--priors"}[name] for name in lacking)
            advice = f"prepare it with python -m data_prep {source} {flags}, or"
        else:
            advice = f"it was made by {source}, and only {_STORES_FILMS} stores further films;"
        raise records.DataError(
            f"{data_dir} has no {films}, for model.views={views}: {advice} set model.views={views - len(lacking)}"
        )
    for name in lacking:
        log.warning("no record of %s has a %s_image: it is absent everywhere", data_dir, name)


def _report_numbers(text_hash: np.ndarray) -> np.ndarray:
    """int `[n]`, equal for records with the same report; each record without a report has its own number."""
    numbers = np.unique(text_hash, return_inverse=True)[1]
    return np.where(text_hash == records.NO_TEXT, len(numbers) + np.arange(len(numbers)), numbers)


def _require_reports(text_hash: np.ndarray, data_dir: Place, split: str) -> None:
    """Raises `DataError` if records have no report."""
    without = int((text_hash == records.NO_TEXT).sum())
    if without:
        raise records.DataError(
            f"{without} of the {len(text_hash)} records of split {split!r} of {data_dir} have no report, which only "
            "classification of images alone allows; prepare the data from rows with text"
        )


class ReportGroups(Records):
    """Records with reports, grouped by equal label sets and equal texts.

    Attributes:
        positive: bool `[n, C]`, the findings that are certainly present.
        label_groups, text_groups: int32 `[n]`, equal exactly where the label sets, or the texts, are equal. A record
            without a positive finding shares its label set with no other.

    Raises:
        DataError: as `Records`, or a split without any possible negative.
    """

    def __init__(self, data_dir: Place, split: str, **others: Any):
        super().__init__(data_dir, split, **others)
        _require_reports(self._index["text_hash"], data_dir, split)
        self._negatives = Negatives(self._index["labels"], self._index["text_hash"])
        self.positive = self._index["labels"] == POSITIVE
        groups, unknown = self._negatives.groups, ~self.positive.any(axis=1)
        self.label_groups = np.where(unknown, len(groups) + np.arange(len(groups)), groups).astype(np.int32)
        self.text_groups = self._negatives.texts.astype(np.int32)

    def others(self, record: int, rng: np.random.Generator) -> HostBatch:
        """The batch keys of a negative report, and of the groups of this record."""
        return self.with_negative(record, self._negatives.draw(record, rng))

    def with_negative(self, record: int, other: int) -> HostBatch:
        """The same with the record whose report is the negative."""
        negative = self.text_arrays(other)
        return {
            "negative_ids": negative["text_ids"],
            "negative_lens": negative["text_lens"],
            "label_groups": self.label_groups[record],
            "text_groups": self.text_groups[record],
        }


class PretrainRecords(ReportGroups):
    """MLM + ITM examples (see `batch.pretrain_spec`).

    Args:
        mlm: how tokens are masked.
        paired: whether an example also holds the keys that pair its film with more than one report.
        others: arguments of `Records`.
    """

    def __init__(self, data_dir: Place, split: str, *, mlm: MlmConfig, paired: bool = False, **others: Any):
        super().__init__(data_dir, split, **others)
        self._mlm, self._paired = mlm, paired

    def example(self, record: int, place: int, *, matched: bool | None = None, own_image: bool = True) -> HostBatch:
        """One example.

        Args:
            record: index in the split.
            place: index in the global stream; seeds the randomness.
            matched: image and text of one study (True), the text of another (False), or either at random (None); if
                examples are paired, None is True.
            own_image: False for the image of another report, for metrics with shuffled images.
        """
        rng = self.rng(place)
        if matched is None:
            matched = self._paired or bool(rng.random() < 0.5)
        slots, length = self.slots(record if matched else self._negatives.draw(record, rng))
        masked = mask_tokens(slots, length, self._mlm, rng)
        return {
            **self.films(record, place, rng, own_image=own_image),
            "text_lens": np.asarray(length, np.int32),
            "itm_labels": np.asarray(matched, np.int32),
            "weights": np.ones((), np.float32),
            **masked,
            **({"plain_ids": slots, **self.others(record, rng)} if self._paired else {}),
        }


class ReportRecords(Records):
    """Report generation examples (see `batch.report_spec`).

    Args:
        mask: how tokens are masked; None for unmasked reports.
        others: arguments of `Records`.
    """

    def __init__(self, data_dir: Place, split: str, *, mask: MlmConfig | None, **others: Any):
        super().__init__(data_dir, split, **others)
        _require_reports(self._index["text_hash"], data_dir, split)
        self._mask = mask

    def example(self, record: int, place: int, *, own_image: bool = True) -> HostBatch:
        """One example; arguments as for `PretrainRecords.example`."""
        rng, ids = self.rng(place), self.pieces(record)
        slots, length = text_slots(ids, self._text_len, self._tokenizer.sep_id)
        cut = len(ids) > self._text_len
        masked = {"text_ids": slots} if self._mask is None else mask_report(slots, length, self._mask, rng, cut=cut)
        return {
            **self.films(record, place, rng, own_image=own_image),
            "text_lens": np.asarray(length, np.int32),
            "text_cut": np.asarray(cut, np.int32),
            "weights": np.ones((), np.float32),
            **masked,
        }


class LabelRecords(Records):
    """Classification examples (see `batch.classify_spec`).

    Args:
        report: whether an example also holds the report.
        uncertain, absent: policies, see `labels.targets`.
        others: arguments of `Records`.

    Attributes:
        labels: int8 `[n, C]`, as in the records.
        targets, target_weights: float32 `[n, C]`, see `labels.targets`.
    """

    def __init__(self, data_dir: Place, split: str, *, report: bool, uncertain: str, absent: str, **others: Any):
        super().__init__(data_dir, split, **others)
        if report:
            _require_reports(self._index["text_hash"], data_dir, split)
        self._report = report
        self.labels = self._index["labels"]
        self.targets, self.target_weights = targets(self.labels, uncertain=uncertain, absent=absent)

    def example(self, record: int, place: int) -> HostBatch:
        """One example; `place` is its index in the global stream, which seeds the crop."""
        return {
            **self.films(record, place, self.rng(place)),
            "targets": self.targets[record],
            "target_weights": self.target_weights[record],
            "weights": np.ones((), np.float32),
            **(self.text_arrays(record) if self._report else {}),
        }


class PairRecords(ReportGroups):
    """Retrieval examples (see `batch.retrieve_spec`).

    Args:
        sentence: from the film's report, another report and a generator: a sentence of one of them, the same sentence
            denied, and whether it agrees with the film's report; None if they claim nothing. Without this function
            examples have no sentences.
        others: arguments of `Records`.
    """

    def __init__(self, data_dir: Place, split: str, *, sentence: ChooseSentence | None = None, **others: Any):
        super().__init__(data_dir, split, **others)
        self._sentence = sentence

    def example(self, record: int, place: int) -> HostBatch:
        """One example; `place` is its index in the global stream, which seeds crop, negative and sentence."""
        rng = self.rng(place)
        other = self._negatives.draw(record, rng)
        example = {
            "image": self.image(record, rng, own_image=True),
            "weights": np.ones((), np.float32),
            **self.with_negative(record, other),
            **self.text_arrays(record),
        }
        return example if self._sentence is None else example | self._judged(self._sentence, record, other, rng)

    def _judged(self, sentence: ChooseSentence, record: int, other: int, rng: np.random.Generator) -> HostBatch:
        chosen = sentence(self.text(record), self.text(other), rng)
        keys: HostBatch = {}
        for name, text in zip(("sentence", "denied"), ("", "") if chosen is None else chosen[:2], strict=True):
            ids = self._tokenizer.encode(text)[: self._text_len]
            slots, length = text_slots(ids, self._text_len, self._tokenizer.sep_id)
            keys |= {f"{name}_ids": slots, f"{name}_lens": np.asarray(length, np.int32)}
        right, weight = (0, 0) if chosen is None else (chosen[2], 1)
        return keys | {
            "sentence_right": np.asarray(right, np.float32),
            "sentence_weights": np.asarray(weight, np.float32),
        }


class QuestionRecords(Records):
    """Visual question answering examples (see `batch.vqa_spec`), whose text is the cleaned question.

    Args:
        answers: the vocabulary of answers, in the order of the model's outputs.
        others: arguments of `Records`.

    Attributes:
        answer_ids: int32 `[n]`, index of each answer in the vocabulary; -1 where it is not in it.

    Raises:
        DataError: as `Records`, or the data set holds no questions.
    """

    def __init__(self, data_dir: Place, split: str, *, answers: Sequence[str], **others: Any):
        if records.kind(data_dir) != "vqa":
            raise records.DataError(f"{data_dir} holds no questions: prepare VQA data with python -m data_prep vqa_rad")
        super().__init__(data_dir, split, **others)
        index = {records.text_hash(answer): number for number, answer in enumerate(answers)}
        hashes = read_index(data_dir, split, ["answer_hash"])["answer_hash"][self._rows]
        self.answer_ids = np.array([index.get(answer, -1) for answer in hashes.tolist()], np.int32)

    def text(self, record: int) -> str:
        """The question, cleaned."""
        return clean_question(super().text(record))

    def example(self, record: int, place: int, *, blank: bool = False) -> HostBatch:
        """One example; with `blank` its image is black, for the question-only baseline."""
        image = self.image(record, self.rng(place), own_image=True)
        answer = self.answer_ids[record]
        return {
            "image": np.zeros_like(image) if blank else image,
            "answers": np.maximum(answer, 0),
            "answer_weights": np.asarray(answer >= 0, np.float32),
            "weights": np.ones((), np.float32),
            **self.text_arrays(record),
        }
