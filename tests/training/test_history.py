"""The file of metrics is read whole or refused with the line that is damaged."""

from pathlib import Path

import pytest

from medvill_jax.training import history
from medvill_jax.training.history import HistoryError
from medvill_jax.training.writer import MetricsWriter


def test_what_was_written_is_read(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, resume_step=0, active=True)
    writer.write(1, {"train/loss": 0.1 + 0.2})
    writer.write(1, {"eval/loss": float("nan")})
    writer.close()
    assert history.read(tmp_path / history.METRICS_FILE) == [
        {"step": 1, "train/loss": 0.1 + 0.2},
        {"step": 1, "eval/loss": None},
    ]


def test_an_unfinished_last_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2}\n{"step": 2, "trai')
    assert [line["step"] for line in history.read(tmp_path / "metrics.jsonl")] == [1]
    assert history.read(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    "line", ["", "{", "[1]", '{"loss": 1}', '{"step": "1"}', '{"step": true}', '{"step": 1, "loss": "x"}', "\x00\x00"]
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + line + '\n{"step": 2}\n')
    with pytest.raises(HistoryError, match=r"metrics\.jsonl, line 2: not a line of metrics"):
        history.read(path)
    with pytest.raises(HistoryError):
        MetricsWriter(tmp_path, resume_step=1, active=True)
    assert path.read_text().count("\n") == 3  # as it was
