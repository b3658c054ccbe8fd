"""Which view a film is: words and codes of every field, fields that agree or do not, in files, tables and indexes."""

import gzip
import json

import pytest

from data_prep import mimic_cxr, pairs, views
from data_prep.rows import EXPECTED
from medvill_jax.data import records
from tests.films.test_dicom import dataset, stored, written

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset  # noqa: E402

from data_prep import dicom  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("CHEST PA", "PA"),
        ("W033 Chest PA", "PA"),
        ("Chest_PA", "PA"),
        ("ChestPA", "PA"),
        ("PA2", "PA"),
        ("CHEST,P.A.", "PA"),
        ("Thorax p.a.", "PA"),
        ("postero-anterior", "PA"),
        ("PosteroAnterior", "PA"),
        ("AP PORTABLE", "AP"),
        ("CHEST (PORTABLE AP)", "AP"),
        ("Thorax a.p. liegend", "AP"),
        ("antero-posterior", "AP"),
        ("ANTERIOR-POSTERIOR VIEW", "AP"),
        ("LAT", "LATERAL"),
        ("Chest Lateral", "LATERAL"),
        ("XTABLE LATERAL", "XTABLE LATERAL"),
        ("Thorax seitlich", "LATERAL"),
        ("tórax perfil", "LATERAL"),
        ("LL", "LL"),
        ("Chest L LAT", "LL"),
        ("left lateral", "LL"),
        ("RT LATERAL", "RL"),
        ("Left Lateral Decubitus", "LLD"),
        ("LATERAL DECUBITUS", "DECUBITUS"),
        ("left posterior oblique", "LPO"),
        ("AP LORDOTIC", "LORDOTIC"),
        ("frontal AP", "AP"),
        ("Tórax frente", "FRONTAL"),
        ("R-10206", "AP"),
        ("R-10214", "PA"),
        ("r-10202", "FRONTAL"),
        ("399348003", "AP"),
        ("272479007", "PA"),
        ("399067008", "LATERAL"),
        ("399173006", "LL"),
        ("RID43594", "PA"),
        ("CHEST PA AND LAT", "LATERAL+PA"),
        ("Thorax p.a./seitlich", "LATERAL+PA"),
        ("CHEST AP/PA", "AP+PA"),
        *((text, "") for text in ("CHEST", "PORTABLE", "BILATERAL RIBS", "2 views", "PA catheter", "PAPA", "", "123")),
    ],
)
def test_words_and_codes(text, named):
    assert views.views_in(text) == set(named.split("+")) - {""}


def test_every_word_and_code_of_the_tables_names_its_view():
    for view, choices in (*views.WORDS.items(), *views.CODES.items()):
        for text in choices:
            assert views.views_in(text) == {view}, text
    assert set(views.KINDS) <= set(views.WORDS)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"ViewPosition": "ap", "SeriesDescription": "CHEST PA"}, "AP"),
        *(({"ViewPosition": view}, view) for view in ("LLD", "LL", "AP LLD", "XTABLE LATERAL", "AP AXIAL", "SPECIAL")),
        ({"ViewPosition": "postero-anterior"}, "PA"),
        ({"ViewPosition": "Chest LAT"}, "LATERAL"),
        ({"ViewPosition": "UNKNOWN", "SeriesDescription": "CHEST PA"}, "PA"),
        ({"SeriesDescription": "CHEST PA", "ProtocolName": "W033 Chest PA"}, "PA"),
        ({"SeriesDescription": "CHEST PA", "ProtocolName": "CHEST AP"}, ""),
        ({"AcquisitionDeviceProcessingDescription": "CHEST,LAT"}, "LATERAL"),
        ({"ViewCodeSequence": "left lateral", "SeriesDescription": "LAT"}, "LL"),
        ({"ViewCodeSequence": "left lateral", "SeriesDescription": "CHEST PA AND LAT"}, "LL"),
        ({"ViewCodeSequence": "antero-posterior", "StudyDescription": "CHEST PA"}, "AP"),
        ({"SeriesDescription": "CHEST PA AND LAT"}, ""),
        ({"SeriesDescription": "CHEST PA AND LAT", "StudyDescription": "CHEST PA"}, ""),
        ({"StudyDescription": "XR CHEST AP PORTABLE"}, "AP"),
        ({"PerformedProcedureStepDescription": "CHEST (PORTABLE AP)"}, "AP"),
        ({"PerformedProcedureStepDescription": "CHEST (PA AND LAT)"}, ""),
        ({"StudyDescription": "CHEST AP", "PatientOrientation": "L\\F"}, "AP"),
        ({"StudyDescription": "CHEST AP", "PatientOrientation": "A\\F"}, ""),
        ({"StudyDescription": "CHEST PA AND LAT", "PatientOrientation": "P\\F"}, "LATERAL"),
        ({"StudyDescription": "CHEST PA AND LAT", "PatientOrientation": "L\\F"}, "FRONTAL"),
        ({"SeriesDescription": "PORTABLE"}, ""),
        ({}, ""),
    ],
)
def test_fields_that_agree_and_that_do_not(fields, name):
    found = views.find({field: value.split("\\") for field, value in fields.items()})
    assert found.name == name
    assert bool(found.unknown) == (not name)


def test_what_contradicts_what_is_said():
    found = views.find({"SeriesDescription": ("PA",), "ProtocolName": ("AP",)})
    assert found.unknown == "SeriesDescription says PA; ProtocolName says AP"


def code(value: str, meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SRT", meaning
    return [item]


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({"ViewPosition": "PA"}, "PA"),
        ({"ViewPosition": "", "ViewCodeSequence": code("R-10206", "antero-posterior")}, "AP"),
        ({"ViewCodeSequence": code("local-7", "postero-anterior")}, "PA"),
        ({"ViewCodeSequence": code("R-10206", "postero-anterior")}, ""),
        ({"ViewCodeSequence": []}, ""),
        ({"SeriesDescription": "CHEST PA"}, "PA"),
        ({"ProtocolName": "W033 Chest PA", "StudyDescription": "CHEST 2 VIEWS"}, "PA"),
        ({"PatientOrientation": ["A", "F"]}, "LATERAL"),
        ({"AcquisitionDeviceProcessingDescription": "CHEST,AP"}, "AP"),
    ],
)
def test_in_files(tags, name, tmp_path):
    path = tmp_path / "film.dcm"
    path.write_bytes(written(dataset(stored(12), bits=12, **tags)))
    assert dicom.view_position(path) == name
    bare = written(dataset(stored(12), bits=12, **tags))[132:]
    path.write_bytes(bare)
    assert dicom.view_position(path) == name


def test_an_index_without_view_takes_that_of_the_file(tmp_path):
    row = {"image": "a.dcm", "text": "The lungs are clear.", "split": "train"}
    rows = [{"id": "a", **row}, {"id": "b", **row, "view": "LL"}]
    (tmp_path / "a.dcm").write_bytes(written(dataset(stored(12), bits=12, SeriesDescription="CHEST PA")))
    (tmp_path / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pairs.prepare(tmp_path, tmp_path / "out", progress=False, image_size=48)
    assert {record["id"]: record["view"] for record in records.open_split(tmp_path / "out", "train")} == {
        b"a": b"PA",
        b"b": b"LL",
    }


METADATA = (  # ViewPosition, ViewCodeSequence_CodeMeaning, PerformedProcedureStepDescription -> view
    ("AP", "antero-posterior", "CHEST (PORTABLE AP)", "AP"),
    ("", "antero-posterior", "CHEST (PORTABLE AP)", "AP"),
    ("", "left lateral", "CHEST (PA AND LAT)", "LL"),
    ("", "", "CHEST (PORTABLE AP)", ""),
    ("PA", "", "", "PA"),
)


@pytest.fixture
def mimic(tmp_path):
    """A copy of MIMIC-CXR with the rows of `METADATA`, each film with the same fields in its DICOM file too."""
    root = tmp_path / "mimic"
    (root / "files").mkdir(parents=True)
    lines = ["dicom_id,subject_id,study_id,ViewPosition,ViewCodeSequence_CodeMeaning,PerformedProcedureStepDescription"]
    for number, (position, meaning, procedure, _) in enumerate(METADATA):
        subject, study, film = 10000000 + number, 50000000 + number, f"film{number}"
        folder = root / f"files/p10/p{subject}"
        (folder / f"s{study}").mkdir(parents=True)
        (folder / f"s{study}.txt").write_text("FINDINGS: The lungs are clear.")
        tags = {"ViewPosition": position} if position else {}
        tags |= {"ViewCodeSequence": code("x", meaning)} if meaning else {}
        (folder / f"s{study}/{film}.dcm").write_bytes(written(dataset(stored(8), bits=8, **tags)))
        lines.append(f"{film},{subject},{study},{position},{meaning},{procedure}")
    ids = [",".join(line.split(",")[:3]) for line in lines]
    with gzip.open(root / "cxr-record-list.csv.gz", "wt") as file:
        file.write("\n".join(ids))
    (root / "metadata").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize("table", [True, False])
def test_a_view_that_is_not_known_is_a_counted_rejection(mimic, table):
    if table:
        (mimic / "metadata").rename(mimic / "mimic-cxr-2.0.0-metadata.csv")
    common = {"split": "subject", "labels": "report", "images": "dicom", "progress": False, "image_size": 48, "seed": 1}
    report = mimic_cxr.prepare(mimic, mimic.parent / "ap", views=("AP",), **common)
    assert report["views_not_selected"] == {"LL": 1, "PA": 1}
    assert report["kept"] == 2
    assert report["rejected"] == {"unknown_view": 1}
    assert report["found"] == 3
    assert "unknown_view" in EXPECTED
    every = mimic_cxr.prepare(mimic, mimic.parent / "all", views=(), **common)
    assert (every["kept"], every["rejected"]) == (5, {})
