"""The reports on a data set: the content of build_report.json, the data card DATA.md, the contact sheet."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import platform
import textwrap
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from data_prep.rows import EXPECTED, HINTS, Form
from data_prep.shards import Stats, companions
from data_prep.spool import Plan
from medvill_jax.data import records
from medvill_jax.data.records import SPLITS

CARD_FILE = "DATA.md"
SHEET_FILE = "contact_sheet.png"
VALUES = {"positive": 1, "negative": 0, "uncertain": -1, "absent": -2}
_QUANTILES = (0, 5, 25, 50, 75, 95, 99, 100)
_SHEET_COLUMNS, _SHEET_ROWS, _TILE, _CAPTION = 6, 4, 220, 52
_MOST_LISTED = 20
# Word pieces at which a text may be cut: every `model.text_len` of the configurations, and one value in between.
TEXT_LENGTHS = (30, 54, 62, 125, 253)
# Data set -> the option that keeps subjects in one split.
_APART = {"pairs": "--split=subject", "mimic_cxr": "--split=subject", "vqa_rad": "--split=image_disjoint"}


class Totals:
    """Sums over the shards of a build; takes a few bytes of memory per record."""

    def __init__(self, form: Form, plan: Plan):
        self.label_names, self.form, self.plan = form.label_names, form, plan
        self.rejected: Counter[str] = Counter(plan.rejected)
        self.ids: dict[str, list[str]] = {split: [] for split in SPLITS}
        self.labels = {split: array("b") for split in SPLITS}
        self.hashes = {split: {name: array("Q") for name in records.hashed(form.kind)} for split in SPLITS}
        self.lengths = {split: array("I") for split in SPLITS}
        self.sizes = array("I")
        self.image_bytes = 0
        self.counted: dict[str, dict[str, Counter[str]]] = {
            split: {name: Counter() for name in form.counted} for split in SPLITS
        }

        self.films: dict[str, dict[str, Counter[str]]] = {
            split: {name: Counter() for name in companions(form.further)} for split in SPLITS
        }

    def add(self, split: str, stats: Stats) -> None:
        self.rejected.update(row["reason"] for row in stats.rejected)
        self.ids[split] += stats.ids
        for name, hashes in stats.hashes.items():
            self.hashes[split][name].extend(hashes)
        self.lengths[split].extend(stats.text_length)
        self.image_bytes += stats.image_bytes
        for values in stats.labels:
            self.labels[split].extend(values)
        for size in stats.image_size:
            self.sizes.extend(size)
        for name, counts in stats.counted.items():
            self.counted[split][name].update(counts)
        for name, counts in stats.films.items():
            self.films[split][name].update(counts)

    def index(self, split: str) -> dict[str, np.ndarray]:
        """The columns of the index of a split (see `index.save_index`)."""
        labels = np.asarray(self.labels[split], np.int8).reshape(-1, len(self.label_names))
        hashes = {name: np.asarray(column, np.uint64) for name, column in self.hashes[split].items()}
        return {"labels": labels, "pieces": np.asarray(self.lengths[split], np.uint32), **hashes}

    def answers(self) -> list[str]:
        """The answers of the training questions, most frequent first."""
        counts = self.counted["train"]["answer"]
        return sorted(counts, key=lambda answer: (-counts[answer], answer))

    def report(self) -> dict[str, Any]:
        """The counts of `build_report.json`."""
        kept = {split: len(self.ids[split]) for split in SPLITS if self.ids[split]}
        sizes = np.asarray(self.sizes).reshape(-1, 2)
        texts = {split: self.index(split)["text_hash"] for split in kept}
        has_text = {split: texts[split] != records.NO_TEXT for split in kept}
        without = {split: int((~has_text[split]).sum()) for split in kept}
        hashes = [texts[split][has_text[split]] for split in kept]
        lengths = {split: np.asarray(self.lengths[split])[has_text[split]] for split in kept}
        all_hashes = np.concatenate(hashes) if hashes else np.empty(0, np.uint64)
        return {
            "found": self.plan.found,
            "kept": sum(kept.values()),
            "rejected": dict(self.rejected.most_common()),
            "expected_rejections": sorted(EXPECTED & set(self.rejected)),
            "splits": kept,
            "labels": {split: self._label_counts(split) for split in kept},
            **({"counts": {split: self._counts(split) for split in kept}} if self.form.counted else {}),
            **(
                {"further_films": {split: self._films(split) for split in kept}}
                if companions(self.form.further)
                else {}
            ),
            "text_length_in_word_pieces": {split: _quantiles(pieces, mean=True) for split, pieces in lengths.items()},
            "share_of_texts_longer_than": {
                split: {str(most): round(float((pieces > most).mean()), 4) for most in TEXT_LENGTHS}
                if len(pieces)
                else {}
                for split, pieces in lengths.items()
            },
            **({"without_text": without} if any(without.values()) else {}),
            "duplicate_texts": {
                "within_splits": {
                    split: len(hashed) - len(np.unique(hashed)) for split, hashed in zip(kept, hashes, strict=True)
                },
                "over_all": len(all_hashes) - len(np.unique(all_hashes)),
            },
            "images": {
                "height": _quantiles(sizes[:, 0]),
                "width": _quantiles(sizes[:, 1]),
                "bytes": self.image_bytes,
            },
            "subjects_in_several_splits": self.plan.shared_subjects,
            "checksum_of_ids": f"sha256:{sha256(sorted(id for ids in self.ids.values() for id in ids))}",
            "warnings": self._warnings(kept, without),
        }

    def _warnings(self, kept: dict[str, int], without: dict[str, int]) -> list[str]:
        warnings = [f"the {split} split is empty and left out" for split in SPLITS if split not in kept]
        if self.plan.shared_subjects:
            option = _APART.get(self.plan.options.get("name", ""))
            remedy = f" ({option} keeps each in one)" if option else ""
            warnings.append(
                f"{self.plan.shared_subjects} subjects are in several splits: test results will be too good{remedy}"
            )
        warnings += self.plan.notes.get("cautions", [])
        alone = self.plan.notes.get("rows_without_subject", 0)
        if alone:
            warnings.append(f"{alone} rows name no subject, though others do: each counts as a separate patient")
        missing, count = sum(without.values()), sum(kept.values())
        if missing == count:
            stored = self.plan.options.get("tokenizer") == "trained" and not any(self.plan.texts.values())
            vocabulary = ", and its vocabulary is the five special tokens (give --tokenizer to store another)"
            warnings.append(
                "no record has a report, so the data set is for classification only" + (vocabulary if stored else "")
            )
        elif missing:
            warnings.append(
                f"{missing} of {count} records have no report: they are for classification only; pre-training and "
                "report generation need a data set without them"
            )
        others = self.plan.notes.get("label_names_beyond_chexpert", {})
        if others:
            listed = ", ".join(f"{name} ({rows})" for name, rows in list(others.items())[:_MOST_LISTED])
            warnings.append(
                f"{len(others)} findings of the index are not among the 14 of CheXpert and follow them: {listed}"
                f"{', ...' if len(others) > _MOST_LISTED else ''} (--label_names sets the list)"
            )
        return warnings

    def _label_counts(self, split: str) -> dict[str, dict[str, int]]:
        labels = self.index(split)["labels"]
        return {
            label: {name: int((labels[:, column] == value).sum()) for name, value in VALUES.items()}
            for column, label in enumerate(self.label_names)
        }

    def _films(self, split: str) -> dict[str, dict[str, int]]:
        return {name: dict(counter.most_common()) for name, counter in self.films[split].items()}

    def _counts(self, split: str) -> dict[str, dict[str, int]]:
        return {
            name: dict(sorted(counter.items())) if name != "answer" else {"distinct": len(counter)}
            for name, counter in self.counted[split].items()
        }


def _quantiles(values: Sequence[int] | np.ndarray, mean: bool = False) -> dict[str, Any]:
    if not len(values):
        return {}
    points = {f"p{q}": int(np.percentile(values, q)) for q in _QUANTILES}
    return {"mean": round(float(np.mean(values)), 2), **points} if mean else points


def sha256(items: Iterable[str]) -> str:
    """Hexadecimal SHA-256 of a sequence of lines."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(item.encode() + b"\n")
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Package -> version, of those on which the bytes of a data set depend."""
    tools = {"python": platform.python_version()}
    for package in ("tensorflow-datasets", "array_record", "numpy", "pillow", "tokenizers"):
        tools[package] = importlib.metadata.version(package)
    tools["opencv"] = cv2.__version__
    for package in ("pydicom", "pylibjpeg-openjpeg", "pylibjpeg-libjpeg", "apache-beam"):
        try:
            tools[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return tools


def rejection_lines(rejected: dict[str, int]) -> list[str]:
    """A table of rejection reasons for the terminal, most frequent first."""
    lines = []
    for reason, count in sorted(rejected.items(), key=lambda item: (-item[1], item[0])):
        expected = "; expected, not counted by --max_rejected" if reason in EXPECTED else ""
        lines.append(f"  {reason:<22} {count:>9}  ({HINTS.get(reason, reason)}{expected})")
    return lines


def markdown(report: dict[str, Any]) -> str:
    """The data card DATA.md of a build report, in Markdown."""
    options = report["options"]
    rejected = report["rejected"]
    lines = [
        f"# Data card: {options['name']}",
        "",
        "Made by `python -m data_prep`. `build_report.json` has the same numbers for programs, `rejected.jsonl` lists",
        "every row that was left out, with the reason.",
        "",
        "## Rows",
        "",
        *_table(
            ("", "rows", ""),
            [
                ("found", report["found"], ""),
                ("kept", report["kept"], ""),
                ("rejected", sum(rejected.values()), "found = kept + rejected"),
                *((f"- {reason}", count, HINTS.get(reason, "")) for reason, count in rejected.items()),
            ],
        ),
        "## Splits",
        "",
        *_split_table(report),
    ]
    lines += [f"**{warning}**\n" for warning in report["warnings"]]
    texts = report["kept"] - sum(report.get("without_text", {}).values())
    equal = [
        f"Equal texts: {report['duplicate_texts']['over_all']} of {texts} records repeat the text of another record; "
        + "within splits: "
        + ", ".join(f"{split} {count}" for split, count in report["duplicate_texts"]["within_splits"].items())
        + ".",
        "",
    ]
    lines += equal if texts else []
    if report.get("studies_by_text"):
        lines += ["## Texts", "", *_source_table(report)]
    if "counts" in report:
        lines += ["## Questions" if "answer" in _counted(report) else "## Counts", "", *_count_table(report)]
    if any(
        values["absent"] < report["splits"][split]
        for split, findings in report["labels"].items()
        for values in findings.values()
    ):
        lines += ["## Labels", "", "Positive / negative / uncertain / not mentioned.", "", *_label_table(report)]
    images = report["images"]
    lines += [
        "## Images",
        "",
        *_table(
            ("pixels", *images["height"]),
            [("height", *images["height"].values()), ("width", *images["width"].values())],
        ),
        f"{images['bytes'] / 1e6:.1f} MB of JPEG, 8-bit grayscale.",
        "",
        "## Options",
        "",
        *_table(("option", "value"), [(key, f"`{_short(value)}`") for key, value in options.items()]),
    ]
    known = {
        *("found", "kept", "rejected", "expected_rejections", "splits", "labels", "counts", "duplicate_texts"),
        *(
            "text_length_in_word_pieces",
            "share_of_texts_longer_than",
            "without_text",
            "images",
            "subjects_in_several_splits",
            "checksum_of_ids",
            "warnings",
        ),
        *("options", "versions", "studies_by_text", "addenda_left_out"),
    }
    notes = [(key, f"`{_short(value)}`") for key, value in report.items() if key not in known and value]
    if notes:
        lines += ["## Notes on the source", "", *_table(("", ""), notes)]
    lines += [
        "## Made with",
        "",
        *_table(("tool", "version"), list(report["versions"].items())),
        f"Checksum over the sorted ids: `{report['checksum_of_ids']}`",
        "",
    ]
    return "\n".join(lines)


def _split_table(report: dict[str, Any]) -> list[str]:
    lengths = report["text_length_in_word_pieces"]
    points = next(filter(None, lengths.values()), {})
    without = report.get("without_text", {})
    rows = [
        (split, count, *([without[split]] if without else []), *(lengths[split].get(point, "") for point in points))
        for split, count in report["splits"].items()
    ]
    header = ("split", "records", *(["without report"] if without else []), *points)
    lines = [
        "Text lengths are in word pieces and leave out records without text."
        if without
        else "Text lengths are in word pieces.",
        "",
    ]
    shares = {split: share for split, share in report["share_of_texts_longer_than"].items() if share}
    cut = [
        "Share of texts longer than `model.text_len` word pieces, which a model with that setting cuts:",
        "",
        *_table(
            ("longer than", *TEXT_LENGTHS),
            [(split, *(f"{100 * share[str(most)]:.1f} %" for most in TEXT_LENGTHS)) for split, share in shares.items()],
        ),
    ]
    return [*(lines if points else []), *_table(header, rows), *(cut if shares else [])]


def _source_table(report: dict[str, Any]) -> list[str]:
    """The sections that the texts were taken from, counted by study."""
    studies = report["studies_by_text"]
    total = sum(studies.values())
    rows = [(name, count, f"{100 * count / total:.1f} %") for name, count in studies.items()]
    left_out = report.get("addenda_left_out", 0)
    lines = [
        f"{left_out} of these studies have an addendum that is not in their text (`--sections=...,addendum` adds it).",
        "",
    ]
    return [*_table(("text taken from", "studies", "share"), rows), *(lines if left_out else [])]


def _counted(report: dict[str, Any]) -> list[str]:
    """The features whose values a report counts."""
    return list(next(iter(report["counts"].values()), {}))


def _count_table(report: dict[str, Any]) -> list[str]:
    rows = []
    for name in _counted(report):
        values = sorted({value for counts in report["counts"].values() for value in counts[name]})
        listed = values[:_MOST_LISTED]
        rows += [(f"{name}: {v}", *(counts[name].get(v, 0) for counts in report["counts"].values())) for v in listed]
    return _table(("", *report["counts"]), rows)


def _label_table(report: dict[str, Any]) -> list[str]:
    names = next(iter(report["labels"].values()), {})
    cells = [
        (name, *(" / ".join(str(n) for n in findings[name].values()) for findings in report["labels"].values()))
        for name in names
    ]
    return _table(("finding", *report["labels"]), cells)


def _table(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> list[str]:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(header), line(["---"] * len(header)), *map(line, rows), ""]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."


def draw_contact_sheet(data_dir: Path) -> None:
    """Writes `contact_sheet.png`: 24 records, evenly spaced over the train split, with the first words of each text."""
    source = records.open_split(data_dir, "train")
    total = min(_SHEET_COLUMNS * _SHEET_ROWS, len(source))
    height = _TILE + _CAPTION
    sheet = Image.new("L", (_SHEET_COLUMNS * _TILE, -(-total // _SHEET_COLUMNS) * height), 255)
    draw = ImageDraw.Draw(sheet)
    for place, index in enumerate(np.linspace(0, len(source), total, endpoint=False).astype(int).tolist()):
        record = source[index]
        left, top = place % _SHEET_COLUMNS * _TILE, place // _SHEET_COLUMNS * height
        with Image.open(io.BytesIO(record["image"])) as image:
            image.thumbnail((_TILE - 6, _TILE - 6))
            sheet.paste(image, (left + (_TILE - image.width) // 2, top + (_TILE - image.height) // 2))
        text = record["text"].decode()
        if "answer" in record:
            text = f"{text} -> {record['answer'].decode()}"
        words = textwrap.fill(text.encode("latin-1", "replace").decode("latin-1"), 36, max_lines=4, placeholder=" ...")
        draw.multiline_text((left + 4, top + _TILE), words, fill=0, spacing=1, font_size=10)
    sheet.save(data_dir / SHEET_FILE)
