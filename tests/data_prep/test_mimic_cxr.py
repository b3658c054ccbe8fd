"""The official layout, from a small tree written here: joins, sections, labels and what may be missing."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import __main__ as command
from data_prep import mimic_cxr
from medvill_jax.data import records
from medvill_jax.data.records import DataError
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PORTABLE AP)

 INDICATION:  ___ year old man with cough.

 FINDINGS:

 The heart is at the upper limits of normal in {n} of ___ views.
 No pleural effusion.

 IMPRESSION:

 1. No acute process.
 2. Follow up.
"""


def write_csv(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def make_tree(root: Path, *, studies: int = 8, suffix: str = ".csv.gz", nested: bool = True) -> Path:
    jpg, text = (root / "mimic-cxr-jpg", root / "mimic-cxr") if nested else (root, root)
    tables: dict[str, list[dict]] = {"split": [], "metadata": [], "chexpert": [], "negbio": []}
    for i in range(studies):
        subject, study = str(10000000 + i // 2), str(50000000 + i)
        split = ("train", "train", "validate", "test")[i // 2 % 4]
        labels = {"Edema": "1.0", "Pneumonia": "-1.0", "Fracture": "0.0"} if i % 2 else {"No Finding": "1"}
        row = {"subject_id": subject, "study_id": study, **{name: labels.get(name, "") for name in CHEXPERT_FINDINGS}}
        tables["chexpert"].append(row)
        tables["negbio"].append({**row, **dict.fromkeys(CHEXPERT_FINDINGS, "")})
        folder = f"files/p{subject[:2]}/p{subject}"
        (jpg / folder / f"s{study}").mkdir(parents=True)
        (text / folder).mkdir(parents=True, exist_ok=True)
        (text / folder / f"s{study}.txt").write_text(REPORT.format(n=i))
        for view in ("AP", "LATERAL"):
            dicom = f"{i:08x}-0a0a0a0a-{view.lower()}"
            ids = {"dicom_id": dicom, "subject_id": subject, "study_id": study}
            tables["split"].append({"dicom_id": dicom, "study_id": study, "subject_id": subject, "split": split})
            tables["metadata"].append({**ids, "ViewPosition": view, "Rows": 40, "Columns": 32})
            pixels = np.full((40, 32), 10 * i, np.uint8)
            Image.fromarray(pixels).save(jpg / folder / f"s{study}" / f"{dicom}.jpg")
    for name, rows in tables.items():
        write_csv(jpg / f"mimic-cxr-2.0.0-{name}{suffix}", rows)
    return jpg


def prepare(source: Path, out: Path, **kwargs):
    return mimic_cxr.prepare(source, out, progress=False, **kwargs)


@pytest.mark.parametrize(("suffix", "nested"), [(".csv.gz", True), (".csv", False)])
def test_tree_becomes_records(tmp_path, suffix, nested):
    make_tree(tmp_path / "tree", suffix=suffix, nested=nested)
    report = prepare(tmp_path / "tree", tmp_path / "out")
    assert report["found"] == report["kept"] == 8
    assert report["splits"] == {"train": 4, "validation": 2, "test": 2}
    assert report["views_not_selected"] == {"LATERAL": 8}
    source = records.open_split(tmp_path / "out", "validation")
    record = next(source[i] for i in range(2) if source[i]["study_id"] == b"50000005")
    assert record["id"] == b"00000005-0a0a0a0a-ap"
    assert record["subject_id"] == b"10000002"
    assert record["view"] == b"AP"
    assert record["text"] == b"The heart is at the upper limits of normal in 5 of views. No pleural effusion."
    labels = dict(zip(CHEXPERT_FINDINGS, record["labels"].tolist(), strict=True))
    assert {name: value for name, value in labels.items() if value != ABSENT} == {
        "Edema": 1,
        "Pneumonia": -1,
        "Fracture": 0,
    }


def test_source_may_be_the_image_folder_itself_or_reports_elsewhere(tmp_path):
    jpg = make_tree(tmp_path / "tree")
    assert prepare(jpg, tmp_path / "out")["kept"] == 8
    (tmp_path / "tree" / "mimic-cxr").rename(tmp_path / "texts")
    with pytest.raises(DataError, match="--reports"):
        prepare(jpg, tmp_path / "out2")
    with pytest.raises(DataError, match="no reports at"):
        prepare(jpg, tmp_path / "out2", reports_root=tmp_path)
    assert prepare(jpg, tmp_path / "out2", reports_root=tmp_path / "texts")["kept"] == 8


def test_views_sections_labels_and_limit(tmp_path):
    make_tree(tmp_path / "tree")
    report = prepare(
        tmp_path / "tree", tmp_path / "all", views=(), sections=("impression", "findings"), labels="negbio"
    )
    assert report["kept"] == 16
    assert report["views_not_selected"] == {}
    record = records.open_split(tmp_path / "all", "train")[0]
    assert record["text"].startswith(b"No acute process. Follow up. The heart")
    assert set(record["labels"].tolist()) == {ABSENT}
    assert prepare(tmp_path / "tree", tmp_path / "few", limit=3)["found"] == 3
    for wrong in ({"sections": ("finding",)}, {"sections": ()}, {"labels": "vicuna"}, {"limit": 0}):
        with pytest.raises(DataError):
            prepare(tmp_path / "tree", tmp_path / "no", **wrong)


def test_every_fault_has_its_reason(tmp_path):
    jpg = make_tree(tmp_path / "tree", studies=20, suffix=".csv")
    texts = sorted((tmp_path / "tree" / "mimic-cxr").rglob("s*.txt"))
    texts[0].unlink()
    texts[1].write_text(" \n")
    texts[2].write_text("IMPRESSION: Normal chest.")
    texts[3].write_text("FINDINGS: ___\n IMPRESSION: Normal chest.")
    images = sorted(jpg.rglob("*-ap.jpg"))
    images[4].unlink()
    images[5].write_bytes(images[5].read_bytes()[:-60])

    def edit(name: str, change) -> None:
        path = jpg / f"mimic-cxr-2.0.0-{name}.csv"
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        write_csv(path, change(rows))

    edit("split", lambda rows: [r | {"split": "dev"} if r["study_id"] == "50000006" else r for r in rows])
    edit("split", lambda rows: [r for r in rows if r["study_id"] != "50000007"])
    edit("chexpert", lambda rows: [r | {"Edema": "maybe"} if r["study_id"] == "50000008" else r for r in rows])
    edit("chexpert", lambda rows: [r for r in rows if r["study_id"] != "50000009"])
    edit("metadata", lambda rows: [r | {"subject_id": "../../x"} if r["study_id"] == "50000010" else r for r in rows])
    edit("metadata", lambda rows: [r | {"dicom_id": "../up"} if r["study_id"] == "50000011" else r for r in rows])
    edit("metadata", lambda rows: rows + [r for r in rows if r["study_id"] == "50000012"])
    report = prepare(tmp_path / "tree", tmp_path / "out", max_rejected=1)
    assert report["found"] == 21
    assert report["kept"] == 8
    assert report["rejected"] == {
        "missing_report": 1,
        "empty_text": 1,
        "no_wanted_section": 2,
        "missing_image": 1,
        "unreadable_image": 1,
        "unknown_split": 1,
        "no_split": 1,
        "bad_label_value": 1,
        "no_labels": 1,
        "unsafe_path": 2,
        "duplicate_id": 1,
    }
    rows = [json.loads(line) for line in (tmp_path / "out" / records.REJECTED_FILE).read_text().splitlines()]
    assert all("Normal chest" not in json.dumps(row) for row in rows)
    assert next(row for row in rows if row["reason"] == "bad_label_value")["detail"] == "Edema is 'maybe'"


def test_missing_files_and_columns_are_named(tmp_path, capsys):
    assert command.main(["mimic_cxr", f"--source={tmp_path / 'no'}", f"--out={tmp_path / 'out'}"]) == 2
    (tmp_path / "tree").mkdir()
    assert command.main(["mimic_cxr", f"--source={tmp_path / 'tree'}", f"--out={tmp_path / 'out'}"]) == 2
    err = capsys.readouterr().err
    assert "there is no folder" in err
    assert "Traceback" not in err
    assert all(f"mimic-cxr-2.0.0-{name}.csv.gz" in err for name in ("split", "metadata", "chexpert"))
    jpg = make_tree(tmp_path / "tree")
    labels = jpg / "mimic-cxr-2.0.0-chexpert.csv.gz"
    whole = labels.read_bytes()
    labels.unlink()
    with pytest.raises(DataError, match=r"mimic-cxr-2\.0\.0-chexpert\.csv\.gz") as caught:
        prepare(tmp_path / "tree", tmp_path / "out")
    assert "split.csv" not in str(caught.value)
    labels.write_bytes(whole[:-20])
    with pytest.raises(DataError, match="damaged"):
        prepare(tmp_path / "tree", tmp_path / "out")
    labels.write_bytes(b"\x1f\x8b no gzip")
    with pytest.raises(DataError, match="damaged"):
        prepare(tmp_path / "tree", tmp_path / "out")
    labels.write_bytes(gzip.compress(bytes(64 << 20)))
    with pytest.raises(DataError, match="a line of more than 4194304 characters"):
        prepare(tmp_path / "tree", tmp_path / "out")
    write_csv(labels, [{"subject_id": "1", "study_id": "2", "Edema": ""}])
    with pytest.raises(DataError, match="no column Atelectasis"):
        prepare(tmp_path / "tree", tmp_path / "out")
    write_csv(labels, [{"subject_id": "1", "study_id": "2", **dict.fromkeys(CHEXPERT_FINDINGS, ""), "Gout": "1.0"}])
    with pytest.raises(DataError, match="Gout"):
        prepare(tmp_path / "tree", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_line(tmp_path, capsys):
    make_tree(tmp_path / "tree")
    source, out = f"--source={tmp_path / 'tree'}", f"--out={tmp_path / 'out'}"
    assert command.main(["mimic_cxr", source, out, "--views=all", "--sections=findings,impression"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "kept             16" in captured.out
    assert "year old" not in captured.out
    assert "0a0a0a0a" not in captured.out
    assert command.main(["mimic_cxr", source, out, "--views=all", "--sections=findings,impression"]) == 0
    assert "nothing was done" in capsys.readouterr().out
    assert command.main(["mimic_cxr", source, out, "--views=PA"]) == 2


def labels_of(out: Path) -> list[dict[str, int]]:
    found = [record["labels"].tolist() for name in records.splits(out) for record in records.open_split(out, name)]
    return [{n: v for n, v in zip(CHEXPERT_FINDINGS, row, strict=True) if v != ABSENT} for row in found]


def test_indications_are_never_labelled(tmp_path):
    jpg = make_tree(tmp_path / "tree")
    asked = " FINAL REPORT\n INDICATION:  Evaluate for pneumonia. Pneumothorax?\n\n COMPARISON:  Large effusion.\n\n "
    for text in (tmp_path / "tree" / "mimic-cxr").rglob("s*.txt"):
        text.write_text(asked + "CHEST, TWO VIEWS:  Mild edema.\n\n IMPRESSION:  Fracture.\n")
    for number, (sections, said) in enumerate(
        {
            "full": {"Edema": 1, "Fracture": 1},
            "findings": {"Edema": 1},
            "indication+findings": {"Edema": 1},
            "indication+comparison": {},
        }.items()
    ):
        out = tmp_path / f"out{number}"
        prepare(jpg, out, sections=(sections,), labels="report")
        assert labels_of(out) == [said] * 8
    text = records.open_split(tmp_path / "out0", "test")[0]["text"].decode()
    assert text.startswith("INDICATION: Evaluate for pneumonia. Pneumothorax?\n\nCOMPARISON: ")
    assert text.endswith("CHEST, TWO VIEWS: Mild edema.\n\nIMPRESSION: Fracture.")
    for text in (tmp_path / "tree" / "mimic-cxr").rglob("s*.txt"):
        text.write_text(asked + "Mild edema.\n")
    report = prepare(jpg, tmp_path / "last", sections=("findings",), fallback=("last_paragraph",), labels="report")
    assert labels_of(tmp_path / "last") == [{"Edema": 1}] * 8
    assert report["studies_by_text"] == {"last_paragraph": 8}
    with pytest.raises(DataError, match=r"preamble, .*last_paragraph, full"):
        prepare(jpg, tmp_path / "out", sections=("summary",))


def test_the_card_says_what_texts_were_taken_from(tmp_path):
    make_tree(tmp_path / "tree")
    texts = sorted((tmp_path / "tree" / "mimic-cxr").rglob("s*.txt"))
    texts[0].write_text("IMPRESSION: Normal chest.\n\nADDENDUM: Line removed.")
    texts[1].write_text("HISTORY: Cough.\n\nThe lungs are clear.")
    texts[2].write_text("HISTORY: Cough.")
    texts[3].write_text("ADDENDUM: Line removed.\n\nFINDINGS: The lungs are clear.")
    options = {"views": (), "sections": ("findings", "impression"), "fallback": ("last_paragraph",)}
    report = prepare(tmp_path / "tree", tmp_path / "out", **options)
    assert report["studies_by_text"] == {
        "findings+impression": 4,
        "impression": 1,
        "last_paragraph": 1,
        "(none of these)": 1,
        "findings": 1,
    }
    assert report["addenda_left_out"] == 2
    card = (tmp_path / "out" / "DATA.md").read_text()
    assert "| findings+impression | 4 | 50.0 % |" in card
    assert "| (none of these) | 1 | 12.5 % |" in card
    assert "2 of these studies have an addendum" in card
    report = prepare(tmp_path / "tree", tmp_path / "all", sections=("findings", "addendum"), max_rejected=1)
    assert "addenda_left_out" not in report


def test_a_report_of_marks_only_is_empty(tmp_path):
    jpg = make_tree(tmp_path / "tree")
    next(jpg.parent.rglob("s*.txt")).write_text(" ___ [**Name**]\n ______________\n")
    assert prepare(jpg, tmp_path / "out", max_rejected=1)["rejected"] == {"empty_text": 1}
