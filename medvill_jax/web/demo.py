"""The export and the films that the package brings, made by `benchmarks/demo_export.py` from phantoms."""

from __future__ import annotations

import json
from pathlib import Path

from medvill_jax.web.routes import Example

FOLDER = Path(__file__).parent / "demo"
EXPORT = FOLDER / "export"


def examples() -> list[Example]:
    """The films, with the reports that they were drawn from."""
    texts = json.loads((FOLDER / "films.json").read_text("utf-8"))
    return [Example((FOLDER / name).read_bytes(), text) for name, text in texts.items()]
