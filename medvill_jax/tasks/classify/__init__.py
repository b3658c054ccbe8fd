"""Diagnosis classification (paper section IV; docs/spec.md#classification): which findings a study has.

The model takes the image alone as input (`config.inputs=image`), or image and report under the bidirectional mask
(`image+report`). Labels are taken from reports, so a model that sees the report sees the answer: its metrics show how
well it copies, not how well it looks.

The loss is binary cross entropy, averaged over the labels that count: `config.labels` defines how uncertain and
unmentioned ones count, and the weight of positives. Held-out metrics while training, `eval/...`: `loss`, and AUROC,
AUPRC, F1 and calibration error (`metrics.classification`), every example exactly once. F1 uses the thresholds that
maximise it on the validation split; they are exported. If the validation split is the one that is scored, F1 is
in-sample and too high, and `f1_in_sample` is 1 (else 0).

`--eval_only` scores the best checkpoint on `config.eval.split`, with thresholds from the validation split, and writes:

* `metrics.json`: `SPLIT/...`, and `baseline/prevalence/...`, which predicts each finding's frequency in training, at
  its own thresholds from the validation split;
* `predictions.jsonl`: a row per example: id, probabilities, labels, and a number that examples of one subject share;
* `reliability.png`.
"""

from __future__ import annotations

import functools
import logging

import numpy as np

from medvill_jax.batch import classify_spec
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data import records
from medvill_jax.data.examples import LabelRecords
from medvill_jax.data.labels import positive_weights
from medvill_jax.errors import ConfigError
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS
from medvill_jax.models.finetuned import HeadsConfig
from medvill_jax.tasks import runner, setup
from medvill_jax.tasks.classify.evaluation import Classification
from medvill_jax.tasks.classify.objective import label_loss
from medvill_jax.tasks.classify.report import closing_lines
from medvill_jax.tasks.data import FAKE, Data
from medvill_jax.tasks.network import Network, build_network
from medvill_jax.tasks.parts import Parts

log = logging.getLogger(__name__)

INPUTS = ("image", "image+report")


def build(config: setup.Config, workdir: Workdir) -> Parts:
    """Classification; see the module's docstring."""
    check(config)
    data, names = Data(config), class_names(config)
    heads = HeadsConfig(classes=len(names), fusion=config.fusion, cells=config.cells)
    network = build_network(config, data.vocabulary, heads=heads, unused=(r"(mlm|itm)/.*",))
    return compose(config, workdir, data, network, names)


def check(config: setup.Config) -> None:
    """Raises `ConfigError` for fields that do not fit together."""
    setup.require_known(config, {"inputs": INPUTS})
    reads_report = config.inputs == "image+report"
    if config.fusion == "late" and not reads_report:
        raise ConfigError("fusion=late joins image and report: set --config.inputs=image+report")
    if config.fusion == "late" and config.model.views > 1:
        raise ConfigError(f"model.views={config.model.views} is for fusion=joint: fusion=late takes one film")
    if config.labels.positive_weight not in ("none", "balanced"):
        raise ConfigError(f"labels.positive_weight={config.labels.positive_weight!r}; there are none, balanced")
    if reads_report:
        setup.require_meeting(config)
        log.warning("inputs=image+report: the labels were read from these reports, so expect near-perfect metrics")


def class_names(config: setup.Config) -> tuple[str, ...]:
    """The findings, in the order of the outputs."""
    return CHEXPERT_FINDINGS if config.data.path == FAKE else records.label_names(config.data.path)


def compose(config: setup.Config, workdir: Workdir, data: Data, network: Network, names: tuple[str, ...]) -> Parts:
    """The parts for a network that has a head of the classes `names`."""
    reads_report = config.inputs == "image+report"
    records_of = functools.partial(
        data.records,
        LabelRecords,
        report=reads_report,
        uncertain=config.labels.uncertain,
        absent=config.labels.absent,
    )
    train_records = None if data.fake else records_of("train", train=True)
    weights = np.ones(len(names), np.float32)
    if train_records is not None:
        _check_labels(config, train_records, names)
        if config.labels.positive_weight == "balanced":
            weights = positive_weights(train_records.targets, train_records.target_weights)
    return Parts(
        stage="classification",
        data=data,
        network=network,
        spec=classify_spec(
            config.batch_size,
            image_size=config.model.image_size,
            text_len=config.model.text_len if reads_report else 0,
            classes=len(names),
            views=config.model.views,
        ),
        objective=label_loss(network, reads_report=reads_report, positive_weights=weights),
        train_records=train_records,
        evaluator=functools.partial(
            Classification,
            names=names,
            reads_report=reads_report,
            records_of=records_of,
            train_records=train_records,
        ),
        closing_lines=functools.partial(closing_lines, config, workdir, len(names)),
        export_extra=lambda evaluator, state: {
            "inputs": config.inputs,
            "fusion": config.fusion,
            "thresholds": evaluator.thresholds(state).tolist(),
        },
    )


def _check_labels(config: setup.Config, train: LabelRecords, names: tuple[str, ...]) -> None:
    """Warns of findings and records that training cannot use. Raises `DataError` if no training label counts."""
    positive = (train.targets * train.target_weights).sum(0)
    if not train.target_weights.any():
        raise records.DataError(f"no training record of {config.data.path} has a label that counts")
    if empty := [name for name, count in zip(names, positive, strict=True) if not count]:
        log.warning("no positive example to learn from: %s", ", ".join(empty))
    if unlabelled := int((train.labels == ABSENT).all(1).sum()):
        log.warning(
            "%d of %d training records have no label at all; with labels.absent=%s they %s",
            unlabelled,
            len(train),
            config.labels.absent,
            "count as negative throughout" if config.labels.absent == "negative" else "are left out",
        )


Task = runner.Task(build)
