"""The model card of an export: data, configuration, metrics, intended use and limits."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvill_jax import private
from medvill_jax.models.medvill import MedvillConfig

INTENDED_USE = (
    "Research on chest radiographs and their reports: as the starting point of fine-tuning, and for the task it was "
    "trained on. It is no medical device, and nothing it says may guide the care of a patient."
)
USE = 'import medvill_jax\n\nmodel = medvill_jax.load("THIS_FOLDER")\n'
LIMITS = (
    "It has seen the reports of few institutions, in English, and frontal films only as far as its data held them; on "
    "other populations, scanners and styles of reporting it is likely to do worse. Its labels come from reports, not "
    "from independent readings. It can produce confident statements that the image does not bear out."
)
# Stage -> what a model of it is asked.
EXAMPLES: dict[str, str] = {
    "classification": 'print(model.findings("film.png").probabilities)',
    "generation": 'print(model.report("film.png").text)',
    "retrieval": 'print(model.match("film.png", ["No effusion.", "Pleural effusion."]).probabilities)',
    "vqa": 'print(model.ask("film.png", "Is there an effusion?").answer)',
    "grounding": 'print(model.ground("film.png", "Small left pleural effusion.").box)',
}
EXAMPLES["multitask"] = "\n".join(EXAMPLES[stage] for stage in ("classification", "generation", "retrieval", "vqa"))


def model_card(
    config: MedvillConfig,
    *,
    stage: str,
    arrays: Mapping[str, Sequence[int]],
    label_names: Sequence[str],
    card: Mapping[str, Any],
    use: str | None = None,
) -> str:
    """The card as Markdown.

    Args:
        config: the network's configuration.
        stage: the training that the weights come from, e.g. "pretraining".
        arrays: shapes by name of all parameters and batch statistics.
        label_names: of the classes; empty if the model has none.
        card: any of "name", "data", "metrics" (name -> value), "training" (a JSON-like configuration), "intended_use",
            "limits", "source" and "weights" (what they are, if not those that an optimizer left).
        use: Python that shows how to begin; None loads an export.
    """
    size = sum(math.prod(shape) for name, shape in arrays.items() if not name.endswith(("/mean", "/var")))
    lines = [
        f"# {card.get('name', 'MedViLL')}",
        "",
        f"A MedViLL network (Moon et al., IEEE JBHI 2022; {stage}), {size:,} parameters, written by medvill_jax.",
        "",
        "```python",
        use or USE + EXAMPLES.get(stage, "logits = model.arrays.logits(images, text_ids, text_lens)"),
        "```",
        *_section("Data", str(card.get("data") or "Not recorded.")),
        *_section("Source", str(card["source"]) if card.get("source") else ""),
        *_section("Weights", str(card.get("weights") or "")),
        *_section("Labels", ", ".join(label_names)),
        *_section("Configuration", _settings(config, card.get("training"))),
        *_section("Metrics", _table(card.get("metrics") or {})),
        *_section("Intended use", str(card.get("intended_use") or INTENDED_USE)),
        *_section("Limits", str(card.get("limits") or LIMITS)),
    ]
    return "\n".join(lines) + "\n"


def with_section(card: str, title: str, text: str) -> str:
    """A card with a section, in place of one of the same title, or at its end.

    Args:
        card: Markdown.
        title: of the section, in one line.
        text: without headings of its own.
    """
    lines = card.rstrip("\n").split("\n")
    heading = f"## {title}"
    if heading not in lines:
        return "\n".join([*lines, "", heading, "", text]) + "\n"
    start = lines.index(heading)
    end = next((n for n in range(start + 1, len(lines)) if lines[n].startswith("## ")), len(lines))
    rest = ["", *lines[end:]] if end < len(lines) else []
    return "\n".join([*lines[:start], heading, "", text, *rest]) + "\n"


def add_section(path: Path, title: str, text: str) -> None:
    """Writes a section into the card of a model, see `with_section`; who may read it stays. Raises `OSError`."""
    with private.replaced(path) as part:
        part.write_text(with_section(path.read_text("utf-8"), title, text), "utf-8")
        part.chmod(stat.S_IMODE(path.stat().st_mode))


def _section(title: str, text: str) -> list[str]:
    return ["", f"## {title}", "", text] if text else []


def _settings(config: MedvillConfig, training: Any) -> str:
    bert = config.bert
    rows = {
        "layers x width x heads": f"{bert.num_layers} x {bert.hidden_size} x {bert.num_heads}",
        "vocabulary, positions": f"{bert.vocab_size}, {bert.max_positions}",
        "image encoder": str(config.image_encoder),
        "image size": config.image_size,
        "visual tokens": config.num_cells or config.grid_cells,
        "attention": config.attention,
    }
    text = _table(rows, ("setting", "value"))
    if training:
        text += "\n\nTraining:\n\n```json\n" + json.dumps(training, indent=2, sort_keys=True, default=str) + "\n```"
    return text


def _table(rows: Mapping[str, Any], head: tuple[str, str] = ("metric", "value")) -> str:
    if not rows:
        return "Not recorded."
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    for name, value in rows.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines)
