"""Retrieval as its user runs it: fine-tune, rank with both rankers, go on when interrupted, plan a large ranking."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import medvill_jax
from medvill_jax.data import loader
from medvill_jax.data.examples import PairRecords
from medvill_jax.data.records import DataError
from medvill_jax.errors import ConfigError
from medvill_jax.tasks import pair_scores
from medvill_jax.tasks.retrieve import Task, pool
from tests.cli import RunPy
from tests.conftest import TINY_FLAGS, retrieve_config


@pytest.fixture(scope="module")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ConfigDict, Path]:
    """A finished run: its configuration and its workdir, which is copied by whoever writes into it."""
    config, workdir = retrieve_config(tiny_data), tmp_path_factory.mktemp("trained")
    held_out = Task(config, workdir).fit()
    assert held_out is not None
    assert held_out["eval/candidates"] == 6
    assert 0 < held_out["eval/i2r/mrr"] <= 1
    return config, workdir


@pytest.fixture
def run(trained: tuple[ConfigDict, Path], tmp_path: Path) -> tuple[ConfigDict, Path]:
    """The finished run, to change."""
    shutil.copytree(trained[1], tmp_path / "run")
    return trained[0].copy_and_resolve_references(), tmp_path / "run"


def test_both_rankers_score_both_directions(run: tuple[ConfigDict, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    config, workdir = run
    monkeypatch.setattr(PairRecords, "subjects", lambda self: np.arange(len(self)) // 2)
    task = Task(config, workdir)
    figures = task.evaluate_best()
    written = json.loads((workdir / "metrics.json").read_text())
    assert written["validation/candidates"] == 10
    assert written["validation/pair_evaluations"] == 100
    for direction in ("i2r", "r2i"):
        for prefix in ("validation", "validation/two_stage", "baseline/chance"):
            assert {
                f"{prefix}/{direction}/{row}" for row in ("mrr", "recall_at_5", "exact/median_rank")
            } <= written.keys()
        low, high = written[f"validation/{direction}/mrr_ci95"]
        assert low <= written[f"validation/{direction}/mrr"] <= high
        for prefix in ("validation", "validation/two_stage"):
            assert written[f"{prefix}/{direction}/resampled_subjects"] == 5
            assert written[f"{prefix}/{direction}/exact/resampled_subjects"] == 5
    # A tenth of 10 x 10 pairs is one proposal a query, at most.
    assert written["validation/two_stage/pair_evaluations"] <= 20
    lines = "\n".join(task.closing_lines(figures))
    assert "two-stage" in lines
    assert "95 % intervals resample 5 subjects" in lines


def test_the_ranks_of_all_queries_are_written(run: tuple[ConfigDict, Path]) -> None:
    config, workdir = run
    figures = Task(config, workdir).evaluate_best()
    path = workdir / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows) == 10
    for direction in ("i2r", "r2i", "two_stage/i2r", "two_stage/r2i"):
        best, exact = (np.array([row["ranks"][f"{direction}{of}"] for row in rows]) for of in ("", "/exact"))
        prefix = f"validation/{direction}"
        assert (1 / best).mean() == pytest.approx(figures[f"{prefix}/mrr"])
        assert (best <= 5).mean() == pytest.approx(figures[f"{prefix}/hit_at_5"])
        assert np.median(exact) == figures[f"{prefix}/exact/median_rank"]
        assert (exact <= 1).mean() == pytest.approx(figures[f"{prefix}/exact/recall_at_1"])
        assert (best <= exact).all()
    assert path.stat().st_mode & 0o077 == 0
    config.rank.method = "exhaustive"
    Task(config, workdir).evaluate_best()
    assert {*json.loads(path.read_text().splitlines()[0])["ranks"]} == {"i2r", "r2i", "i2r/exact", "r2i/exact"}


def test_a_full_list_of_proposals_is_the_exhaustive_ranking(run: tuple[ConfigDict, Path]) -> None:
    config, workdir = run
    config.rank.proposals = 50  # more than the pool has
    figures = Task(config, workdir).evaluate_best()
    for direction in ("i2r", "r2i"):
        assert figures[f"validation/two_stage/{direction}/mrr"] == figures[f"validation/{direction}/mrr"]


def test_an_interrupted_ranking_goes_on(run: tuple[ConfigDict, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    config, workdir = run
    task = Task(config, workdir)
    whole = task.evaluate_best()
    path = workdir / pair_scores.SCORES_FILE
    scores = np.load(path)
    assert np.isfinite(scores).all()
    cut = scores.copy()
    cut[3:] = np.nan
    np.save(path, cut)
    computed = []
    fill = pair_scores.fill
    monkeypatch.setattr(pair_scores, "fill", lambda *args, **options: computed.append(fill(*args, **options)))
    assert task.evaluate_best() == whole
    assert computed == [70]
    np.testing.assert_array_equal(np.load(path), scores)
    # Another pool starts anew; how pairs are batched changes no score.
    config.eval.candidates, config.rank.batch_size = 4, 7
    assert Task(config, workdir).evaluate_best()["validation/candidates"] == 4
    assert computed == [70, 16]
    chosen = loader.evenly(10, 4)
    np.testing.assert_allclose(np.load(path), scores[np.ix_(chosen, chosen)], atol=1e-5)


@pytest.mark.parametrize("name", [pair_scores.SCORES_FILE, pair_scores.MADE_WITH_FILE])
def test_scores_of_other_weights_or_a_damaged_file_are_computed_again(
    run: tuple[ConfigDict, Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config, workdir = run
    task = Task(config, workdir)
    task.evaluate_best()
    scores = np.load(workdir / pair_scores.SCORES_FILE)
    (workdir / name).write_bytes((workdir / name).read_bytes()[:-9])
    computed = []
    fill = pair_scores.fill
    monkeypatch.setattr(pair_scores, "fill", lambda *args, **options: computed.append(fill(*args, **options)))
    task.evaluate_best()
    again = np.load(workdir / pair_scores.SCORES_FILE)
    np.testing.assert_allclose(again, scores, atol=1e-5)
    # The same step with other weights.
    step, state, found = task.trainer.best_state()
    state["params"]["itm"] = jax.tree.map(lambda leaf: leaf + 1.0, state["params"]["itm"])
    monkeypatch.setattr(task.trainer, "best_state", lambda: (step, state, found))
    task.evaluate_best()
    assert computed == [100, 100]


def test_an_export_matches_as_the_run_did(trained: tuple[ConfigDict, Path]) -> None:
    config, workdir = trained
    task = Task(config, workdir)
    held = task.evaluator._records_of("validation")
    images = np.stack([held.image(number, held.rng(number), own_image=True) for number in range(len(held))])
    ids, lens = zip(*(held.slots(number) for number in range(len(held))), strict=True)
    model = medvill_jax.load(workdir / "export")
    scores = model.arrays.match(images, np.stack(ids), np.array(lens), batch_size=7)
    _, state, _ = task.trainer.best_state()
    np.testing.assert_allclose(scores, task.evaluator.scorer.matrix(state, held)[0], atol=1e-4)
    cosines = model.arrays.similarity(images, np.stack(ids), np.array(lens))
    assert cosines.shape == (10, 10)
    assert np.abs(cosines).max() <= 1 + 1e-5


@pytest.mark.parametrize("width", [0, 8])
def test_the_baseline_without_fusion_ranks(tiny_retrieve_config: ConfigDict, tmp_path: Path, width: int) -> None:
    config = tiny_retrieve_config
    config.fusion, config.contrast.width, config.negatives = "late", width, "both" if width else "drawn"
    task = Task(config, tmp_path)
    task.fit()
    figures = task.evaluate_best()
    assert ("validation/two_stage/i2r/mrr" in figures) == (width > 0)


def test_a_dry_run_says_what_a_ranking_takes(
    tiny_retrieve_config: ConfigDict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_retrieve_config
    config.data.path, config.eval.dry_run = "fake", True
    assert Task(config, tmp_path).evaluate_best() == {}
    out = capsys.readouterr().out
    assert "1,531 films x 1,531 reports" in out
    assert f"{1531 * 1531:,}" in out
    assert f"{2 * 1531 * 76:,}" in out
    assert not (tmp_path / "metrics.json").exists()


def test_microbatches_have_their_own_negatives(
    tiny_retrieve_config: ConfigDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_retrieve_config.steps, tiny_retrieve_config.accumulate = 1, 2
    Task(tiny_retrieve_config, tmp_path).fit()
    assert "the pairs that do not match are taken from microbatches of 4 examples" in caplog.text


def test_a_dry_run_needs_no_run(tmp_path: Path, run_py: RunPy) -> None:
    config = ["--config=configs/retrieve.py:small", "--config.data.path=fake", "--config.batch_size=8", *TINY_FLAGS]
    dry = [*config, "--eval_only", "--config.eval.dry_run", "--config.eval.candidates=20"]
    ended = run_py(*dry, f"--workdir={tmp_path / 'absent'}")
    assert ended.status == 0, ended.err
    assert "20 films x 20 reports" in ended.out


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("fusion", "early", "there are joint, late"),
        ("negatives", "hard", "there are in_batch, drawn, both"),
        ("rank.method", "fast", "there are both, exhaustive, two_stage"),
        ("eval.pool", "odd", "there are even, balanced"),
        ("eval.candidates", 1, "needs two candidates"),
        ("contrast.width", 0, "set contrast.width"),
        ("model.attention", "s2s", "no image sees its text under it"),
        ("model.attention", "mixed", "there are bidirectional, bar, non_cross"),
    ],
)
def test_wrong_configurations_are_errors(
    tiny_retrieve_config: ConfigDict, tmp_path: Path, field: str, value: object, message: str
) -> None:
    tiny_retrieve_config.update_from_flattened_dict({field: value})
    with pytest.raises(ConfigError, match=message):
        Task(tiny_retrieve_config, tmp_path)


def test_an_absent_split_is_named(run: tuple[ConfigDict, Path]) -> None:
    config, workdir = run
    config.eval.split = "dev"
    with pytest.raises(DataError, match="no split 'dev'"):
        Task(config, workdir).evaluate_best()


def test_more_candidates_than_there_are_is_all_of_them(
    tiny_retrieve_config: ConfigDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = Task(tiny_retrieve_config, tmp_path)
    assert len(task.evaluator._pool(1000)) == 10
    assert "1000 candidates were requested, validation has 10" in caplog.text


def test_balanced_pools_take_label_sets_in_turn() -> None:
    groups = np.array([0, 0, 0, 0, 1, 1, 2, 0])
    chosen = pool.balanced(groups, 5)
    np.testing.assert_array_equal(chosen, [0, 1, 4, 5, 6])
    np.testing.assert_array_equal(pool.balanced(groups, 8), np.arange(8))
