"""The PyTorch step that ours is timed beside computes the same."""

import pytest

torch_step = pytest.importorskip("benchmarks.torch_step")
step = pytest.importorskip("benchmarks.step")


def test_both_have_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    assert step._difference() < step.AGREE
    monkeypatch.setattr(torch_step.functional, "gelu", torch_step.functional.relu)
    assert step._difference() > step.AGREE
