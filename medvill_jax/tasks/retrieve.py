"""Image-report retrieval (paper section IV; docs/spec.md#retrieval): which report belongs to a film, and back.

What is minimised:

* `itm_loss`: each film beside its own report, and pairs that do not match, by `config.negatives`. "in_batch": the film
  beside a report of the batch, and its report beside a film of the batch, drawn by how much the contrastive projection
  confuses them (Li et al., NeurIPS 2021); "drawn": the film beside a report drawn from the whole split; "both". Films
  and reports of the same label set never serve as negatives.
* `contrast_loss`, symmetric InfoNCE between projections of films and of reports that have not met, pairs of the same
  label set left out. The projections propose candidates in two-stage ranking.

A pair's score is the matching head's log-odds plus the scaled cosine of the projections, in training as in ranking, so
the head learns what the projections do not see.

Rankers: `exhaustive` matches every film with every report (films are encoded once); `two_stage` has the projection
propose `config.rank.proposals` reports for every film, and films for every report, and matches only those; what was not
proposed follows behind, in the projection's order. One matrix of pair scores serves both directions and both rankers.

Figures, for `i2r` (a film asks for reports) and `r2i` (a report asks for films): label-conditioned `mrr`, `hit_at_K`,
`recall_at_K`, `precision_at_K`, where every candidate of the query's label set is right, and `exact/...`, where only
its own partner is. Equal scores share their mean rank. Beside them `baseline/chance/...`, exactly what a random order
achieves. While training: `eval/...` over `config.eval.rank_examples` fixed examples, `eval/mrr` being the mean of both
directions.

`--eval_only` ranks `config.eval.candidates` of `config.eval.split` and writes `metrics.json`: `SPLIT/i2r/...`,
`SPLIT/r2i/...` of the exhaustive ranker, `SPLIT/two_stage/...`, and how many pairs either matched; intervals resample
all queries of a subject together, from the same candidates. Interrupted, it goes on with the pairs that it has.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.batch import Batch, BatchSpec, retrieve_spec
from medvill_jax.cluster import distributed
from medvill_jax.data import loader, records
from medvill_jax.data.examples import HostBatch, PairRecords
from medvill_jax.metrics import bootstrap, ranking
from medvill_jax.metrics.metrics_file import write_metrics
from medvill_jax.models.finetuned import FUSIONS, Finetuned, HeadsConfig
from medvill_jax.tasks import base, matching, setup
from medvill_jax.training import contrast
from medvill_jax.training.losses import cross_entropy_sum
from medvill_jax.training.step import Objective
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)

NEGATIVES = ("in_batch", "drawn", "both")
METHODS = ("both", "exhaustive", "two_stage")
POOLS = ("even", "balanced")
DIRECTIONS = ("i2r", "r2i")
METRICS_FILE = "metrics.json"
# The published test split of MIMIC-CXR (docs/spec.md#retrieval-pool); what a dry run without data plans for.
PUBLISHED_POOL = 1531
# Share of all pairs that two-stage ranking may match unless told otherwise.
TWO_STAGE_SHARE = 0.1


class Task(base.Task):
    """Retrieval; see the module's docstring."""

    stage = "retrieval"
    unused = (r"mlm/.*",)

    def __init__(self, config: setup.Config, workdir: Path):
        setup.require_known(
            config, {"fusion": FUSIONS, "negatives": NEGATIVES, "rank.method": METHODS, "eval.pool": POOLS}
        )
        setup.require_meeting(config)
        if config.rank.method == "two_stage" and not config.contrast.width:
            raise ValueError("rank.method=two_stage needs a projection to propose candidates: set contrast.width")
        if config.negatives != "drawn" and not config.contrast.width:
            raise ValueError(
                f"negatives={config.negatives} finds confusing pairs by the projection: set contrast.width"
            )
        if config.eval.candidates == 1 or config.eval.candidates < 0:
            raise ValueError(f"eval.candidates={config.eval.candidates}: a ranking needs two candidates, 0 takes all")
        if config.fusion == "late":
            self.unused = (*self.unused, r"itm/.*")
        super().__init__(config, workdir)
        self._match = self.trainer.jit(self._pair_scores)
        self._encode = self.trainer.jit(self._encoded)

    def heads(self) -> HeadsConfig:
        return HeadsConfig(contrast=self.config.contrast.width, matches=True, fusion=self.config.fusion)

    def batch_spec(self) -> BatchSpec:
        config = self.config
        return retrieve_spec(config.batch_size, image_size=config.model.image_size, text_len=config.model.text_len)

    def open_data(self) -> None:
        self.train_records = self._records("train", train=True)

    def objective(self) -> Objective:
        coefficients = {"itm_loss": 1.0}
        if self._contrasts:
            coefficients["contrast_loss"] = self.config.contrast.weight
        return Objective(self._train_sums, self._train_weights, coefficients)

    def host_batches(self, start_step: int) -> Iterator[HostBatch]:
        return self.shuffled_batches(self.train_records, start_step)

    def closing_lines(self, figures: dict[str, Any]) -> list[str]:
        split = self.config.eval.split
        if "eval/mrr" in figures:
            return [
                f"held out ({split}, {figures['eval/candidates']:.0f} films and reports):",
                *(
                    f"  {name}  MRR {figures[f'eval/{name}/mrr']:.3f}   chance {figures[f'eval/chance/{name}/mrr']:.3f}"
                    for name in DIRECTIONS
                ),
                "a whole split, ranked: the same command with --eval_only --config.eval.split=test",
            ]
        shown = [name for name in ("", "two_stage/") if f"{split}/{name}i2r/mrr" in figures]
        titles = {"": "exhaustive", "two_stage/": "two-stage"}
        lines = [
            f"{figures[f'{split}/candidates']:.0f} films and reports of {split}:",
            f"  {'':<18}" + "".join(f"{titles[name]:>12}" for name in shown) + f"{'chance':>12}",
        ]
        for direction in DIRECTIONS:
            for row in ("mrr", "hit_at_1", "recall_at_10", "exact/recall_at_10"):
                cells = [figures[f"{split}/{name}{direction}/{row}"] for name in shown]
                cells.append(figures[f"baseline/chance/{direction}/{row}"])
                lines.append(f"  {direction} {row:<14}" + "".join(f"{cell:>12.3f}" for cell in cells))
        pairs = [figures[f"{split}/{name}pair_evaluations"] for name in shown]
        lines.append(f"  {'pairs matched':<18}" + "".join(f"{count:>12,.0f}" for count in pairs))
        lines.append(bootstrap.resampled_words(figures, f"{split}/{shown[0]}{DIRECTIONS[0]}/"))
        return [*lines, f"all metrics: {self.workdir / METRICS_FILE}"]

    def evaluate(self, state: Tree) -> dict[str, float]:
        """See the module's docstring."""
        pool = self._pool(self.config.eval.split, self.config.eval.rank_examples)
        with jax.transfer_guard("allow"):
            scores, _ = self._pair_matrix(state, pool, None)
        figures: dict[str, Any] = {"eval/candidates": float(len(pool))}
        for name, per_query, relevant in self._directions(pool, scores):
            found = ranking.ranking(per_query, relevant, resamples=0)
            chance = ranking.chance(relevant, np.arange(len(pool)))
            figures |= {f"eval/{name}/{row}": found[row] for row in ("mrr", "hit_at_1", "recall_at_10")}
            figures[f"eval/chance/{name}/mrr"] = chance["mrr"]
        figures["eval/mrr"] = float(np.mean([figures[f"eval/{name}/mrr"] for name in DIRECTIONS]))
        return figures

    def evaluate_best(self) -> dict[str, Any]:
        """Ranks `config.eval.split`; see the module's docstring."""
        if self.config.eval.dry_run:
            print("\n".join(self._plan()))
            return {}
        self.require_data()
        step, state, _ = self.trainer.best_state()
        config, split = self.config, self.config.eval.split
        log.info("ranking %s with the best checkpoint, of step %d", split, step)
        pool = self._pool(split, config.eval.candidates)
        everything = np.arange(len(pool))
        made_with = self.made_with(step, state, pool)
        scores, proposed = self._pair_matrix(state, pool, (self.workdir, made_with))
        figures: dict[str, Any] = {f"{split}/candidates": float(len(pool))}
        resampling: dict[str, Any] = {"seed": config.seed, "clusters": pool.subjects()}
        if config.rank.method != "two_stage":
            figures[f"{split}/pair_evaluations"] = float(scores.size)
            for name, per_query, relevant in self._directions(pool, scores):
                found = ranking.ranking(per_query, relevant, **resampling)
                found |= ranking.exact_pair(per_query, everything, **resampling)
                figures |= {f"{split}/{name}/{row}": value for row, value in found.items()}
        if proposed is not None:
            similar, masks = proposed
            figures[f"{split}/two_stage/pair_evaluations"] = float((masks[0] | masks[1]).sum())
            figures[f"{split}/two_stage/proposals"] = float(masks[0].sum(1).max())
            known = np.where(np.isnan(scores), -np.inf, scores)
            for (name, per_query, relevant), mask, flip in zip(
                self._directions(pool, known), masks, (False, True), strict=True
            ):
                proposal, chosen = (similar.T, mask.T) if flip else (similar, mask)
                combined = ranking.two_stage(proposal, chosen, np.where(chosen, per_query, 0.0))
                found = ranking.ranking(combined, relevant, **resampling)
                found |= ranking.exact_pair(combined, everything, **resampling)
                figures |= {f"{split}/two_stage/{name}/{row}": value for row, value in found.items()}
        for name, _, relevant in self._directions(pool, scores):
            chance = ranking.chance(relevant, everything)
            figures |= {f"baseline/chance/{name}/{row}": value for row, value in chance.items()}
        if jax.process_index() == 0:
            write_metrics(self.workdir / METRICS_FILE, figures)
        return figures

    def export_extra(self, state: Tree) -> dict[str, Any]:
        del state
        return {"fusion": self.config.fusion}

    def shared_in_batch(self) -> list[str]:
        others = ["the pairs that do not match are"] if self._in_batch or self._contrasts else []
        return [*super().shared_in_batch(), *others]

    @property
    def _in_batch(self) -> bool:
        return self.config.negatives in ("in_batch", "both")

    @property
    def _drawn(self) -> bool:
        return self.config.negatives in ("drawn", "both")

    @property
    def _contrasts(self) -> bool:
        return self.config.contrast.width > 0

    def _directions(self, pool: PairRecords, scores: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Name, scores `[queries, candidates]` and what is right, of either direction."""
        right = pool.label_groups[:, None] == pool.label_groups[None, :]
        yield "i2r", scores, right
        yield "r2i", scores.T, right.T

    def _pool(self, split: str, count: int) -> PairRecords:
        whole = self._records(split)
        if len(whole) < 2:
            raise records.DataError(f"{split} has {len(whole)} record: a ranking needs two candidates")
        if count > len(whole):
            log.warning("%d candidates were asked for, %s has %d: all of them are ranked", count, split, len(whole))
        chosen = loader.evenly(len(whole), count)
        if self.config.eval.pool == "balanced":
            chosen = balanced(whole.label_groups, len(chosen))
        return self._records(split, among=chosen)

    def _pair_matrix(
        self, state: Tree, pool: PairRecords, store: tuple[Path, dict[str, Any]] | None
    ) -> tuple[np.ndarray, tuple[np.ndarray, tuple[np.ndarray, np.ndarray]] | None]:
        """Pair scores `[n, n]`, NaN where the ranker asks for none; similarities, and each direction's proposals."""
        config, count = self.config, len(pool)
        found = self.outputs(self._encode, state, pool)
        folder, made_with = store or (None, {})
        proposed = None
        wanted = np.ones((count, count), bool)
        similar = np.zeros((count, count), np.float32)
        if self._contrasts:
            similar = found["image"] @ found["text"].T  # [images, texts], scaled cosines
        if self._contrasts and config.rank.method != "exhaustive" and store is not None:
            proposals = min(config.rank.proposals or default_proposals(count), count)
            masks = (best_of(similar, proposals), best_of(similar.T, proposals).T)
            proposed = similar, masks
            if config.rank.method == "two_stage":
                # The last digits of a similarity are each processor's own.
                wanted = distributed.from_first(masks[0] | masks[1])
        scores = matching.Scores(folder, (count, count), made_with)
        text = (found["text_ids"], found["text_lens"])
        matching.fill(
            scores,
            wanted,
            self._match,
            state,
            found["side"],
            *text,
            batch_size=self.trainer.filled(self.config.rank.batch_size),
            batch_sharding=self.trainer.batch_sharding,
            replicated=self.trainer.replicated,
        )
        return np.array(scores.array) + similar, proposed

    def _plan(self) -> list[str]:
        """What ranking the split will take on this machine, from a few timed batches; needs no checkpoint, nor data."""
        config, model = self.config, self.model_config
        count = PUBLISHED_POOL if self.fake else records.splits(config.data.path).get(config.eval.split, 0)
        count = min(config.eval.candidates or count, count) if not self.fake else config.eval.candidates or count
        if count < 2:
            raise records.DataError(f"{config.eval.split} has {count} records: a ranking needs two candidates")
        proposals = min(config.rank.proposals or default_proposals(count), count)
        pairs, most = count * count, min(2 * count * proposals, count * count)
        state = self.trainer.initial_state()
        host = base.fake_batch(self.spec, 0, vocab_size=model.bert.vocab_size, sep_id=model.sep_id)
        batch = next(loader.to_device(iter([host]), self.trainer.batch_sharding))
        encoded = self._encode(state["params"], state["stats"], batch)
        size = self.trainer.filled(self.config.rank.batch_size)
        place = np.arange(size, dtype=np.int32) % config.batch_size
        index = loader.from_whole(place, self.trainer.batch_sharding)
        arguments = (encoded["side"], encoded["text_ids"], encoded["text_lens"], index, index)

        def seconds(call: Any) -> float:
            jax.block_until_ready(call())  # compiles
            start, runs = time.perf_counter(), 0
            while runs < 3 or (time.perf_counter() - start < 2.0 and runs < 50):
                jax.block_until_ready(call())
                runs += 1
            return (time.perf_counter() - start) / runs

        encode = seconds(lambda: self._encode(state["params"], state["stats"], batch)) / config.batch_size
        match = seconds(lambda: self._match(state["params"], state["stats"], *arguments)) / size
        side_bytes = encoded["side"].nbytes // config.batch_size * count
        whole, short = count * encode + pairs * match, count * encode + most * match
        return [
            f"{count:,} films x {count:,} reports on {self.trainer.mesh.size} {jax.default_backend()} device(s):",
            f"  film and report encodings  {count:>12,}   {_duration(count * encode):>9}   "
            f"({encode * 1e3:.2f} ms each, {side_bytes / 2**20:,.0f} MiB kept)",
            f"  exhaustive, pairs matched  {pairs:>12,}   {_duration(pairs * match):>9}   ({match * 1e3:.2f} ms each)",
            f"  two-stage, pairs matched   {most:>12,}   {_duration(most * match):>9}   "
            f"(at most; {proposals} proposals a query and direction)",
            f"  two-stage saves            {pairs - most:>12,}   {_duration(whole - short):>9}   "
            f"({100 * (whole - short) / whole:.0f} % of the time)",
            "times are extrapolated from a few batches, reading the films not counted; nothing was ranked",
        ]

    def _records(self, split: str, *, train: bool = False, among: np.ndarray | None = None) -> PairRecords:
        options = self.records_options(split, train=train)
        if among is not None:
            options["rows"] = among if options["rows"] is None else options["rows"][among]
        return PairRecords(**options)

    def _encoded(self, params: Tree, stats: Tree, batch: Batch) -> dict[str, jax.Array]:
        module = self.model.bind(params, stats)
        features = module.image_features(batch["image"])
        found = {name: batch[name] for name in ("text_ids", "text_lens")}
        found["side"] = module.match_side(features)
        if self._contrasts:
            image = module.project_image(module.embed_image(features, None, None))
            found["image"] = image * module.heads.contrast.temperature()
            found["text"] = module.project_text(batch["text_ids"], batch["text_lens"])
        return found

    def _pair_scores(self, params: Tree, stats: Tree, *arguments: Any) -> jax.Array:
        return matching.pair_scores(self.model.bind(params, stats), *arguments)

    def _train_weights(self, batch: Batch) -> dict[str, jax.Array]:
        examples = jnp.sum(batch["weights"])
        weights = {"itm_loss": examples * (1 + 2 * self._in_batch + self._drawn)}
        return weights | ({"contrast_loss": examples} if self._contrasts else {})

    def _train_sums(self, params: Tree, stats: Tree, batch: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], Tree]:
        module: Finetuned = self.model.bind(params, stats)
        features = module.image_features(batch["image"], train=True, frozen=self.frozen_parts)
        weights, rows = batch["weights"], features.shape[0]
        cells = self.sample_cells(key, rows)
        side_key, pair_key, project_key, hard_key = jax.random.split(key, 4)
        side = module.match_side(features, cells, side_key)
        ids, lens = batch["text_ids"], batch["text_lens"]
        ones, zeros = jnp.ones(rows, jnp.int32), jnp.zeros(rows, jnp.int32)
        negative_text = (batch["negative_ids"], batch["negative_lens"])
        sums, drawn, own = {}, jnp.zeros(rows), jnp.zeros(rows)
        pairs = []
        if self._contrasts:
            block = side if self.config.fusion == "joint" else module.embed_image(features, cells, side_key)
            image, text = module.project_image(block, project_key), module.project_text(ids, lens, project_key)
            image = image * module.heads.contrast.temperature()
            cosines = image @ text.T  # [images, texts], scaled
            own = jnp.diagonal(cosines)
            negative = contrast.negative_pairs(batch)
            sums["contrast_loss"] = contrast.info_nce_sum(cosines, negative, weights)
            if self._drawn:
                drawn = jnp.sum(image * module.project_text(*negative_text, project_key), axis=1)
            if self._in_batch:
                text_of, image_of = contrast.draw_confusing(hard_key, cosines, negative)
                each = jnp.arange(rows)
                pairs += [
                    (side, ids[text_of], lens[text_of], cosines[each, text_of], zeros, weights * negative.any(axis=1)),
                    (side[image_of], ids, lens, cosines[image_of, each], zeros, weights * negative.any(axis=0)),
                ]
        pairs.append((side, ids, lens, own, ones, weights))
        if self._drawn:
            pairs.append((side, *negative_text, drawn, zeros, weights))
        sides, all_ids, all_lens, near, labels, all_weights = map(jnp.concatenate, zip(*pairs, strict=True))
        logits = module.match(sides, all_ids, all_lens, key=pair_key)
        logits = logits.at[:, 1].add(near)
        sums["itm_loss"] = cross_entropy_sum(logits, labels, all_weights)
        return sums, self.model.stats_of(module)


def balanced(groups: np.ndarray, count: int) -> np.ndarray:
    """int `[count]`, ascending: records taken from the label sets in turn, until there are so many.

    Args:
        groups: int `[n]`, the label set of each record.
        count: at most n.
    """
    turn = np.empty(len(groups), np.int64)  # the how-many-th of its label set each record is
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        turn[mine] = np.arange(len(mine))
    return np.sort(np.argsort(turn, kind="stable")[:count])


def best_of(similar: np.ndarray, count: int) -> np.ndarray:
    """bool `[Q, C]`: the `count` most similar candidates of each query."""
    chosen = np.zeros(similar.shape, bool)
    best = np.argsort(-similar, axis=1, kind="stable")[:, :count]
    np.put_along_axis(chosen, best, True, axis=1)
    return chosen


def default_proposals(count: int) -> int:
    """So many proposals a query, in both directions, that at most a tenth of all pairs is matched."""
    return max(1, math.floor(count * TWO_STAGE_SHARE / 2))


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
