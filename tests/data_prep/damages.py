"""What happens to trees of studies on their way: other forms that say the same, and losses."""

from __future__ import annotations

import codecs
import csv
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from data_prep.files import hidden
from medvill_jax.findings import CHEXPERT_FINDINGS
from tests.data_prep.trees import IDS, Table, Tree, content_of

APPLE_DOUBLE = bytes.fromhex("0005160700020000") + b"Mac OS X        "
# What is no id, no split and no label.
NASTY = (
    "../../etc/passwd",
    "..",
    "-7",
    "1e309",
    "9" * 40,
    "ä" * 300,
    "x" * 5000,
    "%s{}",
    "\ufffd",
    "\0",
    "holdout",
    "yes",
    "TRUE",
)
# How a spreadsheet, pandas or R writes the number of an id.
NUMBERS: tuple[Callable[[str], str], ...] = (
    str,
    "{}.0".format,
    "{},00".format,
    " {} ".format,
    '="{}"'.format,
    "'{}".format,
    lambda number: f"{int(number):,}" if len(number) > 6 else number,
    lambda number: f"{int(number):.18e}",
)
LABELS: tuple[Callable[[str], str], ...] = (
    str,
    lambda cell: cell.removesuffix(".0"),
    lambda cell: cell.replace(".", ","),
    lambda cell: cell or "nan",
    lambda cell: cell.replace("-", "\u2212"),
)
HEADERS: tuple[Callable[[str], str], ...] = (str, str.upper, " {} ".format, lambda name: name.replace("_", " ").title())


def _table(tree: Tree, rng: random.Random) -> Table | None:
    return rng.choice(list(tree.tables.values())) if tree.tables else None


# Damages that say the same in another form: whatever they are and however many, every record stays as it was.


def as_another_program(tree: Tree, rng: random.Random) -> None:
    if (table := _table(tree, rng)) is not None:
        table.number, table.label = rng.choice(NUMBERS), rng.choice(LABELS)
        table.header, table.index = rng.choice(HEADERS), rng.choice((None, "", "Unnamed: 0", "index"))


def another_dialect(tree: Tree, rng: random.Random) -> None:
    if (table := _table(tree, rng)) is not None:
        delimiter = rng.choice(",;\t|")
        table.dialect = {"delimiter": delimiter, "quoting": rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))}
        table.first = rng.choice(("", "\n\n", f"sep={delimiter}\n"))
        table.end, table.after = rng.choice(("\n", "\r\n", "\r")), rng.choice(("", "\n\n", delimiter * 3 + "\n"))


def another_encoding(tree: Tree, rng: random.Random) -> None:
    if (table := _table(tree, rng)) is not None:
        table.encoding, table.packed = rng.choice(("utf-8", "utf-8-sig", "utf-16", "utf-32")), rng.randrange(3)


def another_order(tree: Tree, rng: random.Random) -> None:
    for table in tree.tables.values():
        rng.shuffle(table.rows)
    if tree.kind.startswith("pairs"):
        rng.shuffle(tree.index)


def rows_repeated(tree: Tree, rng: random.Random) -> None:
    if (table := _table(tree, rng)) is not None:
        table.rows.insert(rng.randrange(len(table.rows) + 1), dict(rng.choice(table.rows)))
    elif tree.index:
        tree.index.insert(rng.randrange(len(tree.index) + 1), _copied(rng.choice(tree.index)))


def files_of_the_system(tree: Tree, rng: random.Random) -> None:
    for name in [name for name in tree.files if not hidden(name)]:
        folder, _, last = name.rpartition("/")
        tree.files[f"{folder}/._{last}"] = APPLE_DOUBLE
        tree.files[f"{folder}/{rng.choice(('.DS_Store', 'Thumbs.db', 'desktop.ini'))}"] = b"Bud1"
        if tree.zipped is not None:
            tree.zipped.append((f"__MACOSX/{folder}/._{last}", APPLE_DOUBLE))
    for name in [name for name in tree.files if hidden(name) and name.endswith(".jpg")] if tree.index else ():
        row = {"id": f"hidden{len(tree.index)}", "image": name, "text": "A film.", "split": "train"}
        tree.touched.add(id(row))
        tree.index.append(row)


def reports_packed(tree: Tree, rng: random.Random) -> None:
    if tree.kind == "mimic_cxr":
        tree.zipped = tree.zipped or []


def index_rewritten(tree: Tree, rng: random.Random) -> None:
    tree.end, tree.mark = rng.choice(("\n", "\r\n", "\n\n")), rng.choice((b"", codecs.BOM_UTF8))
    tree.name = rng.choice((str, str.upper, str.title, lambda name: name.replace("_", " ")))


def index_values(tree: Tree, rng: random.Random) -> None:
    for row in _objects(tree):
        for name in ("subject_id", "study_id"):
            number = str(row.get(name, ""))
            if number.isascii() and number.isdigit():
                row[name] = rng.choice(
                    (int(number), float(number), number, f"{number}.0", f" {number}", f'="{number}"')
                )
        labels = row.get("labels")
        if isinstance(labels, dict):
            for name, value in labels.items():
                if value in (1.0, 0.0, -1.0):
                    labels[name] = rng.choice((value, int(value), str(value), f"{int(value)}", f"{int(value)},0"))
            labels.setdefault("Fracture", rng.choice((None, "", "nan", float("nan"))))


def subject_left_out(tree: Tree, rng: random.Random) -> None:
    """Of a row whose study has another."""
    row = tree.row(rng, tree.index)
    others = [other for other in _objects(tree) if row and other.get("study_id") == row.get("study_id")]
    if (other := tree.row(rng, others)) is not None and other.get("subject_id"):
        row["subject_id"] = rng.choice((None, "", "nan", float("nan")))


# Damages that lose something: what is lost is rejected with its reason, and nothing else is moved by it. None hits what
# another has touched: where two rows contradict each other and one goes, nothing tells that the other lies.


def row_dropped(tree: Tree, rng: random.Random) -> None:
    rows = _rows(tree, rng)[1]
    if len(rows) > 1 and (row := tree.row(rng, rows)) is not None:
        rows[:] = [other for other in rows if other is not row]


def row_cut(tree: Tree, rng: random.Random) -> None:
    table, rows = _rows(tree, rng)
    share, row = rng.random(), tree.row(rng, rows)
    if row is None:
        return
    if table is not None:
        # A cell at least is lost: half a cell may be whole.
        table.changes[id(row)] = lambda line, delimiter: line[: int(share * line.rfind(delimiter))]
    else:
        line = json.dumps(row)
        rows[_place(rows, row)] = line[: int(share * len(line))] or "{"


def quotation_mark(tree: Tree, rng: random.Random) -> None:
    table, rows = _rows(tree, rng)
    share, row = rng.random(), tree.row(rng, rows)
    if table is not None and row is not None:
        table.changes[id(row)] = lambda line, _: f'{line[: int(share * len(line))]}"{line[int(share * len(line)) :]}'


def cell_replaced(tree: Tree, rng: random.Random) -> None:
    """By what no cell of its column is; the view of a film, and texts, may be anything."""
    table, rows = _rows(tree, rng)
    nasty, row = rng.choice(NASTY), tree.row(rng, rows)
    if row is None:
        return
    if table is not None:
        row[rng.choice([name for name in row if name in (*IDS, "split") or name in CHEXPERT_FINDINGS])] = nasty
    else:
        name = rng.choice(("image", "split", "labels", "subject_id", "study_id"))
        odd = (True, 0.5, [nasty], {nasty: 1})
        row[name] = rng.choice(odd if name.endswith("_id") else (nasty, *odd))


def row_contradicted(tree: Tree, rng: random.Random) -> None:
    """By another of the same id, before it or after it."""
    table, rows = _rows(tree, rng)
    row = tree.row(rng, rows)
    if row is None:
        return
    copy, other = _copied(row), rng.choice([other for other in rows if isinstance(other, dict)])
    told = (
        ("split", "ViewPosition", "projection", "findings", *CHEXPERT_FINDINGS)
        if table
        else ("text", "image", "labels")
    )
    name = rng.choice([name for name in told if name in row])
    instead = {"Frontal": "Lateral", "Lateral": "Frontal", "AP": "PA", "train": "test", "-1.0": "0.0"}
    same = other.get(name) == row[name]
    copy[name] = instead.get(str(row[name]), "-1.0") if same else other.get(name)
    tree.touched.add(id(copy))
    rows.insert(rng.randrange(len(rows) + 1), copy)


def ids_exchanged(tree: Tree, rng: random.Random) -> None:
    """Between rows of two studies, where another table, the name or the place of the film tells."""
    table = next((table for name, table in tree.tables.items() if "metadata" in name or "projections" in name), None)
    if table is None:
        return
    one, two = tree.row(rng, table.rows), tree.row(rng, table.rows)
    names = ("subject_id", "study_id", "dicom_id") if tree.kind == "mimic_cxr" else ("uid", "filename")
    study, name = names[-2], rng.choice(names)
    if one and two and one[study] != two[study]:
        one[name], two[name] = two[name], one[name]


def film_damaged(tree: Tree, rng: random.Random) -> None:
    if (name := tree.file(rng, ".jpg", ".png")) is not None:
        data = content_of(tree.files.pop(name))
        instead = rng.choice((None, b"", APPLE_DOUBLE, data[: rng.randrange(len(data))]))
        if instead is not None:
            tree.files[name] = instead


def report_damaged(tree: Tree, rng: random.Random) -> None:
    if (name := tree.file(rng, ".txt", ".xml")) is not None:
        data = content_of(tree.files.pop(name))
        # Half a report of plain text is a report.
        instead = rng.choice(
            (None, b"", APPLE_DOUBLE, data[: rng.randrange(len(data) - 1)] if name.endswith("l") else b"")
        )
        if instead is not None:
            tree.files[name] = instead


def report_repeated(tree: Tree, rng: random.Random) -> None:
    """With another text, where copies of a tree have come together."""
    reports_packed(tree, rng)
    name = tree.file(rng, ".xml", ".txt")
    if name is not None and tree.zipped is not None:
        tree.zipped.append((f"{rng.choice(('copy', 'old'))}/{name}", b"FINDINGS: Of somebody else.\n"))
    elif name is not None:
        copy = f"{name.removesuffix('.xml')} (1).xml"
        tree.files[copy] = content_of(tree.files[name]).replace(b'"FINDINGS">', b'"FINDINGS">Of somebody else. ')
        tree.touched.add(copy)


# Damage -> kinds of trees that it can happen to, by how they begin.
SAME = {
    **dict.fromkeys((as_another_program, another_dialect, another_encoding), ("mimic", "open_i")),
    **dict.fromkeys((another_order, rows_repeated, files_of_the_system), ("mimic", "open_i", "pairs")),
    **dict.fromkeys((index_rewritten, index_values, subject_left_out), ("pairs",)),
    reports_packed: ("mimic",),
}
LOSSES = {
    **dict.fromkeys(
        (row_dropped, row_cut, cell_replaced, row_contradicted, film_damaged), ("mimic", "open_i", "pairs")
    ),
    **dict.fromkeys((quotation_mark, ids_exchanged), ("mimic", "open_i")),
    **dict.fromkeys((report_damaged, report_repeated), ("mimic", "open_i_xml")),
}


def possible(damages: dict[Callable[[Tree, random.Random], None], tuple[str, ...]], kind: str) -> list[Any]:
    return [damage for damage, kinds in damages.items() if kind.startswith(kinds)]


def _rows(tree: Tree, rng: random.Random) -> tuple[Table | None, list[Any]]:
    """One of the tables and its rows, or no table and those of the index."""
    table = _table(tree, rng)
    return table, tree.index if table is None else table.rows


def _objects(tree: Tree) -> Iterator[dict[str, Any]]:
    return (row for row in tree.index if isinstance(row, dict))


def _place(rows: list[Any], row: Any) -> int:
    return next(place for place, other in enumerate(rows) if other is row)


def _copied(row: Any) -> Any:
    return json.loads(json.dumps(row))
