"""What is particular to CheXpert Plus, PadChest, NIH ChestX-ray14 and ReXGradient-160K."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.sources import padchest, reading, table, values
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS, POSITIVE
from tests.data_prep.sources.building import build, records_of, report_of
from tests.test_architecture import ROOT

Trees = Callable[[str], Path]
REAL = ROOT.parent / "shared" / "data"


@pytest.mark.parametrize("folder", ["nih_cxr14_64", "nih_cxr14_320"])
def test_real_labels_of_nih_become_those_of_chexpert(folder: str) -> None:
    index = REAL / folder / "index.jsonl"
    if not index.is_file():
        pytest.skip("no films of NIH next to the checkout")
    for film in map(json.loads, index.read_text().splitlines()):
        labels = values.labels(table.sources()["nih_cxr14"], film["nih_labels"])
        assert not isinstance(labels, str), labels
        positive = {name for name, label in zip(CHEXPERT_FINDINGS, labels, strict=True) if label == POSITIVE}
        assert positive == set(film["labels"]) & set(CHEXPERT_FINDINGS)


def test_labels_without_counterpart_set_none() -> None:
    source = table.sources()["nih_cxr14"]
    assert values.labels(source, ["Hernia", "Fibrosis"]) == (ABSENT,) * len(CHEXPERT_FINDINGS)
    assert values.labels(source, ["Effusion", "Cyst"]) == "Cyst"


def test_the_lists_of_nih_make_its_splits(trees: Trees, copy: Trees, tmp_path: Path) -> None:
    tree = copy("nih_cxr14")
    assert build("nih_cxr14", tree, tmp_path / "data") == 0
    test = {name.removesuffix(".png") for name in (tree / "test_list.txt").read_text().split()}
    assert {name for name, record in records_of(tmp_path / "data").items() if record["split"] == "test"} == test
    (tree / "test_list.txt").write_text("")
    assert build("nih_cxr14", tree, tmp_path / "fewer", "--max_rejected=0.9") == 0
    assert report_of(tmp_path / "fewer")["rejected"] == {"no_split": len(test)}
    (tree / "test_list.txt").unlink()
    assert build("nih_cxr14", tree, tmp_path / "none") == 2
    assert build("nih_cxr14", tree, tmp_path / "subject", "--split=subject") == 0


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("[]", []),
        ("nan", []),
        ("['pleural effusion', 'nodule']", ["pleural effusion", "nodule"]),
        ("[' nodule ', '', \"nodule\",]", ["nodule", "nodule"]),
        ("['nodule'", None),
        ("['nodule' 'mass']", None),
        ("[__import__('os')]", None),
        ("nodule", None),
    ],
)
def test_lists_of_padchest(cell: str, labels: list[str] | None) -> None:
    assert padchest.listed(cell) == labels


def test_two_findings_of_one_label() -> None:
    labels = values.labels(table.sources()["padchest"], ["hydropneumothorax", "scoliosis"])
    positive = [name for name, label in zip(CHEXPERT_FINDINGS, labels, strict=True) if label == POSITIVE]
    assert positive == ["Pleural Effusion", "Pneumothorax"]


def test_padchest_leaves_out_what_it_excludes_and_what_was_not_read(copy: Trees, tmp_path: Path) -> None:
    tree = copy("padchest")
    path = reading.find(table.sources()["padchest"], tree)
    header, first, second, third, *rest = path.read_text().splitlines()
    first = first.replace(first[first.index('"[') :], "['exclude']")
    second = second.replace(second[second.index("[") :], "['no such label']").rstrip('"').replace('"', "")
    third = third.replace("PA,", "AP_horizontal,").replace("AP,", "AP_horizontal,")
    path.write_text("\n".join([header, first, second, third, *rest]) + "\n")
    assert build("padchest", tree, tmp_path / "data", "--max_rejected=0.2") == 0
    assert report_of(tmp_path / "data")["rejected"] == {"excluded_by_source": 1, "unknown_label": 1}
    record = records_of(tmp_path / "data")[third.partition(".png")[0]]
    assert (record["view"], record["language"]) == ("AP", "es")
    assert build("padchest", tree, tmp_path / "manual", "--labeled_by=physician", "--max_rejected=0.9") == 0
    report = report_of(tmp_path / "manual")
    assert report["films_not_labeled_by_a_physician"] + report["found"] == len(rest) + 3


def test_chexpert_plus_has_dicom_and_other_texts(trees: Trees, tmp_path: Path) -> None:
    tree = trees("chexpert_plus")
    assert build("chexpert_plus", tree, tmp_path / "png") == 0
    more = ["--images=dicom", "--labels=labeler", "--sections=findings+impression", "--views=FRONTAL"]
    assert build("chexpert_plus", tree, tmp_path / "dicom", *more) == 0
    png, dicom = records_of(tmp_path / "png"), records_of(tmp_path / "dicom")
    both = png.keys() & dicom.keys()
    assert len(both) >= 10
    for name in both:
        assert dicom[name]["labels"] == png[name]["labels"]
        assert dicom[name]["text"].startswith(png[name]["text"] + " ")
    # A report without findings has an impression, which is a text too.
    assert {record["view"] for record in dicom.values()} == {"AP", "PA"}
    assert dicom.keys() - png.keys()
    assert report_of(tmp_path / "dicom")["views_not_selected"]


def test_labels_of_chexpert_plus_that_contradict_are_not_used(copy: Trees, tmp_path: Path) -> None:
    tree = copy("chexpert_plus")
    path = tree / "chexbert_labels" / "impression_fixed.json"
    first, second, _, *rest = path.read_text().splitlines()
    other = json.dumps({**json.loads(first), "Edema": -1.0, "Fracture": 1.0})
    wrong = json.dumps({**json.loads(second), "Edema": "yes"})
    path.write_text("\n".join([first, other, wrong, "", *rest]) + "\n")
    assert build("chexpert_plus", tree, tmp_path / "data", "--max_rejected=0.5", "--fallback=impression") == 0
    rejected = report_of(tmp_path / "data")["rejected"]
    assert rejected == {"labels_disagree": 1, "bad_label_value": 1, "no_labels": 1}
    path.write_text("{\n")
    assert build("chexpert_plus", tree, tmp_path / "none") == 2


def test_paths_of_rexgradient_stay_in_the_source(copy: Trees, tmp_path: Path) -> None:
    tree = copy("rexgradient")
    path = tree / "metadata" / "train_metadata_view_position.json"
    studies = json.loads(path.read_text())
    kept = [study for study in studies.values() if study["Findings"]]
    kept[0]["ImagePath"][0] = "../../outside.png"
    kept[1]["ImagePath"] = None
    path.write_text(json.dumps({"broken": 3, **studies}))
    assert build("rexgradient", tree, tmp_path / "data", "--max_rejected=0.5") == 0
    rejected = report_of(tmp_path / "data")["rejected"]
    assert (rejected["unsafe_path"], rejected["missing_field"], rejected["malformed_row"]) == (1, 1, 1)


# The last part of a path that names one study.
@pytest.mark.parametrize(("name", "part"), [("chexpert_plus", -2), ("rexgradient", -1)])
def test_a_path_that_no_file_system_allows_is_one_row(name: str, part: int, copy: Trees, tmp_path: Path) -> None:
    tree = copy(name)
    # Every file that names the study, such as that of its labels, goes on agreeing.
    study = min(path.with_suffix("").parts[part] for path in tree.rglob("*.png"))
    for path in (path for path in tree.rglob("*") if path.suffix in (".csv", ".json") and study in path.read_text()):
        path.write_text(path.read_text().replace(study, "long" * 200))
    assert build(name, tree, tmp_path / "data", "--max_rejected=0.5") == 0
    report = report_of(tmp_path / "data")
    assert report["rejected"]["missing_image"] >= 1
    assert report["found"] == report["kept"] + sum(report["rejected"].values())
