"""Shards: the same records whoever makes them, none made twice after a kill, memory that does not grow."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import classify, generate, pretrain, retrieve, vqa
from configs.base import VARIANTS
from data_prep import build, card, pairs, runners, shards, spool
from data_prep.runners import BeamOptions
from data_prep.workspace import Stopped
from medvill_jax import private
from medvill_jax.data import records
from medvill_jax.data.index import _scan, read_index
from medvill_jax.data.records import DataError
from medvill_jax.data.tokenizer import load_tokenizer

REPO = Path(__file__).resolve().parents[2]


def write_index(folder: Path, count: int, size: int = 40) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (size, size), np.uint8)).save(folder / f"{number}.png")
    with open(folder / "index.jsonl", "w") as file:
        for i in range(count):
            row = {"id": f"i{i}", "image": f"{i % 8}.png", "text": f"Film {i % 50} is normal.", "subject_id": i // 2}
            row["labels"] = {"Pleural Effusion": 1, "Edema": -1} if i % 3 else {}
            file.write(json.dumps(row) + "\n")
    return folder / "index.jsonl"


def contents(out: Path) -> dict[str, list[dict]]:
    return {split: list(records.open_split(out, split)) for split in records.splits(out)}


def same(one: Path, two: Path) -> bool:
    a, b = contents(one), contents(two)
    return a.keys() == b.keys() and all(
        len(a[split]) == len(b[split])
        and all(np.array_equal(x[key], y[key]) for x, y in zip(a[split], b[split], strict=True) for key in x)
        for split in a
    )


def test_the_order_is_that_of_tfds_and_shards_are_files(tmp_path, monkeypatch):
    index = write_index(tmp_path / "in", 120)
    whole = pairs.prepare(index, tmp_path / "whole", progress=False)
    monkeypatch.setattr(spool, "RECORDS_PER_SHARD", 16)
    report = pairs.prepare(index, tmp_path / "parts", progress=False)
    assert report == whole
    files = list((tmp_path / "parts").glob("*-train.array_record-*"))
    assert len(files) == -(-report["splits"]["train"] // 16)
    assert same(tmp_path / "whole", tmp_path / "parts")
    from tensorflow_datasets.core import hashing

    ids = [record["id"].decode() for record in contents(tmp_path / "whole")["train"]]
    hasher = hashing.Hasher("train")
    assert ids == sorted(ids, key=hasher.hash_key)
    for split in report["splits"]:
        scanned = _scan(tmp_path / "parts", split, pieces=True)
        index_of = read_index(tmp_path / "parts", split, list(scanned))
        assert all(np.array_equal(index_of[key], scanned[key]) for key in scanned)


@pytest.mark.parametrize(("records_of", "kilobytes"), [(1_000_000, 60), (377_110, 90), (40_000, 700), (20_000, 3000)])
def test_shards_of_large_builds_have_64_to_512_mb(records_of, kilobytes):
    for share in (0.8, 0.1, 0.012):
        rows = int(share * records_of)
        each = spool.shard_rows(rows, 1e3 * kilobytes, 1e3 * kilobytes * records_of)
        sizes = [min(each, rows - start) * kilobytes / 1e3 for start in range(0, rows, each)]
        assert max(sizes) <= 512
        assert min(sizes) >= min(64, rows * kilobytes / 1e3)
    assert spool.shard_rows(8_000, 6e4, 10_000 * 6e4) == spool.RECORDS_PER_SHARD == 512


def test_a_large_build_goes_by_the_size_of_its_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "RECORDS_PER_SHARD", 16)
    monkeypatch.setattr(spool, "SHARD_BYTES", 1 << 17)
    index = write_index(tmp_path / "in", 700)
    small = pairs.prepare(index, tmp_path / "small", progress=False)
    monkeypatch.setattr(spool, "LARGE_BUILD", 1 << 19)
    large = pairs.prepare(index, tmp_path / "large", progress=False)
    assert large == small
    assert same(tmp_path / "small", tmp_path / "large")
    files = {name: list((tmp_path / name).glob("*-train.array_record-*")) for name in ("small", "large")}
    assert len(files["small"]) == -(-small["splits"]["train"] // 16)
    sizes = [file.stat().st_size for file in files["large"]]
    assert len(sizes) > 4
    assert all(1 << 15 <= size <= 1 << 18 for size in sizes)


def test_a_shard_whose_images_all_fail_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "RECORDS_PER_SHARD", 5)
    index = write_index(tmp_path / "in", 60)
    pairs.prepare(index, tmp_path / "whole", progress=False)
    lost = {record["id"].decode() for record in contents(tmp_path / "whole")["train"][5:10]}
    rows = [json.loads(line) for line in index.read_text().splitlines()]
    index.write_text("".join(json.dumps({**r, "image": "x.png"} if r["id"] in lost else r) + "\n" for r in rows))
    report = pairs.prepare(index, tmp_path / "out", max_rejected=0.2, progress=False)
    assert report["rejected"] == {"missing_image": 5}
    kept = [record["id"].decode() for record in contents(tmp_path / "out")["train"]]
    before = [record["id"].decode() for record in contents(tmp_path / "whole")["train"]]
    assert kept == [i for i in before if i not in lost]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_an_interrupted_build_goes_on_with_the_shards_it_has(tmp_path, monkeypatch, stop):
    monkeypatch.setattr(spool, "RECORDS_PER_SHARD", 16)
    index = write_index(tmp_path / "in", 200)
    pairs.prepare(index, tmp_path / "whole", progress=False)
    serialized, made = shards._serialized, []

    def breaking(shard, stats, progress):
        if len(made) == 4:
            raise stop
        made.append(shard.file)
        return serialized(shard, stats, progress)

    monkeypatch.setattr(shards, "_serialized", breaking)
    with pytest.raises(stop):
        pairs.prepare(index, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    finished = {path: path.stat().st_ino for path in made}
    made.clear()
    monkeypatch.setattr(shards, "_serialized", lambda *args: made.append(args[0].file) or serialized(*args))
    monkeypatch.setattr(pairs, "_row", lambda *args: pytest.fail("the rows were read again"))
    report = pairs.prepare(index, tmp_path / "out", progress=False)
    assert isinstance(report, build.BuildReport)
    assert report.timing["images_resumed"] == 64
    assert not set(made) & set(finished)
    assert {path.stat().st_ino for path in (tmp_path / "out").iterdir()} > set(finished.values())
    assert same(tmp_path / "whole", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "whole"]


def test_a_killed_command_goes_on(tmp_path):
    index = write_index(tmp_path / "in", 6000)
    command = [sys.executable, "-m", "data_prep", "pairs", f"--source={index}", f"--out={tmp_path}/out"]
    process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    work = tmp_path / ".out.building"
    while len(list(work.glob("shards/*.json"))) < 2:
        time.sleep(0.002)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    there = {path.name: path.stat().st_ino for path in work.glob("shards/*.array_record")}
    made = [name for name in there if (work / "shards" / name).with_suffix(".json").is_file()]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "were made by an earlier run" in done.stdout
    kept = {path.stat().st_ino for path in (tmp_path / "out").glob("*.array_record-*")}
    assert {there[name] for name in made} <= kept
    assert records.splits(tmp_path / "out")["train"] > 4000
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_other_options_do_not_use_what_is_left(tmp_path, monkeypatch):
    index = write_index(tmp_path / "in", 60)
    monkeypatch.setattr(build, "run_shards", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pairs.prepare(index, tmp_path / "out", progress=False)
    assert (tmp_path / ".out.building" / spool.PLAN_FILE).is_file()
    monkeypatch.undo()
    assert pairs.prepare(index, tmp_path / "out", limit=30, progress=False)["found"] == 30


def test_a_full_disk_keeps_what_is_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "RECORDS_PER_SHARD", 16)
    index = write_index(tmp_path / "in", 100)
    make, made = shards.make_shard, []

    def full(shard, progress):
        if len(made) == 2:
            raise Stopped("the records could not be written: no space")
        made.append(make(shard, progress))

    monkeypatch.setattr(runners, "make_shard", full)
    with pytest.raises(DataError, match=r"(?s)no space.*The same command goes on"):
        pairs.prepare(index, tmp_path / "out", progress=False)
    monkeypatch.undo()
    report = pairs.prepare(index, tmp_path / "out", progress=False)
    assert isinstance(report, build.BuildReport)
    assert report.timing["images_resumed"] == 32


def test_a_worker_leaves_the_permissions_of_its_files_to_its_umask(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "RECORDS_PER_SHARD", 16)
    make, modes = shards.make_shard, set()

    def noted(shard, progress):
        # `--shared` is known to the program alone; its worker processes have its umask.
        umask = os.umask(0o022)
        monkeypatch.setattr(private, "_shared", False)
        make(shard, progress)
        modes.update(path.stat().st_mode & 0o777 for path in (shard.file, shard.stats))
        os.umask(umask)

    monkeypatch.setattr(runners, "make_shard", noted)
    pairs.prepare(write_index(tmp_path / "in", 40), tmp_path / "out", workers=1, progress=False)
    assert modes == {0o644}


def test_beam_makes_the_same_records(tmp_path, monkeypatch):
    pytest.importorskip("apache_beam")
    monkeypatch.setattr(spool, "RECORDS_PER_SHARD", 50)
    index = write_index(tmp_path / "in", 300)
    one = pairs.prepare(index, tmp_path / "threads", progress=False)
    beam = BeamOptions("DirectRunner", 2)
    two = pairs.prepare(index, tmp_path / "beam", beam=beam, progress=False)
    assert one == two
    assert same(tmp_path / "threads", tmp_path / "beam")


def test_beam_from_the_command_line(tmp_path):
    pytest.importorskip("apache_beam")
    index = write_index(tmp_path / "in", 40)
    command = [sys.executable, "-W", "ignore", "-m", "data_prep", "pairs", f"--source={index}", f"--out={tmp_path}/out"]
    beam = ["--beam_runner=DirectRunner", "--num_workers=2"]
    done = subprocess.run([*command, *beam], cwd=REPO, capture_output=True, text=True, check=True)
    assert "kept             40" in done.stdout
    assert "Traceback" not in done.stderr


def peak_memory(index: Path, out: Path) -> int:
    """MiB that a build holds at its peak, in a process of its own."""
    # Not getrusage: its maximum takes in the process that started this one, however large.
    code = (
        "import re, sys; from pathlib import Path; from data_prep import pairs\n"
        "pairs.prepare(Path(sys.argv[1]), Path(sys.argv[2]), progress=False)\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)"
    )
    command = [sys.executable, "-c", code, str(index), str(out)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path):
    few = peak_memory(write_index(tmp_path / "few", 500, size=128), tmp_path / "out_few")
    many = peak_memory(write_index(tmp_path / "many", 5000, size=128), tmp_path / "out_many")
    assert many < few + 60
    assert many < 1024


def test_the_data_card_tells_how_many_texts_are_cut(tmp_path):
    index = write_index(tmp_path / "in", 60)
    rows = [json.loads(line) for line in index.read_text().splitlines()]
    long = [{**row, "text": "One film. " * (40 if number % 4 else 2)} for number, row in enumerate(rows)]
    index.write_text("".join(json.dumps(row) + "\n" for row in long))
    report = pairs.prepare(index, tmp_path / "out", progress=False)
    words = load_tokenizer(records.tokenizer_path(tmp_path / "out"))
    for split, share in report["share_of_texts_longer_than"].items():
        texts = records.read_columns(tmp_path / "out", split, ["text"])["text"]
        lengths = np.array([len(words.encode(str(text))) for text in texts])
        assert share == {str(most): round(float((lengths > most).mean()), 4) for most in card.TEXT_LENGTHS}
        cells = " | ".join(f"{100 * (lengths > most).mean():.1f} %" for most in card.TEXT_LENGTHS)
        assert f"| {split} | {cells} |" in (tmp_path / "out" / card.CARD_FILE).read_text()
    for module, variant in itertools.product((pretrain, classify, generate, retrieve, vqa), VARIANTS):
        assert module.get_config(variant).model.text_len in card.TEXT_LENGTHS


def test_data_card_and_contact_sheet(tmp_path):
    index = write_index(tmp_path / "in", 100)
    with open(index, "a") as file:
        file.write('{"id": "bad|id", "image": "x.png", "text": "t"}\n')
    report = pairs.prepare(index, tmp_path / "out", contact_sheet=True, progress=False)
    text = (tmp_path / "out" / card.CARD_FILE).read_text()
    for part in (
        *("| found | 101 |", "| kept | 100 |", "| rejected | 1 |", "missing_image", "| train |", "Pleural Effusion"),
        *(report["checksum_of_ids"], "tensorflow-datasets", "Equal texts: 50 of 100", "| image_size | `512` |"),
    ):
        assert part in text, part
    assert report["duplicate_texts"]["over_all"] == 50
    assert report["images"]["height"]["p50"] == 40
    with Image.open(tmp_path / "out" / card.SHEET_FILE) as sheet:
        assert sheet.size == (6 * 220, 4 * 272)
        assert np.asarray(sheet).std() > 20
    pairs.prepare(index, tmp_path / "plain", progress=False)
    assert not (tmp_path / "plain" / card.SHEET_FILE).exists()
    again = pairs.prepare(index, tmp_path / "plain", contact_sheet=True, progress=False)
    assert again["reused"]
    assert (tmp_path / "plain" / card.SHEET_FILE).is_file()
