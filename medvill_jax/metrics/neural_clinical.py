"""CheXbert F1 and RadGraph F1 by their authors' packages, from weights in a local folder; nothing is downloaded.

The packages (`f1chexbert`, `radgraph`; the "clinical" extra) bring PyTorch and fetch what they miss when they are
used. So this runs in a process of its own, with the Hugging Face hub switched off:

    python -m medvill_jax.metrics.neural_clinical predictions.jsonl --weights=DIR

CheXbert: Smit et al., EMNLP 2020. RadGraph: Jain et al., NeurIPS 2021 Datasets and Benchmarks; F1 as Delbrouck et al.,
EMNLP Findings 2022. Neither's licence is ours to pass on, so get the weights from their authors.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from medvill_jax.metrics import bootstrap
from medvill_jax.metrics.clinical import FINDINGS
from medvill_jax.metrics.clinical_rules import ABSENT
from medvill_jax.metrics.command import MissingExtra, Parser
from medvill_jax.metrics.label_f1 import f1_counts, f1_of_counts
from medvill_jax.metrics.predictions import Prediction, PredictionError, read

_PROGRAM = "python -m medvill_jax.metrics.neural_clinical"
_HELP = """\
Scores generated reports with CheXbert F1 and RadGraph F1, from weights in a local folder. Nothing is downloaded.

  pip install 'medvill_jax[clinical]'
  python -m medvill_jax.metrics.neural_clinical predictions.jsonl --weights=DIR

What DIR must hold (get it from the authors of CheXbert and RadGraph):

  DIR/chexbert/chexbert.pth       the CheXbert checkpoint
  DIR/radgraph-xl/                config.json, weights.th and vocabulary/ of RadGraph-XL
  DIR/hub/                        a Hugging Face cache with bert-base-uncased (configuration and tokenizer), and the
                                  encoder that radgraph-xl/config.json names

Exit status: 0 done, 1 something to correct, said in one line on stderr.
"""

RADGRAPH_LEVELS = ("simple", "partial", "complete")


class WeightsError(Exception):
    """Weights are missing, or the process could download some; the message says what to do."""


def chexbert_labeler(weights: str | Path) -> Callable[[Sequence[str]], np.ndarray]:
    """CheXbert as a labeler, in the form of `clinical.label_batch`: texts -> int8 `[N, 14]` of 1, 0, -1, -2.

    Raises:
      MissingExtra: f1chexbert is not installed.
      WeightsError: a file is missing from `weights`, or this process could reach the Hugging Face hub.
    """
    weights = Path(weights)
    package = _package("f1chexbert", "f1chexbert.f1chexbert", weights, ["chexbert/chexbert.pth"])
    package.__dict__["CACHE_DIR"] = str(weights / "chexbert")
    model = _loaded("f1chexbert", weights, lambda: package.F1CheXbert(device="cpu"))
    if not hasattr(model.tokenizer, "encode_plus"):
        # f1chexbert 0.0.2 was written for transformers 4, and this is all it lacks in transformers 5.
        model.tokenizer.encode_plus = partial(_encode_plus, model.tokenizer)
    columns = [FINDINGS.index(name) for name in model.target_names]

    def labeler(texts: Sequence[str]) -> np.ndarray:
        out = np.full((len(texts), len(FINDINGS)), ABSENT, np.int8)
        for row, text in zip(out, texts, strict=True):
            found = model.get_label(text.strip(), mode="classification")  # "" where not mentioned
            row[columns] = [ABSENT if value == "" else value for value in found]
        return out

    return labeler


def _encode_plus(tokenizer: Any, pieces: list[str]) -> dict[str, list[int]]:
    """What the method of transformers 4 gives for word pieces."""
    return {"input_ids": [tokenizer.cls_token_id, *tokenizer.convert_tokens_to_ids(pieces), tokenizer.sep_token_id]}


def radgraph_f1(references: Sequence[str], hypotheses: Sequence[str], weights: str | Path) -> np.ndarray:
    """RadGraph F1 of each example, with RadGraph-XL.

    Returns:
      float64 `[N, 3]` in [0, 1]: entities; entities that have the same relations or none; whole relations (the
      package's levels simple, partial, complete). 0 where either text is empty.

    Raises:
      MissingExtra, WeightsError: as `chexbert_labeler`, for radgraph.
    """
    weights = Path(weights)
    needed = ["radgraph-xl/config.json", "radgraph-xl/weights.th", "radgraph-xl/vocabulary"]
    package = _package("radgraph", "radgraph", weights, needed)
    settings = {"reward_level": "all", "model_type": "radgraph-xl", "cuda": -1, "model_cache_dir": str(weights)}
    model = _loaded("radgraph", weights, lambda: package.F1RadGraph(**settings))
    _, rewards, _, _ = model(refs=list(references), hyps=list(hypotheses))
    return np.array(rewards, np.float64).reshape(len(RADGRAPH_LEVELS), -1).T


def _package(name: str, module: str, weights: Path, needed: list[str]) -> ModuleType:
    """The imported module, once it is certain that it finds its weights and reaches no hub."""
    if name not in sys.modules and find_spec(name) is None:
        raise MissingExtra(name, "clinical", "CheXbert F1" if name == "f1chexbert" else "RadGraph F1")
    if missing := [each for each in [*needed, "hub"] if not (weights / each).exists()]:
        raise WeightsError(
            f"{weights}: no {', '.join(missing)}; see python -m medvill_jax.metrics.neural_clinical --help"
        )
    wanted = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_CACHE": str(weights / "hub")}
    # These are read once, when the library is imported.
    if "huggingface_hub" in sys.modules and any(os.environ.get(key) != value for key, value in wanted.items()):
        raise WeightsError(
            "the Hugging Face hub is within reach of this process; use python -m medvill_jax.metrics.neural_clinical"
        )
    os.environ |= wanted
    return importlib.import_module(module)


def _loaded(name: str, weights: Path, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(f"{weights}: {name} cannot load its model ({type(error).__name__}: {reason})") from error


def score(predictions: Sequence[Prediction], weights: str | Path, *, seed: int = 0) -> dict[str, float | list[float]]:
    """`chexbert_*` as `clinical_*` in `generation.score`, `radgraph_f1_{simple,partial,complete}`, and `*_ci95`.

    Raises:
      ValueError: no predictions.
      MissingExtra, WeightsError: as `chexbert_labeler` and `radgraph_f1`.
    """
    if not predictions:
        raise ValueError("there is no prediction to score")
    references = [each.reference for each in predictions]
    hypotheses = [each.hypothesis for each in predictions]
    labeler = chexbert_labeler(weights)
    counts = f1_counts(labeler(references), labeler(hypotheses))  # [N, 14, 3]
    names = [name.replace("clinical_", "chexbert_") for name in f1_of_counts(counts.sum(0))]

    def f1(sums: np.ndarray) -> np.ndarray:
        return np.stack(list(f1_of_counts(sums.reshape(*sums.shape[:-1], *counts.shape[1:])).values()), -1)

    graphs = np.hstack([radgraph_f1(references, hypotheses, weights), np.ones((len(references), 1))])
    figures: dict[str, float | list[float]] = {}
    for keys, rows, figure in (
        (names, counts.reshape(len(counts), -1), f1),
        ([f"radgraph_f1_{level}" for level in RADGRAPH_LEVELS], graphs, bootstrap.mean),
    ):
        limits = bootstrap.interval(rows, figure, seed=seed).T.tolist()
        for key, value, pair in zip(keys, figure(rows.sum(0)).tolist(), limits, strict=True):
            figures[key] = value
            if "_empty_" not in key:
                figures[f"{key}_ci95"] = pair
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; prints JSON; returns the exit status: 0 done, 1 something to correct, 130 interrupted."""
    parser = Parser(_PROGRAM, _HELP)
    parser.add_argument("predictions", type=Path, help="predictions.jsonl of a run")
    parser.add_argument("--weights", type=Path, required=True, metavar="DIR", help="see above")
    args = parser.parse_args(argv)
    try:
        figures = score(read(args.predictions), args.weights)
    except (PredictionError, MissingExtra, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    print(json.dumps({key: None if value != value else value for key, value in figures.items()}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
