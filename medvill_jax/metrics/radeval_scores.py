"""The process that runs `radeval`: `neural_clinical` starts this file, so that no other program of ours loads PyTorch.

    python -P radeval_scores.py DIR ANSWER < request.json

This file imports nothing of `medvill_jax`. The request is `{"metrics": [names], "references": [texts], "hypotheses":
[texts]}`. The file ANSWER holds `{"scores": {metric: {name: [N numbers]}}}` or `{"error": one line}`. For CheXbert the
answer has labels instead of scores: `{"findings": [14 names], "references": [N rows of 1, -1, 0], "hypotheses":
likewise}`.

DIR becomes the current folder. Each library takes a model's name for a folder if a folder of that name exists, so the
models are read from DIR under their usual names, and the Hugging Face hub is never asked.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

# Some libraries download without an option to switch it off; a proxy that does not exist stops them all.
_NOWHERE = "http://127.0.0.1:9"
_OFFLINE = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"), "1")
_OFFLINE |= dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), _NOWHERE)
_OFFLINE |= {name.upper(): value for name, value in _OFFLINE.items()}


class LoadError(Exception):
    """A metric cannot load its model; the message says why."""


def _isolate(folder: Path) -> None:
    """Makes `folder` the only source of models; call it before the libraries are imported, as they read this once."""
    os.chdir(folder)
    for name in ("no_proxy", "NO_PROXY"):
        os.environ.pop(name, None)
    # Caches of other programs may hold other models under the same names.
    os.environ |= _OFFLINE | dict.fromkeys(("HF_HOME", "HF_HUB_CACHE"), str(folder / "none"))
    os.environ["NLTK_DATA"] = str(folder / "nltk_data")
    # No metric needs images, and a torchvision built for another PyTorch keeps transformers from loading.
    sys.modules["torchvision"] = None  # pyright: ignore[reportArgumentType]
    # radeval 2.2.1 is installed as "radeval", while its RadGraph imports itself as "RadEval".
    sys.modules["RadEval"] = importlib.import_module("radeval")


def _model(metric: str, folder: Path) -> Any:
    """The metric's model.

    Raises:
      LoadError: a file cannot be read or holds something else, or a library does not work.
    """
    try:
        if metric == "chexbert":
            return _chexbert(folder)
        if metric in ("radgraph", "radcliq"):
            importlib.import_module("radeval.metrics.radgraph._vendor.core").__dict__["CACHE_DIR"] = str(folder)
        if metric == "radcliq":
            _chexbert_from(folder)
        return importlib.import_module("radeval.metrics._registry").get_metric_class(metric)()
    except Exception as error:  # Libraries raise all kinds of errors for a file that they cannot read.
        reason = f"{type(error).__name__}: {textwrap.shorten(str(error), 200)}"
        raise LoadError(f"{metric} cannot load its model ({reason})") from error


def _chexbert_from(folder: Path) -> Any:
    module = importlib.import_module("radeval.metrics.f1chexbert.f1chexbert")
    # The checkpoint is the only file that is not found by a folder's name.
    module.__dict__["hf_hub_download"] = lambda **_: str(folder / "chexbert" / "chexbert.pth")
    return module


def _chexbert(folder: Path) -> Any:
    torch = importlib.import_module("torch")
    return _chexbert_from(folder).F1CheXbert(device="cuda" if torch.cuda.is_available() else "cpu")


def _scores(metric: str, model: Any, references: list[str], hypotheses: list[str]) -> dict[str, list[Any]]:
    if metric != "chexbert":
        return model.compute(refs=references, hyps=hypotheses, per_sample=True)
    # Its own F1 fails with scikit-learn 1.8 and later, and has no intervals; labels are all that is needed.
    labels = [model.get_labels(texts, mode="classification") for texts in (references, hypotheses)]
    return {"findings": list(model.TARGET_NAMES), "references": labels[0], "hypotheses": labels[1]}


def answer(folder: Path, request: dict[str, list[str]]) -> dict[str, Any]:
    """The answer to a request; all models are loaded before any of them scores."""
    _isolate(folder)
    try:
        models = {metric: _model(metric, folder) for metric in request["metrics"]}
    except LoadError as error:
        return {"error": str(error)}
    texts = request["references"], request["hypotheses"]
    return {"scores": {metric: _scores(metric, model, *texts) for metric, model in models.items()}}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(answer(Path(sys.argv[1]).resolve(), json.load(sys.stdin)), default=float))
