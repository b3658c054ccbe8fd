"""Checkpoints that several test files read, made once."""

from pathlib import Path

import pytest

from tests.hub.checkpoints import SIZES, save, write_config
from tests.models.reference import TorchMedvill


@pytest.fixture(scope="session")
def reference() -> TorchMedvill:
    return TorchMedvill(SIZES)


@pytest.fixture(scope="session")
def upstream(reference: TorchMedvill, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training folder (docs/spec.md#pretraining-checkpoint)."""
    folder = tmp_path_factory.mktemp("upstream")
    save(folder / "pytorch_model.bin", reference.state_dict())
    write_config(folder, SIZES)
    return folder
