"""Columns of the records of a split."""

import errno
import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

from data_prep import pairs, spool, vqa_rad
from medvill_jax import paths
from medvill_jax.data import records
from medvill_jax.data.index import read_index
from medvill_jax.data.records import DataError
from medvill_jax.data.tokenizer import load_tokenizer
from tests import gcs


def test_columns_lie_in_the_order_of_the_records(tiny_data: Path) -> None:
    columns = records.read_columns(tiny_data, "train", ("id", "text", "view"))
    source = records.open_split(tiny_data, "train")
    assert list(columns) == ["id", "text", "view"]
    for name, column in columns.items():
        assert column.dtype.kind == "U"
        assert column.tolist() == [source[i][name].decode() for i in range(len(source))]
    assert len(set(columns["id"])) == len(source) == 24
    assert records.read_columns(tiny_data, "train", ()) == {}


def test_columns_of_questions(pairs_index: Callable[[dict[str, int]], Path], tmp_path: Path) -> None:
    pairs_index({"train": 3})
    (tmp_path / "images").mkdir()
    questions = []
    for number in range(3):
        (tmp_path / f"train{number}.png").rename(tmp_path / "images" / f"film{number}.png")
        questions.append(
            {
                "qid": number,
                "image_name": f"film{number}.png",
                "image_organ": "CHEST",
                "question": "Where is the na\u00efve opacity?",
                "question_type": "pos",
                "answer": f"Lobe {number}",
                "answer_type": "OPEN",
            }
        )
    (tmp_path / "questions.json").write_text(json.dumps(questions))
    vqa_rad.prepare(tmp_path, tmp_path / "data", progress=False)
    names = ["subject_id", "answer", "answer_type", "organ", "question_type", "text"]
    columns = records.read_columns(tmp_path / "data", "train", names)
    assert sorted(columns["answer"]) == ["lobe 0", "lobe 1", "lobe 2"]
    np.testing.assert_array_equal(columns["subject_id"], [f"film{answer[-1]}" for answer in columns["answer"]])
    assert set(columns["text"]) == {"Where is the na\u00efve opacity?"}
    for name, value in (("answer_type", "OPEN"), ("organ", "CHEST"), ("question_type", "POS")):
        assert set(columns[name]) == {value}


@pytest.mark.parametrize("names", [("answer",), ("id", "image"), ("labels",), ("",)])
def test_columns_that_are_not_there(tiny_data: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=f"no text feature {names[-1]}; there are id, study_id, subject_id, text, view"):
        records.read_columns(tiny_data, "train", names)
    with pytest.raises(DataError, match="no split 'dev'"):
        records.read_columns(tiny_data, "dev", ("id",))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO, errno.ENOSPC, errno.ESTALE])
def test_what_the_system_says_is_told_as_it_is(tiny_data: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Not that the files are damaged, which sends people copying them again."""
    said = os.strerror(number)
    raised = [
        RuntimeError(f"open() failed: {said}; opening /data/train.array_record-0; at byte 0"),
        OSError(number, said, "/data/train.array_record-0"),
    ]
    source = records.open_split(tiny_data, "train")
    for error in raised:
        monkeypatch.setattr(source, "_source", Broken(error))
        with pytest.raises(DataError) as caught:
            source[3]
        assert str(caught.value) == f"{tiny_data} cannot be read: {said}: /data/train.array_record-0"
    monkeypatch.setattr(source, "_source", Broken(RuntimeError("")))
    with pytest.raises(DataError, match="damaged: copy"):
        source[3]

    def fail(*_: object) -> bytes:
        raise raised[1]

    def fail_for_the_index(path: epath.Path) -> bytes:
        if path.suffix == ".npz":
            return fail()
        with path.open("rb") as file:
            return file.read()

    place = type(records.place(tiny_data))
    monkeypatch.setattr(place, "read_bytes", fail_for_the_index)
    with pytest.raises(DataError, match=f"train.npz cannot be read: {said}") as caught:
        read_index(tiny_data, "train")
    assert "delete" not in str(caught.value)
    monkeypatch.setattr(place, "read_bytes", fail)
    with pytest.raises(DataError, match=f"cannot be read: {said}"):
        records.splits(tiny_data)
    monkeypatch.undo()
    records._described.cache_clear()
    monkeypatch.setattr("tensorflow_datasets.builder_from_directory", fail)
    with pytest.raises(DataError, match=f"cannot be read: {said}") as caught:
        records.splits(tiny_data)
    assert "damaged" not in str(caught.value)


def test_a_data_set_is_described_once(tiny_data: Path, tmp_path: Path) -> None:
    """TFDS never lets go of a builder, so one at each evaluation would fill the memory of a long run."""

    def builders() -> int:
        gc.collect()
        # Not `isinstance`, which asks things for their class: some in torch answer with a warning.
        return sum(issubclass(type(thing), tfds.core.DatasetBuilder) for thing in gc.get_objects())

    records.open_split(tiny_data, "train")
    before = builders()
    for _ in range(3):
        records.open_split(tiny_data, "validation")
        assert records.kind(tiny_data) == "report"
        assert records.splits(tiny_data)["train"] == 24
    assert builders() <= before
    # One that is made anew at the same place is another data set.
    shutil.copytree(tiny_data, tmp_path / "data")
    assert records.label_names(tmp_path / "data") == records.label_names(tiny_data)
    metadata = json.loads((tmp_path / "data/metadata.json").read_text())
    metadata["label_names"][0] = "another"
    (tmp_path / "data/metadata.json").write_text(json.dumps(metadata))
    assert records.label_names(tmp_path / "data")[0] == "another"


class Broken:
    """A source that can be counted but not read."""

    def __init__(self, error: Exception):
        self._error = error

    def __len__(self) -> int:
        return 24

    def __getitem__(self, record: int) -> None:
        raise self._error


def test_what_the_reader_of_records_says_of_the_system(tiny_data: Path, tmp_path: Path) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    [file] = data.glob("*train.array_record*")
    file.unlink()
    file.mkdir()
    with pytest.raises(DataError, match=f"cannot be read: Is a directory: {file}"):
        records.open_split(data, "train")


READ_ALL = """
import sys
from medvill_jax.data import records
try:
    source = records.open_split(sys.argv[1], "train")
    print(sum(len(source[i]["image"]) > 0 for i in range(len(source))))
except records.DataError as error:
    print(f"error: {error}")
"""


def test_the_limit_of_open_files_is_raised_or_told_at_the_start(
    pairs_index: Callable[[dict[str, int]], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "RECORDS_PER_SHARD", 1)
    data = tmp_path / "data"
    pairs.prepare(pairs_index({"train": 150, "test": 2}), data, progress=False)
    assert len(list(data.glob("*.array_record*"))) == 152

    def read(limits: str) -> str:
        command = ["bash", "-c", f'{limits}; exec "$0" "$@"', sys.executable, "-c", READ_ALL, str(data)]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout

    assert read("ulimit -Sn 128") == "150\n"
    assert read("ulimit -n 407").startswith(
        f"error: {data} has 152 record files, which all stay open, so 408 open files are needed and 407 are allowed: "
    )


def test_a_bucket_is_read_as_a_folder_is(bucket: str, tiny_data: Path) -> None:
    url = f"{bucket}/records"
    gcs.upload(tiny_data, url)
    assert records.splits(url) == records.splits(tiny_data)
    assert records.label_names(url) == records.label_names(tiny_data)
    here, there = records.open_split(tiny_data, "train"), records.open_split(url, "train")
    for i in range(len(here)):
        assert {name: bytes(value) for name, value in here[i].items()} == {
            name: bytes(value) for name, value in there[i].items()
        }
    for name, column in read_index(tiny_data, "train").items():
        np.testing.assert_array_equal(read_index(url, "train")[name], column)
    words = load_tokenizer(records.tokenizer_path(url))
    assert words.tokens == load_tokenizer(records.tokenizer_path(tiny_data)).tokens


def test_what_is_wrong_with_a_bucket_is_one_line(bucket: str, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=f"there is no data set at {bucket}/nothing"):
        records.splits(f"{bucket}/nothing")
    with pytest.raises(DataError, match="gs://another/records"):
        records.splits("gs://another/records")
    gcs.upload(tiny_data, f"{bucket}/cut")
    next(path for path in epath.Path(f"{bucket}/cut").iterdir() if "test.array_record" in path.name).unlink()
    with pytest.raises(DataError, match="lacks 1 of its record files"):
        records.open_split(f"{bucket}/cut", "test")
    with pytest.raises(DataError, match="s3://bucket/records is no folder; of buckets gs:// is known"):
        records.splits("s3://bucket/records")
    monkeypatch.setattr(paths.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install -e '\.\[gcs\]'"):
        records.splits(f"{bucket}/records")


def test_how_the_films_were_prepared(
    tiny_data: Path, pairs_index: Callable[[dict[str, int]], Path], tmp_path: Path
) -> None:
    assert records.film_options(tiny_data) == {"image_size": 512}
    pairs.prepare(
        pairs_index({"train": 2}), tmp_path / "data", image_size=32, square=True, dicom="range", progress=False
    )
    assert records.film_options(tmp_path / "data") == {"image_size": 32, "square": True, "dicom": "range"}
    (tmp_path / "data" / records.REPORT_FILE).write_text("{")
    with pytest.raises(DataError, match=r"build_report\.json is damaged: prepare the data again"):
        records.film_options(tmp_path / "data")
    (tmp_path / "data" / records.REPORT_FILE).unlink()
    assert records.film_options(tmp_path / "data") == {}
