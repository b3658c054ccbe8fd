"""Phantom studies as trees of MIMIC-CXR, of Open-I in both of its forms and of pairs.

A tree is held in memory until it is written, so that damages compose: what one did to a row, the next finds there. How
a table is written is kept apart from what it says.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from PIL import Image

KINDS = ("mimic_cxr", "open_i_xml", "open_i_tables", "pairs_by_index", "pairs_by_subject")
IDS = ("subject_id", "study_id", "dicom_id", "uid", "filename")


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
                packed[name] = content_of(content)
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


_SECTIONS: tuple[str, ...] = ("comparison", "findings", "impression", "indication")


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


def content_of(file: bytes | Path) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()
