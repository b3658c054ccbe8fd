"""Image-report retrieval (paper section IV; docs/spec.md#retrieval): which report belongs to a film, and back.

The objective:

* `itm_loss`: each film is paired with its true report, and with negatives by `config.negatives`. "in_batch": the film
  with a report of the batch, and its report with a film of the batch, sampled by how much the contrastive projection
  confuses them (Li et al., NeurIPS 2021); "drawn": the film with a report sampled from the whole split; "both". Films
  and reports of the same label set are never negatives.
* `contrast_loss`: symmetric InfoNCE between projections of films alone and of reports alone, without pairs of the same
  label set. The projections propose candidates in two-stage ranking.
* `sentence_loss`, if `config.sentences` is above 0: a sentence of the film's report or of another one, and the same
  sentence denied; the difference of their scores tells whether the sentence agrees with the film (`sentences.choose`).

A pair's score is the matching head's log-odds plus the scaled cosine of the projections, in training as in ranking, so
the head learns what the projections do not see.

Rankers: `exhaustive` matches every film with every report (films are encoded once). `two_stage` matches only the
`config.rank.proposals` reports that the projection proposes for every film, and films for every report; the other
candidates follow behind, in the projection's order. One matrix of pair scores serves both directions and both rankers.

Metrics, for `i2r` (films are queries, reports candidates) and `r2i` (the reverse): label-conditioned `mrr`, `hit_at_K`,
`recall_at_K`, `precision_at_K`, where every candidate of the query's label set is right, and `exact/...`, where only
the query's true partner is. Equal scores share their mean rank. `baseline/chance/...` is the exact expectation for a
random order. While training: `eval/...` over `config.eval.rank_examples` fixed examples; `eval/mrr` is the mean of
both directions.

`--eval_only` ranks `config.eval.candidates` of `config.eval.split` and writes `metrics.json`: `SPLIT/i2r/...`,
`SPLIT/r2i/...` of the exhaustive ranker, `SPLIT/two_stage/...`, and the number of pairs that each matched; intervals
resample all queries of a subject together, with the same candidates. An interrupted ranking continues. It also writes
`predictions.jsonl`: a row per study with its `ranks` by ranker and direction, of the best right candidate, and under
`.../exact` of its own partner.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from medvill_jax.batch import retrieve_spec
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data.examples import PairRecords
from medvill_jax.errors import ConfigError
from medvill_jax.models.finetuned import FUSIONS, HeadsConfig
from medvill_jax.tasks import runner, setup
from medvill_jax.tasks.data import Data
from medvill_jax.tasks.network import Network, build_network
from medvill_jax.tasks.parts import Parts
from medvill_jax.tasks.retrieve.evaluation import Ranking
from medvill_jax.tasks.retrieve.objective import NEGATIVES, matching_loss
from medvill_jax.tasks.retrieve.plan import plan
from medvill_jax.tasks.retrieve.pool import POOLS
from medvill_jax.tasks.retrieve.report import closing_lines
from medvill_jax.tasks.retrieve.scoring import METHODS
from medvill_jax.tasks.retrieve.sentences import choose


def build(config: setup.Config, workdir: Workdir) -> Parts:
    """Retrieval; see the module's docstring."""
    check(config)
    data = Data(config)
    network = build_network(
        config,
        data.vocabulary,
        heads=HeadsConfig(contrast=config.contrast.width, matches=True, fusion=config.fusion),
        unused=(r"mlm/.*", r"itm/.*") if config.fusion == "late" else (r"mlm/.*",),
    )
    return compose(config, workdir, data, network)


def compose(config: setup.Config, workdir: Workdir, data: Data, network: Network) -> Parts:
    """The parts for a network that matches, with a projection of `config.contrast.width`."""
    judges = config.sentences > 0
    spec = retrieve_spec(
        config.batch_size, image_size=config.model.image_size, text_len=config.model.text_len, sentences=judges
    )
    train = functools.partial(data.records, PairRecords, "train", train=True, sentence=choose if judges else None)
    shared = config.negatives != "drawn" or config.contrast.width > 0
    return Parts(
        stage="retrieval",
        data=data,
        network=network,
        spec=spec,
        objective=matching_loss(network, config),
        train_records=None if data.fake else train(),
        evaluator=functools.partial(Ranking, records_of=functools.partial(_records, data)),
        closing_lines=functools.partial(closing_lines, config, workdir),
        shared_in_batch=("the pairs that do not match are",) if shared else (),
        export_extra=lambda evaluator, state: {"fusion": config.fusion},
        plan=functools.partial(plan, data, spec) if config.eval.dry_run else None,
    )


def check(config: setup.Config) -> None:
    """Raises `ConfigError` for fields that do not fit together."""
    setup.require_one_view(config)
    setup.require_known(config, {"fusion": FUSIONS, "negatives": NEGATIVES, "rank.method": METHODS, "eval.pool": POOLS})
    setup.require_meeting(config)
    if config.rank.method == "two_stage" and not config.contrast.width:
        raise ConfigError("rank.method=two_stage needs a projection to propose candidates: set contrast.width")
    if config.negatives != "drawn" and not config.contrast.width:
        raise ConfigError(f"negatives={config.negatives} finds confusing pairs by the projection: set contrast.width")
    if config.eval.candidates == 1 or config.eval.candidates < 0:
        raise ConfigError(f"eval.candidates={config.eval.candidates}: a ranking needs two candidates, 0 takes all")
    if config.sentences < 0:
        raise ConfigError(f"sentences={config.sentences}: the weight of a loss is 0, which leaves it out, or more")


def _records(data: Data, split: str, among: np.ndarray | None = None) -> PairRecords:
    """A split, or only its records `among`, int `[n]`."""
    options: dict[str, Any] = {}
    if among is not None:
        rows = data.splits.rows(split)[1]
        options["rows"] = among if rows is None else rows[among]
    return data.records(PairRecords, split, **options)


Task = runner.Task(build)
