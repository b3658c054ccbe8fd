"""Phrase grounding: a phrase in, a heat map and a box out, by a small head on the states of the visual cells.

The network reads film and phrase together, and a head gives every cell a logit that the phrase is seen there
(docs/tasks.md#grounding). The target of a cell is the share of its area in a box of the phrase; the loss is the mean
binary cross entropy of the cells plus `config.dice` times the soft Dice loss of the map. The body is that of
`config.init`; `config.freeze` says what of it stays as it is.

The map on the film is linear between the middles of cells. Its box surrounds the places that hang together with the
highest one and reach a share of its height, which is chosen on the validation split.

Held-out metrics while training, `eval/...`: `pointing`, `miou`, `cnr` (`metrics.grounding`). `--eval_only` grounds
every phrase of `config.eval.split` and writes `predictions.jsonl`, a row per phrase, and `metrics.json`: the measures
with intervals as `SPLIT/...`, also by category, those of the baselines of `tasks.grounded` as `baseline/NAME/...`, and
how much higher the model's are, as `gain/NAME/...`.
"""

from __future__ import annotations

import functools
from typing import Any

from medvill_jax.batch import ground_spec
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data.phrases import PhraseRecords
from medvill_jax.errors import ConfigError
from medvill_jax.models.finetuned import HeadsConfig
from medvill_jax.tasks import grounded, runner, setup
from medvill_jax.tasks.data import Data
from medvill_jax.tasks.ground.evaluation import Grounding
from medvill_jax.tasks.ground.objective import place_loss
from medvill_jax.tasks.network import build_network
from medvill_jax.tasks.parts import Parts

# The masks under which the cells see the phrase.
MASKS = ("bidirectional", "bar")


def build(config: setup.Config, workdir: Workdir) -> Parts:
    """Phrase grounding; see the module's docstring."""
    if config.model.attention not in MASKS:
        raise ConfigError(
            f"model.attention={config.model.attention}: no cell sees the phrase under it; there are {', '.join(MASKS)}"
        )
    if config.dice < 0 or config.positive_weight <= 0:
        raise ConfigError(
            f"dice={config.dice} must not be negative, and positive_weight={config.positive_weight} above 0"
        )
    setup.require_one_view(config)
    data = Data(config)
    if not data.fake:
        data.require_split("validation")  # of thresholds: its absence is an error now, not after the training
    network = build_network(config, data.vocabulary, heads=HeadsConfig(places=True), unused=(r"(mlm|itm|pooler)/.*",))
    cells = network.config.grid_cells
    records_of = functools.partial(data.records, PhraseRecords, grid=round(cells**0.5))
    return Parts(
        stage="grounding",
        data=data,
        network=network,
        spec=ground_spec(
            config.batch_size, image_size=config.model.image_size, text_len=config.model.text_len, cells=cells
        ),
        objective=place_loss(network, config),
        train_records=None if data.fake else records_of("train", train=True),
        evaluator=functools.partial(Grounding, records_of=records_of),
        closing_lines=functools.partial(closing_lines, config, workdir),
        export_extra=lambda evaluator, state: {"threshold": evaluator.threshold(state)},
    )


def closing_lines(config: setup.Config, workdir: Workdir, metrics: dict[str, Any]) -> list[str]:
    """Metrics next to baselines, as text."""
    split = config.eval.split
    if "eval/miou" not in metrics:
        return grounded.closing_lines(metrics, split, "the trained head", workdir)
    return [
        f"held out ({split}, {metrics['eval/phrases']:.0f} phrases):",
        f"  pointing {metrics['eval/pointing']:.3f}, mIoU {metrics['eval/miou']:.3f}, CNR {metrics['eval/cnr']:.3f}",
        "with baselines: the same command with --eval_only --config.eval.split=test",
    ]


Task = runner.Task(build)
