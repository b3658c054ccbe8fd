"""Infers the sizes of a checkpoint's network from its tensors' shapes and its config.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medvill_jax.hub import encoders
from medvill_jax.hub.assignment import POSITIONS, Checkpoint
from medvill_jax.hub.errors import HubError, raise_all
from medvill_jax.models.bert import BertConfig
from medvill_jax.models.encoders import ImageEncoder, find
from medvill_jax.models.medvill import MedvillConfig

# The sizes of all published MedViLL checkpoints, some of which lack a config.json.
PUBLISHED = {"hidden_size": 768, "num_heads": 12}
DEFAULT_IMAGE_SIZE = 512
# Our size -> its name in config.json.
_STATED = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "token_types": "type_vocab_size",
}
# Larger than any real model: a file that says more is damaged, and its model would exhaust the memory.
_LARGEST = {
    "vocab_size": 10_000_000,
    "hidden_size": 100_000,
    "num_layers": 1000,
    "intermediate_size": 1_000_000,
    "max_positions": 1_000_000,
    "token_types": 1000,
}


@dataclass(frozen=True)
class Choices:
    """Settings that a checkpoint does not hold.

    Attributes:
        num_heads: attention heads; None takes the number in config.json.
        image_size: side of the input in pixels; None takes 512, or less if the positions do not suffice.
        attention: the model's attention mask.
        cls_id, sep_id: ids of [CLS] and [SEP] in the vocabulary.
    """

    num_heads: int | None = None
    image_size: int | None = None
    attention: str = "bar"
    cls_id: int = 101
    sep_id: int = 102


def infer_config(checkpoint: Checkpoint, choices: Choices) -> MedvillConfig:
    """The configuration of a checkpoint's network; parts that the format lacks have their default sizes.

    Raises:
        HubError: a size is missing or impossible, or config.json describes a network that MedViLL cannot be.
    """
    parts = checkpoint.format.parts
    has_text, has_image = "embeddings" in parts, "image_encoder" in parts
    bert = _bert(checkpoint, choices) if has_text else BertConfig()
    encoder = _image_encoder(checkpoint) if has_image else "resnet50"
    if has_text and not max(choices.cls_id, choices.sep_id) < bert.vocab_size:
        raise HubError(
            f"[CLS] {choices.cls_id} and [SEP] {choices.sep_id} are outside the vocabulary of {bert.vocab_size}: give "
            "the checkpoint's vocab.txt with --tokenizer"
        )
    stride = find(encoder).stride
    side = int(bert.max_positions**0.5) * stride
    image_size = choices.image_size or min(DEFAULT_IMAGE_SIZE // stride * stride, side)
    try:
        return MedvillConfig(bert, encoder, image_size, choices.attention, cls_id=choices.cls_id, sep_id=choices.sep_id)
    except ValueError as error:
        raise HubError(f"{checkpoint.source.path}: {error}") from None


def _bert(checkpoint: Checkpoint, choices: Choices) -> BertConfig:
    stated = checkpoint.source.config or {}
    names = {
        "word": "embeddings/word_embeddings/embedding",
        "position": POSITIONS,
        "type": "embeddings/token_type_embeddings/embedding",
        "intermediate": "encoder/layer/0/intermediate/kernel",
    }
    tensors = {key: checkpoint.find(name) for key, name in names.items()}
    shapes = {key: tensor.shape for key, tensor in tensors.items() if tensor is not None and len(tensor.shape) == 2}
    pattern = re.compile(r"(?:enc\.)?encoder\.layer\.(\d{1,6})\..*")
    layers = 1 + max((int(match[1]) for name in checkpoint.tensors if (match := pattern.fullmatch(name))), default=-1)
    in_weights = {
        "vocab_size": shapes["word"][0] if "word" in shapes else None,
        "hidden_size": shapes["word"][1] if "word" in shapes else None,
        "num_layers": layers or None,
        "intermediate_size": shapes["intermediate"][0] if "intermediate" in shapes else None,
        "max_positions": shapes["position"][0] if "position" in shapes else None,
        "token_types": shapes["type"][0] if "type" in shapes else None,
    }
    sizes: dict[str, int] = {}
    problems = []
    for ours, theirs in _STATED.items():
        # config.json takes precedence, so that a damaged tensor is reported as misshaped. It does not for token types:
        # released fine-tuning code added some without changing the file.
        value = in_weights[ours] if ours == "token_types" else stated.get(theirs, in_weights[ours])
        if value is None:
            value = stated.get(theirs)
        if not isinstance(value, int) or not 0 < value <= _LARGEST[ours]:
            problems.append(f"{ours} ({theirs} in config.json) is {value}")
        else:
            sizes[ours] = value
    if stated.get("hidden_act", "gelu") != "gelu":
        problems.append(f"hidden_act is {stated['hidden_act']!r}; MedViLL's is the exact 'gelu'")
    if stated.get("position_embedding_type", "absolute") != "absolute":
        problems.append(f"position_embedding_type is {stated['position_embedding_type']!r}, not 'absolute'")
    raise_all(f"sizes of the model cannot be read from {checkpoint.source.path} and its config.json", problems)
    try:
        return BertConfig(
            **sizes,
            num_heads=_heads(checkpoint, stated, sizes["hidden_size"], choices),
            dropout=float(stated.get("hidden_dropout_prob", BertConfig.dropout)),
            layer_norm_eps=float(stated.get("layer_norm_eps", BertConfig.layer_norm_eps)),
            initializer_range=float(stated.get("initializer_range", BertConfig.initializer_range)),
        )
    except (ValueError, TypeError) as error:
        raise HubError(f"{checkpoint.source.path}: {error}") from None


def _heads(checkpoint: Checkpoint, stated: Mapping[str, Any], hidden_size: int, choices: Choices) -> int:
    heads = choices.num_heads or stated.get("num_attention_heads")
    if heads is None and hidden_size == PUBLISHED["hidden_size"]:
        heads = PUBLISHED["num_heads"]
    if not isinstance(heads, int) or heads < 1:
        raise HubError(
            f"{checkpoint.source.path}: no tensor shows the number of attention heads; put the checkpoint's "
            "config.json into its folder or give --num_heads"
        )
    return heads


def _image_encoder(checkpoint: Checkpoint) -> str | ImageEncoder:
    def shape(name: str) -> tuple[int, ...] | None:
        tensor = checkpoint.find(f"image_encoder/{name}")
        return None if tensor is None else tensor.shape

    stated = checkpoint.source.config if checkpoint.format.family == "huggingface" else None
    try:
        return encoders.sizes(encoders.EncoderTensors(shape, checkpoint.renamer.theirs, stated or {}))
    except HubError as error:
        raise HubError(f"{checkpoint.source.path}: {error}") from None
