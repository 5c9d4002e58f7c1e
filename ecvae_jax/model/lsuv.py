"""Layer-sequential unit-variance initialization (Mishkin & Matas 2016, https://arxiv.org/abs/1511.06422)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ecvae_jax.config import Architecture
from ecvae_jax.model.conditioning import Condition
from ecvae_jax.model.cvae import CVAE


def init_unit_variance(
    architecture: Architecture,
    params: PyTree,
    image: Float[Array, "b h w 3"],
    condition: Condition,
    z_scale: Float[Array, ""],
) -> PyTree:
    """Returns the parameters with every kernel rescaled so that its layer's output has unit variance on this batch.

    One pass is enough: a layer is linear in its kernel, and each layer sees the already corrected output of those
    before it. The variance is taken about the layer's mean over batch, places and channels, without the bias.

    Raises:
        ValueError: a layer's output is constant or not finite on this batch, so no scale can be found.
    """

    def correct(output: Array, bias: Array) -> tuple[Array, Array]:
        scale = 1.0 / jnp.std((output - bias).astype(jnp.float32))
        return (output - bias) * scale.astype(output.dtype) + bias, scale

    scales = _each_layer(architecture, params, (image, condition, z_scale), correct)
    flat: dict[str, Any] = dict(flax.traverse_util.flatten_dict(params, sep="/"))
    for path, scale in scales.items():
        if not np.isfinite(scale):
            raise ValueError(
                f"layer {path}: output variance on the first batch is zero or not finite; unit-variance "
                "initialization needs a batch of differing faces: check the records"
            )
        flat[f"{path}/kernel"] = flat[f"{path}/kernel"] * scale
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def output_variances(
    architecture: Architecture,
    params: PyTree,
    image: Float[Array, "b h w 3"],
    condition: Condition,
    z_scale: Float[Array, ""],
) -> Mapping[str, float]:
    """Returns the variance of each layer's output on this batch (bias taken out), by the layer's path."""

    def measure(output: Array, bias: Array) -> tuple[Array, Array]:
        return output, jnp.var((output - bias).astype(jnp.float32))

    return _each_layer(architecture, params, (image, condition, z_scale), measure)


def _each_layer(
    architecture: Architecture, params: PyTree, inputs: tuple[Any, ...], visit: Callable[[Array, Array], tuple[Array, Array]]
) -> dict[str, float]:
    """Runs the network with `visit(output, bias)` in every convolution and dense layer, in the order of the network.

    It gives the output that the next layers see, and a number, which is returned by the layer's path.
    """

    @jax.jit
    def run(params: PyTree, inputs: tuple[Any, ...]) -> dict[str, Array]:
        numbers: dict[str, Array] = {}

        def intercept(
            next_fun: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
        ) -> Any:
            output = next_fun(*args, **kwargs)
            layer = context.module
            if not isinstance(layer, (nn.Conv, nn.Dense)) or context.method_name != "__call__":
                return output
            bias = layer.variables["params"]["bias"].astype(output.dtype)
            bias = bias.reshape((1,) * (output.ndim - 1) + bias.shape)
            output, numbers["/".join(layer.path)] = visit(output, bias)
            return output

        with nn.intercept_methods(intercept):
            CVAE(architecture.model).apply({"params": params}, *inputs)
        return numbers

    return {path: float(number) for path, number in run(params, inputs).items()}
