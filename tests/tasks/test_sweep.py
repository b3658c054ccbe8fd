"""Grids of runs: what is run, what is not run again, and the table."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from medvill_jax.tasks import sweep
from tests.end_to_end.test_pretrain import TINY


class Runs:
    """Stands for `run.py`: notes the commands, and leaves what a run would leave."""

    def __init__(self, fails: str = "") -> None:
        self.commands: list[list[str]] = []
        self._fails = fails

    def __call__(self, command: Sequence[str], log: Path) -> int:
        self.commands.append(list(command))
        fields = dict(word.removeprefix("--").partition("=")[::2] for word in command if word.startswith("--"))
        workdir = Path(fields["workdir"])
        workdir.mkdir(parents=True, exist_ok=True)
        if self._fails and self._fails in workdir.name:
            return 1
        if "eval_only" in fields:
            seed = int(fields["config.seed"])
            (workdir / "metrics.json").write_text(
                json.dumps({"test/auroc_macro": 0.5 + 0.1 * seed, "test/auprc_macro": None})
            )
            folds = int(fields.get("config.data.folds", 0))
            if folds:
                self._predict(workdir, int(fields["config.data.fold"]), folds)
        else:
            rate = float(fields.get("config.optimizer.learning_rate", 0))
            checkpoint = {"metric": "eval/auroc_macro", "higher_is_better": True}
            (workdir / "config.json").write_text(json.dumps({"checkpoint": checkpoint}))
            # The best rate of a start from random weights is another than that of a model.
            best = 0.01 if "scratch" in workdir.name else 0.1
            rows = [{"step": 1, "loss": 1.0}, {"step": 2, "eval/auroc_macro": 0.9 - abs(rate - best)}]
            (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (workdir / "export").mkdir(exist_ok=True)
        return 0

    @staticmethod
    def _predict(workdir: Path, fold: int, folds: int) -> None:
        """Right for every film but the last, and each fold has its own ten of them."""
        lines = []
        for film in range(10):
            ill = film % 2
            given = ill if (fold, film) != (folds - 1, 9) else 0
            row = {"id": f"{fold}-{film}", "probabilities": {"Edema": float(given)}, "subject": film // 2}
            lines.append(json.dumps(row | {"labels": {"Edema": ill} if ill else {}}))
        (workdir / "predictions.jsonl").write_text("\n".join(lines) + "\n")


def table(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open() as file:
        return list(csv.DictReader(file))


def grid(tmp_path: Path, *more: str) -> list[str]:
    data = tmp_path / "data"
    return [f"--out={tmp_path / 'out'}", "--tasks=classify", "--seeds=0,1", f"--data={data}", *more]


def test_every_cell_runs_once_and_the_table_has_means(tmp_path: Path) -> None:
    runs = Runs()
    args = sweep.parser().parse_args(grid(tmp_path, "--masks=bar,s2s", "--scratch", "--set=classify:data.fraction=0.1"))
    assert sweep.Sweep(args, runs).execute() == []
    # Two masks x two seeds are pre-trained; three starts x two seeds are fine-tuned and tested.
    assert len(runs.commands) == 4 + 2 * 6
    pretrained = [command for command in runs.commands if any("pretrain.py" in word for word in command)]
    assert {word for command in pretrained for word in command if "attention" in word} == {
        "--config.model.attention=bar",
        "--config.model.attention=s2s",
    }
    assert not any("fraction" in word for command in pretrained for word in command)
    tuned = [command for command in runs.commands if any("classify.py" in word for word in command)]
    assert all("--config.data.fraction=0.1" in command for command in tuned)
    scratch = [command for command in tuned if any("scratch" in word for word in command)]
    assert not any("init.checkpoint" in word for command in scratch for word in command)

    rows = table(tmp_path / "out")
    first = rows[0]
    assert [first[name] for name in ("task", "start", "labels", "figure", "runs")] == [
        "classify",
        "bar",
        "100 %",
        "test/auroc_macro",
        "2/2",
    ]
    assert (first["mean"], first["sd"]) == ("0.550", "0.071")
    undefined = next(row for row in rows if row["figure"] == "test/auprc_macro")
    assert (undefined["mean"], undefined["runs"]) == ("", "0/2")
    shown = (tmp_path / "out" / "table.md").read_text()
    assert "| classify | bar | 100 % | test/auroc_macro | 0.550 | 0.071 | 2/2 |" in shown
    assert not (tmp_path / "out" / "curves.png").exists()

    again = Runs()
    sweep.Sweep(args, again).execute()
    assert again.commands == []


def test_a_model_or_its_image_encoder_alone(tmp_path: Path) -> None:
    runs, export = Runs(), tmp_path / "export"
    given = grid(tmp_path, f"--pretrained={export}", "--image_encoder")
    assert sweep.Sweep(sweep.parser().parse_args(given), runs).execute() == []
    starts = {word for command in runs.commands for word in command if "config.init" in word}
    assert starts == {f"--config.init.checkpoint={export}", f"--config.init.resnet={export}"}
    assert {row["start"] for row in table(tmp_path / "out")} == {"pretrained", "image encoder"}
    with pytest.raises(sweep.SweepError, match="give --pretrained=EXPORT too"):
        sweep.Sweep(sweep.parser().parse_args(grid(tmp_path, "--image_encoder")), runs)


def test_every_row_is_tuned_alike_and_runs_with_its_own_rate(tmp_path: Path) -> None:
    runs = Runs()
    wanted = grid(tmp_path, "--masks=bar", "--scratch", "--pretrain_seeds=0,1", "--shares=0.1,1", "--rates=0.01,0.1")
    args = sweep.parser().parse_args(wanted)
    assert sweep.Sweep(args, runs).execute() == []
    counts = {"pretrain": 0, "tested": 0, "trained": 0}
    for command in runs.commands:
        kind = (
            "pretrain"
            if any("pretrain.py" in word for word in command)
            else "tested"
            if "--eval_only" in command
            else "trained"
        )
        counts[kind] += 1
    # Two models; from them and from random weights, at two shares, each rate is tried once. Then all models and seeds
    # run with the best one, which one of them has done.
    assert counts == {"pretrain": 2, "trained": 2 * 2 * 2 + 2 * (2 * 2 - 1) + 2 * (2 - 1), "tested": 2 * 4 + 2 * 2}
    tested = [command for command in runs.commands if "--eval_only" in command]
    for command in tested:
        start = "scratch" if any("scratch" in word for word in command) else "bar"
        rate = {"scratch": "0.01", "bar": "0.1"}[start]
        assert f"--config.optimizer.learning_rate={rate}" in command
    rows = {(row["start"], row["labels"]): row for row in table(tmp_path / "out") if "auroc_macro" in row["figure"]}
    assert {key: (row["runs"], row["rate"]) for key, row in rows.items()} == {
        ("bar", "10 %"): ("4/4", "0.1"),
        ("bar", "100 %"): ("4/4", "0.1"),
        ("scratch", "10 %"): ("2/2", "0.01"),
        ("scratch", "100 %"): ("2/2", "0.01"),
    }
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")
    again = Runs()
    assert sweep.Sweep(args, again).execute() == []
    assert again.commands == []


def test_rows_that_have_not_run_say_so(tmp_path: Path) -> None:
    args = sweep.parser().parse_args(grid(tmp_path, "--scratch", "--shares=0.1,1"))
    sweep.Sweep(args, Runs()).write_tables()
    assert {(row["mean"], row["runs"]) for row in table(tmp_path / "out")} == {("not run", "0/2")}


def test_folds_are_scored_as_one_set(tmp_path: Path) -> None:
    runs = Runs()
    args = sweep.parser().parse_args(grid(tmp_path, "--scratch", "--folds=5"))
    assert sweep.Sweep(args, runs).execute() == []
    assert len(runs.commands) == 2 * 2 * 5
    assert {word for command in runs.commands for word in command if "data.fold" in word} == {
        "--config.data.folds=5",
        *(f"--config.data.fold={fold}" for fold in range(5)),
    }
    row = table(tmp_path / "out")[0]
    # One of 25 positives has the score of the 25 negatives.
    assert (row["mean"], row["runs"]) == ("0.980", "2/2")
    figures = json.loads((tmp_path / "out" / "runs" / "classify-scratch-seed0" / "metrics.json").read_text())
    assert figures["test/examples"] == 50
    assert figures["test/resampled_subjects"] == 25


def test_a_failed_run_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    runs = Runs(fails="pretrain-s2s")
    args = sweep.parser().parse_args(grid(tmp_path, "--masks=s2s,bar"))
    assert sweep.Sweep(args, runs).execute() == ["pretrain-s2s-seed0", "pretrain-s2s-seed1"]
    assert "| classify | bar | 100 % | test/auroc_macro | 0.550 |" in (tmp_path / "out" / "table.md").read_text()


def test_transfer_fine_tunes_on_other_data(tmp_path: Path) -> None:
    runs = Runs()
    args = sweep.parser().parse_args(grid(tmp_path, "--masks=bar", f"--finetune_data={tmp_path / 'other'}"))
    sweep.Sweep(args, runs).execute()
    data = {
        Path(word.partition("=")[2]).stem: next(w for w in command if w.startswith("--config.data.path")).rpartition(
            "/"
        )[2]
        for command in runs.commands
        for word in command
        if word.startswith("--config=")
    }
    assert data == {"pretrain": "data", "classify": "other"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks=classify"], "nothing to run"),
        (["--tasks=classify", "--masks=bar"], "no data: give --data"),
        (["--tasks=classify", "--masks=bar", "--data=D", "--folds=1"], "two folds or more"),
        (["--tasks=retrieve", "--masks=bar", "--data=D", "--folds=5"], "leave other tasks out"),
        (["--tasks=vqa", "--masks=bar", "--data=D"], "give --vqa_data"),
        (["--tasks=classify", "--masks=bar", "--data=D", "--set=steps"], "expected FIELD=VALUE"),
        (["--tasks=classify", "--masks=sideways", "--data=D"], "'sideways' is not one of bidirectional"),
        (["--tasks=sing", "--masks=bar", "--data=D"], "'sing' is not one of classify"),
    ],
)
def test_wrong_grids_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    try:
        status = sweep.main([f"--out={tmp_path}", *arguments])
    except SystemExit as stop:
        status = stop.code
    assert status == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_real_grid(tiny_data: Path, tmp_path: Path) -> None:
    small = [f"--set={word.removeprefix('--config.')}" for word in TINY if "mlm" not in word and "eval" not in word]
    arguments = [
        f"--out={tmp_path}",
        f"--data={tiny_data}",
        "--variant=small",
        "--masks=bar",
        "--tasks=classify",
        *small,
        "--set=model.image_encoder=vit_patch32",
        "--set=steps=4",
        "--set=pretrain:mlm.max_predictions=4",
    ]
    assert sweep.main(arguments) == 0, "\n".join(log.read_text() for log in (tmp_path / "logs").iterdir())
    row = table(tmp_path)[0]
    figures = json.loads((tmp_path / "runs" / "classify-bar-seed0" / "metrics.json").read_text())
    assert float(row["mean"]) == pytest.approx(figures["test/auroc_macro"], abs=5e-4)
