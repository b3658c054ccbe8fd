"""Sentences that retrieval learns to judge: which are chosen, and what is lost on them."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from medvill_jax.batch import fake_batch
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data.examples import PairRecords
from medvill_jax.errors import ConfigError
from medvill_jax.metrics import clinical_denial
from medvill_jax.tasks.retrieve import build
from medvill_jax.tasks.retrieve.sentences import choose

SENTENCES = (
    "There is mild cardiomegaly.",
    "The heart is not enlarged.",
    "A small left pleural effusion is seen.",
    "No pleural effusion or pneumothorax.",
    "The lungs are clear.",
    "There may be pneumonia.",
)
REPORTS = st.lists(st.sampled_from(SENTENCES), max_size=4).map(" ".join)


@given(REPORTS, REPORTS, st.integers(0, 99))
def test_a_sentence_agrees_with_the_report_or_not(own: str, other: str, seed: int) -> None:
    chosen = choose(own, other, np.random.default_rng(seed))
    if chosen is None:
        assert not clinical_denial.claims(own)
        report = clinical_denial.claims(own)
        assert all(clinical_denial.holds(clinical_denial.claims(s), report) for s in clinical_denial.sentences(other))
        return
    sentence, denied, right = chosen
    assert sentence in clinical_denial.sentences(own if right else other)
    assert denied == clinical_denial.denied(sentence)
    # A report may contradict itself; elsewhere its own sentences agree with it.
    if not right:
        assert not clinical_denial.holds(clinical_denial.claims(sentence), clinical_denial.claims(own))


def test_half_of_the_sentences_are_right() -> None:
    rng = np.random.default_rng(0)
    drawn = [choose(SENTENCES[0], SENTENCES[1], rng) for _ in range(400)]
    assert 0.4 < np.mean([chosen is not None and chosen[2] for chosen in drawn]) < 0.6


def test_examples_are_those_without_sentences_and_more(tiny_retrieve_config: ConfigDict, tmp_path: Path) -> None:
    tiny_retrieve_config.sentences = 1.0
    parts = build(tiny_retrieve_config, Workdir.of(tmp_path))
    plain = parts.data.records(PairRecords, "train", train=True)
    assert isinstance(parts.train_records, PairRecords)
    seen = set()
    for place in range(len(plain)):
        example, without = parts.train_records.example(place, place), plain.example(place, place)
        assert example.keys() == parts.spec.keys.keys()
        for name, array in without.items():
            np.testing.assert_array_equal(example[name], array)
        for name, array in example.items():
            assert (array.shape, array.dtype) == (parts.spec.keys[name].shape, parts.spec.keys[name].dtype)
        seen.add((float(example["sentence_right"]), float(example["sentence_weights"])))
    assert (1.0, 1.0) in seen


def test_the_loss_is_that_of_the_difference_of_scores(tiny_retrieve_config: ConfigDict, tmp_path: Path) -> None:
    config: Any = tiny_retrieve_config
    config.sentences, config.model.dropout = 0.5, 0.0
    parts = build(config, Workdir.of(tmp_path))
    params, stats = parts.network.model.init(jax.random.key(0))
    host = fake_batch(parts.spec, 0, vocab_size=parts.data.vocabulary.size, sep_id=parts.data.vocabulary.sep_id)
    host["sentence_weights"] = np.arange(len(host["weights"])).astype(np.float32) % 3

    @jax.jit
    def odds(batch: dict[str, Any]) -> jax.Array:
        module: Any = parts.network.model.bind(params, stats)
        side = module.match_side(module.image_features(batch["image"]))
        image = module.project_image(side) * module.heads.contrast.temperature()

        def score(name: str) -> jax.Array:
            ids, lens = batch[f"{name}_ids"], batch[f"{name}_lens"]
            logits = module.match(side, ids, lens)
            return logits[:, 1] - logits[:, 0] + jnp.sum(image * module.project_text(ids, lens), axis=1)

        return score("sentence") - score("denied")

    found, _ = jax.jit(parts.objective.sums)(params, stats, host, jax.random.key(1))
    right = jax.nn.sigmoid(odds(host))
    losses = -jnp.log(jnp.where(host["sentence_right"] > 0, right, 1 - right))
    np.testing.assert_allclose(found["sentence_loss"], jnp.sum(losses * host["sentence_weights"]), rtol=2e-4)
    weights = parts.objective.weights({name: jnp.asarray(array) for name, array in host.items()})
    assert float(weights["sentence_loss"]) == host["sentence_weights"].sum()
    assert parts.objective.coefficients["sentence_loss"] == 0.5
    config.sentences = 0.0
    plain = build(config, Workdir.of(tmp_path))
    assert plain.objective.coefficients.keys() == parts.objective.coefficients.keys() - {"sentence_loss"}
    assert plain.spec.keys.keys() == {name for name in parts.spec.keys if not name.startswith(("sentence_", "denied_"))}
    others, _ = jax.jit(plain.objective.sums)(params, stats, host, jax.random.key(1))
    for name, value in others.items():
        np.testing.assert_allclose(value, found[name], rtol=1e-5)


def test_a_weight_below_zero_is_refused(tiny_retrieve_config: ConfigDict, tmp_path: Path) -> None:
    tiny_retrieve_config.sentences = -1.0
    with pytest.raises(ConfigError, match=r"sentences=-1\.0: the weight of a loss"):
        build(tiny_retrieve_config, Workdir.of(tmp_path))
