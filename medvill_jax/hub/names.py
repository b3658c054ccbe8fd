"""The names of parameters in checkpoints: one dictionary of modules per format (docs/spec.md#checkpoints).

A dictionary maps our module path to theirs. `{name}` stands for a number, `{name+k}` for that number plus k. The leaves
below a module have the same names in all formats, `LEAVES`. Kernels are transposed: torch stores Linear weights as
`[out, in]` and convolutions as `[out, in, h, w]`, flax as `[in, out]` and `[h, w, in, out]`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from medvill_jax.hub import encoders

# Our leaf -> theirs, in the order in which torch registers them.
LEAVES = {
    "embedding": "weight",
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_LEAF_ORDER = tuple(LEAVES)

BERT_ENCODER = {
    "encoder/layer/{layer}/attention/query": "encoder.layer.{layer}.attention.self.query",
    "encoder/layer/{layer}/attention/key": "encoder.layer.{layer}.attention.self.key",
    "encoder/layer/{layer}/attention/value": "encoder.layer.{layer}.attention.self.value",
    "encoder/layer/{layer}/attention/output": "encoder.layer.{layer}.attention.output.dense",
    "encoder/layer/{layer}/attention_layer_norm": "encoder.layer.{layer}.attention.output.LayerNorm",
    "encoder/layer/{layer}/intermediate": "encoder.layer.{layer}.intermediate.dense",
    "encoder/layer/{layer}/output": "encoder.layer.{layer}.output.dense",
    "encoder/layer/{layer}/output_layer_norm": "encoder.layer.{layer}.output.LayerNorm",
    "pooler/dense": "pooler.dense",
}


def bert_embeddings(prefix: str) -> dict[str, str]:
    """The modules of the embeddings, theirs under a prefix."""
    return {
        "embeddings/word_embeddings": f"{prefix}.word_embeddings",
        "embeddings/position_embeddings": f"{prefix}.position_embeddings",
        "embeddings/token_type_embeddings": f"{prefix}.token_type_embeddings",
        "embeddings/layer_norm": f"{prefix}.LayerNorm",
    }


def mlm_head(prefix: str) -> dict[str, str]:
    """The modules of the MLM head, theirs under a prefix."""
    return {
        "mlm": f"{prefix}.predictions",
        "mlm/dense": f"{prefix}.predictions.transform.dense",
        "mlm/layer_norm": f"{prefix}.predictions.transform.LayerNorm",
    }


BACKBONE = {
    **bert_embeddings("txt_embeddings"),
    "image_projection": "img_embeddings.img_embeddings",
    **encoders.modules("upstream"),
    **BERT_ENCODER,
}
ENC_BACKBONE = {ours: f"enc.{theirs}" for ours, theirs in BACKBONE.items()}
# Image and text embedding share these, and a checkpoint holds them under both names.
SHARED = ("token_type_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias", "position_embeddings.weight")
BUFFERS = (r".*\bposition_ids", r".*\bnum_batches_tracked", r".*\bcrit_mask_lm_smoothed\.one_hot")

BACKBONE_PARTS = ("embeddings", "image_projection", "image_encoder", "encoder", "pooler")


@dataclass(frozen=True)
class Format:
    """How one kind of checkpoint names its tensors.

    Attributes:
        name: of the format in messages; for upstream formats also the stage of `Compat.upstream`.
        family: the value of `--format`.
        modules: our module -> theirs, in the order in which they are written.
        parts: our top-level modules that such a checkpoint holds.
        optional: parts that some checkpoints of this format lack as a whole.
        aliases: second name of a tensor -> its first name; both theirs.
        unused: regexes over the names of tensors that MedViLL does not use, such as an ImageNet classifier.
        writes: aliases that are written.
    """

    name: str
    family: str
    modules: Mapping[str, str]
    parts: tuple[str, ...]
    optional: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


def _shared(prefix: str) -> dict[str, str]:
    names = (*SHARED, "word_embeddings.weight")
    return {f"{prefix}img_embeddings.{name}": f"{prefix}txt_embeddings.{name}" for name in names}


def _tied(head: str, words: str) -> dict[str, str]:
    return {f"{head}.predictions.decoder.weight": words, f"{head}.predictions.decoder.bias": f"{head}.predictions.bias"}


_UNUSED = tuple(pattern for kind in encoders.WEIGHTS for pattern in kind.unused)
_WORDS = "txt_embeddings.word_embeddings.weight"
_ENC_SHARED = tuple(f"enc.img_embeddings.{name}" for name in SHARED)
_BARE_SHARED = tuple(f"img_embeddings.{name}" for name in (*SHARED, "word_embeddings.weight"))

PRETRAINING = Format(
    "pretraining",
    "upstream",
    {**ENC_BACKBONE, **mlm_head("mlm"), "itm/linear": "itm.linear"},
    (*BACKBONE_PARTS, "mlm", "itm"),
    aliases={**_shared("enc."), **_tied("mlm", f"enc.{_WORDS}")},
    unused=_UNUSED,
    writes=(*_ENC_SHARED, "mlm.predictions.decoder.weight"),
)
RETRIEVAL = Format(
    "retrieval",
    "upstream",
    {**ENC_BACKBONE, "itm/linear": "itm.linear"},
    (*BACKBONE_PARTS, "itm"),
    aliases=_shared("enc."),
    unused=_UNUSED,
    writes=_ENC_SHARED,
)
GENERATION = Format(
    "generation",
    "upstream",
    {**BACKBONE, **mlm_head("cls")},
    (*BACKBONE_PARTS, "mlm"),
    aliases={**_shared(""), **_tied("cls", _WORDS)},
    unused=_UNUSED,
    writes=(*_BARE_SHARED, "cls.predictions.decoder.weight"),
)
VQA = Format(
    "vqa",
    "upstream",
    {**BACKBONE, "heads/answer/hidden": "ans_classifier.0", "heads/answer/output": "ans_classifier.2"},
    BACKBONE_PARTS,
    aliases=_shared(""),
    unused=_UNUSED,
    writes=_BARE_SHARED,
)
CLASSIFICATION = Format(
    "classification",
    "upstream",
    {**ENC_BACKBONE, "heads/classifier": "clf"},
    BACKBONE_PARTS,
    aliases=_shared("enc."),
    unused=(*_UNUSED, r"enc\.clf\..*"),
    writes=(*_ENC_SHARED, "enc.img_embeddings.word_embeddings.weight"),
)
HF_BERT = Format(
    "Hugging Face BERT",
    "huggingface",
    {**bert_embeddings("embeddings"), **BERT_ENCODER, **mlm_head("cls")},
    ("embeddings", "encoder", "pooler"),
    optional=("mlm",),
    aliases=_tied("cls", "embeddings.word_embeddings.weight"),
    unused=(r"cls\.seq_relationship\..*", r"embeddings\.token_type_ids"),
)
HF_RESNET = Format(
    "Hugging Face ResNet",
    "huggingface",
    encoders.modules("huggingface"),
    ("image_encoder",),
    unused=(r"classifier\..*",),
)
TORCHVISION = Format(
    "torchvision ResNet",
    "torchvision",
    encoders.modules("torchvision"),
    ("image_encoder",),
    unused=(r"fc\..*",),
)

UPSTREAM = {item.name: item for item in (PRETRAINING, RETRIEVAL, GENERATION, VQA, CLASSIFICATION)}
FAMILIES = ("upstream", "huggingface", "torchvision", "export")
_PREFIXES = ("module.", "bert.", "resnet.")


def strip_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Names without wrappers' prefixes -> names as stored; LayerNorm's `gamma` and `beta` become `weight` and `bias`.

    Raises:
        ValueError: two stored names are the same without prefixes.
    """
    stripped: dict[str, str] = {}
    for stored in names:
        name = stored
        while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
            name = name[len(prefix) :]
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
        name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
        if name in stripped:
            raise ValueError(f"{stripped[name]} and {stored} are the same parameter, {name}")
        stripped[name] = stored
    return stripped


def recognise(names: Iterable[str]) -> Format | None:
    """The format of a checkpoint with these names, prefixes stripped; None if it is unknown."""
    names = set(names)

    def has(*starts: str) -> bool:
        return any(name.startswith(starts) for name in names)

    if has("enc.txt_embeddings.", "enc.img_embeddings.", "enc.img_encoder."):
        if has("mlm."):
            return PRETRAINING
        if has("clf.", "enc.clf."):
            return CLASSIFICATION
        return RETRIEVAL if has("itm.") else PRETRAINING
    if has("txt_embeddings.", "img_embeddings.", "img_encoder."):
        return VQA if has("ans_classifier.") else GENERATION
    if has("embedder.embedder.", "encoder.stages."):
        return HF_RESNET
    if has("embeddings.", "encoder.layer."):
        return HF_BERT
    if has("layer1.") and has("conv1."):
        return TORCHVISION
    return None


class Renamer:
    """Translates our full names into a format's."""

    def __init__(self, layout: Format):
        self._patterns = [
            (re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>\\d+)", ours)), theirs) for ours, theirs in layout.modules.items()
        ]

    def theirs(self, ours: str) -> str | None:
        """Their name of our parameter or statistic; None if the format has none."""
        translated = self._find(ours)
        return translated and translated[0]

    def order(self, ours: str) -> tuple[object, ...]:
        """A sort key of our name: the order in which torch registers theirs."""
        translated = self._find(ours)
        assert translated is not None
        return translated[1]

    def _find(self, ours: str) -> tuple[str, tuple[object, ...]] | None:
        module, _, leaf = ours.rpartition("/")
        for index, (pattern, theirs) in enumerate(self._patterns):
            if match := pattern.fullmatch(module):
                numbers = {name: int(value) for name, value in match.groupdict().items()}

                def fill(hole: re.Match[str], numbers: dict[str, int] = numbers) -> str:
                    return str(numbers[hole[1]] + int(hole[2] or 0))

                name = re.sub(r"\{(\w+?)(?:\+(\d+))?\}", fill, theirs)
                # A module with fewer numbers comes last in its block: a ResNet's shortcut has no convolution's number.
                inner = (*numbers.values(), math.inf) if numbers else ()
                section = next(i for i, key in enumerate(self._sections()) if key == ours.partition("/")[0])
                order = (section, inner, index, _LEAF_ORDER.index(leaf))
                return f"{name}.{LEAVES[leaf]}", order
        return None

    def _sections(self) -> list[str]:
        return list(dict.fromkeys(pattern.pattern.partition("/")[0] for pattern, _ in self._patterns))


def is_buffer(name: str) -> bool:
    """Whether their tensor is a buffer without learned values."""
    return matches_any(BUFFERS, name)


def their_shape(ours: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which torch stores our parameter."""
    if ours.endswith("/kernel"):
        return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]
    return shape


def to_ours(ours: str, array: np.ndarray) -> np.ndarray:
    """Their array in our layout, contiguous."""
    if ours.endswith("/kernel"):
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return np.ascontiguousarray(array)


def to_theirs(ours: str, array: np.ndarray) -> np.ndarray:
    """Our array in torch's layout, contiguous; the inverse of `to_ours`."""
    if ours.endswith("/kernel"):
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return np.asarray(array, order="C")  # np.ascontiguousarray would give scalars an axis


def matches_any(patterns: Iterable[str], name: str) -> bool:
    """Whether one of the regexes matches the whole name."""
    return any(re.fullmatch(pattern, name) for pattern in patterns)
