"""ResNet visual embedder (He et al., CVPR 2016), bottleneck v1.5 as in torchvision, without pooling and classifier.

Names follow the Hugging Face `ResNetModel`: a stem ("embedder") and stages of residual layers.
See docs/spec.md#image-encoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from medvill_jax import programs
from medvill_jax.models import remat as rematerialisation
from medvill_jax.models.precision import CONVOLVED, product

STEM = "embedder"


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of a ResNet.

    Attributes:
        depths: residual layers per stage.
        stem_width: channels after the stem.
        widths: output channels per stage.
        bottleneck: 1x1-3x3-1x1 layers (ResNet-50/101) instead of 3x3-3x3 (ResNet-18).
    """

    parts: ClassVar[str] = r"embedder|stages/\d+"
    depths: tuple[int, ...]
    stem_width: int
    widths: tuple[int, ...]
    bottleneck: bool

    @property
    def stride(self) -> int:
        """Input pixels per output cell."""
        return 4 * 2 ** (len(self.depths) - 1)

    def __str__(self) -> str:
        return f"ResNet {self.depths}"

    def cells(self, height: int, width: int) -> int:
        """Number of cells for an image of so many pixels; strided convolutions round up."""
        return -(-height // self.stride) * -(-width // self.stride)

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs, remat: str) -> ResNet:
        """The module."""
        return ResNet(self, dtype=dtype, rngs=rngs, remat=remat)


CONFIGS = {
    "resnet_tiny": ResNetConfig((1, 1, 1, 1), 16, (16, 32, 64, 128), False),
    "resnet18": ResNetConfig((2, 2, 2, 2), 64, (64, 128, 256, 512), False),
    "resnet50": ResNetConfig((3, 4, 6, 3), 64, (256, 512, 1024, 2048), True),
    "resnet101": ResNetConfig((3, 4, 23, 3), 64, (256, 512, 1024, 2048), True),
}


def max_pool(x: jax.Array) -> jax.Array:
    """3x3 windows, stride 2, padding 1: `[B, H, W, C]` to `[B, ceil(H/2), ceil(W/2), C]`.

    Compares rows, then columns, since the gradient of XLA's window reduction is a scatter, which on CPUs takes several
    times as long as the whole stem.
    """
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    for axis in (1, 2):
        stop = x.shape[axis] - 2
        first, *others = (jax.lax.slice_in_dim(x, start, start + stop, 2, axis) for start in range(3))
        for other in others:
            first = jnp.where(other > first, other, first)
        x = first
    return x


def kernel_init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Random kernels `[h, w, in, out]`: the numbers of `variance_scaling(2.0, "fan_out", "normal")` (He et al., 2015).

    They are drawn along one axis: XLA for CPUs unrolls loops over the few rows and columns of a kernel, and then takes
    several times as long to compile.
    """
    lowest = np.nextafter(np.array(-1, dtype), np.array(0, dtype))
    drawn = jax.lax.erf_inv(jax.random.uniform(key, (math.prod(shape),), dtype, lowest, 1.0))
    fan_out = math.prod(shape[:-2]) * shape[-1]
    # One factor, as XLA makes of the two in `variance_scaling`; versions differ in whether they would join them here.
    return (drawn * (np.sqrt(np.array(2, dtype)) * np.sqrt(np.array(2 / fan_out, dtype)))).reshape(shape)


class ConvNorm(nnx.Module):
    """Convolution without bias, then BatchNorm."""

    def __init__(self, in_width: int, width: int, kernel: int, stride: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        pad, self.stride = kernel // 2, stride
        self.convolution = nnx.Conv(
            in_width,
            width,
            (kernel, kernel),
            strides=(stride, stride),
            padding=((pad, pad), (pad, pad)),
            use_bias=False,
            dtype=dtype,
            kernel_init=kernel_init,
            rngs=rngs,
        )
        self.normalization = nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, *, running: bool) -> jax.Array:
        x, norm = checkpoint_name(self._convolved(x), CONVOLVED), self.normalization
        if running:
            return norm(x, use_running_average=True)
        wide = x.astype(jnp.float32)
        axes, count = (0, 1, 2), x.size // x.shape[-1]
        mean = jnp.mean(wide, axes)
        # Flax's E[x^2] - E[x]^2 loses precision if a channel's mean is far from zero. The derivative of the variance by
        # this mean is zero, so the gradient is stopped.
        var = jnp.mean(jnp.square(wide - jax.lax.stop_gradient(mean)), axes)
        # As in torch, the running variance averages unbiased estimates; the batch is normalised with the biased one.
        for kept, new in ((norm.mean, mean), (norm.var, var * (count / max(count - 1, 1)))):
            kept[...] = norm.momentum * kept[...] + (1 - norm.momentum) * new
        scale, bias = norm.scale[...], norm.bias[...]  # pyright: ignore[reportOptionalSubscript]
        return ((wide - mean) * (jax.lax.rsqrt(var + norm.epsilon) * scale) + bias).astype(x.dtype)

    def _convolved(self, x: jax.Array) -> jax.Array:
        convolution, dtype = self.convolution, x.dtype
        if programs.platform() != "cpu" or dtype == jnp.float32 or convolution.kernel_size != (1, 1):
            return convolution(x)
        # In narrow types CPUs multiply faster than they convolve; on TPUs the product moves more bytes.
        return product(
            "abcx,xy->abcy", x[:, :: self.stride, :: self.stride], convolution.kernel[...][0, 0], dtype
        ).astype(dtype)


class ResidualLayer(nnx.Module):
    """One residual layer, basic or bottleneck; its first 3x3 convolution has the stride (torchvision's v1.5)."""

    def __init__(self, in_width: int, width: int, stride: int, bottleneck: bool, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        inner = width // 4 if bottleneck else width
        plan = [(1, inner, 1), (3, inner, stride), (1, width, 1)] if bottleneck else [(3, width, stride), (3, width, 1)]
        layers, current = [], in_width
        for kernel, out, step in plan:
            layers.append(ConvNorm(current, out, kernel, step, dtype=dtype, rngs=rngs))
            current = out
        self.layer = nnx.List(layers)
        projects = stride != 1 or in_width != width
        self.shortcut = ConvNorm(in_width, width, 1, stride, dtype=dtype, rngs=rngs) if projects else None

    def __call__(self, x: jax.Array, *, running: bool) -> jax.Array:
        shortcut = x if self.shortcut is None else self.shortcut(x, running=running)
        for layer in self.layer[:-1]:
            x = jax.nn.relu(layer(x, running=running))
        return jax.nn.relu(self.layer[-1](x, running=running) + shortcut)


class ResNet(nnx.Module):
    """Stem and stages; returns the last feature map as a sequence of cells.

    The policy `remat` decides what each residual layer recomputes for its gradient; see `models.remat`.
    """

    def __init__(self, config: ResNetConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs, remat: str = ""):
        self.remat = rematerialisation.check_policy(remat)
        self.embedder = ConvNorm(3, config.stem_width, 7, 2, dtype=dtype, rngs=rngs)
        stages, current = [], config.stem_width
        for index, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            layers = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                layers.append(ResidualLayer(current, width, stride, config.bottleneck, dtype=dtype, rngs=rngs))
                current = width
            stages.append(nnx.List(layers))
        self.stages = nnx.List(stages)
        self.width = current

    @jax.named_scope("resnet")
    def __call__(self, images: jax.Array, *, train: bool, frozen: frozenset[str] = frozenset()) -> jax.Array:
        """Args:
            images: float `[B, S, S, 3]`, normalised.
            train: batch statistics in the parts that are not frozen; running statistics otherwise.
            frozen: names of the parts whose parameters do not train: "embedder", "stages/0", ...

        Returns:
            `[B, G, width]`, G cells in raster order (row-major, top left first).
        """
        with jax.named_scope("stem"):
            x = jax.nn.relu(self.embedder(images, running=not train or STEM in frozen))
            x = max_pool(x)
        for index, stage in enumerate(self.stages):
            running = not train or f"stages/{index}" in frozen
            with jax.named_scope(f"stage_{index}"):
                for layer in stage:
                    x = rematerialisation.apply(self.remat, layer, x, running=running)
        batch, height, width, channels = x.shape
        return x.reshape(batch, height * width, channels)
