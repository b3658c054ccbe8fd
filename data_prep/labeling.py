"""Labels from report texts, by the rule-based labeler `medvill_jax.metrics.clinical`."""

from __future__ import annotations

from typing import Any

from medvill_jax.data.records import DataError


def labeler() -> Any:
    """The module `medvill_jax.metrics.clinical`; raises `DataError` if it cannot be imported."""
    try:
        from medvill_jax.metrics import clinical  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError as error:
        raise DataError(
            "labels from the reports need medvill_jax.metrics.clinical, which cannot be imported: use the labels of a "
            "file (--labels=chexpert)"
        ) from error
    return clinical


def labels_of(described: str) -> tuple[int, ...]:
    """One value per CheXpert finding, from the sections that describe the image (see `reports.described`)."""
    return tuple(labeler().label_batch([described])[0].tolist())
