"""Useful FLOPs: the matrix products and convolutions of a loss and of its gradient, counted from their shapes.

A multiplication and an addition are two FLOPs. Each product of the forward pass has up to two in the backward pass, one
for each factor whose gradient is needed: none for frozen layers below all that trains, one where the input or the
weights need none. So a training step is worth at most three forward passes (Kaplan et al., 2020, section 2.1). Neither
recomputation nor element-wise operations count, so that useful FLOP/s divided by the hardware's peak are the model
FLOPs utilisation, MFU (Chowdhery et al., PaLM, 2022, appendix B).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.interpreters import partial_eval


def forward_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """FLOPs of the matrix products and convolutions of one call.

    Args:
        function: traced by `jax.make_jaxpr`, never run.
        arguments: trees of arrays or of `jax.ShapeDtypeStruct`.
    """
    return _needed_flops(function, *arguments)


def training_flops(loss: Callable[..., jax.Array], *arguments: Any) -> float:
    """FLOPs of the matrix products and convolutions of a loss and of its gradient by the first argument.

    Args:
        loss: traced, never run; without rematerialisation (`models.remat.off`), or what is recomputed counts.
        arguments: trees of arrays or of `jax.ShapeDtypeStruct`.
    """
    return _needed_flops(jax.value_and_grad(loss), *arguments)


def valid_taps(
    size: int, kernel: int, out: int, *, stride: int = 1, pad: int = 0, dilation: int = 1, kernel_dilation: int = 1
) -> int:
    """How many of the `out * kernel` products along one axis of a convolution have an input element as a factor.

    The others multiply padding, or the zeros between the elements of a dilated input, and need not be computed.

    Args:
        size, kernel, out: elements of input, kernel and output.
        stride: of the window.
        pad: zeros before the first input element; may be negative.
        dilation, kernel_dilation: distance between neighbouring elements of input and kernel.
    """
    at = np.arange(out)[:, None] * stride - pad + np.arange(kernel)[None] * kernel_dilation
    return int(((at >= 0) & (at <= (size - 1) * dilation) & (at % dilation == 0)).sum())


def _needed_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Of what a result depends on: differentiation leaves products behind that the compiler removes."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return _jaxpr_flops(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def _jaxpr_flops(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        kind, params = equation.primitive.name, equation.params
        if kind == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2.0 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
        elif kind == "conv_general_dilated":
            total += _convolution_flops(equation)
        elif kind == "cond":
            total += max(_jaxpr_flops(branch.jaxpr) for branch in params["branches"])
        else:
            times = params["length"] if kind == "scan" else 1
            total += times * sum(_jaxpr_flops(inner) for inner in _inner(params.values()))
    return total


def _inner(values: Any) -> list[Any]:
    """The jaxprs among the parameters of an equation."""
    jaxprs: list[Any] = []
    for value in values:
        for part in value if isinstance(value, list | tuple) else (value,):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                jaxprs.append(part)
    return jaxprs


def _convolution_flops(equation: Any) -> float:
    params = equation.params
    left, right = (var.aval.shape for var in equation.invars)
    out = equation.outvars[0].aval.shape
    numbers = params["dimension_numbers"]
    taps = [
        valid_taps(
            left[numbers.lhs_spec[axis + 2]],
            right[numbers.rhs_spec[axis + 2]],
            out[numbers.out_spec[axis + 2]],
            stride=params["window_strides"][axis],
            pad=params["padding"][axis][0],
            dilation=params["lhs_dilation"][axis],
            kernel_dilation=params["rhs_dilation"][axis],
        )
        for axis in range(len(left) - 2)
    ]
    return convolution_flops(
        taps,
        batch=out[numbers.out_spec[0]],
        features=out[numbers.out_spec[1]],
        inputs=right[numbers.rhs_spec[1]],
    )


def convolution_flops(taps: Sequence[int], *, batch: int, features: int, inputs: int) -> float:
    """FLOPs of a convolution.

    Args:
        taps: `valid_taps` along each spatial axis.
        batch, features: of the output.
        inputs: features that each output element sums over.
    """
    return 2.0 * batch * features * inputs * math.prod(taps)
