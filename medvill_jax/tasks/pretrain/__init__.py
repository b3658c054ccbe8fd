"""Pre-training: masked language modelling + image-text matching (paper section III-B; docs/spec.md#pretraining).

Held-out metrics (`eval/...`), each over every example of the split exactly once:

* `mlm_loss`, `mlm_accuracy`: on matched pairs; with the baselines `mlm_loss_unigram`, `mlm_accuracy_unigram`, which
  predict the same masked tokens from token frequencies in training, and `mlm_loss_shuffled_images`, where each report,
  masked alike, is paired with another study's image.
* `itm_accuracy`, `itm_loss`: every image once with its true report and once with one of another label set; chance 0.5.
* `loss`: `mlm_loss + itm_loss`, by which the best checkpoint is chosen.
* `probe_auroc`, `probe_auroc_cells`: the AUROC of a linear probe for findings, trained on `PROBE_FILMS` training films
  without text, on the pooled [CLS] or on the mean of the image encoder's cells (undefined without labels).
* `image_rank`, `image_rank_cells`: the effective rank of these features. A rank near 1 is a collapse: the network tells
  films apart by little more than one number.

`--eval_only` also writes `predictions.jsonl`: for every example how many words were masked, the sum of their losses,
how many were right, and whether its own report was told to match (`own`), and another one not to (`other`).

With `config.itm.pairs=both`, a film is encoded once. It is paired with its true report, masked (MLM), and unmasked with
its true report and with another one (ITM). `config.contrast` adds a symmetric InfoNCE of films alone with reports alone
(`encode_image`, `encode_text`), from which `itm.negatives=in_batch` samples confusing reports.

On a mixture (`config.data.mixture`) these metrics pool the splits of all sources, every example counting the same, and
`eval/SOURCE/NAME` is that of one source; the probe is one, trained on films of all of them. `train/SOURCE/examples` is
how many examples of a source were trained on. Negative reports are of the film's own source.

Under `s2s` the image never sees the report, so no network can tell whether they match: `itm_accuracy` and `itm_loss`
are undefined, and `loss` is `mlm_loss`. Under `mixed`, MLM is evaluated under both masks, `NAME_s2s` and
`NAME_bidirectional`; NAME is their mean with the shares that they have in training. Matching is evaluated under the
bidirectional mask.
"""

from __future__ import annotations

import functools
from typing import Any

from medvill_jax.batch import pretrain_spec
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data.examples import PretrainRecords
from medvill_jax.data.transforms import MlmConfig
from medvill_jax.errors import ConfigError
from medvill_jax.models.finetuned import HeadsConfig
from medvill_jax.tasks import length_buckets, runner, setup
from medvill_jax.tasks.data import Data
from medvill_jax.tasks.mixed import data_of
from medvill_jax.tasks.network import build_network
from medvill_jax.tasks.parts import Parts
from medvill_jax.tasks.pretrain.evaluation import Pretraining
from medvill_jax.tasks.pretrain.objective import paired_loss, single_loss
from medvill_jax.tasks.pretrain.report import closing_lines

# "one": a film is paired with its true report or with another, as published; "both": with both.
PAIRS = ("one", "both")
NEGATIVES = ("drawn", "in_batch")


def build(config: setup.Config, workdir: Workdir) -> Parts:
    """Pre-training; see the module's docstring."""
    del workdir
    _check(config)
    paired, contrasts = config.itm.pairs == "both", config.contrast.width > 0
    data = data_of(config)
    heads = HeadsConfig(contrast=config.contrast.width) if contrasts else None
    network = build_network(config, data.vocabulary, heads=heads)
    records_of = functools.partial(_records, config, data)
    if data.fake:
        train_records = None
    elif config.data.length_buckets:
        train_records = length_buckets.bucketed(config, data, functools.partial(records_of, "train", train=True))
    else:
        train_records = records_of("train", train=True)
    return Parts(
        stage="pretraining",
        data=data,
        network=network,
        spec=pretrain_spec(
            config.batch_size,
            image_size=config.model.image_size,
            text_len=config.model.text_len,
            max_predictions=config.mlm.max_predictions,
            paired=paired,
            sources=len(data.sources),
            views=config.model.views,
        ),
        objective=paired_loss(network, config) if paired else single_loss(network, config),
        train_records=train_records,
        evaluator=functools.partial(
            Pretraining,
            vocab_size=data.vocabulary.size,
            records_of=records_of,
            train_records=train_records,
            sources=data.sources,
        ),
        closing_lines=functools.partial(closing_lines, config),
        shared_in_batch=("the pairs that do not match are",) if contrasts else (),
    )


def _check(config: setup.Config) -> None:
    """Raises `ConfigError` for fields that do not fit together."""
    setup.require_known(config, {"itm.pairs": PAIRS, "itm.negatives": NEGATIVES})
    if config.contrast.width and config.itm.pairs != "both":
        raise ConfigError(f"contrast.width={config.contrast.width} needs unmasked reports: set itm.pairs=both")
    if config.itm.negatives == "in_batch" and not config.contrast.width:
        raise ConfigError("itm.negatives=in_batch samples negatives by the contrast: set contrast.width")
    length_buckets.check(config)
    if not 0 <= config.mlm.all_words <= 1:
        raise ConfigError(f"mlm.all_words={config.mlm.all_words} is not in 0..1")


def _records(
    config: setup.Config, data: Data, split: str, *, train: bool = False, whole: bool = False, **more: Any
) -> Any:
    """A split, `PretrainRecords` or `MixedRecords`; `more` are options of `Data.records`.

    With `train` it is only what is trained on, with random crops, which `whole` leaves out.
    """
    mlm = MlmConfig(
        probability=config.mlm.probability,
        max_predictions=config.mlm.max_predictions,
        vocab_size=data.vocabulary.size,
        mask_id=data.vocabulary.mask_id,
        special_ids=tuple(data.tokenizer.special_ids),
        all_words=config.mlm.all_words if train else 0.0,
    )
    options = more | ({"crop": None} if whole else {})
    return data.records(PretrainRecords, split, train=train, mlm=mlm, paired=config.itm.pairs == "both", **options)


Task = runner.Task(build)
