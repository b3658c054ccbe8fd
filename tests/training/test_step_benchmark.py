"""The PyTorch step that ours is timed beside computes the same."""

import pytest

pytest.importorskip("torch")


def test_both_have_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import step, torch_step

    assert step._difference() < step.AGREE
    monkeypatch.setattr(torch_step.functional, "gelu", torch_step.functional.relu)
    assert step._difference() > step.AGREE
