"""Films of a prepared data set, named by their records, which any process finds again."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from medvill_jax.data import records
from medvill_jax.data.records import DataError


@dataclass(frozen=True)
class Prepared:
    """A film of a prepared data set.

    Attributes:
        data: the data set, a folder or `gs://` URL.
        split: of it.
        number: of the record in the split.
        name: the identifier of the record.
    """

    data: str
    split: str
    number: int
    name: str

    def image(self) -> bytes:
        """The image file. Raises `DataError` if the data set is gone, damaged, or another one by now."""
        record = _opened(self.data, self.split)[self.number]
        if record["id"].decode() != self.name:
            raise DataError(f"record {self.number} of {self.split} of {self.data} is no longer the one that was named")
        return record["image"]


def films(data: str, split: str) -> tuple[Prepared, ...]:
    """The films of a split, in its order; reads all records.

    Raises:
        DataError: there is no such data set or split, it is damaged, or two records have one identifier.
    """
    names = records.read_columns(data, split, ["id"])["id"].tolist()
    if len({*names}) < len(names):
        raise DataError(f"{data}: records of {split} have the same identifier, so answers could not be told apart")
    return tuple(Prepared(data, split, number, name) for number, name in enumerate(names))


@functools.lru_cache(maxsize=4)
def _opened(data: str, split: str) -> Any:
    return records.open_split(data, split)
