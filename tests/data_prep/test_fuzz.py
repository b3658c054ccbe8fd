"""A thousand seeded mutations of images, DICOM files, table rows, report texts and index lines; trees whose forms and
damages compose.

Whatever they are, the build ends, every row found is kept or rejected with a reason that is known, and what is kept can
be read. Of composed damages it is also known what they leave: there every kept record is the one of the whole tree.
"""

import gzip
import io
import json
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep import mimic_cxr, open_i, pairs
from data_prep.phantom import write_tree
from data_prep.rows import HINTS
from medvill_jax.data import records
from medvill_jax.data.records import DataError
from medvill_jax.findings import CHEXPERT_FINDINGS
from tests.data_prep import damages, trees
from tests.data_prep.damages import LOSSES, SAME

MUTATIONS = 1000
TREES = 20
PER_TREE = MUTATIONS // TREES
TABLES = ("metadata", "split", "chexpert")
NASTY = (
    *("", " ", "../../etc/passwd", "/etc/passwd", "..", "nan", "-7", "1e309", "None", '"', '""', "'", "\0", "\ufffd"),
    *("ä" * 300, "9" * 40, "train", "TEST", "1.0", "-1", "x" * 5000, "a/b", "a\\b", "CON", "%s{}"),
)
NASTY_TEXT = (
    *(
        "",
        "FINDINGS:",
        "FINDINGS",
        "FINAL REPORT",
        "WET READ:",
        "___",
        "[**",
        "1. ",
        "\n" * 50,
        "\0",
        "\u202e",
        ":" * 99,
    ),
    *("IMPRESSION:" * 40, "(" * 500, " " * 3000, "FINDINGS: " + "x" * 20000, "2" * 5000, "ADDENDUM\n"),
)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def bytes_mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, cut, repeated, emptied or replaced."""
    kind = int(rng.integers(8)) if data else 2
    place = int(rng.integers(max(len(data), 1)))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return b""
    if kind == 2:
        return rng.bytes(int(rng.integers(1, 3000)))
    if kind == 3:
        return data[:place] + data[place + int(rng.integers(1, 60)) :]
    if kind == 4:
        return data[:place] + rng.bytes(int(rng.integers(1, 60))) + data[place:]
    if kind == 5:
        return data + data
    changed = bytearray(data)
    # Headers are short and decide most.
    reach = len(changed) if kind == 6 else min(len(changed), 700)
    for _ in range(int(rng.integers(1, 12))):
        changed[int(rng.integers(reach))] = int(rng.integers(256))
    return bytes(changed)


def bomb() -> bytes:
    """A small PNG file whose header says 100,000 x 100,000 pixels."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    return bytes(data)


def image_mutated(path: Path, rng: np.random.Generator) -> None:
    kind = int(rng.integers(12))
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.write_bytes(bomb())
    elif kind == 2:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(bytes_mutated(path.read_bytes(), rng))


def text_mutated(path: Path, rng: np.random.Generator) -> None:
    kind = int(rng.integers(4))
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.write_bytes(bytes_mutated(path.read_bytes(), rng))
    else:
        text = path.read_text(errors="replace")
        place = int(rng.integers(len(text) + 1))
        path.write_text(text[:place] + NASTY_TEXT[int(rng.integers(len(NASTY_TEXT)))] + text[place:])


def table_mutated(path: Path, rng: np.random.Generator) -> None:
    """One row of a table changed, dropped, repeated or cut; the header stays."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        lines = file.read().split("\n")[:-1]
    place = int(rng.integers(1, len(lines)))
    cells, kind = lines[place].split(","), int(rng.integers(7))
    if kind == 0:
        lines.insert(int(rng.integers(1, len(lines))), lines[place])
    elif kind == 1:
        lines[place] = ",".join(cells[: int(rng.integers(1, len(cells)))])
    elif kind == 2:
        lines[place] += "," + NASTY[int(rng.integers(len(NASTY)))]
    elif kind == 3:
        del lines[place]
    else:
        cells[int(rng.integers(min(len(cells), 6)))] = NASTY[int(rng.integers(len(NASTY)))]
        lines[place] = ",".join(cells)
    data = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(data.encode("utf-8", "surrogatepass"), 1))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pydicom = pytest.importorskip("pydicom")
    out = tmp_path_factory.mktemp("fuzz") / "tree"
    write_tree(out, studies=70, seed=5, image_size=32, dicom=True, progress=False)
    for number, path in enumerate(sorted(out.rglob("*.dcm"))):
        if number % 3 == 0:
            data = pydicom.dcmread(path)
            try:
                data.compress(("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5")[number % 2])
            except (RuntimeError, NotImplementedError):
                continue  # no encoder installed
            data.save_as(path)
    return out


def check(report: dict, out: Path) -> None:
    assert report["found"] == report["kept"] + sum(report["rejected"].values())
    assert set(report["rejected"]) <= set(HINTS)
    listed = [json.loads(line) for line in (out / records.REJECTED_FILE).read_text().splitlines()]
    assert len(listed) == sum(report["rejected"].values())
    assert all(set(row) == {"id", "reason", "detail"} for row in listed)
    assert sum(records.splits(out).values()) == report["kept"]
    for split in report["splits"]:
        for record in records.open_split(out, split):
            with Image.open(io.BytesIO(record["image"])) as image:
                image.load()
                assert (image.format, image.mode) == ("JPEG", "L")
            assert record["text"].decode().strip()
            assert b".." not in record["id"].split(b"/")


@pytest.mark.parametrize("seed", range(TREES - 4))
def test_mutated_trees(base, tmp_path, seed):
    rng = np.random.default_rng(seed)
    tree = tmp_path / "tree"
    shutil.copytree(base, tree)
    kind = ("jpg", "dicom")[seed % 2]
    images = sorted(tree.rglob("*.jpg" if kind == "jpg" else "*.dcm"))
    reports = sorted(tree.rglob("s*.txt"))
    for _ in range(PER_TREE):
        what = rng.random()
        if what < 0.4:
            path = images[int(rng.integers(len(images)))]
            if path.is_file():
                image_mutated(path, rng)
        elif what < 0.6:
            path = reports[int(rng.integers(len(reports)))]
            if path.is_file():
                text_mutated(path, rng)
        else:
            table_mutated(tree / f"mimic-cxr-2.0.0-{TABLES[int(rng.integers(3))]}.csv.gz", rng)
    with gzip.open(tree / "mimic-cxr-2.0.0-metadata.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = [line for line in file.read().split("\n")[1:] if line.strip(",\r ")]
    report = mimic_cxr.prepare(
        *(tree, tmp_path / "out"),
        views=(),
        images=kind,
        max_rejected=1,
        fallback=("full",),
        image_size=32,
        progress=False,
    )
    assert report["found"] == len(rows)
    assert report["kept"] >= 30
    check(report, tmp_path / "out")


@pytest.mark.parametrize("seed", range(4))
def test_mutated_pairs(tmp_path, seed):
    rng = np.random.default_rng(100 + seed)
    lines = []
    for number in range(80):
        name = f"{number}.{('jpg', 'png', 'tif', 'bmp')[number % 4]}"
        Image.fromarray(rng.integers(0, 256, (24, 24), np.uint8)).save(tmp_path / name)
        row = {"id": f"i{number}", "image": name, "text": f"Film {number}.", "labels": ["Edema"], "split": "train"}
        lines.append(json.dumps(row).encode())
    for _ in range(PER_TREE):
        number = int(rng.integers(80))
        path = next(tmp_path.glob(f"{number}.*"))
        if rng.random() < 0.5 and path.is_file():
            path.write_bytes(bytes_mutated(path.read_bytes(), rng))
        else:
            lines[number] = bytes_mutated(lines[number], rng).replace(b"\n", b" ")
    (tmp_path / "index.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    report = pairs.prepare(tmp_path, tmp_path / "out", max_rejected=1, progress=False)
    assert report["found"] == sum(bool(line.strip()) for line in lines)
    check(report, tmp_path / "out")


COMPOSED = int(os.environ.get("MEDVILL_FUZZ_TREES", "60"))
SEED = int(os.environ.get("MEDVILL_FUZZ_SEED", "0"))
STUDIES = 20


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "tree"
    write_tree(out, studies=STUDIES, seed=11, image_size=32, progress=False)
    trees.png_films(out)
    return out


def prepare(kind: str, source: Path, out: Path, vocabulary: Path | None) -> dict[str, Any]:
    common = {"max_rejected": 1, "image_size": 32, "tokenizer": vocabulary, "workers": 1, "progress": False}
    if kind == "mimic_cxr":
        return mimic_cxr.prepare(source, out, views=(), fallback=("impression",), **common)
    if kind.startswith("open_i"):
        return open_i.prepare(source, out, views=(), fallback=("impression",), labels="none", **common)
    rule = "index" if kind.endswith("index") else "subject"
    return pairs.prepare(source, out, split=rule, label_names=CHEXPERT_FINDINGS, **common)


def contents(out: Path) -> dict[bytes, dict[str, Any]]:
    """Every record by its id, with its split; a quotation mark more or less is a letter that nobody can miss."""
    found = {}
    for split in records.splits(out):
        for record in records.open_split(out, split):
            texts = {name: record[name].replace(b'"', b"") for name in ("study_id", "subject_id", "text", "view")}
            found[record["id"]] = {
                "split": split,
                "labels": record["labels"].tolist(),
                "image": record["image"],
                **texts,
            }
    return found


@pytest.mark.parametrize("kind", trees.KINDS)
def test_composed_damages_mix_up_no_records(phantom, tmp_path, kind):
    base, case, vocabulary = tmp_path / "base", tmp_path / "case", tmp_path / "vocab.txt"
    trees.phantom_tree(kind, phantom, STUDIES).write(base)
    assert prepare(kind, base, tmp_path / "whole", None)["rejected"] == {}
    shutil.copyfile(tmp_path / "whole" / records.TOKENIZER_FILE, vocabulary)
    truth = contents(tmp_path / "whole")
    assert len(truth) > STUDIES

    same, losses = (damages.possible(some, kind) for some in (SAME, LOSSES))

    def one_of(some):
        return st.lists(st.tuples(st.sampled_from(some), st.integers(0, 999)), min_size=2, max_size=8)

    @hypothesis.seed(f"{SEED}/{kind}")
    @settings(
        max_examples=max(1, COMPOSED // len(trees.KINDS)),
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(studies=st.integers(5, STUDIES), done=one_of(same) | one_of(losses) | one_of(same + losses))
    def run(studies, done):
        shutil.rmtree(case, ignore_errors=True)
        tree = trees.phantom_tree(kind, phantom, studies)
        whole = [record for record in truth if record in ids(tree)]
        for damage, number in done:
            damage(tree, random.Random(number))
        tree.write(case / "source")
        loses = any(damage in LOSSES for damage, _ in done)
        try:
            report = prepare(kind, case / "source", case / "out", vocabulary)
        except DataError:
            if loses:
                return
            raise
        check(report, case / "out")
        kept = contents(case / "out")
        for record, content in kept.items():
            if "views_guessed" in report:
                content["view"] = truth[record]["view"]
            assert content == truth[record], record
        if not loses:
            assert sorted(kept) == sorted(whole)
            assert set(report["rejected"]) <= {"duplicate_id", "hidden_file"}

    def ids(tree):
        rows = [*tree.index, *(row for table in tree.tables.values() for row in table.rows)]
        names = [row.get("id") or row.get("dicom_id") or row.get("filename", "").removesuffix(".png") for row in rows]
        names += [Path(name).stem for name in tree.files if tree.kind == "open_i_xml"]
        return {name.encode() for name in names}

    print(f"MEDVILL_FUZZ_SEED={SEED} makes these trees again")
    try:
        run()
    except BaseException:
        # What hypothesis ran last is the smallest that fails.
        kept = Path(tempfile.mkdtemp(prefix=f"medvill-fuzz-{kind}-"))
        shutil.copytree(case, kept, dirs_exist_ok=True)
        print(f"the smallest tree that fails: {kept}/source")
        raise
