"""Labels from the reports themselves, by the project's own rule-based labeler."""

from __future__ import annotations

from typing import Any

from medvill_jax.data.records import DataError


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


def labels_of(described: str) -> tuple[int, ...]:
    """One value per finding of CheXpert, from what a report says of the image (see `reports.described`)."""
    return tuple(labeler().label_batch([described])[0].tolist())
