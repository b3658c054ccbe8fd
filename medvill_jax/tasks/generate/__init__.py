"""Report generation: fine-tuning under the s2s mask (docs/spec.md#generation).

Two objectives, `config.objective`:

* `causal`: every word piece, and the [SEP] at the report's end, is predicted from the image and the word pieces before
  it, with a [MASK] as query, as in decoding; all positions in one pass (`models.causal`).
* `masked`: some positions are masked, and predicted from the image and the positions before them, as published, with a
  configurable ratio.

Held-out metrics while training (`eval/...`):

* of the next word piece after those of the true report, every report exactly once: `loss` (nats per word piece),
  `perplexity` (its exponential over the whole split), `accuracy`, and `loss_shuffled_images`, where each report is
  paired with another study's image. The final [SEP] counts unless `model.text_len` cuts the report;
* of reports that the model writes, over `config.eval.generate_examples` fixed examples: `bleu4`,
  `clinical_micro_f1_14` (`metrics.report_scores`), and the latter with shuffled images.

`--eval_only` writes a report for every example of `config.eval.split` into `predictions.jsonl`, and `metrics.json`: all
metrics of `metrics.report_scores` as `SPLIT/...`, and those of three baselines:

* `baseline/most_frequent/...`: the most frequent training report for every film;
* `baseline/nearest_neighbour/...`: the report of the most similar training film, by the cosine of the image encoder's
  features, averaged over the cells, minus their mean over the training films. The encoder is that of the evaluated
  checkpoint, which has learnt what distinguishes reports: a stronger baseline than the encoder that the run started
  with, so that what the model gains over it comes from writing;
* `baseline/shuffled_images/...`: the same model with another study's image.
"""

from __future__ import annotations

import functools

from medvill_jax.batch import report_spec
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data.examples import ReportRecords
from medvill_jax.data.transforms import MlmConfig
from medvill_jax.errors import ConfigError
from medvill_jax.metrics import text
from medvill_jax.tasks import runner, setup
from medvill_jax.tasks.data import Data
from medvill_jax.tasks.generate.evaluation import Generation
from medvill_jax.tasks.generate.objective import OBJECTIVES, causal_loss, masked_loss
from medvill_jax.tasks.generate.report import closing_lines
from medvill_jax.tasks.network import Network, build_network
from medvill_jax.tasks.parts import Parts


def build(config: setup.Config, workdir: Workdir) -> Parts:
    """Report generation; see the module's docstring."""
    if config.model.attention != "s2s":
        raise ConfigError(f"model.attention={config.model.attention!r}: reports are written under s2s")
    data = Data(config)
    return compose(config, workdir, data, build_network(config, data.vocabulary))


def compose(config: setup.Config, workdir: Workdir, data: Data, network: Network) -> Parts:
    """The parts for any network, which writes under s2s whatever its mask."""
    setup.require_known(config, {"objective": OBJECTIVES})
    # A missing library is an error now, not at the first evaluation.
    text.bleu_counts(["word"], ["word"])
    causal = config.objective == "causal"
    records_of = functools.partial(_records, config, data)
    train_records = None if data.fake else records_of("train", train=True)
    held_out = functools.cache(lambda: records_of(config.eval.split))
    if train_records is not None and (config.eval.every_epochs or config.eval.every_steps):
        held_out()  # records without reports are an error now, not after an epoch
    mask_id = data.vocabulary.mask_id
    return Parts(
        stage="generation",
        data=data,
        network=network,
        spec=report_spec(
            config.batch_size,
            image_size=config.model.image_size,
            text_len=config.model.text_len,
            max_predictions=0 if causal else config.mask.max_predictions,
            views=config.model.views,
        ),
        objective=causal_loss(network, mask_id) if causal else masked_loss(network),
        train_records=train_records,
        evaluator=functools.partial(
            Generation,
            data=data,
            held_out=held_out,
            records_of=records_of,
            train_records=train_records,
        ),
        closing_lines=functools.partial(closing_lines, config, workdir),
        export_extra=lambda evaluator, state: {
            "decode": {name: value for name, value in config.decode.to_dict().items() if name != "batch_size"}
        },
    )


def _records(config: setup.Config, data: Data, split: str, *, train: bool = False) -> ReportRecords:
    mask = None
    if train and config.objective == "masked":
        mask = MlmConfig(
            probability=config.mask.probability,
            max_predictions=config.mask.max_predictions,
            vocab_size=data.vocabulary.size,
            mask_id=data.vocabulary.mask_id,
            special_ids=tuple(data.tokenizer.special_ids),
        )
    return data.records(ReportRecords, split, train=train, mask=mask)


Task = runner.Task(build)
