"""Files that `medvill launch` writes, for tests of what engines make of them."""

import sys
from pathlib import Path

import grain  # noqa: F401  it defines flags, which are put back as they were
from absl.testing import flagsaver

from medvill_jax.cli.launch import main

RUN = ("--config=configs/pretrain.py", "--config.data.path=gs://BUCKET/mimic", "--workdir=gs://BUCKET/runs/mimic")


def written(folder: Path, *words: str) -> str:
    """The text of the file that these flags write."""
    out = folder / "file"
    out.unlink(missing_ok=True)
    flags, argv = flagsaver.save_flag_values(), sys.argv
    try:
        assert main([*words, f"--out={out}"]) == 0
    finally:
        flagsaver.restore_flag_values(flags)
        sys.argv = argv
    return out.read_text()
