"""The phantom tree: the official layout, the same bytes again, and films and reports that agree with the labels."""

import csv
import gzip
import hashlib
import json
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep import mimic_cxr, reports
from data_prep.phantom import masks, tree, write_tree
from data_prep.phantom.film import render
from data_prep.phantom.findings import Sign
from data_prep.phantom.report import findings_text, report_text, sentence
from medvill_jax.data.records import DataError
from medvill_jax.findings import CHEXPERT_FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN

STUDIES = 70
SIGNS = {
    "normal": (),
    "effusion": (Sign("Pleural Effusion", "left", severity="small"),),
    "pneumothorax": (Sign("Pneumothorax", "right", severity="small"),),
    "cardiomegaly": (Sign("Cardiomegaly", severity="small"),),
    "mediastinum": (Sign("Enlarged Cardiomediastinum", severity="small"),),
    "edema": (Sign("Edema", "bilateral", severity="small"),),
    "consolidation": (Sign("Consolidation", "left", "mid", "small"),),
    "pneumonia": (Sign("Pneumonia", "right", "upper", "small"),),
    "opacity": (Sign("Lung Opacity", "left", "lower", "small"),),
    "atelectasis": (Sign("Atelectasis", "right", "lower", "small"),),
    "nodule": (Sign("Lung Lesion", "right", "mid", "small", kind="nodule"),),
    "mass": (Sign("Lung Lesion", "left", "upper", "small", kind="mass"),),
    "nodules": (Sign("Lung Lesion", "bilateral", severity="small", kind="nodules"),),
    "thickening": (Sign("Pleural Other", "left", severity="small", kind="thickening"),),
    "plaques": (Sign("Pleural Other", "right", severity="small", kind="plaques"),),
    "rib": (Sign("Fracture", "left", severity="small", kind="rib"),),
    "ribs": (Sign("Fracture", "right", severity="small", kind="ribs"),),
    "clavicle": (Sign("Fracture", "left", severity="small", kind="clavicle"),),
    "endotracheal tube": (Sign("Support Devices", kind="endotracheal tube"),),
    "nasogastric tube": (Sign("Support Devices", kind="nasogastric tube"),),
    "central line": (Sign("Support Devices", "right", kind="central line"),),
    "pacemaker": (Sign("Support Devices", "left", kind="pacemaker"),),
    "chest tube": (Sign("Support Devices", "right", kind="chest tube"),),
    "monitoring leads": (Sign("Support Devices", kind="monitoring leads"),),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "tree"
    write_tree(out, studies=STUDIES, seed=3, image_size=48, progress=False)
    return out


def digest(root: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        total.update(str(path.relative_to(root)).encode() + (path.read_bytes() if path.is_file() else b""))
    return total.hexdigest()


def rows(root: Path, name: str) -> list[dict[str, str]]:
    with gzip.open(root / f"{name}.csv.gz", "rt", newline="") as file:
        return list(csv.DictReader(file))


def columns(root: Path, name: str) -> list[str]:
    with gzip.open(root / f"{name}.csv.gz", "rt", newline="") as file:
        return next(csv.reader(file))


@pytest.mark.parametrize("workers", [1, 2])
def test_same_seed_same_bytes(made: Path, tmp_path: Path, workers: int) -> None:
    again = tmp_path / "again"
    tree.write_tree(again, studies=STUDIES, seed=3, image_size=48, progress=False, workers=workers)
    assert digest(again) == digest(made)
    assert not list(tmp_path.glob(".*"))


def test_other_seed_other_bytes_and_more_studies_same_ones(made: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "other", studies=5, seed=4, image_size=48, progress=False)
    write_tree(tmp_path / "few", studies=12, seed=3, image_size=48, progress=False)
    assert digest(tmp_path / "other") != digest(tmp_path / "few")
    files = [path.relative_to(tmp_path / "few") for path in (tmp_path / "few" / "files").rglob("*.*")]
    assert len(files) > 24
    assert all((made / path).read_bytes() == (tmp_path / "few" / path).read_bytes() for path in files)
    few, many = rows(tmp_path / "few", "mimic-cxr-2.0.0-split"), rows(made, "mimic-cxr-2.0.0-split")
    assert [row for row in many if row in few] == few


def test_official_layout(made: Path) -> None:
    labels = ["subject_id", "study_id", *CHEXPERT_FINDINGS]
    assert columns(made, "mimic-cxr-2.0.0-split") == ["dicom_id", "study_id", "subject_id", "split"]
    assert columns(made, "mimic-cxr-2.0.0-chexpert") == columns(made, "mimic-cxr-2.0.0-negbio") == labels
    assert columns(made, "mimic-cxr-2.0.0-metadata")[:9] == [
        *("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows"),
        *("Columns", "StudyDate", "StudyTime"),
    ]
    metadata = rows(made, "mimic-cxr-2.0.0-metadata")
    records = {row["dicom_id"]: row["path"] for row in rows(made, "cxr-record-list")}
    studies = {row["study_id"]: row["path"] for row in rows(made, "cxr-study-list")}
    assert len(studies) == STUDIES == len({row["study_id"] for row in metadata})
    assert len(records) == len(metadata) == len(rows(made, "mimic-cxr-2.0.0-split"))
    for row in metadata:
        subject, study = row["subject_id"], row["study_id"]
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}", row["dicom_id"])
        folder = f"files/p{subject[:2]}/p{subject}/s{study}"
        assert re.fullmatch(r"files/p1\d/p1\d{7}/s5\d{7}", folder)
        assert records[row["dicom_id"]] == f"{folder}/{row['dicom_id']}.dcm"
        assert studies[study] == f"{folder}.txt"
        assert (made / f"{folder}.txt").is_file()
        with Image.open(made / folder / f"{row['dicom_id']}.jpg") as image:
            assert (image.format, image.mode) == ("JPEG", "L")
            assert image.size == (int(row["Columns"]), int(row["Rows"]))
            assert min(image.size) == 48
            assert 0.84 < image.height / image.width < 1.21
    for name in ("chexpert", "negbio"):
        cells = {row[finding] for row in rows(made, f"mimic-cxr-2.0.0-{name}") for finding in CHEXPERT_FINDINGS}
        assert cells == {"1.0", "0.0", "-1.0", ""}
    assert rows(made, "mimic-cxr-2.0.0-chexpert") != rows(made, "mimic-cxr-2.0.0-negbio")


def test_views_and_splits(made: Path) -> None:
    views, split_of = defaultdict(list), defaultdict(set)
    for row in rows(made, "mimic-cxr-2.0.0-metadata"):
        views[row["study_id"]].append(row["ViewPosition"])
    assert all(1 <= len(of) <= 3 and {"AP", "PA"} & set(of) for of in views.values())
    assert 0.6 < sum("AP" in of for of in views.values()) / STUDIES < 0.9
    assert any("LATERAL" in of for of in views.values())
    studies = defaultdict(set)
    for row in rows(made, "mimic-cxr-2.0.0-split"):
        split_of[row["subject_id"]].add(row["split"])
        studies[row["subject_id"]].add(row["study_id"])
    assert all(len(splits) == 1 for splits in split_of.values())
    assert set().union(*split_of.values()) == {"train", "validate", "test"}
    assert max(map(len, studies.values())) > 1


def test_three_studies_fill_every_split(tmp_path: Path) -> None:
    counts = write_tree(tmp_path / "t", studies=3, seed=0, image_size=32, progress=False)
    assert (counts["studies"], counts["subjects"]) == (3, 3)
    assert {row["split"] for row in rows(tmp_path / "t", "mimic-cxr-2.0.0-split")} == {"train", "validate", "test"}


def test_the_reader_of_mimic_cxr_takes_it(made: Path, tmp_path: Path) -> None:
    report = mimic_cxr.prepare(made, tmp_path / "data", progress=False, image_size=48, max_rejected=0.0)
    assert (tmp_path / "data" / "build_report.json").is_file()
    assert report


def test_share_of_findings_words_and_sections() -> None:
    counts, words, lengths, missing = defaultdict(int), set(), [], 0
    total = 1200
    for number in range(total):
        study = tree.study_of(0, number, number)
        for name, value in study.labels().items():
            counts[name] += value == POSITIVE
        text = report_text(study, ("AP",), np.random.default_rng(number))
        assert text.startswith(" " * 33 + "FINAL REPORT\n")
        found = reports.sections(text)
        assert "impression" in found
        words |= set(re.findall(r"[a-z]+", text.lower()))
        missing += "findings" not in found
        lengths.append(len(found.get("findings", "").split()))
    assert 0.27 < counts["No Finding"] / total < 0.38
    assert all(counts[name] / total > 0.05 for name in CHEXPERT_FINDINGS)
    assert len(words) < 600
    assert 0.04 < missing / total < 0.13
    assert all(15 <= length <= 85 for length in lengths if length)


PLAIN = {
    "Pleural Effusion": "pleural effusion",
    "Pneumothorax": "pneumothorax",
    "Edema": "pulmonary edema",
    "Pneumonia": "pneumonia",
}


def test_labels_say_what_the_report_says() -> None:
    told = 0
    for number in range(400):
        study = tree.study_of(1, number)
        labels = study.labels()
        text = findings_text(study, np.random.default_rng(number))
        for name, words in PLAIN.items():
            said = [part for part in re.split(r"(?<=\.)\s", text) if words in part]
            told += len(said)
            for part in said:
                negated = bool(re.match(r"(No|There is no|No evidence of)\b", part))
                unsure = bool(re.search(r"possible|may|cannot be excluded", part, re.IGNORECASE))
                assert labels[name] == (NEGATIVE if negated else UNCERTAIN if unsure else POSITIVE), text
            if name not in labels:
                assert not said
        assert ("No Finding" in labels) == all(sign.finding == "Support Devices" for sign in study.signs)
    assert told > 400


def test_report_names_side_zone_and_device() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert "left" in sentence(Sign("Pleural Effusion", "left"), rng).lower()
        assert "both lung bases" in sentence(Sign("Atelectasis", "bilateral", "lower"), rng)
        assert "pacemaker" in sentence(Sign("Support Devices", "left", kind="pacemaker"), rng)
        text = sentence(Sign("Consolidation", "right", "upper", uncertain=True), rng)
        assert "right upper" in text
        assert re.search("possible|cannot be excluded", text)


@pytest.mark.parametrize("view", ["AP", "PA"])
@pytest.mark.parametrize("name", [name for name in SIGNS if name != "normal"])
def test_every_finding_can_be_seen(name: str, view: str) -> None:
    for seed in range(2):
        healthy = render(seed, view, (), image_size=112)
        ill = render(seed, view, SIGNS[name], image_size=112)
        change = np.abs(ill - healthy)
        assert ill.dtype == np.float32
        assert 0.0 <= ill.min() <= ill.max() <= 1.0
        # At least some forty pixels, or a line across the chest, that nobody can miss.
        assert (change > 0.1).mean() > 0.0035
        faint = render(seed, view, tuple(replace(sign, uncertain=True) for sign in SIGNS[name]), image_size=112)
        assert np.abs(faint - healthy).mean() <= change.mean() * 1.001


def test_lateral_shows_findings_too() -> None:
    healthy = render(0, "LATERAL", (), image_size=112)
    for name in ("effusion", "consolidation", "pneumothorax", "pacemaker", "edema", "cardiomegaly", "nodule"):
        assert np.abs(render(0, "LATERAL", SIGNS[name], image_size=112) - healthy).mean() > 0.0008, name


@pytest.mark.parametrize("side", ["left", "right"])
def test_left_is_on_the_right_of_the_image(side: str) -> None:
    for seed in range(4):
        healthy = render(seed, "AP", (), image_size=96)
        for finding, sign in (("Pleural Effusion", 1), ("Pneumothorax", -1)):
            change = sign * (render(seed, "AP", (Sign(finding, side),), image_size=96) - healthy)
            height, width = change.shape
            lower = change[height // 2 :] if finding == "Pleural Effusion" else change[: height * 2 // 3]
            left, right = lower[:, : width // 2].mean(), lower[:, width // 2 :].mean()
            brighter, same = (right, left) if side == "left" else (left, right)
            assert brighter > 0.003
            assert abs(same) < brighter / 4


def test_bigger_is_bigger() -> None:
    for finding in ("Pleural Effusion", "Pneumothorax", "Cardiomegaly", "Edema", "Enlarged Cardiomediastinum"):
        healthy = render(1, "AP", (), image_size=96)
        changes = [
            np.abs(render(1, "AP", (Sign(finding, "left", severity=size),), image_size=96) - healthy).mean()
            for size in ("small", "moderate", "large")
        ]
        assert changes[0] < changes[1] < changes[2], finding


def test_hard_films_show_the_same_findings_faintly() -> None:
    plain, hard = [], []
    for name, signs in SIGNS.items():
        healthy, ill = (render(5, "AP", each, image_size=96) for each in ((), signs))
        veiled_healthy, veiled = (render(5, "AP", each, image_size=96, difficulty="hard") for each in ((), signs))
        assert np.isfinite(veiled).all()
        assert 0.0 <= veiled.min() <= veiled.max() <= 1.0
        if signs:
            plain.append(np.abs(ill - healthy).mean())
            hard.append(np.abs(veiled - veiled_healthy).mean())
            assert hard[-1] > 0, name
    assert np.mean(hard) < 0.7 * np.mean(plain)
    assert (
        max(
            np.abs(
                render(seed, "AP", (), image_size=96) - render(seed, "AP", (), image_size=96, difficulty="hard")
            ).mean()
            for seed in range(3)
        )
        > 0.05
    )


def test_hard_studies_have_the_same_findings_and_smaller_ones() -> None:
    sizes = {"small": 0, "moderate": 1, "large": 2}
    smaller = 0
    for number in range(60):
        plain, hard = (tree.study_of(3, number, number, difficulty) for difficulty in ("standard", "hard"))
        assert [(sign.finding, sign.side, sign.zone) for sign in plain.signs] == [
            (sign.finding, sign.side, sign.zone) for sign in hard.signs
        ]
        assert plain.labels() == hard.labels()
        steps = [sizes[old.severity] - sizes[new.severity] for old, new in zip(plain.signs, hard.signs, strict=True)]
        assert all(step in (0, 1) for step in steps)
        smaller += sum(steps)
    assert smaller > 10


def test_difficulty_belongs_to_the_tree(made: Path, tmp_path: Path) -> None:
    hard = tmp_path / "hard"
    write_tree(hard, studies=3, seed=3, image_size=48, difficulty="hard", progress=False)
    assert json.loads((hard / tree.MARKER).read_text())["difficulty"] == "hard"
    assert "difficulty" not in json.loads((made / tree.MARKER).read_text())
    write_tree(hard, studies=3, seed=3, image_size=48, difficulty="hard", progress=False)
    with pytest.raises(DataError, match="difficulty: hard in the folder, unset now"):
        write_tree(hard, studies=3, seed=3, image_size=48, progress=False)
    with pytest.raises(DataError, match="there are standard, hard"):
        write_tree(tmp_path / "other", studies=3, seed=3, difficulty="easy", progress=False)


def test_dicom(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    out = tmp_path / "tree"
    write_tree(out, studies=14, seed=0, image_size=64, dicom=True, progress=False)
    metadata = {row["dicom_id"]: row for row in rows(out, "mimic-cxr-2.0.0-metadata")}
    kinds = set()
    for path in out.rglob("*.dcm"):
        data, row = pydicom.dcmread(path), metadata[path.stem]
        assert (data.ViewPosition, str(data.PatientID)) == (row["ViewPosition"], row["subject_id"])
        assert (data.Rows, data.Columns) == (int(row["Rows"]), int(row["Columns"]))
        assert (data.BitsStored, data.Modality) == (12, "CR")
        kinds.add(data.PhotometricInterpretation)
        pixels = data.pixel_array.astype(float)
        shown = np.clip((pixels - float(data.WindowCenter) + 0.5) / (float(data.WindowWidth) - 1) + 0.5, 0, 1) * 255
        if data.PhotometricInterpretation == "MONOCHROME1":
            shown = 255 - shown
        with Image.open(path.with_suffix(".jpg")) as image:
            assert np.abs(np.asarray(image, float) - shown).mean() < 4
    assert kinds == {"MONOCHROME1", "MONOCHROME2"}
    assert len(list(out.rglob("*.dcm"))) == len(metadata)


def test_finished_tree_is_reused_and_others_refused(made: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    counts = write_tree(made, studies=STUDIES, seed=3, image_size=48, progress=False)
    assert counts["studies"] == STUDIES
    assert before == {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    with pytest.raises(DataError, match="seed: 3 in the folder, 4 now"):
        write_tree(made, studies=STUDIES, seed=4, image_size=48, progress=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(DataError, match="not a phantom tree"):
        write_tree(tmp_path / "mine", studies=3, seed=0, progress=False)
    (tmp_path / "empty").mkdir()
    write_tree(tmp_path / "empty", studies=3, seed=0, image_size=32, progress=False)
    for wrong in ({"studies": 0}, {"seed": -1}, {"image_size": 8}):
        with pytest.raises(DataError):
            write_tree(tmp_path / "none", **{"studies": 3, "seed": 0, "progress": False, **wrong})
    assert not (tmp_path / "none").exists()


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(tree, "_write_tables", broken)
    with pytest.raises(OSError, match="disk full"):
        write_tree(tmp_path / "tree", studies=3, seed=0, image_size=32, progress=False)
    assert not list(tmp_path.iterdir())


def test_erased_films_lack_one_finding(tmp_path: Path) -> None:
    options: dict[str, Any] = {"studies": 8, "seed": 3, "image_size": 96, "progress": False}
    write_tree(tmp_path / "tree", **options, masks=True, erased=True)
    seen = 0
    for path in (tmp_path / "tree" / "files").rglob("*.jpg"):
        with Image.open(path) as file:
            film = np.asarray(file).astype(int)
        drawn = masks.read(masks.place(tmp_path / "tree", str(path.relative_to(tmp_path / "tree"))))
        folder = tmp_path / "tree" / masks.ERASED_FOLDER / path.stem
        found = {file.stem: file for file in folder.iterdir()} if folder.is_dir() else {}
        # An opacity that is a pneumonia is drawn once, as the pneumonia.
        assert {*drawn} - {*found} <= {"Lung Opacity"}
        assert {*found} <= {*drawn}
        for finding, file in found.items():
            with Image.open(file) as image:
                change = np.abs(np.asarray(image).astype(int) - film)
            inside = drawn[finding]
            assert change[inside].mean() > 8 > 3 > change[~inside].mean()
            seen += 1
    assert seen > 5
    write_tree(tmp_path / "plain", **options)
    assert not (tmp_path / "plain" / masks.ERASED_FOLDER).exists()
    with pytest.raises(DataError, match="erased: True in the folder, unset now"):
        write_tree(tmp_path / "tree", **options, masks=True)


def test_masks_leave_the_tree_as_it_is(tmp_path: Path) -> None:
    options: dict[str, Any] = {"studies": 5, "seed": 3, "image_size": 48, "progress": False}
    write_tree(tmp_path / "plain", **options)
    write_tree(tmp_path / "masked", **options, masks=True)
    made = {name: {p.relative_to(tmp_path / name): p for p in (tmp_path / name).rglob("*") if p.is_file()}
            for name in ("plain", "masked")}  # fmt: skip
    for path, file in made["plain"].items():
        if path.name != "phantom.json":
            assert file.read_bytes() == made["masked"][path].read_bytes()
    assert "masks" not in json.loads((tmp_path / "plain" / "phantom.json").read_text())
    films = {path for path in made["plain"] if path.suffix == ".jpg"}
    assert {*made["masked"]} - {*made["plain"]} == {masks.place("", str(path)) for path in films}
    drawn = 0
    for number, subject in enumerate(tree._subjects(5, 3)):
        signs = {sign.finding for sign in tree.study_of(3, number, subject).signs}
        for path in films:
            if path.parent == Path(tree._folder(3, number, subject)):
                found = masks.read(tmp_path / "masked" / masks.place("", str(path)))
                with Image.open(tmp_path / "plain" / path) as film:
                    assert {mask.shape[::-1] for mask in found.values()} <= {film.size}
                assert {*found} <= signs
                drawn += len(found)
    assert drawn > 3
    with pytest.raises(DataError, match="masks: True in the folder, unset now"):
        write_tree(tmp_path / "masked", **options)
    with pytest.raises(DataError, match="is no mask"):
        masks.read(tmp_path / "plain" / next(iter(films)))
