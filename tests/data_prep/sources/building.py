"""What the tests of sources share: building a data set in this process, and reading it."""

import json
from pathlib import Path
from typing import Any

from data_prep.__main__ import main
from medvill_jax.data import records

STUDIES, SIZE = 16, 40


def build(name: str, source: Path, out: Path, *more: str, accept: bool = True) -> int:
    """The exit status of a source's command."""
    flags = [f"--source={source}", f"--out={out}", "--quiet", f"--image_size={SIZE}", "--vocab_size=300"]
    return main([name, *flags, *(["--accept_unverified"] if accept else []), *more])


def report_of(out: Path) -> dict[str, Any]:
    """The build report of a data set."""
    return json.loads((out / records.REPORT_FILE).read_text())


def records_of(out: Path) -> dict[str, dict[str, Any]]:
    """Every record of a data set by its id, as plain values."""
    found = {}
    for split in records.splits(out):
        source = records.open_split(out, split)
        for i in range(len(source)):
            record = source[i]
            found[record["id"].decode()] = {**{name: _plain(v) for name, v in record.items()}, "split": split}
    return found


def _plain(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value.tolist()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
