"""Workdirs are read whole, or refused in one line that says what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medvill_jax.cluster.workdir import WorkdirError
from medvill_jax.errors import UserError
from medvill_jax.summary.runs import SummaryError
from medvill_jax.training.history import HistoryError
from tests.summary import workdirs


def test_names_are_as_short_as_they_differ(tmp_path: Path) -> None:
    made = [workdirs.questions(tmp_path / name) for name in ("a/run", "b/run", "b/other")]
    assert [run.name for run in workdirs.read(made[0])] == ["run"]
    assert [run.name for run in workdirs.read(*made)] == ["a/run", "b/run", "b/other"]


def test_an_unfinished_last_line_is_no_damage(tmp_path: Path) -> None:
    run = workdirs.findings(tmp_path / "run", seed=0)
    for name in ("metrics.jsonl", "predictions.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"step": 7, "tr')
    [read] = workdirs.read(run)
    assert max(line["step"] for line in read.history) == 6
    assert len(read.answers[0].rows) == 60


def test_parts_of_a_run_of_all_tasks(tmp_path: Path) -> None:
    run = workdirs.findings(tmp_path / "run", seed=0)
    for part, made in (
        ("findings", workdirs.findings(tmp_path / "f", seed=1)),
        ("ask", workdirs.questions(tmp_path / "q")),
    ):
        (run / part).mkdir()
        (made / "predictions.jsonl").rename(run / part / "predictions.jsonl")
    (run / "predictions.jsonl").unlink()
    [read] = workdirs.read(run)
    assert [(answers.part, answers.kind) for answers in read.answers] == [("findings", "findings"), ("ask", "answers")]


def _empty(run: Path) -> None:
    for name in ("metrics.jsonl", "metrics.json"):
        (run / name).unlink()


def _append(name: str, line: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        with (run / name).open("a") as file:
            file.write(line + "\n")

    return damage


def _write(name: str, content: str) -> Callable[[Path], object]:
    return lambda run: (run / name).write_text(content)


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (_empty, SummaryError, "run holds no metrics, neither in metrics.jsonl or metrics.json"),
        (_append("metrics.jsonl", '{"step": 1'), HistoryError, "metrics.jsonl, line 5: not a line of metrics"),
        (_append("metrics.jsonl", '{"step": 1, "a": "b"}'), HistoryError, "metrics.jsonl, line 5"),
        (_append("predictions.jsonl", "nothing"), SummaryError, "predictions.jsonl, line 61: no JSON object"),
        (
            _append("predictions.jsonl", '{"id": "x"}'),
            SummaryError,
            "predictions.jsonl, line 61: not a row of findings",
        ),
        (
            _append("predictions.jsonl", '{"id": "x", "probabilities": {"Edema": "y"}, "labels": {}}'),
            SummaryError,
            "line 61: not a row of findings",
        ),
        (
            _append("predictions.jsonl", '{"id": "x", "probabilities": {"Edema": 0.5}, "labels": {}}'),
            SummaryError,
            "line 61: not a row of findings",
        ),
        (
            _append(
                "predictions.jsonl", '{"id": "x", "probabilities": {"Edema": 2, "Pleural Effusion": 0}, "labels": {}}'
            ),
            SummaryError,
            "line 61: not a row of findings",
        ),
        (_write("metrics.json", "["), SummaryError, "metrics.json is damaged"),
        (_write("metrics.json", "[1]"), SummaryError, "metrics.json is damaged"),
        (_write("config.json", "{"), WorkdirError, "config.json is damaged"),
        (_write("config.json", '{"format_version": 9}'), WorkdirError, "upgrade it"),
    ],
)
def test_damage_is_one_line(
    tmp_path: Path, damage: Callable[[Path], object], kind: type[UserError], message: str
) -> None:
    run = workdirs.findings(tmp_path / "run", seed=0)
    damage(run)
    with pytest.raises(kind) as raised:
        workdirs.read(run)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_no_workdir(tmp_path: Path) -> None:
    with pytest.raises(SummaryError, match="nowhere: no such folder"):
        workdirs.read(tmp_path / "nowhere")
    with pytest.raises(SummaryError, match="copy the run to a folder on this machine"):
        workdirs.read(Path("gs://bucket/run"))
    run = workdirs.questions(tmp_path / "run")
    with pytest.raises(SummaryError, match="named more than once"):
        workdirs.read(run, tmp_path / "." / "run")


def test_a_task_that_does_not_train_records_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.json").write_text(json.dumps({"test/auroc_macro": 0.7}))
    [read] = workdirs.read(tmp_path / "run")
    assert (read.task, read.split, read.config, list(read.history)) == ("", "test", {}, [])


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("ranks", '{"id": "x", "ranks": {"i2r": 0.5, "i2r/exact": 1, "r2i": 1, "r2i/exact": 1}}'),
        ("ranks", '{"id": "x", "ranks": {"i2r": 1}}'),
        ("ranks", '{"id": "x", "ranks": {"i2r": "first"}}'),
        ("words", '{"id": "x", "words": 3.0, "mlm_loss": null, "mlm_correct": 1.0, "itm": {"own": 1, "other": 1}}'),
        ("words", '{"id": "x", "words": 3.0, "mlm_loss": 2.0, "mlm_correct": 1.0, "itm": [true, true]}'),
        ("words", '{"id": "x", "words": 3.0, "mlm_loss": 2.0, "mlm_correct": 1.0}'),
    ],
)
def test_a_damaged_row_of_ranks_or_words_is_one_line(tmp_path: Path, kind: str, row: str) -> None:
    run = getattr(workdirs, kind)(tmp_path / "run")
    assert workdirs.read(run)[0].answers[0].kind == kind
    _append("predictions.jsonl", row)(run)
    with pytest.raises(SummaryError, match=f"not a row of {kind}"):
        workdirs.read(run)
