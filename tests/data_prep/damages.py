"""Phantom studies as trees of MIMIC-CXR, of Open-I in both of its forms and of pairs, and what happens to such trees.

A tree is held in memory until it is written, so that damages compose: what one did to a row, the next finds there. How
a table is written is kept apart from what it says.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import os
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from PIL import Image

from data_prep.files import hidden
from medvill_jax.data.records import CHEXPERT_FINDINGS

KINDS = ("mimic_cxr", "open_i_xml", "open_i_tables", "pairs_by_index", "pairs_by_subject")
IDS = ("subject_id", "study_id", "dicom_id", "uid", "filename")
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


@dataclass
class Table:
    """A table as its program writes it; `changes` are done to the text of single rows, with the delimiter in sight."""

    rows: list[dict[str, str]]
    number: Callable[[str], str] = str
    label: Callable[[str], str] = str
    header: Callable[[str], str] = str
    dialect: dict[str, Any] = field(default_factory=dict)
    end: str = "\n"
    encoding: str = "utf-8"
    first: str = ""
    index: str | None = None
    packed: int = 1
    after: str = ""
    changes: dict[int, Callable[[str, str], str]] = field(default_factory=dict)

    def written(self) -> bytes:
        names = list(self.rows[0])
        number = self.index is not None
        lines = [self._line([*([self.index] if number else []), *map(self.header, names)])]
        for place, row in enumerate(self.rows):
            line = self._line([*([place] if number else []), *(self._cell(name, row[name]) for name in names)])
            change = self.changes.get(id(row))
            lines.append(line if change is None else change(line, self.dialect.get("delimiter", ",")))
        text = self.first + "\n".join(lines) + "\n" + self.after
        data = text.replace("\n", self.end).encode(self.encoding, "surrogatepass")
        for _ in range(self.packed):
            data = gzip.compress(data, 1)
        return data

    def _line(self, cells: list[Any]) -> str:
        file = io.StringIO()
        csv.writer(file, lineterminator="\n", **self.dialect).writerow(cells)
        return file.getvalue()[:-1]

    def _cell(self, name: str, cell: str) -> str:
        if name in IDS:
            return self.number(cell) if cell.isascii() and cell.isdigit() else cell
        return self.label(cell) if name[0].isupper() and cell in ("1.0", "0.0", "-1.0", "") else cell


@dataclass
class Tree:
    """A source: tables, other files (their bytes, or where they lie), and the lines of an index."""

    kind: str
    tables: dict[str, Table] = field(default_factory=dict)
    files: dict[str, bytes | Path] = field(default_factory=dict)
    index: list[dict[str, Any] | str] = field(default_factory=list)
    # Of the index: how its lines end, what its fields are called, what is in front.
    end: str = "\n"
    mark: bytes = b""
    name: Callable[[str], str] = str
    # Reports go into a zip file, where some may lie more than once.
    zipped: list[tuple[str, bytes]] | None = None
    # Rows (by their identity) and files of which something is lost, or that alone show that another lies.
    touched: set[int | str] = field(default_factory=set)
    # Such rows, wherever they have gone: no other may get the identity of one.
    held: list[Any] = field(default_factory=list)

    def write(self, root: Path) -> None:
        for name, table in self.tables.items():
            put(root / name, table.written())
        packed = dict[str, bytes]()
        for name, content in self.files.items():
            if self.zipped is not None and name.endswith(".txt"):
                packed[name] = _content(content)
            else:
                put(root / name, content)
        if self.zipped is not None:
            with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w") as file:
                for name, content in sorted([*packed.items(), *self.zipped]):
                    file.writestr(name, content)
        if self.index:
            lines = [row if isinstance(row, str) else json.dumps(self._named(row)) for row in self.index]
            put(
                root / "index.jsonl",
                self.mark + "".join(line + self.end for line in lines).encode("utf-8", "surrogatepass"),
            )

    def _named(self, row: dict[str, Any]) -> dict[str, Any]:
        return {self.name(name): value for name, value in row.items()}

    def file(self, rng: random.Random, *suffixes: str) -> str | None:
        """A file with such an ending that nothing has touched, which now is touched; None if there is none left."""
        names = [name for name in self.files if name.endswith(suffixes) and name not in self.touched]
        if not names:
            return None
        name = rng.choice(names)
        self.touched.add(name)
        return name

    def row(self, rng: random.Random, rows: list[Any]) -> Any:
        """A row, likewise."""
        free = [row for row in rows if isinstance(row, dict) and id(row) not in self.touched]
        if not free:
            return None
        row = rng.choice(free)
        self.touched.add(id(row))
        self.held.append(row)
        return row


def put(path: Path, content: bytes | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        os.link(content, path)


def phantom_tree(kind: str, base: Path, studies: int) -> Tree:
    """The first studies of a phantom tree at `base`, as a source of one kind."""
    tables = {name: _read(base / f"mimic-cxr-2.0.0-{name}.csv.gz") for name in ("split", "metadata", "chexpert")}
    chosen = [row["study_id"] for row in tables["chexpert"]][:studies]
    tables = {name: [row for row in rows if row["study_id"] in chosen] for name, rows in tables.items()}
    films = [
        (row, f"files/p{row['subject_id'][:2]}/p{row['subject_id']}/s{row['study_id']}") for row in tables["metadata"]
    ]
    tree = Tree(kind)
    if kind == "mimic_cxr":
        tree.tables = {f"mimic-cxr-2.0.0-{name}.csv.gz": Table(rows) for name, rows in tables.items()}
        for row, folder in films:
            tree.files[f"{folder}/{row['dicom_id']}.jpg"] = base / folder / f"{row['dicom_id']}.jpg"
            tree.files[f"{folder}.txt"] = base / f"{folder}.txt"
    elif kind.startswith("open_i"):
        _open_i(tree, base, films, [f"{chosen.index(row['study_id']) + 1}" for row, _ in films])
    else:
        labels = {row["study_id"]: row for row in tables["chexpert"]}
        splits = {row["dicom_id"]: row["split"] for row in tables["split"]}
        for row, folder in films:
            name = f"images/{row['dicom_id']}.jpg"
            tree.files[name] = base / folder / f"{row['dicom_id']}.jpg"
            given = {name: float(cell) for name, cell in labels[row["study_id"]].items() if cell and name[0].isupper()}
            fields = {"id": row["dicom_id"], "image": name, "text": _said(base / f"{folder}.txt"), "labels": given}
            ids = {"subject_id": int(row["subject_id"]), "study_id": row["study_id"], "view": row["ViewPosition"]}
            tree.index.append({**fields, **ids, "split": splits[row["dicom_id"]]})
    return tree


def _open_i(tree: Tree, base: Path, films: list[tuple[dict[str, str], str]], uids: list[str]) -> None:
    xml = tree.kind == "open_i_xml"
    reports, projections, images = dict[str, dict[str, str]](), [], dict[str, list[str]]()
    for (row, folder), uid in zip(films, uids, strict=True):
        images.setdefault(uid, [])
        name = f"{uid}_IM-{uid:0>4}-{len(images[uid]) + 1}001"
        images[uid].append(name)
        shown = "Lateral" if row["ViewPosition"] == "LATERAL" else "Frontal"
        projections.append({"uid": uid, "filename": f"{name}.dcm.png", "projection": shown})
        # Some numbers are there twice, as in the real ones.
        of_xml = f"CXR{uid}_{name}" if int(uid) % 3 == 0 else f"CXR{name}"
        tree.files[f"NLMCXR_png/{of_xml}.png" if xml else f"images/{name}.dcm.png"] = (
            base / folder / f"{row['dicom_id']}.png"
        )
        reports[uid] = {
            "uid": uid,
            "MeSH": "normal",
            "Problems": 'of a "phantom",\nmade up',
            **_sections(base / f"{folder}.txt"),
        }
    tree.tables["indiana_projections.csv"] = Table(projections, packed=0)
    if not xml:
        tree.tables["indiana_reports.csv"] = Table(list(reports.values()), packed=0)
        return
    for uid, report in reports.items():
        texts = "".join(f'<AbstractText Label="{n.upper()}">{escape(report[n])}</AbstractText>' for n in _SECTIONS)
        shown = [f"CXR{uid}_{name}" if int(uid) % 3 == 0 else f"CXR{name}" for name in images[uid]]
        parents = "".join(f'<parentImage id="{name}"/>' for name in shown)
        tree.files[f"ecgen-radiology/{uid}.xml"] = f"<eCitation>{texts}{parents}</eCitation>".encode()


_SECTIONS = ("comparison", "findings", "impression", "indication")


def _said(report: Path) -> str:
    sections = _sections(report)
    return sections["findings"] or sections["impression"]


def _sections(report: Path) -> dict[str, str]:
    """The sections of a phantom report, by its own headings."""
    found, text = dict.fromkeys(_SECTIONS, ""), report.read_text()
    for name in _SECTIONS:
        if (start := text.find(f"{name.upper()}:")) >= 0:
            body = text[start + len(name) + 1 :]
            ends = [end for other in _SECTIONS if (end := body.find(f"{other.upper()}:")) >= 0]
            found[name] = body[: min(ends, default=len(body))].strip()
    return found


def _read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def png_films(base: Path) -> None:
    """Writes every film of a phantom tree as PNG too."""
    for path in base.rglob("*.jpg"):
        with Image.open(path) as image:
            image.save(path.with_suffix(".png"))


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
        data = _content(tree.files.pop(name))
        instead = rng.choice((None, b"", APPLE_DOUBLE, data[: rng.randrange(len(data))]))
        if instead is not None:
            tree.files[name] = instead


def report_damaged(tree: Tree, rng: random.Random) -> None:
    if (name := tree.file(rng, ".txt", ".xml")) is not None:
        data = _content(tree.files.pop(name))
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
        tree.files[copy] = _content(tree.files[name]).replace(b'"FINDINGS">', b'"FINDINGS">Of somebody else. ')
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


def _content(file: bytes | Path) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()


def _copied(row: Any) -> Any:
    return json.loads(json.dumps(row))
