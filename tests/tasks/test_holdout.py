"""Training subjects that are set aside where data have no validation split."""

import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ml_collections import ConfigDict

from data_prep import pairs
from medvill_jax.data import records
from medvill_jax.data.index import INDEX_DIR, read_index, write_index
from medvill_jax.errors import ConfigError
from medvill_jax.tasks import classify, data, generate, pretrain, retrieve, vqa

MODULES = (pretrain, classify, generate, retrieve, vqa)


@pytest.fixture
def without_validation(pairs_index: Callable[[dict[str, int]], Path], tmp_path: Path) -> Path:
    pairs.prepare(pairs_index({"train": 40, "test": 4}), tmp_path / "data", progress=False)
    return tmp_path / "data"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The records that are read from now on, but for the two that tell whether files are whole."""
    found: list[int] = []
    read, opened = records._Source.__getitem__, records.open_split

    def reading(source: records._Source, record: int) -> object:
        found.append(record)
        return read(source, record)

    def opening(*args: object) -> object:
        source = opened(*args)  # pyright: ignore[reportArgumentType]
        del found[-2:]
        return source

    monkeypatch.setattr(records._Source, "__getitem__", reading)
    monkeypatch.setattr(records, "open_split", opening)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_start_does_not_read_all_records(
    module: ModuleType,
    request: pytest.FixtureRequest,
    without_validation: Path,
    reads: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = module.__name__.rpartition(".")[2]
    config: ConfigDict = request.getfixturevalue("tiny_config" if name == "pretrain" else f"tiny_{name}_config")
    if name != "vqa":
        config.data.path, config.data.holdout = str(without_validation), 0.3
    monkeypatch.setattr(data, "MEASURED_TEXTS", 3)
    task = module.Task(config, tmp_path / "run")
    held_out = task.evaluator._records_of("validation")
    assert len(held_out) + len(task.parts.train_records) == 40
    assert len(reads) <= 3


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_subjects_lie_on_the_side_of_their_hash(
    without_validation: Path, tiny_classify_config: ConfigDict, tmp_path: Path, share: float
) -> None:
    tiny_classify_config.data.path, tiny_classify_config.data.holdout = str(without_validation), share
    task = classify.Task(tiny_classify_config, tmp_path / "run")
    subjects = records.read_columns(without_validation, "train", ["subject_id"])["subject_id"]
    aside = [records.text_hash(f"holdout {subject}") / 2**64 < share for subject in subjects]
    assert 0 < sum(aside) < 40
    np.testing.assert_array_equal(task.parts.data.splits.set_aside, aside)


def test_an_older_index_is_completed_by_reading(
    without_validation: Path,
    reads: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = without_validation / INDEX_DIR / "train.npz"
    whole = dict(np.load(path))
    names = ["labels", "text_hash", "subject_hash"]
    np.savez(path, labels=whole["labels"], text_hash=whole["text_hash"])
    with caplog.at_level("INFO"):
        assert read_index(without_validation, "train").keys() == {"labels", "text_hash"}
        assert not reads
        assert not caplog.records
        found = read_index(without_validation, "train", names)
    assert len(reads) == 40
    [line] = caplog.messages
    assert line.startswith(f"{path} lacks subject_hash, so all 40 records are read, now and at every start")
    assert f"write_index('{without_validation}')" in line
    write_index(without_validation)
    reads.clear()
    for index in (found, read_index(without_validation, "train", names)):
        assert all((index[name] == whole[name]).all() for name in names)
    assert not reads
    assert b"train0" not in path.read_bytes()


@pytest.fixture
def every_split(pairs_index: Callable[[dict[str, int]], Path], tmp_path: Path) -> Path:
    pairs.prepare(pairs_index({"train": 40, "validation": 6, "test": 9}), tmp_path / "data", progress=False)
    return tmp_path / "data"


def test_folds_test_every_record_once_and_share_no_subject(
    every_split: Path, tiny_classify_config: ConfigDict, tmp_path: Path
) -> None:
    config = tiny_classify_config
    config.data.path, config.data.folds, config.data.holdout = str(every_split), 3, 0.3
    names = ("train", "validation", "test")
    columns = [records.read_columns(every_split, name, ["id", "subject_id"]) for name in names]
    subject_of = {i: s for c in columns for i, s in zip(c["id"], c["subject_id"], strict=True)}
    tested: list[str] = []
    for fold in range(3):
        config.data.fold = fold
        task = classify.Task(config, tmp_path / f"run{fold}")
        found = {name: task.evaluator._records_of(name) for name in names}
        ids = {name: [part.identifier(record) for record in range(len(part))] for name, part in found.items()}
        assert sorted(itertools.chain.from_iterable(ids.values())) == sorted(subject_of)
        subjects = [{subject_of[i] for i in ids[name]} for name in names]
        assert not subjects[0] & subjects[1]
        assert not (subjects[0] | subjects[1]) & subjects[2]
        for part in found.values():
            np.testing.assert_array_equal(part.labels, [part[record]["labels"] for record in range(len(part))])
        tested += ids["test"]
    assert sorted(tested) == sorted(subject_of)


@pytest.mark.parametrize(("folds", "fold"), [(1, 0), (3, 3), (3, -1)])
def test_folds_that_do_not_exist(
    every_split: Path, tiny_classify_config: ConfigDict, tmp_path: Path, folds: int, fold: int
) -> None:
    data = tiny_classify_config.data
    data.path, data.folds, data.fold = str(every_split), folds, fold
    with pytest.raises(ConfigError, match="two folds or more, counted from 0"):
        classify.Task(tiny_classify_config, tmp_path / "run")


def test_a_fold_without_subjects_is_one_line(
    every_split: Path, tiny_classify_config: ConfigDict, tmp_path: Path
) -> None:
    data = tiny_classify_config.data
    data.path, data.folds = str(every_split), 10_000
    task = classify.Task(tiny_classify_config, tmp_path / "run")
    with pytest.raises(records.DataError, match="leaves nothing for 'test' in fold 0"):
        task.evaluator._records_of("test")
