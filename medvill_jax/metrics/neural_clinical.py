"""CheXbert F1, RadGraph F1 and other metrics of reports by trained models, computed by `radeval` from local weights.

    python -m medvill_jax.metrics.neural_clinical predictions.jsonl --weights=DIR

`radeval` (the "clinical" extra) imports PyTorch and downloads missing files, so it runs in a separate process without
network access (`radeval_scores`). This module turns its scores into metrics with intervals.

CheXbert: Smit et al., EMNLP 2020. RadGraph: Jain et al., NeurIPS 2021 Datasets and Benchmarks; F1 as Delbrouck et al.,
EMNLP Findings 2022. RadEval: Xu et al., EMNLP 2025 System Demonstrations. The weights have
their own licences and are not distributed here.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from medvill_jax.commands import Exit, Parser, command
from medvill_jax.errors import ConfigError, MissingExtra, UserError
from medvill_jax.findings import CHEXPERT_FINDINGS
from medvill_jax.metrics import bootstrap
from medvill_jax.metrics.label_f1 import f1_counts, supported
from medvill_jax.metrics.predictions import Prediction, PredictionError, read
from medvill_jax.metrics.report_scores import MetricGroup, clinical_group, subjects

_PROGRAM = "python -m medvill_jax.metrics.neural_clinical"
_HELP = """\
Scores generated reports with CheXbert F1 and RadGraph F1, from weights in a local folder. Nothing is downloaded.

  pip install 'medvill_jax[clinical]'
  python -m medvill_jax.metrics.neural_clinical predictions.jsonl --weights=DIR

--metrics=NAME,NAME... chooses others. Metrics are means over reports with 95 % intervals; higher is better, except for
radcliq (RadCliQ-v1), which predicts the number of errors. DIR must hold, for each metric (a model is a folder with the
files of the Hugging Face repository of that name: configuration, tokenizer, and weights if no other file has them):

  chexbert           chexbert/chexbert.pth (StanfordAIMI/RRG_scorers), bert-base-uncased
  radgraph           radgraph-xl/: radgraph-xl.tar.gz (StanfordAIMI/RRG_scorers), unpacked; the model that its
                     config.json names as model_name
  radcliq            what chexbert needs; radgraph/: radgraph.tar.gz, unpacked, and the model that it names;
                     distilroberta-base
  bertscore          distilbert-base-uncased
  radeval_bertscore  IAMJB/RadEvalModernBERT
  srrbert            StanfordAIMI/SRR-BERT-Leaves-with-Statuses, microsoft/BiomedVLP-CXR-BERT-general,
                     nltk_data/tokenizers/punkt_tab of NLTK

On a host with network access, fill DIR by:

  hf download google-bert/bert-base-uncased --local-dir DIR/bert-base-uncased
  hf download StanfordAIMI/RRG_scorers chexbert.pth --local-dir DIR/chexbert

Checkpoints are read as plain tensors (PyTorch's weights_only), so none of them can run code. A GPU is used if
available. Exit status: 0 done, 1 something to correct, said in one line on stderr.
"""

# File names; one of each tuple is needed.
_CONFIG, _TOKENIZER = ("config.json",), ("tokenizer.json", "vocab.txt", "vocab.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_MODEL = (_CONFIG, _TOKENIZER, _WEIGHTS)
_ARCHIVE = (_CONFIG, ("weights.th",), ("vocabulary",))
_CHEXBERT = {"chexbert": (("chexbert.pth",),), "bert-base-uncased": (_CONFIG, _TOKENIZER)}
# Metric -> folder -> the files that it needs.
NEEDED: Mapping[str, Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "chexbert": _CHEXBERT,
    "radgraph": {"radgraph-xl": _ARCHIVE},
    "radcliq": {**_CHEXBERT, "radgraph": _ARCHIVE, "distilroberta-base": _MODEL},
    "bertscore": {"distilbert-base-uncased": _MODEL},
    "radeval_bertscore": {"IAMJB/RadEvalModernBERT": _MODEL},
    "srrbert": {
        "StanfordAIMI/SRR-BERT-Leaves-with-Statuses": (_CONFIG, _WEIGHTS),
        "microsoft/BiomedVLP-CXR-BERT-general": (_CONFIG, _TOKENIZER),
        "nltk_data": (("tokenizers/punkt_tab/english",),),
    },
}
USUAL = ("chexbert", "radgraph")


class WeightsError(UserError):
    """Weights are missing or cannot be used; the message says what to do."""


def missing(weights: Path, metrics: Sequence[str]) -> list[str]:
    """The files that these metrics need and `weights` lacks, relative to it, in the order of the metrics."""
    folders: dict[str, tuple[tuple[str, ...], ...]] = {}
    for metric in metrics:
        for folder, files in NEEDED[metric].items():
            folders.setdefault(folder, files)
            if files is _ARCHIVE:
                folders |= dict.fromkeys(_encoders(weights / folder / "config.json"), (_CONFIG, _TOKENIZER))
    return [
        f"{folder}/{names[0]}"
        for folder, files in folders.items()
        for names in files
        if not any((weights / folder / name).exists() for name in names)
    ]


def _encoders(config: Path) -> Iterator[str]:
    """The models that RadGraph's configuration names; none if the file cannot be read, which loading reports."""
    try:
        settings = json.loads(config.read_bytes())
        yield settings["model"]["embedder"]["token_embedders"]["bert"]["model_name"]
        yield settings["dataset_reader"]["token_indexers"]["bert"]["model_name"]
    except (OSError, ValueError, LookupError, TypeError):
        return


def _run(references: list[str], hypotheses: list[str], weights: Path, metrics: Sequence[str]) -> dict[str, Any]:
    """The scores of `radeval_scores`, which runs in a separate process."""
    request = json.dumps({"metrics": list(metrics), "references": references, "hypotheses": hypotheses})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "answer.json"
        # -P: a folder of DIR must not be taken for a Python package.
        command = [sys.executable, "-P", str(Path(__file__).with_name("radeval_scores.py")), str(weights), str(out)]
        done = subprocess.run(command, input=request, capture_output=True, text=True, check=False)
        if done.returncode or not out.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise WeightsError(f"radeval ended with status {done.returncode}: {last}")
        answer = json.loads(out.read_bytes())
    if "error" in answer:
        raise WeightsError(f"{weights}: {answer['error']}")
    return answer["scores"]


def score(
    predictions: Sequence[Prediction],
    weights: str | Path,
    *,
    metrics: Sequence[str] = USUAL,
    seed: int = 0,
) -> dict[str, float | list[float]]:
    """The requested metrics, a subset of `NEEDED`, with their intervals.

    Returns:
      `bootstrap.resampled`, which says what intervals resample; `chexbert_*` as `clinical_*` in `report_scores.score`;
      `radgraph_f1_{simple,partial,complete}` (entities; entities and whether they have relations; whole relations),
      `radcliq_v1`, `bertscore`, `radeval_bertscore`, `srrbert_{precision,recall,f1}`, each a mean over reports; and
      `*_ci95`.

    Raises:
      PredictionError: no predictions.
      ConfigError: no metrics, or a metric that there is not.
      MissingExtra: radeval is not installed.
      WeightsError: files are missing from `weights`, cannot be read, or hold something else.
    """
    weights = Path(weights)
    if not predictions:
        raise PredictionError("there is no prediction to score")
    if not metrics or not set(metrics) <= set(NEEDED):
        raise ConfigError(f"metrics={','.join(metrics)}; there are {', '.join(NEEDED)}")
    if find_spec("radeval") is None:
        raise MissingExtra("radeval", "clinical", "this score")
    if lacking := missing(weights, metrics):
        raise WeightsError(f"{weights}: no {', '.join(lacking)}; {_PROGRAM} --help tells where to get them")
    texts = [example.reference for example in predictions], [example.hypothesis for example in predictions]
    clusters = subjects(predictions)
    values: dict[str, float | list[float]] = {**bootstrap.resampled(clusters, len(predictions))}
    for metric, answer in _run(*texts, weights, metrics).items():
        group = _chexbert(answer) if metric == "chexbert" else _means(answer, len(predictions))
        limits = bootstrap.interval(group.rows, group.statistic, clusters=clusters, seed=seed).T.tolist()
        for (name, value), pair in zip(group.values().items(), limits, strict=True):
            values |= {name: value, f"{name}_ci95": pair}
        values |= group.counts
    return values


def _chexbert(answer: dict[str, Any]) -> MetricGroup:
    columns = [answer["findings"].index(name) for name in CHEXPERT_FINDINGS]
    labels = [np.array(answer[side], np.int8)[:, columns] for side in ("references", "hypotheses")]
    group = clinical_group(f1_counts(*labels), supported(labels[0]))

    def renamed(name: str) -> str:
        return name.replace("clinical_", "chexbert_")

    counts = {renamed(name): value for name, value in group.counts.items()}
    return replace(group, names=tuple(map(renamed, group.names)), counts=counts)


def _means(answer: dict[str, list[float]], count: int) -> MetricGroup:
    names = tuple(name.replace("radgraph_", "radgraph_f1_").replace("_weighted", "") for name in answer)
    return MetricGroup(names, np.array([*answer.values(), np.ones(count)], np.float64).T, bootstrap.mean)


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; prints JSON; returns the exit status: 0 done, 1 something to correct, 130 interrupted."""
    parser = Parser(_PROGRAM, _HELP, status=Exit.ERROR)
    parser.add_argument("predictions", type=Path, help="predictions.jsonl of a run")
    parser.add_argument("--weights", type=Path, required=True, metavar="DIR", help="see above")
    parser.add_argument("--metrics", default=",".join(USUAL), metavar="NAMES", help="default: %(default)s")
    args = parser.parse_args(argv)
    values = score(read(args.predictions), args.weights, metrics=args.metrics.split(","))
    print(json.dumps({key: _finite(value) for key, value in values.items()}, indent=2))
    return Exit.DONE


def _finite(value: float | list[float]) -> float | list[float | None] | None:
    """The value with None for NaN, which JSON lacks."""
    if isinstance(value, list):
        return [None if math.isnan(limit) else limit for limit in value]
    return None if math.isnan(value) else value


if __name__ == "__main__":
    sys.exit(main())
