"""Image encoders in PyTorch checkpoints: the names of their modules, and the sizes of a checkpoint's encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from medvill_jax.hub.errors import HubError
from medvill_jax.models import resnet, vit_patch
from medvill_jax.models.encoders import ENCODERS, ImageEncoder


@dataclass(frozen=True)
class EncoderTensors:
    """The tensors of a checkpoint's encoder.

    Attributes:
        shape: our name below `image_encoder/` -> the tensor's shape as torch stores it, or None if it is missing.
        theirs: our full name -> the checkpoint's, or None.
        stated: the checkpoint's config.json if that describes the encoder, else empty.
    """

    shape: Callable[[str], tuple[int, ...] | None]
    theirs: Callable[[str], str | None]
    stated: Mapping[str, Any]


@dataclass(frozen=True)
class Weights:
    """How checkpoints hold one class of encoders.

    Attributes:
        names: family of the format -> our module below `image_encoder/` -> theirs; as in `hub.names`.
        sizes: reads an encoder's sizes from its tensors; None if the checkpoint holds another encoder.
        unused: regexes over the names of upstream tensors that MedViLL does not use.
    """

    names: Mapping[str, Mapping[str, str]]
    sizes: Callable[[EncoderTensors], ImageEncoder | None]
    unused: tuple[str, ...] = ()


def modules(family: str) -> dict[str, str]:
    """Our modules of all encoders -> theirs in checkpoints of a family."""
    return {f"image_encoder/{ours}": theirs for kind in WEIGHTS for ours, theirs in kind.names.get(family, {}).items()}


def sizes(tensors: EncoderTensors) -> str | ImageEncoder:
    """The encoder of a checkpoint: its name in `ENCODERS`, or its sizes if it has no name.

    Raises:
        HubError: the checkpoint holds no encoder that the package knows.
    """
    encoder = next(filter(None, (kind.sizes(tensors) for kind in WEIGHTS)), None)
    if encoder is None:
        first = tensors.theirs("image_encoder/embedder/convolution/kernel")
        raise HubError(
            f"no image encoder can be recognised: tensors are missing, such as a ResNet's {first} and first stage"
        )
    return next((name for name, known in ENCODERS.items() if known == encoder), encoder)


def _patches(tensors: EncoderTensors) -> ImageEncoder | None:
    shape = tensors.shape("projection/kernel")
    if shape is None:
        return None
    for known in vit_patch.CONFIGS.values():
        if shape == (known.width, 3 * known.patch_size**2):
            return known
    raise HubError(f"a patch embedder of shape {shape} is not supported")


def _resnet(tensors: EncoderTensors) -> ImageEncoder | None:
    for field in ("downsample_in_first_stage", "downsample_in_bottleneck"):
        if tensors.stated.get(field):
            raise HubError(f"a ResNet with {field} is not supported")

    def width(name: str) -> int | None:
        shape = tensors.shape(f"{name}/convolution/kernel")
        return shape[0] if shape is not None and len(shape) == 4 else None

    stem = width("embedder")
    bottleneck = width("stages/0/0/layer/2") is not None
    last = 2 if bottleneck else 1
    depths, widths = [], []
    while (out := width(f"stages/{len(depths)}/0/layer/{last}")) is not None:
        depth = 1
        # Looks one layer further, so that a missing layer is reported as missing tensors.
        while any(
            width(f"stages/{len(depths)}/{depth + ahead}/layer/{conv}") is not None
            for ahead in (0, 1)
            for conv in (0, last)
        ):
            depth += 1
        depths.append(depth)
        widths.append(out)
    if stem is None or not depths:
        return None
    return resnet.ResNetConfig(tuple(depths), stem, tuple(widths), bottleneck)


def _of_resnet(stem: tuple[str, str], layer: tuple[str, str], shortcut: tuple[str, str]) -> dict[str, str]:
    """Our modules of a ResNet -> theirs; each pair names a convolution and its normalisation."""
    return {
        f"{module}/{operation}": theirs
        for module, names in (
            ("embedder", stem),
            ("stages/{stage}/{block}/layer/{conv}", layer),
            ("stages/{stage}/{block}/shortcut", shortcut),
        )
        for operation, theirs in zip(("convolution", "normalization"), names, strict=True)
    }


WEIGHTS = (
    Weights(
        {
            "huggingface": _of_resnet(
                ("embedder.embedder.convolution", "embedder.embedder.normalization"),
                (
                    "encoder.stages.{stage}.layers.{block}.layer.{conv}.convolution",
                    "encoder.stages.{stage}.layers.{block}.layer.{conv}.normalization",
                ),
                (
                    "encoder.stages.{stage}.layers.{block}.shortcut.convolution",
                    "encoder.stages.{stage}.layers.{block}.shortcut.normalization",
                ),
            ),
            "torchvision": _of_resnet(
                ("conv1", "bn1"),
                ("layer{stage+1}.{block}.conv{conv+1}", "layer{stage+1}.{block}.bn{conv+1}"),
                ("layer{stage+1}.{block}.downsample.0", "layer{stage+1}.{block}.downsample.1"),
            ),
            # A torchvision ResNet's children in an nn.Sequential; 2 and 3 are ReLU and pooling.
            "upstream": _of_resnet(
                ("img_encoder.model.0", "img_encoder.model.1"),
                (
                    "img_encoder.model.{stage+4}.{block}.conv{conv+1}",
                    "img_encoder.model.{stage+4}.{block}.bn{conv+1}",
                ),
                (
                    "img_encoder.model.{stage+4}.{block}.downsample.0",
                    "img_encoder.model.{stage+4}.{block}.downsample.1",
                ),
            ),
        },
        _resnet,
    ),
    Weights(
        {"upstream": {"projection": "img_encoder.patch_to_embedding"}},
        _patches,
        unused=(r"(enc\.)?img_encoder\.pos_embedding", r"(enc\.)?img_encoder\.cls_token"),
    ),
)
