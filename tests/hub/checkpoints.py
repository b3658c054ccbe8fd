"""Checkpoints as the published programs write them, tiny."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.reference import Sizes, TorchMedvill

torch.set_num_threads(1)
SIZES = Sizes(depths=(1, 2, 1, 1), layers=2)
# Ids in `vocabulary`.
PAD, UNK, CLS, SEP, MASK = 0, 100, 101, 102, 103


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def write_config(folder: Path, sizes: Sizes, **fields: object) -> None:
    config = {
        "architectures": ["CXRBERT"],
        "model_type": "bert",
        "vocab_size": sizes.vocab,
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.intermediate,
        "max_position_embeddings": sizes.positions,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": sizes.eps,
    }
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def vocabulary(without: int | None = None) -> str:
    words = [f"w{number}" for number in range(SIZES.vocab)]
    for number, name in zip((PAD, UNK, CLS, SEP, MASK), ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), strict=True):
        words[number] = name
    if without is not None:
        words[without] = "other"
    return "".join(f"{word}\n" for word in words)


def writing_network() -> TorchMedvill:
    """Writes texts of different lengths: it attends to little at a time, and [SEP] is neither rare nor sure."""
    network = TorchMedvill(SIZES, seed=3)
    with torch.no_grad():
        network.enc.img_embeddings.img_embeddings.weight *= 5
        for layer in network.enc.encoder.layer:
            layer.attention.self.query.weight *= 4
            layer.attention.output.dense.weight *= 3
        network.mlm.predictions.transform.LayerNorm.weight *= 3
        network.mlm.predictions.bias[SEP] += 3.7
    return network


def inputs(seed: int = 0, batch: int = 3, slots: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalised float images [B, 64, 64, 3], ids, lengths."""
    rng = np.random.default_rng(seed)
    lens = rng.integers(2, slots + 1, batch).astype(np.int32)
    ids = rng.integers(5, SIZES.vocab, (batch, slots)).astype(np.int32)
    ids[np.arange(slots)[None] >= lens[:, None]] = 0
    return rng.normal(size=(batch, 64, 64, 3)).astype(np.float32), ids, lens


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `import torch` fail, as on a machine without it."""
    monkeypatch.setitem(sys.modules, "torch", None)


def stage_state(stage: str, reference: TorchMedvill) -> Any:
    """A checkpoint of a later stage around the reference's backbone, as its program saves it.

    See docs/spec.md#finetuned-checkpoints.
    """
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    state = reference.state_dict()
    width = SIZES.hidden
    if stage == "pretraining":
        return state
    backbone = {name: tensor for name, tensor in state.items() if name.startswith("enc.")}
    words = {"enc.img_embeddings.word_embeddings.weight": state["enc.txt_embeddings.word_embeddings.weight"]}
    if stage == "retrieval":
        return {**backbone, **{name: tensor for name, tensor in state.items() if name.startswith("itm.")}}
    if stage == "classification":
        plain = {name: tensor for name, tensor in backbone.items() if not name.endswith("position_ids")}
        head = {"enc.clf.weight": random(2, width), "clf.weight": random(5, width), "clf.bias": random(5)}
        inner = {f"module.{name}": tensor for name, tensor in {**plain, **words, **head}.items()}
        return {"epoch": 3, "state_dict": inner, "optimizer": {"state": {}}, "n_no_improve": 0, "best_metric": 0.5}
    bare = {name.removeprefix("enc."): tensor for name, tensor in {**backbone, **words}.items()}
    del bare["txt_embeddings.position_ids"]
    if stage == "generation":
        mlm = {f"cls.{name.removeprefix('mlm.')}": t for name, t in state.items() if name.startswith("mlm.")}
        return {**bare, **mlm, "crit_mask_lm_smoothed.one_hot": torch.zeros(1, SIZES.vocab)}
    return {
        **bare,
        "ans_classifier.0.weight": random(2 * width, width),
        "ans_classifier.0.bias": random(2 * width),
        "ans_classifier.2.weight": random(11, 2 * width),
        "ans_classifier.2.bias": random(11),
    }


def state_of(content: Any) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, without wrapper and prefix."""
    content = content.get("state_dict", content)
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}
