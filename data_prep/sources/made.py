"""The last step of every source: its rows become a data set."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep import views as known
from data_prep.rows import Rejection, Row
from data_prep.sources.table import Source
from medvill_jax.data.records import FURTHER, DataError


def made(
    source: Source,
    rows: Iterable[Row | Rejection],
    out: Path,
    *,
    files: Iterable[Path],
    options: dict[str, Any],
    views: tuple[str, ...] = (),
    limit: int | None = None,
    further: tuple[str, ...] = (),
    notes: dict[str, Any] | None = None,
    text_required: bool = False,
    **build_options: Any,
) -> dict[str, Any]:
    """Makes the data set `out` and returns its build report.

    Every record has its `source` and `language`, and `sex` and `age` if the table names columns of them.

    Args:
      source: of the table.
      rows: usable or rejected; `extra` has what the table names.
      files: by whose content the source is recognised when it is read again.
      options: of the source, that decide the result.
      views: of these only, () for all; FRONTAL and LATERAL stand for all views of that kind. Others are no rows.
      limit: how many rows to take, from the first; None for all.
      further: more features, keys of `records.FURTHER`.
      notes, text_required, build_options: see `build.build`.

    Raises `DataError`.
    """
    # Here, since it imports TFDS, and the command line imports every source for its flags.
    from data_prep.build import build, file_fingerprint

    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} leaves no rows")
    present = {"source", *(name for name in ("sex", "age") if name in source.fields), *further}
    present |= {"language"} if source.language else set()
    notes = {} if notes is None else notes
    if source.unverified:
        notes["columns_not_verified"] = {name: source.fields[name].column for name in source.unverified}
    rows = itertools.islice(_chosen(source, rows, views, notes), limit)
    return build(
        rows,
        out,
        name=source.name,
        further=tuple(name for name in FURTHER if name in present),
        options={
            **options,
            **({"views": list(views)} if views else {}),
            "limit": limit,
            "source": file_fingerprint(files),
        },
        notes=notes,
        text_required=text_required,
        **build_options,
    )


def _chosen(
    source: Source, rows: Iterable[Row | Rejection], views: tuple[str, ...], notes: dict[str, Any]
) -> Iterator[Row | Rejection]:
    everywhere = {"source": source.name, **({"language": source.language} if source.language else {})}
    left_out = 0
    for row in rows:
        if isinstance(row, Rejection):
            yield row
        elif views and not {row.view, known.KINDS.get(row.view)} & set(views):
            left_out += 1
        else:
            yield replace(row, extra={**everywhere, **row.extra})
    if left_out:
        notes["views_not_selected"] = left_out
