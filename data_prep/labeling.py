"""Labels from the texts themselves, by the project's own rule-based labeler."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from data_prep.rows import Rejection, Row
from medvill_jax.data.records import DataError

# Rows are labeled in batches, since a labeler has a cost per call.
_BATCH = 256


def labeler() -> Any:
    """The module `medvill_jax.metrics.clinical`; `DataError` where this copy of the project has none."""
    try:
        from medvill_jax.metrics import clinical  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError as error:
        raise DataError(
            "labels from the reports need medvill_jax.metrics.clinical, which this copy of the project lacks: take the "
            "labels of a file (--labels=chexpert)"
        ) from error
    return clinical


def labeled(rows: Iterable[Row | Rejection]) -> Iterator[Row | Rejection]:
    """The rows in their order, `labels` filled from their texts."""
    clinical = labeler()
    batch: list[Row | Rejection] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield from _label(batch, clinical)
            batch = []
    yield from _label(batch, clinical)


def _label(batch: list[Row | Rejection], clinical: Any) -> Iterator[Row | Rejection]:
    texts = [row.text for row in batch if isinstance(row, Row)]
    values = iter(clinical.label_batch(texts).tolist() if texts else ())
    for row in batch:
        yield dataclasses.replace(row, labels=tuple(next(values))) if isinstance(row, Row) else row
