"""The index of a data set: labels, hashes and the length of every record, so that a run starts without reading them."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Sequence

import numpy as np

from medvill_jax.data import records
from medvill_jax.data.tokenizer import load_tokenizer
from medvill_jax.paths import Place

log = logging.getLogger(__name__)

INDEX_DIR = "index"


def read_index(data_dir: Place, split: str, names: Sequence[str] = ("labels", "text_hash")) -> dict[str, np.ndarray]:
    """Columns of the index of a split; row i belongs to record i of `records.open_split`.

    Reads `index/{split}.npz`. If a column is missing, all records are read instead; nothing is written, since the data
    may be on a read-only disk.

    Args:
        data_dir: a prepared data set.
        split: "train", "validation" or "test", or several joined by "+".
        names: columns of `save_index`.

    Raises:
        DataError: there is no such data set or split, or the index is damaged or of other records.
    """
    if "+" in split:
        parts = [read_index(data_dir, part, names) for part in split.split("+")]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}
    path = records.place(data_dir) / INDEX_DIR / f"{split}.npz"
    count = records.splits(data_dir).get(split, 0)
    try:
        index = {}
        if path.is_file():
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
                index = {name: stored[name] for name in names if name in stored}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise records.failed(
            path, error, f"{path} is damaged: delete it, and it is made again from the records"
        ) from error
    if any(len(column) != count for column in index.values()):
        raise records.DataError(
            f"{path} does not belong to the records of this data set: delete it, and it is made again from them"
        )
    if index.keys() >= set(names):
        return index
    log.info(
        "%s lacks %s, so all %d records are read, now and at every start; to write it anew: "
        "python -c \"from medvill_jax.data.index import write_index; write_index('%s')\"",
        path,
        ", ".join(name for name in names if name not in index),
        count,
        data_dir,
    )
    scanned = _scan(data_dir, split, pieces="pieces" in names)
    return {name: scanned[name] for name in names}


def save_index(data_dir: Place, split: str, index: dict[str, np.ndarray]) -> None:
    """Writes `index/{split}.npz`.

    Args:
        data_dir: a prepared data set.
        split: "train", "validation" or "test".
        index: `labels` int8 `[n, C]`, the columns of `records.hashed`, uint64 `[n]`, and `pieces` uint32 `[n]`, the
            word pieces of each text by the tokenizer that is stored with the data.
    """
    folder = records.place(data_dir) / INDEX_DIR
    folder.mkdir(exist_ok=True)
    content = io.BytesIO()
    np.savez(content, **index)  # pyright: ignore[reportArgumentType]
    (folder / f"{split}.npz").write_bytes(content.getvalue())


def write_index(data_dir: Place) -> dict[str, int]:
    """Writes `index/{split}.npz` for every split, so that a run starts without reading all records.

    Returns split name -> number of records, all of which were read.
    """
    counts = {}
    for split in records.splits(data_dir):
        index = _scan(data_dir, split, pieces=True)
        save_index(data_dir, split, index)
        counts[split] = len(index["labels"])
    return counts


def _scan(data_dir: Place, split: str, *, pieces: bool) -> dict[str, np.ndarray]:
    """The columns of the index from the records; with `pieces`, also the column of that name."""
    source = records.open_split(data_dir, split)
    columns = records.hashed(records.kind(data_dir))
    index: dict[str, np.ndarray] = {name: np.empty(len(source), np.uint64) for name in columns}  # [n]
    index["labels"] = np.empty((len(source), len(records.label_names(data_dir))), np.int8)  # [n, C]
    texts = []
    for i in range(len(source)):
        record = source[i]
        index["labels"][i] = record["labels"]
        for name, (feature, prefix) in columns.items():
            index[name][i] = records.text_hash(prefix.encode() + record[feature])
        texts.append(record["text"].decode() if pieces else "")
    if pieces:
        index["pieces"] = load_tokenizer(records.tokenizer_path(data_dir)).count_pieces(texts)
    return index


def training_answers(data_dir: Place, rows: np.ndarray | None = None) -> tuple[str, ...]:
    """The answers to the training questions of a VQA data set, by decreasing frequency, then alphabetically.

    Args:
        data_dir: a prepared data set of kind "vqa".
        rows: int `[n]`, the training records to count; None for all.

    Raises:
        DataError: the data set is missing or not one for VQA.
    """
    path = records.place(data_dir) / records.ANSWERS_FILE
    if records.kind(data_dir) != "vqa" or not path.is_file():
        raise records.DataError(f"{data_dir} has no answers: prepare a VQA data set with python -m data_prep vqa_rad")
    all_answers = records.read_answers(path)
    if rows is None:
        return all_answers
    hashes, counts = np.unique(read_index(data_dir, "train", ["answer_hash"])["answer_hash"][rows], return_counts=True)
    count = dict(zip(hashes.tolist(), counts.tolist(), strict=True))
    present = [answer for answer in all_answers if records.text_hash(answer) in count]
    return tuple(sorted(present, key=lambda answer: (-count[records.text_hash(answer)], answer)))
