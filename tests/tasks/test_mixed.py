"""Pre-training on a mixture of data sets."""

import json
import logging
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file

from data_prep import pairs
from medvill_jax.batch import fake_batch
from medvill_jax.data import records
from medvill_jax.data.mixed import MixedRecords
from medvill_jax.errors import ConfigError, UserError
from medvill_jax.tasks import classify, pretrain
from medvill_jax.training import contrast
from tests.cluster.processes import Process, free_address
from tests.conftest import write_pairs

RUN = """
import json, sys
from pathlib import Path
from ml_collections import ConfigDict
from medvill_jax.cluster import distributed
from medvill_jax.tasks.pretrain import Task

workdir, address, number = sys.argv[1:]
distributed.start_if_cluster(address, 2, int(number), 120.0)
with distributed.together():
    config = ConfigDict(json.loads(Path(f"{workdir}.config").read_text()))
    task = Task(config.lock(), Path(workdir))
    task.fit()
    task.evaluate_best()
"""


@pytest.fixture(scope="module")
def second_data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another data set with the vocabulary of `tiny_data`; all of its identifiers are other ones."""
    folder = tmp_path_factory.mktemp("second")
    index = write_pairs(folder, {"train": 16, "validation": 6, "test": 4})
    rows = [json.loads(line) for line in index.read_text().splitlines()]
    index.write_text("".join(json.dumps(row | {"id": f"other-{row['id']}"}) + "\n" for row in rows))
    pairs.prepare(index, folder / "other", tokenizer=tiny_data / "tokenizer", progress=False)
    return folder / "other"


@pytest.fixture
def mixed_config(tiny_config: ConfigDict, tiny_data: Path, second_data: Path) -> ConfigDict:
    tiny_config.data.path, tiny_config.data.mixture = "", f"{tiny_data}:3,{second_data}:1"
    return tiny_config


def metrics(workdir: Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl`, without times."""
    timed = ("seconds", "wait", "per_")
    lines = (json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if not any(t in name for t in timed)} for line in lines]


def test_a_resumed_run_is_bitwise_that_of_an_uninterrupted_one(
    mixed_config: ConfigDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mixed_config.checkpoint.every_steps, mixed_config.eval.every_steps = 2, 0
    pretrain.Task(mixed_config, tmp_path / "whole").fit()
    assert "40 training examples, 0.8 epochs: 4 steps of 8" in caplog.text
    assert "  data: 0.75 of the examples, 24 of its own, 1 epochs" in caplog.text
    assert "  other: 0.25 of the examples, 16 of its own, 0.5 epochs" in caplog.text
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "export")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "00000004")
    pretrain.Task(mixed_config, tmp_path / "resumed").fit()
    assert "resuming at step 2" in caplog.text
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "whole")
    weights = [(tmp_path / run / "export" / "model.safetensors").read_bytes() for run in ("whole", "resumed")]
    assert weights[0] == weights[1]
    trained = [line for line in metrics(tmp_path / "whole") if "train/loss" in line]
    assert [(line["train/data/examples"], line["train/other/examples"]) for line in trained] == [
        (6, 2),
        (12, 4),
        (18, 6),
        (24, 8),
    ]
    card = (tmp_path / "whole" / "export" / "README.md").read_text()
    assert "0.75 of the training examples from data" in card
    assert str(tmp_path.parent) not in card


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(mixed_config: ConfigDict, tmp_path: Path) -> None:
    mixed_config.itm.pairs, mixed_config.contrast.width, mixed_config.itm.negatives = "both", 8, "in_batch"
    mixed_config.steps = mixed_config.eval.every_steps = 2
    (tmp_path / "two.config").write_text(mixed_config.to_json())
    address, two = free_address(), tmp_path / "two"
    started = [
        Process(["-c", RUN, str(two), address, str(number)], tmp_path / f"log{number}", 1) for number in range(2)
    ]
    try:
        task = pretrain.Task(mixed_config, tmp_path / "one")
        task.fit()
        task.evaluate_best()
        for process in started:
            assert process.wait() == 0, process.output()
    finally:
        for process in started:
            process.end()
    for ours, theirs in zip(metrics(two), metrics(tmp_path / "one"), strict=True):
        # Ranks, probes and accuracies turn on the last bits; sums and counts do not.
        assert ours.keys() == theirs.keys()
        for name in (name for name in theirs if "loss" in name or "examples" in name or name == "train/grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5), name
    weights = [load_file(run / "export" / "model.safetensors") for run in (two, tmp_path / "one")]
    assert weights[0].keys() == weights[1].keys()
    for name, array in weights[1].items():
        np.testing.assert_allclose(weights[0][name], array, rtol=0, atol=1e-5, err_msg=name)
    answers = [
        [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
        for run in (two, tmp_path / "one")
    ]
    assert [(row["id"], row["words"]) for row in answers[0]] == [(row["id"], row["words"]) for row in answers[1]]


def test_metrics_pool_the_sources_and_name_each(
    mixed_config: ConfigDict, tiny_data: Path, second_data: Path, tmp_path: Path
) -> None:
    task = pretrain.Task(mixed_config, tmp_path)
    state = task.trainer.initial_state()
    found = task.evaluator.evaluate_best(0, state)
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == ["data"] * 10 + ["other"] * 6
    assert all(row["id"].startswith(f"{row['source']}/") for row in rows)
    assert len({row["id"] for row in rows}) == len({row["subject"] for row in rows}) == 16
    assert sorted(found) == sorted(task.evaluator.names)
    assert (found["eval/examples"], found["eval/data/examples"], found["eval/other/examples"]) == (16, 10, 6)
    pooled = (10 * found["eval/data/itm_loss"] + 6 * found["eval/other/itm_loss"]) / 16
    assert found["eval/itm_loss"] == pytest.approx(pooled, rel=1e-6)
    # A source by itself is evaluated as without the mixture, but for the baseline and the probe, which know all films.
    mixed_config.data.mixture, mixed_config.data.path = "", str(second_data)
    alone = pretrain.Task(mixed_config, tmp_path / "alone").evaluator.evaluate(state)
    for name in ("itm_loss", "itm_accuracy", "mlm_loss", "mlm_accuracy", "image_rank", "examples"):
        assert found[f"eval/other/{name}"] == alone[f"eval/{name}"]


def test_reports_of_another_source_are_no_negatives_of_the_batch(mixed_config: ConfigDict, tmp_path: Path) -> None:
    mixed_config.itm.pairs, mixed_config.contrast.width = "both", 8
    spec = pretrain.build(mixed_config, tmp_path).spec
    host = fake_batch(spec, 0, vocab_size=300, sep_id=3) | {"label_groups": np.arange(8)}
    negative = contrast.negative_pairs({name: jnp.asarray(array) for name, array in host.items()})
    same = host["sources"][:, None] == host["sources"]
    np.testing.assert_array_equal(negative, same & ~np.eye(8, dtype=bool))
    assert not same.all()
    key = jax.random.key(0)
    text_of, image_of = contrast.draw_confusing(key, jnp.zeros((8, 8)), negative)
    assert (host["sources"][np.array([text_of, image_of])] == host["sources"]).all()


def test_a_subject_that_one_source_holds_out_is_not_trained_on_in_another(
    mixed_config: ConfigDict, tiny_data: Path, tmp_path: Path
) -> None:
    # The films of tiny_data again, with those for testing now for training.
    index = write_pairs(tmp_path, {"train": 24, "validation": 10, "test": 7})
    rows = [json.loads(line) for line in index.read_text().splitlines()]
    index.write_text("".join(json.dumps(row | {"split": row["split"].replace("test", "train")}) + "\n" for row in rows))
    pairs.prepare(index, tmp_path / "again", tokenizer=tiny_data / "tokenizer", progress=False)
    mixed_config.data.mixture = f"{tiny_data}:1,{tmp_path / 'again'}:1"
    train = pretrain.Task(mixed_config, tmp_path / "run").parts.train_records
    assert isinstance(train, MixedRecords)
    assert {name: len(part) for name, part in train.parts.items()} == {"data": 24, "again": 24}
    assert records.splits(tmp_path / "again")["train"] == 31


def test_sources_must_agree(mixed_config: ConfigDict, tiny_data: Path, second_data: Path, tmp_path: Path) -> None:
    def refused(tokenizer: Path | None = None, marks: str = "drop", **options: object) -> str:
        index = second_data.parent / "index.jsonl"
        pairs.prepare(index, tmp_path / "c", tokenizer=tokenizer, progress=False, **options)
        report = tmp_path / "c" / records.REPORT_FILE
        said = json.loads(report.read_text())
        report.write_text(json.dumps(said | {"options": said["options"] | {"marks": marks}}))
        mixed_config.data.mixture = f"{tiny_data}:1,{tmp_path / 'c'}:1"
        with pytest.raises(UserError) as caught:
            pretrain.Task(mixed_config, tmp_path / "run")
        shutil.rmtree(tmp_path / "c")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    own = tiny_data / "tokenizer"
    message = refused(vocab_size=150)
    assert "data and c have vocabularies of their own; prepare one with that of the other" in message
    assert f"--tokenizer={own}" in message
    assert "data and c differ in their films (" in refused(own, image_size=30)
    assert "differ in their de-identification marks (drop and keep)" in refused(own, marks="keep")


@pytest.mark.parametrize("field", ["data.path", "task"])
def test_a_mixture_replaces_the_path_of_pre_training_alone(
    mixed_config: ConfigDict, tiny_classify_config: ConfigDict, tiny_data: Path, tmp_path: Path, field: str
) -> None:
    if field == "task":
        tiny_classify_config.data.mixture = mixed_config.data.mixture
        with pytest.raises(ConfigError, match=r"^only pre-training takes config.data.mixture: name one data set"):
            classify.Task(tiny_classify_config, tmp_path)
    else:
        mixed_config.data.path = str(tiny_data)
        with pytest.raises(ConfigError, match=r"^give config.data.path or config.data.mixture, not both"):
            pretrain.Task(mixed_config, tmp_path)
