"""Pre-training on batches of texts of like length."""

import logging
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from medvill_jax.data import records
from medvill_jax.data.examples import PretrainRecords
from medvill_jax.data.index import read_index
from medvill_jax.data.length_buckets import BucketedRecords
from medvill_jax.data.tokenizer import load_tokenizer
from medvill_jax.errors import ConfigError
from medvill_jax.tasks import pretrain
from medvill_jax.tasks.runner import Runner
from tests.tasks.test_mixed import metrics


@pytest.fixture
def bucketed_config(tiny_config: ConfigDict, tiny_data: Path) -> ConfigDict:
    tiny_config.data.length_buckets = (int(np.median(read_index(tiny_data, "train", ["pieces"])["pieces"])),)
    tiny_config.batch_size = 4
    return tiny_config


def widths(task: Runner) -> list[int]:
    return [batch["text_ids"].shape[1] for batch in task.train_batches(0)]


def test_a_resumed_run_is_bitwise_that_of_an_uninterrupted_one(
    bucketed_config: ConfigDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bucketed_config.checkpoint.every_steps, bucketed_config.steps = 2, 6
    bucketed_config.eval.every_steps = 6
    task = pretrain.Task(bucketed_config, tmp_path / "whole")
    [shorter] = bucketed_config.data.length_buckets
    assert set(widths(task)) == {shorter + 1, bucketed_config.model.text_len + 1}
    assert len(set(widths(task)[2:])) == 2, "both buckets also after the interruption"
    assert f"bucket of texts of at most {shorter} word pieces: " in caplog.text
    assert task.fit() is not None
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "export")
    for step in ("00000004", "00000006"):
        shutil.rmtree(tmp_path / "resumed" / "checkpoints" / step)
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "00000004", tmp_path / "resumed" / "checkpoints" / "00000004")
    pretrain.Task(bucketed_config, tmp_path / "resumed").fit()
    assert "resuming at step 4" in caplog.text
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "whole")
    weights = [(tmp_path / run / "export" / "model.safetensors").read_bytes() for run in ("whole", "resumed")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("pairs", ["one", "both"])
@pytest.mark.parametrize("attention", ["bidirectional", "s2s", "bar", "non_cross"])
def test_padding_left_out_changes_no_loss(
    bucketed_config: ConfigDict, tmp_path: Path, pairs: str, attention: str
) -> None:
    bucketed_config.itm.pairs, bucketed_config.model.attention = pairs, attention
    if pairs == "both":
        bucketed_config.contrast.width = 8
    bucketed_config.model.dropout = 0.0
    task = pretrain.Task(bucketed_config, tmp_path)
    slots = bucketed_config.model.text_len + 1
    batch = next(batch for batch in task.train_batches(0) if batch["text_ids"].shape[1] < slots)
    padded = {
        name: jnp.pad(array, ((0, 0), (0, slots - array.shape[1])))
        if name in ("text_ids", "plain_ids", "negative_ids")
        else array
        for name, array in batch.items()
    }
    params, stats = task.parts.network.model.init(jax.random.key(1))
    objective = task.parts.objective
    (short, _), (long, _) = (objective.sums(params, stats, one, jax.random.key(2)) for one in (batch, padded))
    assert short.keys() == long.keys()
    for name, value in short.items():
        np.testing.assert_allclose(value, long[name], rtol=1e-5, err_msg=name)


def test_pieces_of_another_vocabulary_are_counted(
    bucketed_config: ConfigDict, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    # Without its longest words a text has more pieces.
    words = (tiny_data / records.TOKENIZER_FILE).read_text().splitlines()
    letters = sorted({letter for word in words if word[0] != "[" for letter in word.removeprefix("##")})
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("".join(f"{word}\n" for word in [*words[:5], *letters, *(f"##{one}" for one in letters)]))
    bucketed_config.data.tokenizer, bucketed_config.model.text_len = str(vocab), 80
    bucketed_config.model.max_positions, bucketed_config.data.length_buckets = 128, (24,)
    split = pretrain.Task(bucketed_config, tmp_path / "run").parts.train_records
    assert isinstance(split, BucketedRecords)
    assert "all records are read to count word pieces" in caplog.text
    tokenizer = load_tokenizer(vocab)
    short, long = ([len(tokenizer.encode(part.text(n))) for n in range(len(part))] for part in split.parts.values())
    assert max(short) <= 24 < min(long)


def test_a_mixture_takes_none(bucketed_config: ConfigDict, tiny_data: Path, tmp_path: Path) -> None:
    bucketed_config.data.path, bucketed_config.data.mixture = "", f"{tiny_data}:1"
    with pytest.raises(ConfigError, match=r"a mixture takes no config\.data\.length_buckets"):
        pretrain.Task(bucketed_config, tmp_path)


def test_losses_of_buckets_are_no_spikes(bucketed_config: ConfigDict, tmp_path: Path) -> None:
    bucketed_config.bad_steps.policy = "skip"
    with pytest.raises(ConfigError, match=r"set bad_steps\.spike=0"):
        pretrain.Task(bucketed_config, tmp_path)
    bucketed_config.bad_steps.spike = 0.0
    pretrain.Task(bucketed_config, tmp_path)


@pytest.mark.parametrize(("share", "folds"), [(1.0, 3), (0.7, 0), (0.7, 3)])
def test_buckets_are_of_the_records_that_are_trained_on(
    bucketed_config: ConfigDict, tmp_path: Path, share: float, folds: int
) -> None:
    bucketed_config.batch_size, bucketed_config.data.fraction = 2, share
    if folds:
        bucketed_config.data.folds, bucketed_config.data.fold = folds, 1
    split = pretrain.Task(bucketed_config, tmp_path / "buckets").parts.train_records
    bucketed_config.data.length_buckets = ()
    whole = pretrain.Task(bucketed_config, tmp_path / "whole").parts.train_records
    assert isinstance(split, BucketedRecords)
    assert isinstance(whole, PretrainRecords)
    found = sorted(part.identifier(record) for part in split.parts.values() for record in range(len(part)))
    assert found == sorted(whole.identifier(record) for record in range(len(whole)))
    assert len(split.parts) == 2


def test_lengths_beyond_the_text_are_refused(bucketed_config: ConfigDict, tmp_path: Path) -> None:
    bucketed_config.data.length_buckets = (bucketed_config.model.text_len,)
    with pytest.raises(ConfigError, match=r"length_buckets=\(14,\): numbers of word pieces that increase"):
        pretrain.Task(bucketed_config, tmp_path)
