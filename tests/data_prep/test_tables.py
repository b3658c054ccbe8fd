"""One table in every form that programs give it; rows that cannot be trusted; labels."""

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.tables import Labels, label_value, read_table
from medvill_jax.data.records import DataError
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS

HEADER = ("uid", "findings", "ViewPosition")
ROWS = [
    ("1", "Heart; lungs, and the rest.", "AP"),
    ("2", 'A 5" tube.\nNo effusion.\n\nEnd', "PA"),
    ("3", "Größe", "LATERAL"),
]


def text(delimiter: str = ",", end: str = "\n", header=HEADER, quoting=csv.QUOTE_MINIMAL) -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(header)
    writer.writerows(ROWS)
    return file.getvalue()


def with_row_numbers(name: str) -> str:
    lines = io.StringIO()
    csv.writer(lines).writerows([(name, *HEADER), *((n, *row) for n, row in enumerate(ROWS))])
    return lines.getvalue()


FORMS = {
    "plain": text().encode(),
    "windows": text(end="\r\n").encode(),
    "old mac": text(end="\r").encode(),
    "mark": text().encode("utf-8-sig"),
    "utf-16": text("\t").encode("utf-16"),
    "utf-16, big": b"\xfe\xff" + text().encode("utf-16-be"),
    "utf-16 without mark": text(";").encode("utf-16-le"),
    "utf-32": text().encode("utf-32"),
    "semicolons": text(";").encode(),
    "tabs": text("\t").encode(),
    "bars": text("|").encode(),
    "told": b"sep=;\r\n" + text(";", "\r\n").encode(),
    "told a delimiter of its own": b"sep=^\n" + text("^").encode(),
    "all in quotation marks": text(quoting=csv.QUOTE_ALL).encode(),
    "names in quotation marks": text(header=[f" {name} " for name in HEADER], quoting=csv.QUOTE_ALL).encode(
        "utf-8-sig"
    ),
    "names in another case": text(header=("UID", "Findings", "view position")).encode(),
    "names with marks": text(header=("uid ", "findings", "View_Position")).encode(),
    "row numbers of pandas": with_row_numbers("").encode(),
    "row numbers read and written again": with_row_numbers("Unnamed: 0").encode(),
    "blank lines": text().replace("uid", "\n\nuid").encode() + b"\n,,\n\n",
    "packed": gzip.compress(text().encode()),
    "packed twice": gzip.compress(gzip.compress(text(";").encode("utf-8-sig"))),
    "several members": gzip.compress(text().encode()[:50]) + gzip.compress(text().encode()[50:]),
}


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_table(form, name, tmp_path):
    (tmp_path / name).write_bytes(FORMS[form])
    rows = list(read_table(tmp_path / name, HEADER[:2], HEADER[2:]))
    assert [tuple(row[name] for name in HEADER) for row in rows] == ROWS
    assert all(row.keys() == set(HEADER) and not row.fault for row in rows)


@pytest.mark.parametrize("head", [b"PK\x03\x04\x14", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"])
def test_a_workbook_is_called_one(head, tmp_path):
    (tmp_path / "t.csv").write_bytes(head + bytes(100))
    with pytest.raises(DataError, match=r"an Excel workbook.* not a csv table: save the table as csv"):
        list(read_table(tmp_path / "t.csv", HEADER))


def test_a_column_that_is_there_twice(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("uid,Uid,findings\n1,2,a\n")
    assert [dict(row) for row in read_table(path, ("uid", "findings"))] == [{"uid": "1", "findings": "a"}]
    path.write_text("uid,findings,uid\n1,a,2\n")
    with pytest.raises(DataError, match="has the column uid twice"):
        list(read_table(path, ("uid", "findings")))


def rows_of(path: Path, content: str) -> list[tuple[str, bool]]:
    path.write_text("a,b,c,d\n" + content)
    return [(row["a"], bool(row.fault)) for row in read_table(path, ("a", "c"))]


def test_rows_of_other_lengths_are_faulty_where_that_moves_or_loses_cells(tmp_path):
    path = tmp_path / "t.csv"
    assert rows_of(path, "1,2,3,4\n2,2,3\n3,2,3,4,,\n") == [("1", False), ("2", False), ("3", False)]
    assert rows_of(path, "1,2\n2\n3,CHEST (PA, LAT),3,4\n4,2,3,4\n") == [
        ("1", True),
        ("2", True),
        ("3", True),
        ("4", False),
    ]


@pytest.mark.parametrize("stray", ['1,"2,3,4', '1,2,"3,4', '1,"2"x,3,4', '1,"2,3', '1,2,3,"', '"1,2,3,4'])
def test_a_stray_quotation_mark_costs_its_row_alone(stray, tmp_path):
    after = 'x2,"b, c",3,4\nx3,2,3,4\n' + "x4,2,3,4\n" * 3000
    found = rows_of(tmp_path / "t.csv", f"x1,2,3,4\n{stray}\n{after}")
    assert [each for each in found if each[0].startswith("x")] == [(f"x{n}", False) for n in (1, 2, 3, *[4] * 3000)]
    assert len(found) == 3004


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12), min_size=4, max_size=40))
def test_what_a_writer_writes_is_read(tmp_path_factory, cells):
    rows = [cells[start : start + 4] for start in range(0, len(cells) // 4 * 4, 4)]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([list("abcd"), *rows])
    path = tmp_path_factory.getbasetemp() / "written.csv"
    path.write_text(file.getvalue(), "utf-8", newline="")
    read = [[row[name] for name in "abcd"] for row in read_table(path, tuple("abcd"))]
    stripped = [[cell.strip() for cell in row] for row in rows]
    assert read == [row for row in stripped if any(row)]


LABELS = {
    **dict.fromkeys(("1", "1.0", "1,0", "1.", "+1", "1.000000", " 1 ", "1e0"), 1),
    **dict.fromkeys(("0", "0.0", "0,0", "-0.0", "0.000"), 0),
    **dict.fromkeys(("-1", "-1.0", "-1,0", "\u22121.0", "-1.000"), -1),
    **dict.fromkeys(("", " ", "nan", "NaN", "None", "<NA>", "null"), ABSENT),
    **dict.fromkeys(("TRUE", "FALSE", "yes", "2", "0.5", "inf", "1_0", "1;0", "positive", "x", "\u0661"), None),
}


@pytest.mark.parametrize("cell", LABELS)
def test_label_values(cell):
    assert label_value(cell) == LABELS[cell]


def test_labels_of_a_cut_row_are_not_guessed(tmp_path):
    names = ",".join(CHEXPERT_FINDINGS)
    whole = ",".join(["1.0", *[""] * 12, "-1.0"])
    (tmp_path / "l.csv").write_text(
        f"study_id,Subject_ID,{names}\n5.0,7.0,{whole}\ns6,p7,1.0,,\n8,7,{whole}\n8,7,{whole}\n"
    )
    labels = Labels(tmp_path / "l.csv")
    assert labels.of("5", "7") == labels.of("8", "7") == (1, *[ABSENT] * 12, -1)
    assert labels.of("6", "7")[0] == "malformed_row"
    assert labels.of("5", "8")[0] == "tables_disagree"
