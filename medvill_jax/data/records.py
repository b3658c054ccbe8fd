"""Records: the schema of a prepared data set, and functions to read it.

`data_prep` writes records of this schema as a TFDS data set in ArrayRecord files; loaders read them through
`open_split`. TensorFlow is not needed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import resource
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from medvill_jax import paths
from medvill_jax.errors import UserError
from medvill_jax.findings import CHEXPERT_FINDINGS
from medvill_jax.paths import Place

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
REJECTED_FILE = "rejected.jsonl"
REPORT_FILE = "build_report.json"
TOKENIZER_FILE = "tokenizer/vocab.txt"
# For VQA: a JSON list of the answers to the training questions, most frequent first.
ANSWERS_FILE = "answers.json"
FORMAT_VERSION = 1
# Number of files that a run keeps open in addition to record files: libraries, sockets, checkpoints, logs.
OTHER_FILES = 256
# Readers of a data set that may be open at a time.
READERS = 8
# Kind of record -> its text features in addition to the common ones.
EXTRAS: dict[str, tuple[str, ...]] = {
    "report": (),
    "vqa": (
        "question",
        "answer",
        "answer_original",
        "answer_type",
        "question_type",
        "phrase_type",
        "organ",
        "image_name",
    ),
    "phrase": ("category",),
}
# Feature -> what it holds, of those that a data set of any kind may have beside the ones of its kind.
FURTHER: dict[str, str] = {
    "sex": "text",
    "age": "text",
    "source": "text",
    "language": "text",
    "second_image": "film",
    "second_view": "text",
    "prior_image": "film",
    "prior_view": "text",
    "prior_text": "text",
    "boxes": "boxes",
    "options": "text",
}
# Kind of record -> the extra features whose values the build report counts.
COUNTED: dict[str, tuple[str, ...]] = {
    "report": (),
    "vqa": ("organ", "answer_type", "question_type", "phrase_type", "answer"),
    "phrase": ("category",),
}
# The further features whose values the build report counts too.
FURTHER_COUNTED = ("sex", "source", "language")
# Of TFDS; without the first two a folder is no data set.
_DESCRIPTION = ("dataset_info.json", "features.json", "metadata.json")
_BUILT_BY = "python -m data_prep (see python -m data_prep --help)"


class DataError(UserError):
    """Something is wrong with the user's data; the message says what and what to do, and is shown without a trace."""


def features(
    label_names: tuple[str, ...] = CHEXPERT_FINDINGS, kind: str = "report", further: Sequence[str] = ()
) -> Any:
    """The TFDS features of a kind of record: "report" (image and report), "vqa" (image, question and answer) or
    "phrase" (image, phrase and where it is).

    Every kind has:

    * `id`: image identifier, unique in the data set (MIMIC-CXR: the dicom_id).
    * `study_id`, `subject_id`: identifiers of the study and the patient; equal to `id` if a source has none.
    * `image`: encoded 8-bit grayscale JPEG or PNG, uint8 `[H, W, 1]` once decoded, bone white, air black.
    * `text`: the report text, cleaned, in its original case; "" for an image that has labels only.
    * `labels`: int8 `[len(label_names)]`, 1 positive, 0 negative, -1 uncertain, -2 not mentioned.
    * `view`: the view ("AP", "PA", "LATERAL", ...), "" if unknown.

    "vqa" has further text features; its `text` is the question, and all its `labels` are -2:

    * `question`, `answer_original`: as in the source; `answer`: normalised, as in `answers.json`.
    * `answer_type`: "CLOSED" or "OPEN"; `question_type`, `phrase_type`, `organ`: as in the source, in upper case.
    * `image_name`: the image file; several records may show the same image.

    "phrase" has `category`, the finding that the phrase is about; its `text` is the phrase, all its `labels` are -2.

    Further features, keys of `FURTHER`, are in the data sets whose source has them; "" where one film lacks them:

    * `sex`: "F" or "M"; `age`: whole years at the time of the film, in decimal digits.
    * `source`: the data set that the record comes from; `language`: of `text`, ISO 639-1.
    * `second_image`, `second_view`: another film of the study.
    * `prior_image`, `prior_view`, `prior_text`: film and report of the patient's study before.
    * `boxes`: float32 `[n, 4]`, where `text` is seen: left, top, right, bottom in 0..1 of the stored image's sides.
    * `options`: the answers to choose from, one in a line, of a question that names them.

    Raises `ValueError` for a kind that is not in `EXTRAS` or a further feature that is not in `FURTHER`.
    """
    if kind not in EXTRAS:
        raise ValueError(f"no kind of record {kind!r}; there are {', '.join(EXTRAS)}")
    if unknown := set(further) - FURTHER.keys():
        raise ValueError(f"no further features {', '.join(sorted(unknown))}; there are {', '.join(FURTHER)}")
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "study_id": tfds.features.Text(),
            "subject_id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 1), encoding_format="jpeg"),
            "text": tfds.features.Text(),
            "labels": tfds.features.Tensor(shape=(len(label_names),), dtype=np.int8),
            "view": tfds.features.Text(),
            **{name: tfds.features.Text() for name in EXTRAS[kind]},
            **{name: _further(FURTHER[name]) for name in FURTHER if name in further},
        }
    )


def _further(what: str) -> Any:
    import tensorflow_datasets as tfds

    # A film is text to TFDS, since its images cannot be absent: an encoded image, or nothing.
    return tfds.features.Tensor(shape=(None, 4), dtype=np.float32) if what == "boxes" else tfds.features.Text()


def place(path: Place) -> epath.Path:
    """`paths.place` for paths of data: raises `DataError` for a path that it refuses."""
    try:
        return paths.place(path)
    except paths.PathError as error:
        raise DataError(str(error)) from error


def failed(path: object, error: Exception, damaged: str) -> DataError:
    """The `DataError` for an error while reading: the message of the system, or else `damaged`."""
    message = paths.system_error(error)
    return DataError(f"{path} cannot be read: {message}" if message else damaged)


def _builder(data_dir: Place) -> Any:
    """The read-only TFDS builder of a prepared data set. Raises `DataError` if there is none at `data_dir`."""
    path = place(data_dir)
    try:
        exists = path.exists()
        files = [path / name for name in _DESCRIPTION]
        contents = tuple(file.read_bytes() if file.is_file() else None for file in files)
    except Exception as error:  # gcsfs, google.auth and aiohttp have different base classes
        raise failed(path, error, str(paths.unreachable(path, "read", error))) from error
    if not exists:
        raise DataError(f"there is no data set at {path}: make one with {_BUILT_BY}")
    if missing := [file.name for file, content in zip(files[:2], contents, strict=False) if content is None]:
        raise DataError(
            f"{path} is not a prepared data set (no {' and no '.join(missing)} in it): make one with {_BUILT_BY}"
        )
    return _described(path, contents)


@functools.lru_cache(maxsize=64)
def _described(path: epath.Path, contents: tuple[bytes | None, ...]) -> Any:
    """The builder of a data set whose `_DESCRIPTION` has these contents.

    TFDS keeps every builder for as long as the process lives, and a run asks for one at each evaluation.
    """
    import tensorflow_datasets as tfds

    try:
        with warnings.catch_warnings():
            # TFDS calls a protobuf function that protobuf 6, which Apache Beam requires, deprecates.
            warnings.filterwarnings("ignore", message=r"label\(\) is deprecated")
            builder = tfds.builder_from_directory(str(path))
        info: Any = builder.info
        version = (info.metadata or {}).get("format_version")
        keys = set(info.features.keys())
    except Exception as error:  # TFDS raises whatever its JSON and proto parsers raise
        raise failed(
            path,
            error,
            f"{path} is damaged ({type(error).__name__} while reading its dataset_info.json, features.json or "
            f"metadata.json): prepare it again with {_BUILT_BY}",
        ) from error
    if not {"id", "image", "text", "labels"} <= keys or version is None:
        raise DataError(f"{path} is a TFDS data set, but not made by data_prep: make one with {_BUILT_BY}")
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path} has record format {version}, this code reads {FORMAT_VERSION}: prepare it again with {_BUILT_BY}"
        )
    return builder


def splits(data_dir: Place) -> dict[str, int]:
    """Split name -> number of records, in the order of `SPLITS`, without empty splits. Raises `DataError`."""
    infos = _builder(data_dir).info.splits
    return {name: int(infos[name].num_examples) for name in SPLITS if name in infos and infos[name].num_examples}


def open_split(data_dir: Place, split: str) -> Any:
    """A random-access source (`len`, `[i]`) of the records of a split, or of several splits joined by "+".

    Each record is a dict with the keys of `features`: `image` encoded `bytes`; text features UTF-8 `bytes`; `labels`
    int8 `[C]`.

    Raises `DataError` if `data_dir` is missing, damaged or not made by `data_prep`, or has no such split.
    """
    builder = _builder(data_dir)
    infos = builder.info.splits
    counts = {name: int(infos[name].num_examples) for name in infos if infos[name].num_examples}
    if not set(split.split("+")) <= counts.keys():
        listed = ", ".join(f"{name} ({count})" for name, count in counts.items()) or "none"
        raise DataError(f"{data_dir} has no split {split!r} with records in it; its splits are: {listed}")
    import tensorflow_datasets as tfds

    damaged = f"copy {data_dir} again, or prepare it again with {_BUILT_BY}"
    names = {path.name for path in place(data_dir).iterdir()}
    missing = [name for path in infos[split].filepaths if (name := Path(path).name) not in names]
    if missing:
        raise DataError(f"{data_dir} lacks {len(missing)} of its record files, {missing[0]} for one: {damaged}")
    if not paths.in_bucket(data_dir):
        _allow_open_files(data_dir, sum(len(infos[name].filepaths) for name in counts))
    source = _Source(
        builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()}),
        data_dir,
        f"the record files of split {split!r} are damaged: {damaged}",
    )
    # Record files are opened on first use: this finds a truncated one before a long run starts.
    _ = source[0], source[len(source) - 1]
    return source


def _allow_open_files(data_dir: Place, files: int) -> None:
    """Raises the soft limit of open files to the number needed for all splits; `DataError` if the hard limit is lower.

    A reader keeps every record file open that it has read, so a low limit would stop a run only after hours.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = files + OTHER_FILES
    if resource.RLIM_INFINITY in (soft, hard):
        hard = sys.maxsize
    if needed > hard:
        raise DataError(
            f"{data_dir} has {files} record files, which all stay open, so {needed} open files are needed and {hard} "
            "are allowed: raise the hard limit (`ulimit -Hn`, LimitNOFILE= of a service), or prepare the data again "
            "with larger record files"
        )
    # Many readers of one split may be open at a time: for training and evaluation, of every task.
    wanted = min(READERS * files + OTHER_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


class _Source:
    """A TFDS source that raises `DataError` for every failure to read."""

    def __init__(self, source: Any, data_dir: Place, damaged: str):
        self._source, self._data_dir, self._damaged = source, data_dir, damaged

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, record: int) -> Any:
        if not 0 <= record < len(self):
            raise IndexError(f"record {record} of {len(self)}")
        try:
            return self._source[record]
        except Exception as error:  # RuntimeError of the reader, or DecodeError of protobuf
            raise failed(self._data_dir, error, self._damaged) from error


def label_names(data_dir: Place) -> tuple[str, ...]:
    """The names of the columns of `labels`, in order."""
    return tuple(_builder(data_dir).info.metadata["label_names"])


def film_options(data_dir: Place) -> dict[str, Any]:
    """How the films of a data set were prepared: `image_size`, and where they are not the defaults `square`, `dicom`.

    The fields of `films.stored.ImageOptions`; {} if the data set does not say.
    """
    options = _options(data_dir)
    return {name: options[name] for name in ("image_size", "square", "dicom") if name in options}


def mark_rule(data_dir: Place) -> str:
    """What was done to de-identification marks in the reports of a data set: one of `cleaning.MARK_RULES`."""
    return str(_options(data_dir).get("marks", "drop"))


def _options(data_dir: Place) -> dict[str, Any]:
    """What a data set was prepared with; {} if it does not say."""
    path = place(data_dir) / REPORT_FILE
    try:
        return dict(json.loads(path.read_text("utf-8"))["options"]) if path.is_file() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise failed(path, error, f"{path} is damaged: prepare the data again with {_BUILT_BY}") from error


def made_as(data_dir: Place) -> str:
    """The name that `data_prep` gave the data set, such as "mimic_cxr": that of its source."""
    return str(_builder(data_dir).name)


def kind(data_dir: Place) -> str:
    """The kind of the records, a key of `EXTRAS`."""
    return str((_builder(data_dir).info.metadata or {}).get("kind", "report"))


def further(data_dir: Place) -> tuple[str, ...]:
    """The further features of the records, keys of `FURTHER` in its order."""
    present = _builder(data_dir).info.features.keys()
    return tuple(name for name in FURTHER if name in present)


def read_answers(path: epath.Path | Path) -> tuple[str, ...]:
    """The answers in a file `answers.json`. Raises `DataError` for a damaged one."""
    try:
        return tuple(json.loads(path.read_text("utf-8")))
    except ValueError as error:
        raise DataError(f"{path} is damaged: restore it, or name another folder") from error


def tokenizer_path(data_dir: Place) -> epath.Path:
    """The vocabulary file of the data set. Raises `DataError` if it is missing."""
    _builder(data_dir)
    path = place(data_dir) / TOKENIZER_FILE
    if not path.is_file():
        raise DataError(f"{data_dir} has no {TOKENIZER_FILE}: prepare it again with {_BUILT_BY}")
    return path


def text_hash(text: str | bytes) -> int:
    """A 64-bit hash of a text, the same on every host."""
    data = text.encode() if isinstance(text, str) else text
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


# The hash for records without report text.
NO_TEXT = text_hash("")


def hashed(kind: str) -> dict[str, tuple[str, str]]:
    """Column of the index of a kind of record -> the feature whose `text_hash` it holds, and a prefix to hash."""
    # `data.holdout` selects patients by the hash with this prefix; hashes keep identifiers out of the index.
    common = {"text_hash": ("text", ""), "subject_hash": ("subject_id", "holdout ")}
    return common | ({"answer_hash": ("answer", "")} if kind == "vqa" else {})


def read_columns(data_dir: Place, split: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Text features of every record of a split: name -> unicode `[n]`, row i being record i of `open_split`.

    Reads all record files, but decodes no image.

    Args:
        data_dir: a prepared data set.
        split: "train", "validation" or "test".
        names: text features of `features`, such as "id", "subject_id" or "answer".

    Raises:
        DataError: there is no such data set, split or text feature.
    """
    source = open_split(data_dir, split)
    more = (name for name in further(data_dir) if FURTHER[name] == "text")
    known = ("id", "study_id", "subject_id", "text", "view", *EXTRAS[kind(data_dir)], *more)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(f"{data_dir} has no text feature {', '.join(unknown)}; there are {', '.join(known)}")
    columns: dict[str, list[str]] = {name: [] for name in names}
    for i in range(len(source)):
        record = source[i]
        for name, column in columns.items():
            column.append(record[name].decode())
    return {name: np.asarray(column, str) for name, column in columns.items()}
