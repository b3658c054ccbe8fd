"""The shared builder: atomic, exact in its counts, strict with images, and read back as written."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data_prep import images
from data_prep.build import Rejection, Row, build, summary
from medvill_jax.data import records
from medvill_jax.data.index import INDEX_DIR, read_index
from medvill_jax.data.records import DataError
from medvill_jax.data.tokenizer import SPECIAL_TOKENS
from medvill_jax.findings import CHEXPERT_FINDINGS

REPO = Path(__file__).resolve().parents[2]
TEXTS = ("The heart is normal.", "Small left pleural effusion.", "No pneumothorax is seen.")


def jpeg(path: Path, size: tuple[int, int] = (40, 32), mode: str = "L", seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, "JPEG")
    return path


def make_rows(folder: Path, count: int = 12, **changes) -> list[Row | Rejection]:
    splits = ("train", "train", "validation", "test")
    return [
        Row(
            **{
                "id": f"i{i}",
                "study_id": f"s{i}",
                "subject_id": f"p{i}",
                "split": splits[i % 4],
                "image": jpeg(folder / f"{i}.jpg", seed=i),
                "text": TEXTS[i % 3],
                "labels": tuple((i + j) % 4 - 2 for j in range(14)),
                "view": "AP",
                **changes,
            }
        )
        for i in range(count)
    ]


def run(rows, out, **kwargs):
    return build(rows, out, **{"name": "demo", "options": {"a": 1}, "progress": False, **kwargs})


def test_records_are_read_back_as_written(tmp_path, capfd):
    rows = make_rows(tmp_path / "in")
    report = run(rows, tmp_path / "out")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert report["splits"] == records.splits(tmp_path / "out") == {"train": 6, "validation": 3, "test": 3}
    by_id = {row.id: row for row in rows}
    for split, count in report["splits"].items():
        source = records.open_split(tmp_path / "out", split)
        index = read_index(tmp_path / "out", split)
        assert len(source) == count
        for i in range(count):
            record = source[i]
            row = by_id.pop(record["id"].decode())
            assert (row.split, row.text, row.view) == (split, record["text"].decode(), record["view"].decode())
            assert (row.study_id, row.subject_id) == (record["study_id"].decode(), record["subject_id"].decode())
            assert record["image"] == row.image.read_bytes()
            assert record["labels"].dtype == np.int8
            assert tuple(record["labels"]) == row.labels
            assert tuple(index["labels"][i]) == row.labels
            assert index["text_hash"][i] == records.text_hash(row.text)
        assert index["labels"].dtype == np.int8
        assert index["text_hash"].dtype == np.uint64
    assert not by_id
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    assert records.label_names(tmp_path / "out") == CHEXPERT_FINDINGS


def test_tfds_opens_the_folder_and_decodes(tmp_path):
    run(make_rows(tmp_path / "in", 4), tmp_path / "out")
    builder = tfds.builder_from_directory(str(tmp_path / "out"))
    source = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    with Image.open(io.BytesIO(source[0]["image"])) as image:
        assert (image.mode, image.size) == ("L", (40, 32))
    assert (tmp_path / "out" / "features.json").is_file()
    assert list((tmp_path / "out").glob("*-train.array_record-*"))


def test_index_is_rebuilt_when_absent_and_refused_when_wrong(tmp_path):
    out = tmp_path / "out"
    run(make_rows(tmp_path / "in"), out)
    stored = read_index(out, "train")
    path = out / INDEX_DIR / "train.npz"
    path.unlink()
    scanned = read_index(out, "train")
    assert all((stored[key] == scanned[key]).all() for key in ("labels", "text_hash"))
    np.savez(path, labels=stored["labels"][:2], text_hash=stored["text_hash"][:2])
    with pytest.raises(DataError, match="does not belong"):
        read_index(out, "train")
    path.write_bytes(b"junk")
    with pytest.raises(DataError, match="damaged"):
        read_index(out, "train")


def test_report_counts(tmp_path):
    rows = make_rows(tmp_path / "in")
    rows += [rows[5], Rejection("x", "no_wanted_section", "has impression only")]
    rows += make_rows(tmp_path / "in", 1, id="empty", text="  ") + make_rows(tmp_path / "in", 1, id="b", split="dev")
    (tmp_path / "in" / "0.jpg").unlink()
    report = run(rows, tmp_path / "out", max_rejected=0.5)
    assert report["found"] == 16 == report["kept"] + sum(report["rejected"].values())
    assert report["rejected"] == {
        "missing_image": 1,
        "duplicate_id": 1,
        "no_wanted_section": 1,
        "empty_text": 1,
        "unknown_split": 1,
    }
    assert report == json.loads((tmp_path / "out" / records.REPORT_FILE).read_text())
    lines = [json.loads(line) for line in (tmp_path / "out" / records.REJECTED_FILE).read_text().splitlines()]
    assert {line["id"]: line["reason"] for line in lines}["i0"] == "missing_image"
    assert len(lines) == 5
    assert all(set(line) == {"id", "reason", "detail"} for line in lines)
    for split, labels in report["labels"].items():
        for i, name in enumerate(CHEXPERT_FINDINGS):
            column = read_index(tmp_path / "out", split)["labels"][:, i]
            assert labels[name]["positive"] == (column == 1).sum()
            assert labels[name]["absent"] == (column == -2).sum()
    lengths = report["text_length_in_word_pieces"]["train"]
    assert lengths["p0"] <= lengths["mean"] <= lengths["p100"]
    assert report["checksum_of_ids"].startswith("sha256:")
    text = summary(report, tmp_path / "out")
    assert "missing_image" in text
    assert "run.py --config=configs/pretrain.py:small" in text
    assert "i0" not in text


def test_too_many_rejections_fail_with_a_table_and_leave_only_the_list(tmp_path):
    rows = make_rows(tmp_path / "in")
    (tmp_path / "in" / "2.jpg").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"(?s)1 of 12 rows.*unreadable_image +1.*out\.rejected\.jsonl"):
        run(rows, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out.rejected.jsonl"]
    run(rows, tmp_path / "out", max_rejected=0.1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_expected_rejections_do_not_count(tmp_path):
    rows = [*make_rows(tmp_path / "in", 4), *(Rejection(f"x{i}", "no_wanted_section", "") for i in range(9))]
    report = run(rows, tmp_path / "out", max_rejected=0)
    assert report["expected_rejections"] == ["no_wanted_section"]
    assert report["found"] == 13


def test_empty_splits_are_left_out_and_an_empty_train_split_is_an_error(tmp_path):
    report = run(make_rows(tmp_path / "in", 3, split="train"), tmp_path / "out")
    assert report["splits"] == {"train": 3}
    assert len(report["warnings"]) == 2
    with pytest.raises(DataError, match=r"no split 'test'.*train \(3\)"):
        records.open_split(tmp_path / "out", "test")
    with pytest.raises(DataError, match="train split"):
        run(make_rows(tmp_path / "in", 3, split="test"), tmp_path / "out2")
    rows = make_rows(tmp_path / "in", 3, split="train")
    (tmp_path / "in" / "0.jpg").write_bytes(b"")
    (tmp_path / "in" / "1.jpg").unlink()
    (tmp_path / "in" / "2.jpg").unlink()
    with pytest.raises(DataError, match=r"(?s)no image of the train split.*missing_image +2"):
        run(rows, tmp_path / "out3", max_rejected=1)


def test_a_split_whose_images_all_fail_is_left_out(tmp_path):
    rows = make_rows(tmp_path / "in", 4)
    (tmp_path / "in" / "3.jpg").unlink()
    report = run(rows, tmp_path / "out", max_rejected=0.5)
    assert report["splits"] == {"train": 2, "validation": 1}


def test_same_options_are_reused_and_others_refused(tmp_path):
    run(make_rows(tmp_path / "in", 4), tmp_path / "out")

    def never():
        raise AssertionError("read although finished")
        yield

    again = run(never(), tmp_path / "out")
    assert again["reused"]
    assert "nothing was done" in summary(again, tmp_path / "out")
    with pytest.raises(DataError, match=r"(?s)other options.*a: 1 in the folder, 2 now"):
        run(never(), tmp_path / "out", options={"a": 2})
    with pytest.raises(DataError, match="not empty"):
        run(never(), tmp_path / "in")
    with pytest.raises(DataError, match="is a file"):
        run(never(), tmp_path / "in" / "0.jpg")
    (tmp_path / "empty").mkdir()
    run(make_rows(tmp_path / "in", 4), tmp_path / "empty")


def test_rows_that_raise_leave_nothing_and_stale_work_is_cleared(tmp_path):
    stale = tmp_path / ".out.building" / "tfds" / "demo"
    stale.mkdir(parents=True)
    (tmp_path / ".out.building" / "train.jsonl").write_text("junk\n")

    def broken():
        yield make_rows(tmp_path / "in", 1)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(broken(), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]
    stale.mkdir(parents=True)
    run(make_rows(tmp_path / "in", 4), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_interrupted_or_killed_command_of_other_options_starts_over(tmp_path):
    rows = make_rows(tmp_path / "in", 40)
    with open(tmp_path / "in" / "index.jsonl", "w") as file:
        for i in range(40_000):  # seconds of work, whatever else this machine does
            row = rows[i % 40]
            assert isinstance(row, Row)
            file.write(json.dumps({"id": str(i), "image": row.image.name, "text": row.text}) + "\n")
    command = [sys.executable, "-m", "data_prep", "pairs", f"--source={tmp_path}/in", f"--out={tmp_path}/out"]
    for stop, status in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        while not (tmp_path / ".out.building" / "tfds").exists():
            time.sleep(0.005)
            assert process.poll() is None
        process.send_signal(stop)
        _, err = process.communicate()
        assert process.returncode == status
        assert "Traceback" not in err
        assert not (tmp_path / "out").exists()
    done = subprocess.run([*command, "--limit=40"], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "kept             40" in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_a_second_run_at_the_same_time_is_refused(tmp_path):
    def nested():
        with pytest.raises(DataError, match="another run"):
            run([], tmp_path / "out")
        yield from make_rows(tmp_path / "in", 4)

    assert run(nested(), tmp_path / "out")["kept"] == 4


def test_vocabulary_is_trained_on_train_texts_only(tmp_path):
    rows = [
        *make_rows(tmp_path / "in", 4, split="train", text="heart heart heart"),
    ]
    rows += [
        Row("v", "v", "v", "validation", jpeg(tmp_path / "in" / "v.jpg"), "zebra zebra zebra", (0,) * 14, "AP"),
    ]
    run(rows, tmp_path / "out", vocab_size=100)
    vocab = (tmp_path / "out" / records.TOKENIZER_FILE).read_text().split("\n")
    assert vocab[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert "heart" in vocab
    assert "z" not in vocab
    assert records.tokenizer_path(tmp_path / "out").is_file()
    with pytest.raises(DataError, match="either tokenizer or vocab_size"):
        run(rows, tmp_path / "out2", vocab_size=100, tokenizer=tmp_path / "out" / records.TOKENIZER_FILE)


def test_unprepared_folders_are_named(tmp_path):
    with pytest.raises(DataError, match="no data set at"):
        records.open_split(tmp_path / "nothing", "train")
    with pytest.raises(DataError, match=r"not a prepared data set.*data_prep"):
        records.open_split(tmp_path, "train")
    run(make_rows(tmp_path / "in", 4), tmp_path / "out")
    (file,) = (tmp_path / "out").glob("*-validation.array_record-*")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"'validation' are damaged"):
        records.open_split(tmp_path / "out", "validation")
    file.unlink()
    with pytest.raises(DataError, match=r"lacks 1 of its record files, demo-validation"):
        records.open_split(tmp_path / "out", "validation")
    (tmp_path / "out" / "features.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        records.open_split(tmp_path / "out", "train")


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode) == ("JPEG", "L")
        return np.asarray(image).astype(int)


RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))  # [48, 64]


def test_gray_jpeg_passes_through_and_others_are_converted():
    gray = Image.fromarray(RAMP)
    data = encoded(gray, "JPEG", quality=60)
    assert images.to_jpeg(data, 48) == data
    assert images.to_jpeg(data, 24) != data
    variants = {
        "png": encoded(gray, "PNG"),
        "colour": encoded(gray.convert("RGB"), "JPEG", quality=95),
        "palette": encoded(gray.convert("P"), "PNG"),
        "alpha": encoded(gray.convert("LA"), "PNG"),
        "16-bit": encoded(Image.fromarray(RAMP.astype(np.uint16) * 257), "PNG"),
        "12-bit": encoded(Image.fromarray((RAMP.astype(np.float64) / 255 * 4095).round().astype(np.uint16)), "PNG"),
        "32-bit": encoded(Image.fromarray(RAMP.astype(np.int32) * 257), "TIFF"),
        "float": encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
    }
    for name, variant in variants.items():
        assert np.abs(decoded(images.to_jpeg(variant, 512)) - RAMP).max() <= 6, name


def test_transparent_pixels_become_black():
    rgba = np.full((20, 20, 4), 255, np.uint8)
    rgba[:, :10, 3] = 0
    pixels = decoded(images.to_jpeg(encoded(Image.fromarray(rgba), "PNG"), 512))
    assert pixels[:, :8].max() < 10
    assert pixels[:, 12:].min() > 245


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decoded(images.to_jpeg(encoded(Image.fromarray(RAMP), "JPEG", exif=exif, quality=95), 512))
    assert turned.shape == (64, 48)
    assert np.abs(turned - np.rot90(RAMP, -1)).max() <= 6


@pytest.mark.parametrize(
    ("size", "expected"),
    [((200, 100), (128, 64)), ((100, 200), (64, 128)), ((64, 300), (64, 300)), ((20, 30), (20, 30))],
)
def test_short_side_is_reduced_and_never_enlarged(size, expected):
    data = images.to_jpeg(encoded(Image.new("L", size, 77), "PNG"), 64)
    assert decoded(data).shape == expected[::-1]


def test_damaged_images_are_refused(monkeypatch):
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)), "JPEG")
    png = encoded(Image.fromarray(RAMP), "PNG")
    for bad in (
        b"",
        b"hello",
        data[: len(data) // 2],
        data[:-40],
        data[:-1],
        png[:-30],
        b"%!PS-Adobe-3.0 EPSF-3.0\n" + data,
    ):
        with pytest.raises(images.ImageError) as caught:
            images.to_jpeg(bad, 512)
        assert caught.value.reason == "unreadable_image"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for pixels in (40 * 40, 100 * 100):
        side = int(pixels**0.5)
        with pytest.raises(images.ImageError, match="safety limit"):
            images.to_jpeg(encoded(Image.new("L", (side, side)), "PNG"), 512)


def test_ordered_map_keeps_order_and_looks_ahead_a_little():
    taken = []

    def numbers():
        for i in range(100):
            taken.append(i)
            yield i

    results = images.ordered_map(lambda i: i * i, numbers(), workers=2)
    assert next(results) == 0
    assert len(taken) <= 8
    assert list(results) == [i * i for i in range(1, 100)]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "BMP", "WEBP", "PPM", "JPEG2000"])
def test_every_format_is_read_whole_or_not_at_all(kind):
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)), kind)
    assert decoded(images.to_jpeg(data, 512)).shape == (64, 64)
    for cut in (len(data) - 40, len(data) // 2, 20):
        with pytest.raises(images.ImageError):
            images.to_jpeg(data[:cut], 512)


def test_a_given_vocabulary_must_know_the_words(tmp_path):
    rows = make_rows(tmp_path / "in", 24)
    words = ["the", "heart", "is", "normal", "small", "left", "pleural", "effusion", "no", "pneumothorax", "seen", "."]
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join([*SPECIAL_TOKENS, "心", "影", "不", "大"]))
    with pytest.raises(
        DataError, match=r"vocab.txt turns 100.0 % of the \d+ words of the training texts into \[UNK\]"
    ) as caught:
        run(rows, tmp_path / "out", tokenizer=vocab)
    assert "heart" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    vocab.write_text(
        "\n".join([*SPECIAL_TOKENS, *(word for word in words if word not in ("effusion", "pneumothorax"))])
    )
    unknown = sum("pneumo" in row.text or "effus" in row.text for row in rows if row.split == "train")
    count = sum(len(row.text.split()) for row in rows if row.split == "train")
    with pytest.raises(DataError, match=f"turns {100 * unknown / count:.1f} % of the {count} words"):
        run(rows, tmp_path / "out", tokenizer=vocab)
    vocab.write_text("\n".join([*SPECIAL_TOKENS, *words]))
    assert run(rows, tmp_path / "out", tokenizer=vocab)["kept"] == 24
