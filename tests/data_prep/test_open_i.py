"""Open-I in both of its forms: the same reports give the same records."""

import csv
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import __main__ as command
from data_prep import open_i
from medvill_jax.data import records
from medvill_jax.data.records import DataError
from medvill_jax.findings import CHEXPERT_FINDINGS

COMMON = {"progress": False, "labels": "none"}
REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><meta type="rr"/><uId id="CXR{uid}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText>
<AbstractText Label="INDICATION">Cough number {uid}</AbstractText>
<AbstractText Label="FINDINGS">{findings}</AbstractText>
<AbstractText Label="IMPRESSION">1. No acute process {uid}.</AbstractText>
</Abstract></Article></MedlineCitation>
{images}</eCitation>
"""
IMAGE = '<parentImage id="{name}"><caption>Xray Chest PA and Lateral</caption></parentImage>\n'


def names(uid: int) -> tuple[str, str]:
    return f"{uid}_IM-{uid:04}-1001", f"{uid}_IM-{uid:04}-2001"


def findings(uid: int) -> str:
    return "" if uid % 7 == 0 else f"Heart &amp; lungs of {uid} are normal."


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(40 * 30, dtype=np.uint8).reshape(40, 30)).save(path)


def as_xml(folder: Path, count: int = 28) -> Path:
    for uid in range(1, count + 1):
        images = [f"CXR{uid}_{name}" for name in names(uid)]
        for name in images:
            write_image(folder / "NLMCXR_png" / f"{name}.png")
        path = folder / "ecgen-radiology" / f"{uid}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        listed = "".join(IMAGE.format(name=name) for name in images)
        path.write_text(REPORT.format(uid=uid, findings=findings(uid), images=listed))
    return folder


def as_tables(folder: Path, count: int = 28) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "indiana_reports.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uid", "MeSH", "Problems", "image", *("indication", "comparison", "findings", "impression")])
        for uid in range(1, count + 1):
            text = findings(uid).replace("&amp;", "&")
            row = [uid, "normal", "normal", "Xray", f"Cough number {uid}", "None.", text, f"1. No acute process {uid}."]
            writer.writerow(row)
    write_projections(folder, count)
    for uid in range(1, count + 1):
        for name in names(uid):
            write_image(folder / "images" / "images_normalized" / f"{name}.dcm.png")
    return folder


def write_projections(folder: Path, count: int = 28) -> None:
    with open(folder / "indiana_projections.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uid", "filename", "projection"])
        for uid in range(1, count + 1):
            for name, projection in zip(names(uid), ("Frontal", "Lateral"), strict=True):
                writer.writerow([uid, f"{name}.dcm.png", projection])


def contents(out: Path) -> dict:
    return {
        record["study_id"]: (split, record["text"], record["view"], record["image"])
        for split in records.splits(out)
        for record in records.open_split(out, split)
    }


def test_both_forms_give_the_same_records(tmp_path):
    xml = open_i.prepare(as_xml(tmp_path / "xml"), tmp_path / "a", **COMMON)
    tables = open_i.prepare(as_tables(tmp_path / "tables"), tmp_path / "b", **COMMON)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    for report in (xml, tables):
        assert (report["found"], report["kept"], report["rejected"]) == (28, 24, {"no_wanted_section": 4})
        assert report["images_of_other_views"] == 28
        assert report["subjects_in_several_splits"] == 0
    assert (xml["form"], tables["form"]) == ("xml", "tables")
    assert xml["views_guessed"] == 56
    assert "views_guessed" not in tables
    split, text, view, _ = contents(tmp_path / "a")[b"5"]
    assert split in records.SPLITS
    assert (text, view) == (b"Heart & lungs of 5 are normal.", b"FRONTAL")


def test_projections_beside_xml_are_used(tmp_path):
    as_xml(tmp_path / "in")
    write_projections(tmp_path / "in")
    path = tmp_path / "in" / "indiana_projections.csv"
    swapped = {"Frontal": "Lateral", "Lateral": "Frontal"}
    rows = [row.rsplit(",", 1) for row in path.read_text().splitlines()]
    path.write_text("\n".join(f"{head},{swapped.get(last, last)}" for head, last in rows) + "\n")
    report = open_i.prepare(tmp_path / "in", tmp_path / "out", **COMMON)
    # Names in the XML files carry a prefix and no suffix; those of the table do not.
    assert "views_guessed" not in report
    ids = [record["id"] for split in report["splits"] for record in records.open_split(tmp_path / "out", split)]
    assert all(name.endswith(b"2001") for name in ids)


def test_views_sections_and_fallback(tmp_path):
    source = as_tables(tmp_path / "in")
    report = open_i.prepare(source, tmp_path / "a", views=(), fallback=("impression",), **COMMON)
    assert report["kept"] == report["found"] == 56
    lateral = open_i.prepare(source, tmp_path / "b", views=("lateral",), sections=("full",), **COMMON)
    assert lateral["kept"] == 28
    assert contents(tmp_path / "b")[b"7"][1] == b"No acute process 7. Cough number 7 None."
    for wrong in ({"views": ("AP",)}, {"sections": ("technique",)}, {"labels": "x"}, {"limit": 0}, {"uncertain": "x"}):
        with pytest.raises(DataError):
            open_i.prepare(source, tmp_path / "c", **{**COMMON, **wrong})


def test_every_fault_has_its_reason(tmp_path):
    source = as_xml(tmp_path / "in")
    folder = source / "ecgen-radiology"
    (folder / "1.xml").write_text("<eCitation><unclosed>")
    (folder / "2.xml").write_text('<!DOCTYPE x [<!ENTITY a "b">]><eCitation>&a;</eCitation>')
    (folder / "3.xml").write_text(REPORT.format(uid=3, findings="Clear.", images=""))
    (folder / "4.xml").write_text(REPORT.format(uid=4, findings="x", images=IMAGE.format(name="../../up")))
    (folder / "5.xml").write_text("<eCitation>" + IMAGE.format(name="CXR5_5_IM-0005-1001") + "</eCitation>")
    (source / "NLMCXR_png" / "CXR6_6_IM-0006-1001.png").unlink()
    (source / "NLMCXR_png" / "CXR8_8_IM-0008-1001.png").write_bytes(b"junk")
    (folder / "9.xml").write_text(REPORT.format(uid=9, findings="x", images=IMAGE.format(name="CXR10_10_IM-0010-1001")))
    report = open_i.prepare(source, tmp_path / "out", max_rejected=1, **COMMON)
    listed = [json.loads(line) for line in (tmp_path / "out" / records.REJECTED_FILE).read_text().splitlines()]
    # Its name says whose it is.
    assert contents(tmp_path / "out")[b"10"][1] == b"Heart & lungs of 10 are normal."
    assert {(row["id"], row["reason"]) for row in listed} == {
        ("1", "unreadable_report"),
        ("2", "unreadable_report"),
        ("3", "no_frontal_image"),
        ("../../up", "unsafe_path"),
        ("CXR5_5_IM-0005-1001", "empty_text"),
        ("CXR6_6_IM-0006-1001", "missing_image"),
        ("CXR8_8_IM-0008-1001", "unreadable_image"),
        ("CXR10_10_IM-0010-1001", "tables_disagree"),
        *((f"CXR{n}_{n}_IM-{n:04}-1001", "no_wanted_section") for n in (7, 14, 21, 28)),
    }
    assert report["found"] == 28 == report["kept"] + sum(report["rejected"].values())


APPLE_DOUBLE = bytes.fromhex("0005160700020000") + b"Mac OS X        "


def test_files_of_the_system_are_none_of_the_source(tmp_path):
    source = as_xml(tmp_path / "in")
    expected = open_i.prepare(source, tmp_path / "a", **COMMON)
    for path in [*source.rglob("*.xml"), *source.rglob("*.png")]:
        path.with_name(f"._{path.name}").write_bytes(APPLE_DOUBLE)
    # Where only the system's files are, the images are elsewhere.
    (source / "NLMCXR_png").rename(source / "png")
    (source / "NLMCXR_png").mkdir()
    (source / "NLMCXR_png" / "._CXR1_1_IM-0001-1001.png").write_bytes(APPLE_DOUBLE)
    (source / "ecgen-radiology" / ".DS_Store").write_bytes(b"Bud1")
    again = open_i.prepare(source, tmp_path / "b", **COMMON)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert (again["found"], again["rejected"]) == (expected["found"], expected["rejected"])


@pytest.mark.parametrize("name", ["CXR2_IM-0652-1001", "CXR2_2_IM-0652-1001"])
def test_projections_are_found_under_every_name(tmp_path, name):
    (tmp_path / "2.xml").write_text(REPORT.format(uid=2, findings="Clear.", images=IMAGE.format(name=name)))
    (tmp_path / "p.csv").write_text("uid,filename,projection\n2,2_IM-0652-1001.dcm.png,Lateral\n")
    [report] = open_i._from_xml([tmp_path / "2.xml"], open_i._projections(tmp_path / "p.csv"))
    assert report.images == ((name, "LATERAL"),)


def test_tables_written_by_other_programs(tmp_path):
    expected = open_i.prepare(as_tables(tmp_path / "in"), tmp_path / "a", **COMMON)
    source = as_tables(tmp_path / "other")
    for name in ("indiana_reports.csv", "indiana_projections.csv"):
        with open(source / name, newline="") as file:
            header, *rows = csv.reader(file)
        with open(source / name, "w", newline="", encoding="utf-16") as file:
            writer = csv.writer(file, delimiter=";", quoting=csv.QUOTE_ALL)
            writer.writerows(
                [
                    ["Unnamed: 0", header[0].upper(), *header[1:]],
                    *([n, f"{r[0]}.0", *r[1:]] for n, r in enumerate(rows)),
                ]
            )
    again = open_i.prepare(source, tmp_path / "b", **COMMON)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert again["rejected"] == expected["rejected"]


def test_rows_that_contradict_each_other_are_rejected(tmp_path):
    source = as_tables(tmp_path / "in")
    with open(source / "indiana_reports.csv", "a", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [1, "normal", "normal", "Xray", "Cough number 1", "None.", "Another text.", "1. No acute process 1."]
        )
        writer.writerow(
            [
                2,
                "normal",
                "normal",
                "Xray",
                "Cough number 2",
                "None.",
                "Heart & lungs of 2 are normal.",
                "1. No acute process 2.",
            ]
        )
        writer.writerow([3, "nan", "cut"])
    with open(source / "indiana_projections.csv", "a", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([5, "4_IM-0004-1001.dcm.png", "Frontal"])
        writer.writerow([6, "6_IM-0006-1001.dcm.png", "Frontal"])
        writer.writerow([8, "8_IM-0008-1001.dcm.png", "Lateral"])
    report = open_i.prepare(source, tmp_path / "out", max_rejected=1, **COMMON)
    listed = [json.loads(line) for line in (tmp_path / "out" / records.REJECTED_FILE).read_text().splitlines()]
    found = sorted((row["id"], row["reason"]) for row in listed if row["reason"] != "no_wanted_section")
    assert found == sorted(
        [
            *[("1", "reports_disagree")] * 2,
            *((name, "missing_report") for name in ("1_IM-0001-1001.dcm", "1_IM-0001-2001.dcm")),
            ("2", "duplicate_id"),
            ("3", "malformed_row"),
            *((f"{n}_IM-000{n}-1001.dcm", "tables_disagree") for n in (4, 8)),
        ]
        + [("4", "no_frontal_image"), ("8", "no_frontal_image")]
    )
    assert report["found"] == report["kept"] + sum(report["rejected"].values())


def test_an_image_that_two_reports_claim_is_of_neither(tmp_path):
    source = as_xml(tmp_path / "in")
    folder = source / "ecgen-radiology"
    (folder / "1 (1).xml").write_text((folder / "1.xml").read_text().replace("Heart", "Liver"))
    report = open_i.prepare(source, tmp_path / "out", max_rejected=1, **COMMON)
    assert report["rejected"] == {"rows_disagree": 2, "no_wanted_section": 4}
    assert b"1" not in contents(tmp_path / "out")


ENTITIES = "".join(f'<!ENTITY a{n} "{(f"&a{n - 1};" if n else "ha") * 20}">' for n in range(5))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "iso-8859-1", "cp1252"])
@pytest.mark.parametrize("doctype", ["<!DOCTYPE x [" + ENTITIES + "]>", "<!DOCTYPE x>"])
def test_no_encoding_hides_a_doctype(tmp_path, doctype, encoding):
    path = tmp_path / "1.xml"
    declared = "utf-16" if encoding.startswith("utf-16") else encoding
    text = REPORT.format(uid=1, findings="&a4;" if "ENTITY" in doctype else "Clear.", images="")
    text = text.replace("utf-8", declared).replace("<eCitation>", f"{doctype}<eCitation>")
    path.write_bytes(text.encode(encoding))
    [found] = open_i._from_xml([path], {})
    assert isinstance(found, open_i.Rejection)
    assert found == open_i.Rejection("1", "unreadable_report", f"{path}: a DOCTYPE, which no report has")


def test_what_is_no_report_file_is_not_read(tmp_path):
    source = as_xml(tmp_path / "in", 5)
    folder = source / "ecgen-radiology"
    (folder / "5.xml").unlink()
    (folder / "5.xml").mkdir()
    with open(folder / "1.xml", "r+b") as file:
        file.truncate(200 << 20)
    (folder / "2.xml").unlink()
    os.mkfifo(folder / "2.xml")
    (folder / "3.xml").rename(folder / os.fsdecode(b"3\xff.xml"))
    (folder / os.fsdecode(b"3\xff.xml")).write_text('<?xml version="1.0" encoding="nonsense"?><eCitation/>')
    tracemalloc.start()
    report = open_i.prepare(source, tmp_path / "out", max_rejected=1, **COMMON)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report["rejected"] == {"oversized_report": 1, "inaccessible_file": 2, "unreadable_report": 1}
    assert report["found"] == report["kept"] + sum(report["rejected"].values()) == 5
    assert most < 100 << 20
    listed = (tmp_path / "out" / records.REJECTED_FILE).read_text()
    assert f"1.xml: {200 << 20} bytes, more than the {1 << 20} of the largest sound one" in listed
    assert "2.xml: no regular file" in listed


def test_errors_name_the_files(tmp_path, capsys):
    out = f"--out={tmp_path}/out"
    assert command.main(["open_i", f"--source={tmp_path}/no", out, "--labels=none"]) == 2
    assert command.main(["open_i", f"--source={tmp_path}", out, "--labels=none"]) == 2
    err = capsys.readouterr().err
    assert "ecgen-radiology" in err
    assert "indiana_reports.csv" in err
    source = as_tables(tmp_path / "in", 8)
    assert command.main(["open_i", f"--source={source}", out, "--labels=none"]) == 0
    (source / "indiana_projections.csv").unlink()
    assert command.main(["open_i", f"--source={source}", f"{out}2", "--labels=none"]) == 2
    assert "indiana_projections.csv" in capsys.readouterr().err


def test_labels_by_our_labeler(tmp_path):
    clinical = pytest.importorskip("medvill_jax.metrics.clinical")
    open_i.prepare(as_tables(tmp_path / "in"), tmp_path / "out", progress=False)
    source = records.open_split(tmp_path / "out", "train")
    texts = [source[i]["text"].decode() for i in range(len(source))]
    stored = np.stack([source[i]["labels"] for i in range(len(source))])
    assert np.array_equal(stored, clinical.label_batch(texts))


def test_marks_of_open_i_are_dropped_or_kept(tmp_path):
    source = as_tables(tmp_path / "in", 12)
    path = source / "indiana_reports.csv"
    marked = path.read_text().replace("Heart & lungs of 5 are", "Heart XXXX & lungs of XXXX-year-old are")
    path.write_text(marked.replace("Heart & lungs of 6 are normal.", "XXXX XXXX-XXXX."))
    report = open_i.prepare(source, tmp_path / "a", **COMMON)
    assert report["rejected"] == {"no_wanted_section": 2}
    assert report["studies_by_text"] == {"findings": 10, "(none of these)": 2}
    assert contents(tmp_path / "a")[b"5"][1] == b"Heart & lungs of are normal."
    assert b"6" not in contents(tmp_path / "a")
    out = f"--out={tmp_path / 'b'}"
    assert command.main(["open_i", f"--source={source}", out, "--marks=keep", "--labels=none", "--quiet"]) == 0
    assert contents(tmp_path / "b")[b"5"][1] == b"Heart XXXX & lungs of XXXX-year-old are normal."
    assert [records.mark_rule(tmp_path / name) for name in "ab"] == ["drop", "keep"]
    assert b"6" not in contents(tmp_path / "b")
    assert open_i.prepare(source, tmp_path / "c", fallback=("impression",), **COMMON)["kept"] == 12
    with pytest.raises(DataError, match="drop, keep"):
        open_i.prepare(source, tmp_path / "d", marks="x", **COMMON)
    path.write_text(
        marked.replace("Heart & lungs of 6 are normal.,1. No acute process 6.", "XXXX.,XXXX").replace(
            "Cough number 6,None.", "xxxx,X-XXXX"
        )
    )
    assert open_i.prepare(source, tmp_path / "e", max_rejected=1, **COMMON)["rejected"]["empty_text"] == 1


def test_indications_are_never_labelled(tmp_path):
    source = as_tables(tmp_path / "in", 12)
    path = source / "indiana_reports.csv"
    path.write_text(
        path.read_text().replace("Cough number", "Pneumonia and effusion and fracture").replace("None.", "Edema.")
    )
    for number, sections in enumerate(("full", "indication+findings", "indication")):
        out = tmp_path / f"out{number}"
        open_i.prepare(source, out, sections=(sections,), progress=False, max_rejected=1)
        for name in records.splits(out):
            for record in records.open_split(out, name):
                values = dict(zip(CHEXPERT_FINDINGS, record["labels"].tolist(), strict=True))
                assert b"Pneumonia" in record["text"]
                assert {values[finding] for finding in ("Pneumonia", "Pleural Effusion", "Fracture", "Edema")} == {-2}


def test_a_limit_leaves_the_notes(tmp_path):
    report = open_i.prepare(as_tables(tmp_path / "in", 12), tmp_path / "out", limit=9, **COMMON)
    assert report["found"] == 9
    assert report["studies_by_text"] == {"findings": 8, "(none of these)": 1}
    assert report["images_of_other_views"] == 9
