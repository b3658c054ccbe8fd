"""Metrics by the real `radeval`, on tiny random checkpoints, against plain computations from the same weights.

MEDVILL_REQUIRE_CLINICAL=1 makes it a failure that `radeval` is not installed; without it these tests are skipped.
"""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvill_jax.errors import MissingExtra
from medvill_jax.metrics import neural_clinical
from medvill_jax.metrics.label_f1 import COMPETITION
from medvill_jax.metrics.neural_clinical import NEEDED, main, missing, score
from medvill_jax.metrics.predictions import Prediction, PredictionError, Writer

PAIRS = (
    ("no effusion .", "small left effusion ."),
    ("heart is large .", "heart is large ."),
    ("mild edema is new .", "the lungs are clear ."),
    ("right upper lobe opacity .", "right lower lobe opacity ."),
    ("small left effusions .", "small left effusion ."),
    ("no pneumothorax .", ""),
)


def predictions(pairs=PAIRS) -> list[Prediction]:
    return [Prediction(str(number), *pair) for number, pair in enumerate(pairs)]


def written(path: Path, pairs=PAIRS) -> Path:
    with Writer(path) as out:
        for row in predictions(pairs):
            out.write(row)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of tiny models."""
    if find_spec("radeval") is None:
        if os.environ.get("MEDVILL_REQUIRE_CLINICAL"):
            pytest.fail("radeval is not installed, but MEDVILL_REQUIRE_CLINICAL is set")
        pytest.skip("needs radeval: pip install 'medvill_jax[clinical]'")
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        # A torchvision that was built for another PyTorch keeps transformers from loading.
        patch.setitem(sys.modules, "torchvision", None)
        from tests.metrics import radeval_weights

        radeval_weights.write(folder)
        yield folder


@pytest.fixture(scope="module")
def figures(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command prints for all metrics, run as a person runs it."""
    path = written(tmp_path_factory.mktemp("run") / "predictions.jsonl")
    command = [sys.executable, "-m", neural_clinical.__name__, str(path), f"--weights={weights}"]
    command += [f"--metrics={','.join(NEEDED)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def hidden(weights: Path, name: str, state: dict, text: str, *, words: bool = False) -> Any:
    """The last layer `[L, H]` of a BERT whose configuration and tokenizer lie in a folder; or its mean over the pieces
    of each word, without [CLS] and [SEP]."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    model = BertModel(BertConfig.from_pretrained(weights / name)).eval()
    model.load_state_dict(state)
    encoded = BertTokenizer.from_pretrained(weights / name)(text, return_tensors="pt")
    with torch.no_grad():
        out = model(**encoded).last_hidden_state[0]
    if not words:
        return out
    owners = encoded.word_ids(0)
    return torch.stack(
        [out[[i for i, o in enumerate(owners) if o == word]].mean(0) for word in sorted({*owners} - {None})]
    )


def loaded(path: Path, prefix: str = "") -> dict:
    import torch

    state = torch.load(path, weights_only=True)
    state = state.get("model_state_dict", state)
    return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}


def test_chexbert(weights: Path, figures: dict[str, Any]) -> None:
    from sklearn.metrics import f1_score

    from tests.metrics.radeval_weights import HEADS, linear

    state = loaded(weights / "chexbert/chexbert.pth", "module.")
    bert = {name.removeprefix("bert."): x for name, x in state.items() if name.startswith("bert.")}

    def labels(texts: list[str]) -> np.ndarray:
        first = [hidden(weights, "bert-base-uncased", bert, text)[0] for text in texts]
        heads = [linear(state, f"linear_heads.{number}") for number in range(len(HEADS))]
        return np.array([[int(head(x).argmax()) in (1, 3) for head in heads] for x in first])

    true, given = (labels([pair[side] for pair in PAIRS]) for side in (0, 1))
    assert 0 < (true & given).sum() < (true | given).sum()  # So neither 0 nor 1.
    assert figures["chexbert_micro_f1_14"] == pytest.approx(f1_score(true, given, average="micro"))
    each = f1_score(true, given, average=None, zero_division=np.nan)
    assert figures["chexbert_macro_f1_14"] == pytest.approx(each[true.any(0)].mean())
    assert not true.any(0).all()  # A finding that only a hypothesis has counts as a false alarm, not in the mean.
    assert figures["chexbert_absent_false_alarms_14"] == given[:, ~true.any(0)].sum()
    # The order of radeval's heads, in which only the last has two classes.
    names = ["Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation"]
    names += ["Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion"]
    five = [names.index(name) for name in COMPETITION]
    assert figures["chexbert_micro_f1_5"] == pytest.approx(f1_score(true[:, five], given[:, five], average="micro"))
    low, high = figures["chexbert_micro_f1_14_ci95"]
    assert low < figures["chexbert_micro_f1_14"] < high


def test_radgraph(weights: Path, figures: dict[str, Any]) -> None:
    expected = np.mean([graph_f1(weights, *pair) for pair in PAIRS], 0)
    seen = [figures[f"radgraph_f1_{level}"] for level in ("simple", "partial", "complete")]
    assert seen == pytest.approx(expected.tolist())
    assert len({0.0, 1.0, *seen}) == 5  # The levels differ, so relations are in play.


def graph_f1(weights: Path, reference: str, hypothesis: str) -> list[float]:
    if not hypothesis:
        return [0.0, 0.0, 0.0]
    sides = [graph(weights, "radgraph-xl", text) for text in (reference, hypothesis)]
    if not all(entities for entities, _, _ in sides):
        return [0.0, 0.0, 0.0]
    return [2 * len(a & b) / (len(a) + len(b)) for a, b in zip(*sides, strict=True)]


def graph(weights: Path, name: str, text: str) -> tuple[set, set, set]:
    """Entities; entities and whether they have relations; relations, and entities without one."""
    import torch
    from torch import relu

    from tests.metrics.radeval_weights import ENTITIES, RELATIONS, linear

    prefix = "_embedder.token_embedder_bert._matched_embedder.transformer_model."
    state = loaded(weights / name / "weights.th")
    x = hidden(weights, f"some/encoder-of-{name}", loaded(weights / name / "weights.th", prefix), text, words=True)
    width = state["_endpoint_span_extractor._span_width_embedding.weight"].expand(len(x), -1)
    spans = torch.cat([x, x, width], -1)

    def feedforward(key: str, x: Any) -> Any:
        return relu(linear(state, f"{key}._linear_layers.1")(relu(linear(state, f"{key}._linear_layers.0")(x))))

    def scorer(key: str) -> Any:
        return linear(state, f"{key}.1._module")(feedforward(f"{key}.0._module", spans))

    def best(scores: Any) -> list:
        return torch.cat([torch.zeros_like(scores[..., :1]), scores], -1).argmax(-1).tolist()

    kinds = best(scorer(f"_ner._ner_scorers.{name}__ner_labels"))
    mention = scorer(f"_relation._mention_pruners.{name}__relation_labels._scorer")
    one, other = spans[:, None].expand(-1, len(x), -1), spans[None].expand(len(x), -1, -1)
    pairs = feedforward(
        f"_relation._relation_feedforwards.{name}__relation_labels", torch.cat([one, other, one * other], -1)
    )
    pairs = (
        linear(state, f"_relation._relation_scorers.{name}__relation_labels")(pairs) + mention[:, None] + mention[None]
    )
    words = text.split()
    entities = {i: (words[i], ENTITIES[kind]) for i, kind in enumerate(kinds) if kind}
    found = {(i, j): k for i, row in enumerate(best(pairs)) for j, k in enumerate(row) if k and {i, j} <= {*entities}}
    linked = {i for i, _ in found}
    return (
        {*entities.values()},
        {(*entity, i in linked) for i, entity in entities.items()},
        {(*entities[i], RELATIONS[k - 1], words[j]) for (i, j), k in found.items()}
        | {entity for i, entity in entities.items() if i not in linked},
    )


def bertscore(weights: Path, name: str, layers: int) -> float:
    """Zhang et al. 2020: each word piece meets the most similar of the other text; [CLS] and [SEP] count nothing."""
    import torch
    from transformers import AutoModel, BertTokenizer

    model, tokenizer = AutoModel.from_pretrained(weights / name), BertTokenizer.from_pretrained(weights / name)
    stack = model.transformer.layer if hasattr(model, "transformer") else model.layers
    del stack[layers:]
    scores = []
    for pair in PAIRS:
        with torch.no_grad():
            sides = [model(**tokenizer(text, return_tensors="pt"))[0][0] for text in pair]
        a, b = (x / x.norm(dim=-1, keepdim=True) for x in sides)
        if min(len(a), len(b)) == 2:
            scores.append(0.0)
            continue
        recall, precision = (a @ b.T).amax(1)[1:-1].mean(), (a @ b.T).amax(0)[1:-1].mean()
        scores.append(float(2 * precision * recall / (precision + recall)))
    return float(np.mean(scores))


def test_bertscore(weights: Path, figures: dict[str, Any]) -> None:
    assert figures["radeval_bertscore"] == pytest.approx(bertscore(weights, "IAMJB/RadEvalModernBERT", 22), abs=1e-5)
    # Rescaled with the mean of unrelated sentences, from the authors' table for layer 5 of DistilBERT.
    package = Path(find_spec("radeval").submodule_search_locations[0])  # pyright: ignore
    table = package / "metrics/bertscore/_vendor/rescale_baseline/en/distilbert-base-uncased.tsv"
    base = float(table.read_text().split()[1 + 5].split(",")[3])
    plain = bertscore(weights, "distilbert-base-uncased", 5)
    assert figures["bertscore"] == pytest.approx((plain - base) / (1 - base), abs=1e-5)


def test_what_equal_reports_get(weights: Path, figures: dict[str, Any]) -> None:
    """And that others get less."""
    same = score(predictions([(a, a) for a, _ in PAIRS]), weights, metrics=list(NEEDED))
    for name, value in same.items():
        if not isinstance(value, float) or "_absent_" in name or name.startswith("resampled"):
            continue
        if name == "radcliq_v1":
            assert value == pytest.approx(least_radcliq(weights), abs=1e-5)
            assert figures[name] > value + 0.1
        else:
            assert value == pytest.approx(1.0, abs=1e-4), name
            # Random labels may be right wherever one is given, but not everywhere.
            assert "precision" in name or "recall" in name or figures[name] < 0.999, name


def least_radcliq(weights: Path) -> float:
    """RadCliQ-v1 (Yu et al. 2023) of equal reports, from its published coefficients, means and scales.

    BERTScore and the similarity by CheXbert are 1; F1 by RadGraph is the mean of that of entities and that of
    relations, where there are any.
    """
    graphs = [graph(weights, "radgraph", text) for text, _ in PAIRS]
    f1 = np.mean([(bool(entities) + any(len(each) > 2 for each in whole)) / 2 for entities, _, whole in graphs])
    parts = ((f1, -0.377083683, 0.53792312, 0.30282584), (1, -0.3703001, 0.61757256, 0.22430938))
    parts += ((1, -0.252616218, 0.76479421, 0.25394391),)
    return sum(weight * (value - mean) / scale for value, weight, mean, scale in parts)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_checkpoint_cannot_run_code(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("bert-base-uncased", "some", "radgraph-xl"):
        (tmp_path / name).symlink_to(weights / name)
    (tmp_path / "chexbert").mkdir()
    (tmp_path / "chexbert/chexbert.pth").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    path = written(tmp_path / "predictions.jsonl")
    assert main([str(path), f"--weights={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}: chexbert cannot load its model (UnpicklingError: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "sprung").exists()


def test_missing_files_are_listed(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(neural_clinical, "find_spec", lambda name: name)
    (tmp_path / "radgraph-xl").mkdir()
    named = {"bert": {"model_name": "some/encoder"}}
    settings = {"dataset_reader": {"token_indexers": named}, "model": {"embedder": {"token_embedders": named}}}
    (tmp_path / "radgraph-xl/config.json").write_text(json.dumps(settings))
    (tmp_path / "bert-base-uncased").mkdir()
    (tmp_path / "bert-base-uncased/vocab.txt").touch()
    path = written(tmp_path / "predictions.jsonl")
    assert main([str(path), f"--weights={tmp_path}"]) == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path}: no chexbert/chexbert.pth, bert-base-uncased/config.json, radgraph-xl/weights.th, "
        "radgraph-xl/vocabulary, some/encoder/config.json, some/encoder/tokenizer.json; "
        "python -m medvill_jax.metrics.neural_clinical --help tells where to get them\n"
    )
    (tmp_path / "radgraph-xl/config.json").write_text("{")
    assert missing(tmp_path, ["radgraph"]) == ["radgraph-xl/weights.th", "radgraph-xl/vocabulary"]


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(neural_clinical, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"needs radeval: pip install 'medvill_jax\[clinical\]'"):
        score(predictions(), tmp_path)
    assert main([str(written(tmp_path / "p.jsonl")), f"--weights={tmp_path}"]) == 1
    assert capsys.readouterr().err == "error: this score needs radeval: pip install 'medvill_jax[clinical]'\n"


def test_unknown_metrics_and_no_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "p.jsonl")
    assert main([str(path), f"--weights={tmp_path}", "--metrics=chexbert,bleurt"]) == 1
    assert capsys.readouterr().err == f"error: metrics=chexbert,bleurt; there are {', '.join(NEEDED)}\n"
    with pytest.raises(PredictionError, match="no prediction"):
        score([], tmp_path)


def test_help_names_every_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    for metric, folders in NEEDED.items():
        assert f"\n  {metric} " in told
        for folder in folders:
            assert folder in told
