"""Every layout, version and spelling of MIMIC-CXR that its users have gives the same records; the options of it."""

import csv
import gzip
import io
import itertools
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import __main__ as command
from data_prep import mimic_cxr
from data_prep.phantom import write_tree
from medvill_jax.data import records
from medvill_jax.data.records import DataError
from medvill_jax.findings import CHEXPERT_FINDINGS

COMMON = {"progress": False, "image_size": 48}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("layouts") / "tree"
    write_tree(out, studies=60, seed=1, image_size=48, progress=False)
    return out


@pytest.fixture(scope="module")
def expected(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return dict(mimic_cxr.prepare(tree, tmp_path_factory.mktemp("expected") / "out", **COMMON))


def table(path: Path) -> list[dict[str, str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def copy(
    tree: Path, jpg: Path, text: Path | None, *, names="mimic-cxr-2.0.0-{}.csv.gz", image="{}", report="{}"
) -> None:
    """The phantom tree in another layout; `image` and `report` place a file from its ids."""
    for name in ("split", "metadata", "chexpert", "negbio"):
        write(jpg / names.format(name), table(tree / f"mimic-cxr-2.0.0-{name}.csv.gz"))
    for path in (tree / "files").rglob("*.*"):
        parts = path.relative_to(tree).parts
        ids = {"group": parts[1], "subject": parts[2][1:], "study": path.stem[1:] if len(parts) == 4 else parts[3][1:]}
        where, pattern = (jpg, image) if path.suffix == ".jpg" else (text, report)
        if where is not None:
            target = where / pattern.format(str(path.relative_to(tree)), name=path.name, **ids)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def zipped(tree: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for report in sorted((tree / "files").rglob("s*.txt")):
            file.write(report, report.relative_to(tree))


def official(tree, root):
    copy(tree, root / "mimic-cxr-jpg", root / "mimic-cxr")


def versioned(tree, root):
    copy(tree, root / "mimic-cxr-jpg" / "2.1.0", root / "mimic-cxr" / "2.1.0", names="mimic-cxr-2.1.0-{}.csv.gz")


def mirrored(tree, root):
    copy(tree, root / "physionet.org/files/mimic-cxr-jpg/2.0.0", root / "physionet.org/files/mimic-cxr/2.0.0")


def packed_reports(tree, root):
    copy(tree, root / "mimic-cxr-jpg", None)
    zipped(tree, root / "mimic-cxr" / "mimic-cxr-reports.zip")


def packed_reports_beside_the_tables(tree, root):
    copy(tree, root, None, names="mimic-cxr-2.0.0-{}.csv")
    zipped(tree, root / "mimic-cxr-reports.zip")


def older_names(tree, root):
    copy(tree, root, root, names="mimic_cxr_{}.csv")
    (root / "mimic_cxr_negbio.csv").rename(root / "mimic_cxr_nebio.csv")


def nested(tree, root):
    copy(
        *(tree, root, root / "reports"),
        names="mimic_cxr_{}.csv",
        image="{subject}/{study}/{name}",
        report="{subject}/{study}.txt",
    )


def nested_with_letters(tree, root):
    copy(tree, root, root, image="p{subject}/s{study}/{name}", report="p{subject}/s{study}.txt")


def without_files(tree, root):
    copy(tree, root, root, image="{group}/p{subject}/s{study}/{name}", report="{group}/p{subject}/s{study}.txt")


def rewritten(tree, root, cell=lambda name, value: value, **dialect):
    """The tree with tables of another program, which names them as before."""
    encoding, pack = dialect.pop("encoding", "utf-8"), dialect.pop("pack", gzip.compress)
    copy(tree, root, root)
    for path in root.glob("*.csv.gz"):
        rows, text = table(path), io.StringIO()
        writer = csv.writer(text, **dialect)
        writer.writerow(rows[0])
        writer.writerows([[cell(name, value) for name, value in row.items()] for row in rows])
        path.write_bytes(pack(text.getvalue().encode(encoding)))


def floats_of_pandas(tree, root):
    rewritten(tree, root, lambda name, value: f"{value}.0" if name in ("subject_id", "study_id") else value)


def german_excel(tree, root):
    rewritten(tree, root, lambda name, value: value.replace(".0", ",0"), delimiter=";", encoding="utf-8-sig")


def unpacked_by_a_browser(tree, root):
    rewritten(tree, root, pack=bytes)


def packed_twice_as_utf_16(tree, root):
    rewritten(tree, root, delimiter="\t", encoding="utf-16", pack=lambda data: gzip.compress(gzip.compress(data)))


def ids_of_folders(tree, root):
    letters = {"subject_id": "p{}", "study_id": "s{}", "dicom_id": " {} "}
    rewritten(tree, root, lambda name, value: letters.get(name, "{}").format(value), quoting=csv.QUOTE_ALL)


def packed_by_a_mac(tree, root):
    packed_reports(tree, root)
    path = root / "mimic-cxr" / "mimic-cxr-reports.zip"
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
    with zipfile.ZipFile(path, "a") as file:
        for name in names:
            folder, _, last = name.rpartition("/")
            file.writestr(f"__MACOSX/{folder}/._{last}", b"\0\5\x16\7 Mac OS X")
            file.writestr(f"__MACOSX/{name}", b"\0\5\x16\7 Mac OS X")


LAYOUTS = [
    *(official, versioned, mirrored, packed_reports, packed_reports_beside_the_tables),
    *(older_names, nested, nested_with_letters, without_files),
    *(floats_of_pandas, german_excel, unpacked_by_a_browser, packed_twice_as_utf_16, ids_of_folders, packed_by_a_mac),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_gives_the_same_records(tree, expected, tmp_path, layout):
    layout(tree, tmp_path / "in")
    report = mimic_cxr.prepare(tmp_path / "in", tmp_path / "out", **COMMON)
    for key in ("found", "kept", "rejected", "splits", "labels", "checksum_of_ids", "text_length_in_word_pieces"):
        assert report[key] == expected[key], key
    assert report["found"] == report["kept"] + sum(report["rejected"].values())
    negbio = mimic_cxr.prepare(tmp_path / "in", tmp_path / "out2", labels="negbio", **COMMON)
    assert negbio["labels"] != report["labels"]


def test_reports_zip_by_flag_and_damaged(tree, tmp_path):
    copy(tree, tmp_path / "in", None)
    zipped(tree, tmp_path / "elsewhere" / "texts.zip")
    with pytest.raises(DataError, match=r"mimic-cxr-reports\.zip"):
        mimic_cxr.prepare(tmp_path / "in", tmp_path / "out", **COMMON)
    packed = tmp_path / "elsewhere" / "texts.zip"
    report = mimic_cxr.prepare(tmp_path / "in", tmp_path / "out", reports_root=packed, **COMMON)
    assert report["kept"] > 30
    packed.write_bytes(packed.read_bytes()[:500])
    with pytest.raises(DataError, match="damaged or not a zip file"):
        mimic_cxr.prepare(tmp_path / "in", tmp_path / "out2", reports_root=packed, **COMMON)


def test_bad_entries_of_a_zip_are_rejected(tree, tmp_path):
    copy(tree, tmp_path / "in", None)
    reports = sorted((tree / "files").rglob("s*.txt"))
    with zipfile.ZipFile(tmp_path / "in" / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for number, report in enumerate(reports):
            data = report.read_bytes()
            if number == 0:
                data = b"x" * (2 << 20)
            if number == 1:
                data = b"\0\1\2" * 100
            if number != 2:
                file.writestr(str(report.relative_to(tree)), data)
    report = mimic_cxr.prepare(tmp_path / "in", tmp_path / "out", views=(), max_rejected=1, **COMMON)
    assert report["rejected"]["unreadable_report"] >= 2
    assert report["rejected"]["missing_report"] >= 1
    assert report["found"] == report["kept"] + sum(report["rejected"].values())


def test_reports_that_are_twice_in_a_zip(tree, tmp_path):
    copy(tree, tmp_path / "in", None)
    zipped(tree, tmp_path / "in" / "mimic-cxr-reports.zip")
    one, two = sorted((tree / "files").rglob("s*.txt"))[:2]
    with zipfile.ZipFile(tmp_path / "in" / "mimic-cxr-reports.zip", "a") as file:
        file.writestr(f"backup/{one.name}", one.read_bytes())
        file.writestr(f"backup/{two.name}", b"FINDINGS: Another text.")
    common = {"views": (), "max_rejected": 1, "fallback": ("impression",), **COMMON}
    report = mimic_cxr.prepare(tmp_path / "in", tmp_path / "out", **common)
    images = len(list(two.with_suffix("").iterdir()))
    assert report["rejected"] == {"reports_disagree": images}


def test_one_image_per_study(tree, tmp_path):
    every = mimic_cxr.prepare(tree, tmp_path / "all", views=(), **COMMON)
    one = mimic_cxr.prepare(tree, tmp_path / "one", views=(), one_image_per_study=True, **COMMON)
    assert one["found"] + one["further_images_of_studies"] == every["found"]
    studies = [r["study_id"] for split in one["splits"] for r in records.open_split(tmp_path / "one", split)]
    assert len(studies) == len(set(studies)) == one["kept"]
    everywhere = {r["study_id"] for split in every["splits"] for r in records.open_split(tmp_path / "all", split)}
    assert set(studies) == everywhere


def test_sections_and_fallback(tree, expected, tmp_path):
    missing = expected["rejected"]["no_wanted_section"]
    report = mimic_cxr.prepare(tree, tmp_path / "a", fallback=("impression",), **COMMON)
    assert report["rejected"] == {}
    assert set(report["studies_by_text"]) == {"findings", "impression"}
    assert 0 < report["studies_by_text"]["impression"] <= missing  # studies, of which some have several films
    assert report["kept"] == expected["kept"] + missing
    both = mimic_cxr.prepare(tree, tmp_path / "b", sections=("findings+impression",), **COMMON)
    assert both["kept"] == report["kept"]
    full = mimic_cxr.prepare(tree, tmp_path / "c", sections=("full",), **COMMON)
    assert b"IMPRESSION:" in records.open_split(tmp_path / "c", "train")[0]["text"]
    lengths = [r["text_length_in_word_pieces"]["train"]["mean"] for r in (report, both, full)]
    assert lengths == sorted(lengths)
    for wrong in (("full", "findings"), ("full+findings",), ("nonsense",), ()):
        with pytest.raises(DataError, match="section"):
            mimic_cxr.prepare(tree, tmp_path / "d", sections=wrong, **COMMON)


def test_uncertain_labels(tree, expected, tmp_path):
    for how, key in (("positive", "positive"), ("negative", "negative"), ("ignore", "absent")):
        report = mimic_cxr.prepare(tree, tmp_path / how, uncertain=how, **COMMON)
        for name in CHEXPERT_FINDINGS:
            one, two = expected["labels"]["train"][name], report["labels"]["train"][name]
            assert two["uncertain"] == 0
            assert two[key] == one[key] + one["uncertain"]


def test_split_by_subject(tree, tmp_path):
    report = mimic_cxr.prepare(tree, tmp_path / "a", split="subject", **COMMON)
    assert report["subjects_in_several_splits"] == 0
    other = mimic_cxr.prepare(tree, tmp_path / "b", split="subject", seed=1, **COMMON)
    assert other["kept"] == report["kept"]
    assert other["splits"] != report["splits"] or other["labels"] != report["labels"]


def test_a_subject_in_two_splits_is_told_of(tree, tmp_path):
    """However either table writes its ids."""

    def floats(name, value):
        return f"{value}.0" if name in ("subject_id", "study_id") else value

    rewritten(tree, tmp_path / "in", floats)
    rows = table(tree / "mimic-cxr-2.0.0-split.csv.gz")
    training = [row for row in rows if row["split"] == "train"]
    subject = next(a["subject_id"] for a, b in itertools.pairwise(training) if a["subject_id"] == b["subject_id"])
    next(row for row in rows if row["subject_id"] == subject)["split"] = "test"
    write(tmp_path / "in" / "mimic-cxr-2.0.0-split.csv.gz", rows)
    common = {"views": (), "fallback": ("impression",), **COMMON}
    report = mimic_cxr.prepare(tmp_path / "in", tmp_path / "official", **common)
    assert report["subjects_in_several_splits"] == 1
    assert any("1 subjects are in several splits" in warning for warning in report["warnings"])
    assert any("--split=subject" in warning for warning in report["warnings"])
    report = mimic_cxr.prepare(tmp_path / "in", tmp_path / "subject", split="subject", **common)
    assert report["subjects_in_several_splits"] == 0


def test_square_images(tree, tmp_path):
    report = mimic_cxr.prepare(tree, tmp_path / "a", square=True, progress=False, image_size=40)
    assert report["images"]["height"]["p0"] == report["images"]["width"]["p100"] == 40
    with Image.open(io.BytesIO(records.open_split(tmp_path / "a", "train")[0]["image"])) as image:
        assert image.size == (40, 40)


def test_tables_that_disagree_are_rejected(tree, tmp_path):
    copy(tree, tmp_path / "in", tmp_path / "in")
    rows = {name: table(tree / f"mimic-cxr-2.0.0-{name}.csv.gz") for name in ("split", "metadata", "chexpert")}
    images = [row for row in rows["metadata"] if row["ViewPosition"] == "AP"]
    one, two, three, four = (row["study_id"] for row in images[:40:10])
    by_study = {row["study_id"]: row for row in rows["chexpert"]}
    rows["chexpert"].append({**by_study[one], "Edema": "1.0" if by_study[one]["Edema"] != "1.0" else "0.0"})
    rows["chexpert"].append(dict(by_study[two]))
    by_study[three]["subject_id"] = "10"
    rows["metadata"].append({**images[35], "ViewPosition": "LATERAL"})
    fifth = images[35]["study_id"]
    split = next(row for row in rows["split"] if row["study_id"] == four)
    rows["split"].append({**split, "split": "test" if split["split"] == "train" else "train"})
    for name, content in rows.items():
        write(tmp_path / "in" / f"mimic-cxr-2.0.0-{name}.csv.gz", content)
    report = mimic_cxr.prepare(tmp_path / "in", tmp_path / "out", max_rejected=1, fallback=("impression",), **COMMON)
    listed = [json.loads(line) for line in (tmp_path / "out" / records.REJECTED_FILE).read_text().splitlines()]
    studies = {row["dicom_id"]: row["study_id"] for row in images}
    found = {(studies[row["id"]], row["reason"]) for row in listed}
    disagree = {(study, "tables_disagree") for study in (three, four, fifth)}
    assert found == {(one, "labels_disagree"), *disagree}
    assert report["found"] == report["kept"] + sum(report["rejected"].values())


def test_wrong_options_are_one_line(tree, tmp_path, capsys):
    for wrong in (
        *("--num_workers=2", "--beam_options=--x", "--beam_runner=NoSuchRunner", "--max_rejected=7"),
        *("--limit=0", "--sections=gossip", "--fallback=gossip", "--image_size=3"),
    ):
        assert command.main(["mimic_cxr", f"--source={tree}", f"--out={tmp_path}/x", wrong]) == 2, wrong
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_help_names_defaults_and_reasons(capsys):
    with pytest.raises(SystemExit):
        command.main(["mimic_cxr", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for flag in (
        *("--views", "--one_image_per_study", "--sections", "--fallback", "--labels", "--uncertain", "--image_size"),
        *("--square", "--split", "--limit", "--max_rejected", "--dicom_normalize", "--beam_runner", "--contact_sheet"),
    ):
        assert flag in text
    assert text.count("(default: ") > 15


def test_images_of_no_known_place_are_named(tree, tmp_path):
    copy(tree, tmp_path / "in", tmp_path / "in")
    shutil.rmtree(tmp_path / "in" / "files")
    with pytest.raises(DataError, match="none of the images"):
        mimic_cxr.prepare(tmp_path / "in", tmp_path / "out", **COMMON)


def test_labels_from_reports(tree, expected, tmp_path):
    clinical = pytest.importorskip("medvill_jax.metrics.clinical")
    report = mimic_cxr.prepare(tree, tmp_path / "out", labels="report", **COMMON)
    assert report["kept"] == expected["kept"]
    source = records.open_split(tmp_path / "out", "train")
    texts = [source[i]["text"].decode() for i in range(len(source))]
    stored = np.stack([source[i]["labels"] for i in range(len(source))])
    assert np.array_equal(stored, clinical.label_batch(texts))


def test_labels_from_reports_without_the_labeler(tree, tmp_path):
    try:
        from medvill_jax.metrics import clinical  # noqa: F401
    except ImportError:
        with pytest.raises(DataError, match="--labels=chexpert"):
            mimic_cxr.prepare(tree, tmp_path / "out", labels="report", **COMMON)
    else:
        pytest.skip("the labeler is there")
