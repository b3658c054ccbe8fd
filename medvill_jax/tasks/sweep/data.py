"""The data of a sweep's runs: those of the command line, or the phantom data, made once for all runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from medvill_jax.tasks.sweep.grid import SweepError


class SweepData:
    """The data set of each task.

    Args:
        args: parsed by `command.parser()`.
        run: runs one command with its log file, and returns its exit status.
    """

    def __init__(self, args: argparse.Namespace, run: Callable[[Sequence[str], Path], int]):
        self._args, self._run = args, run
        self._out: Path = args.out.absolute()

    def of(self, task: str) -> Path:
        """The data set of a task; phantom data are made if they do not exist."""
        args = self._args
        path = args.vqa_data if task == "vqa" else args.data if task == "pretrain" else args.finetune_data or args.data
        if path:
            return path.absolute()
        return self._phantom(task == "vqa")

    def _phantom(self, questions: bool) -> Path:
        """The prepared phantom data, made if they do not exist."""
        from medvill_jax.data import records

        tree, out = self._out / "data" / "tree", self._out / "data" / ("vqa_records" if questions else "records")
        if out.is_dir():
            return out
        prep = [sys.executable, "-m", "data_prep"]
        shared = ["--shared"] * self._args.shared
        tokenizer = f"--tokenizer={self._out / 'data' / 'records' / records.TOKENIZER_FILE}"
        size = f"--image_size={self._args.image_size}"
        draw = [*prep, "phantom", f"--out={tree}", f"--studies={self._args.studies}", "--seed=0", size, "--vqa"]
        draw.append(f"--difficulty={self._args.difficulty}")
        commands = {
            "records": [*prep, "mimic_cxr", f"--source={tree}", f"--out={self._out / 'data' / 'records'}", size],
            "vqa_records": [*prep, "vqa_rad", f"--source={tree / 'vqa'}", f"--out={out}", size, tokenizer],
        }
        for name, command in (("tree", draw), *commands.items()):
            folder = self._out / "data" / name
            if folder.is_dir() or (name == "vqa_records" and not questions):
                continue
            print(f"data: {folder}", flush=True)
            if self._run([*command, *shared], self._out / "logs" / "data.log"):
                raise SweepError(f"the phantom data could not be made; see {self._out / 'logs' / 'data.log'}")
        return out
