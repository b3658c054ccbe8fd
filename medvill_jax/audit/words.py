"""Figures as text, for the page and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# In words, for readers.
NAMES = {
    "auroc_macro": "mean AUROC of the findings",
    "clinical_micro_f1_14": "clinical F1",
    "clinical_macro_f1_14": "mean clinical F1 of the findings",
    "bleu4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "accuracy": "accuracy",
    "accuracy_closed": "accuracy of closed questions",
    "accuracy_open": "accuracy of open questions",
}


def named(figure: str) -> str:
    """A figure in words."""
    return NAMES.get(figure) or figure.replace("auroc/", "AUROC of ").replace("_", " ")


def measured(one: Mapping[str, Any] | None, form: str = "z.3f") -> str:
    """A value with its interval."""
    if one is None or one["value"] is None or one["ci95"] is None:
        return "undefined"
    low, high = one["ci95"]
    return f"{one['value']:{form}} ({low:{form}} to {high:{form}})"


def share(one: Mapping[str, Any] | None) -> str:
    """A share with its interval, in per cent."""
    return measured(one, "z.0%")
