"""Second pass of a build: the rows and images of one shard -> one ArrayRecord file and its statistics.

    rows/{split}.jsonl, rows i*n .. (i+1)*n -> shards/{split}-{i}.array_record + shards/{split}-{i}.json

A shard is a function of its rows, whether a thread, a Beam process or another host makes it. Its .json is written last,
so a shard that has one is finished and is never made again.
"""

from __future__ import annotations

import functools
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow_datasets.core import example_serializer, file_adapters

from data_prep import images
from data_prep.rows import Form, Rejection, Row
from data_prep.spool import Plan, read_rows
from data_prep.workspace import Stopped
from medvill_jax import private
from medvill_jax.data import records
from medvill_jax.data import tokenizer as wordpiece
from medvill_jax.data.records import SPLITS

VOCAB_FILE = "vocab.txt"


@dataclass(frozen=True)
class Shard:
    """One shard to make; plain values, so that it can be sent to another host that sees the folder `work`."""

    work: str
    split: str
    index: int
    start: int
    rows: int
    form: Form
    image: images.ImageOptions
    threads: int | None = None

    @property
    def file(self) -> Path:
        return Path(self.work, "shards", f"{self.split}-{self.index:05d}.array_record")

    @property
    def stats(self) -> Path:
        return self.file.with_suffix(".json")


@dataclass
class Stats:
    """The statistics of a shard: lists over its records in the order of the file, and its rejected rows.

    `films` is further film -> what became of it, "present", "none" or the reason why it cannot be read -> number of
    records; `hashes` are the columns of `records.hashed`, `counted` is feature -> value -> number of records.
    """

    ids: list[str]
    labels: list[list[int]]
    hashes: dict[str, list[int]]
    text_length: list[int]
    image_size: list[tuple[int, int]]
    image_bytes: int
    rejected: list[dict[str, str]]
    counted: dict[str, dict[str, int]]
    films: dict[str, dict[str, int]] = field(default_factory=dict)


def plan_shards(work: Path, plan: Plan, **common: Any) -> list[Shard]:
    """Every shard of a build, in the order of its records; `common` are the fields that all shards share."""
    shards = []
    for split in SPLITS:
        for index, start in enumerate(plan.offsets[split]):
            rows = min(plan.shard_rows[split], plan.rows[split] - index * plan.shard_rows[split])
            shards.append(Shard(work=str(work), split=split, index=index, start=start, rows=rows, **common))
    return shards


def make_shard(shard: Shard, progress: Callable[[], Any] = lambda: None) -> None:
    """Writes the records of one shard, unless it is finished. Raises `Stopped` if they cannot be written."""
    if shard.stats.is_file():
        return
    shard.file.parent.mkdir(exist_ok=True)
    stats = Stats([], [], {name: [] for name in records.hashed(shard.form.kind)}, [], [], 0, [], {})
    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD]
    try:
        # Two workers of a cluster may be given the same shard; each writes its own file, and either may stay.
        with private.replaced(shard.file, by_umask=True) as part:
            adapter.write_examples(part, _serialized(shard, stats, progress))
    except RuntimeError as error:  # the ArrayRecord writer's only error; its last line is the system's message
        raise Stopped(f"the records could not be written: {error}") from error
    with private.replaced(shard.stats, by_umask=True) as part:
        part.write_text(json.dumps(asdict(stats)))


def read_stats(shard: Shard) -> Stats:
    """The statistics of a finished shard."""
    return Stats(**json.loads(shard.stats.read_text()))


def _serialized(shard: Shard, stats: Stats, progress: Callable[[], Any]) -> Iterator[tuple[str, bytes]]:
    """`(key, serialized record)` of every row whose image can be read; fills `stats`."""
    features, serializer = _features(shard.form)
    tokenizer = _tokenizer(str(Path(shard.work, VOCAB_FILE)))
    counted: dict[str, Counter[str]] = {name: Counter() for name in shard.form.counted}

    films = companions(shard.form.further)
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in films}

    def read(path: Path) -> images.Encoded | images.ImageError:
        try:
            return images.load(path, shard.image)
        except images.ImageError as error:
            return error

    def load(row: Row) -> tuple[Row, images.Encoded | images.ImageError, dict[str, Any]]:
        further = {name: read(Path(row.extra[name])) if row.extra[name] else None for name in films}
        return row, read(row.image), further

    rows = read_rows(Path(shard.work), shard.split, shard.start, shard.rows)
    for row, image, further in images.ordered_map(load, rows, workers=shard.threads):
        progress()
        if isinstance(image, images.ImageError):
            stats.rejected.append(asdict(Rejection(row.id, image.reason, str(image))))
            continue
        stats.ids.append(row.id)
        stats.labels.append(list(row.labels))
        stats.text_length.append(len(tokenizer.encode(row.text)))
        stats.image_size.append((image.height, image.width))
        stats.image_bytes += len(image.data)
        for name, counter in counted.items():
            counter[str(row.extra[name])] += 1
        record = {
            "id": row.id,
            "study_id": row.study_id,
            "subject_id": row.subject_id,
            "image": io.BytesIO(image.data),
            "text": row.text,
            "labels": np.asarray(row.labels, np.int8),
            "view": row.view,
            **{
                name: _encoded(name, value, image.film, shard.image)
                for name, value in row.extra.items()
                if name not in films
            },
            **{name: film.data if isinstance(film, images.Encoded) else b"" for name, film in further.items()},
        }
        for name, film in further.items():
            outcomes[name][_outcome(film)] += 1
            # The view of a film that cannot be read is not that of the record either.
            if not record[name]:
                record[films[name]] = ""
        for name, (feature, prefix) in records.hashed(shard.form.kind).items():
            stats.hashes[name].append(records.text_hash(f"{prefix}{record[feature]}"))
        yield row.id, serializer.serialize_example(features.encode_example(record))
    stats.films = {name: dict(sorted(counter.items())) for name, counter in outcomes.items()}
    stats.counted = {name: dict(sorted(counter.items())) for name, counter in counted.items()}


def companions(further: Sequence[str]) -> dict[str, str]:
    """The films of some further features -> the features that name their views."""
    return {name: name.replace("_image", "_view") for name in further if records.FURTHER[name] == "film"}


def _outcome(film: images.Encoded | images.ImageError | None) -> str:
    """What became of a further film: "present", "none", or the reason why it cannot be read."""
    if film is None:
        return "none"
    return film.reason if isinstance(film, images.ImageError) else "present"


def _encoded(name: str, value: Any, film: tuple[int, ...], image: images.ImageOptions) -> Any:
    """A feature of `Row.extra` as TFDS takes it; `film` is (height, width) before it was fitted."""
    if records.FURTHER.get(name) == "boxes":
        return images.placed(value, film, image)
    return value


@functools.lru_cache(maxsize=2)
def _features(form: Form) -> tuple[Any, Any]:
    features = records.features(form.label_names, form.kind, form.further)
    return features, example_serializer.ExampleSerializer(features.get_serialized_info())


@functools.lru_cache(maxsize=2)
def _tokenizer(path: str) -> wordpiece.Tokenizer:
    return wordpiece.load_tokenizer(path)
