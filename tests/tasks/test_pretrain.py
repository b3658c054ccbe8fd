"""What pre-training minimises where a film faces more than one report."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import pretrain as configs
from medvill_jax.batch import fake_batch
from medvill_jax.errors import ConfigError
from medvill_jax.tasks import pretrain
from medvill_jax.tasks.parts import Parts
from medvill_jax.training import contrast
from medvill_jax.training.losses import cross_entropy_sum


@pytest.fixture
def paired_config(tiny_config: ConfigDict) -> ConfigDict:
    tiny_config.itm.pairs, tiny_config.contrast.width, tiny_config.model.dropout = "both", 8, 0.0
    return tiny_config


def sums_of(parts: Parts, key: jax.Array) -> tuple[dict[str, jax.Array], dict[str, jax.Array], object]:
    host = fake_batch(parts.spec, 3, vocab_size=parts.data.vocabulary.size, sep_id=parts.data.vocabulary.sep_id)
    # Label sets of their own, so that every pair of the batch is a negative.
    host["label_groups"] = np.arange(len(host["weights"]), dtype=np.int32)
    batch = {name: jnp.asarray(value) for name, value in host.items()}
    params, stats = parts.network.model.init(jax.random.key(1))
    objective = parts.objective
    sums, _ = objective.sums(params, stats, batch, key)
    weights = objective.weights(batch)
    assert sums.keys() == weights.keys() == objective.coefficients.keys()
    return batch, sums | {f"{name} weight": weight for name, weight in weights.items()}, (params, stats)


def test_a_film_faces_its_own_report_and_another(paired_config: ConfigDict, tmp_path: Path) -> None:
    parts = pretrain.build(paired_config, tmp_path / "run")
    batch, found, arrays = sums_of(parts, jax.random.key(0))
    module, rows = parts.network.model.bind(*arrays), len(batch["weights"])
    features = module.image_features(batch["image"], train=True)
    block = module.embed_image(features, None, None)
    words = module.encode_block(block, batch["text_ids"], batch["text_lens"])
    logits = module.mlm_logits(words.text, batch["mlm_positions"])
    expected = {"mlm_loss": cross_entropy_sum(logits, batch["mlm_ids"], batch["mlm_weights"])}
    own = module.match(block, batch["plain_ids"], batch["text_lens"])
    other = module.match(block, batch["negative_ids"], batch["negative_lens"])
    ones = jnp.ones(rows, jnp.int32)
    expected["itm_loss"] = sum(
        (cross_entropy_sum(logits, labels, batch["weights"]) for logits, labels in ((own, ones), (other, 0 * ones))),
        start=jnp.zeros(()),
    )
    image = module.project_image(block) * module.heads.contrast.temperature()
    text = module.project_text(batch["plain_ids"], batch["text_lens"])
    expected["contrast_loss"] = contrast.info_nce_sum(image @ text.T, contrast.negative_pairs(batch), batch["weights"])
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-4), name
    assert float(found["itm_loss weight"]) == 2 * rows
    assert float(found["contrast_loss weight"]) == rows


def test_negatives_of_the_batch_are_other_reports_of_it(paired_config: ConfigDict, tmp_path: Path) -> None:
    parts = pretrain.build(paired_config, tmp_path / "run")
    _, drawn, _ = sums_of(parts, jax.random.key(0))
    paired_config.itm.negatives = "in_batch"
    parts = pretrain.build(paired_config, tmp_path / "run")
    _, first, _ = sums_of(parts, jax.random.key(0))
    _, second, _ = sums_of(parts, jax.random.key(5))
    assert first["mlm_loss"] == drawn["mlm_loss"]
    assert first["contrast_loss"] == drawn["contrast_loss"]
    assert first["itm_loss"] != drawn["itm_loss"]
    assert first["itm_loss"] != second["itm_loss"]


def test_without_contrast_there_is_no_head(paired_config: ConfigDict, tmp_path: Path) -> None:
    paired_config.contrast.width = 0
    parts = pretrain.build(paired_config, tmp_path / "run")
    assert "heads" not in parts.network.model.abstract_params
    assert set(parts.objective.coefficients) == {"mlm_loss", "itm_loss"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"itm.pairs": "some"}, "itm.pairs='some'; there are one, both"),
        ({"itm.negatives": "easy"}, "itm.negatives='easy'; there are drawn, in_batch"),
        ({"itm.pairs": "one"}, "contrast.width=8 needs unmasked reports: set itm.pairs=both"),
        (
            {"contrast.width": 0, "itm.negatives": "in_batch"},
            "itm.negatives=in_batch samples negatives by the contrast",
        ),
        ({"mlm.all_words": 1.5}, r"mlm.all_words=1.5 is not in 0..1"),
    ],
)
def test_fields_that_do_not_fit(paired_config: ConfigDict, tmp_path: Path, fields: dict, message: str) -> None:
    paired_config.update_from_flattened_dict(fields)
    with pytest.raises(ConfigError, match=message):
        pretrain.build(paired_config, tmp_path / "run")


def test_modern_changes_the_objective_of_the_published_network_alone(tiny_config: ConfigDict, tmp_path: Path) -> None:
    published, modern = configs.get_config().to_dict(), configs.get_config("modern").to_dict()
    objective = {name: modern.pop(name) for name in ("itm", "contrast", "mlm")}
    assert modern == {name: value for name, value in published.items() if name not in objective}
    changed = {
        f"{section}.{name}"
        for section, fields in objective.items()
        for name, value in fields.items()
        if value != published[section][name]
    }
    assert changed == {"itm.pairs", "itm.negatives", "contrast.width", "mlm.all_words"}
    objective["mlm"]["max_predictions"] = tiny_config.mlm.max_predictions
    tiny_config.update(objective)
    tiny_config.steps = tiny_config.eval.every_steps = 2
    metrics = pretrain.Task(tiny_config, tmp_path / "run").fit()
    assert metrics is not None
    assert np.isfinite(metrics["eval/loss"])
