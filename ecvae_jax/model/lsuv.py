"""Layer-sequential unit-variance initialization (Mishkin & Matas 2016, https://arxiv.org/abs/1511.06422)."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ecvae_jax.config import Architecture
from ecvae_jax.model.blocks import Layer, observing
from ecvae_jax.model.conditioning import Condition
from ecvae_jax.model.cvae import CVAE


def init_unit_variance(
    architecture: Architecture,
    params: PyTree,
    image: Float[Array, "b h w 3"],
    condition: Condition,
    z_scale: Float[Array, ""],
) -> PyTree:
    """Returns the parameters, every kernel scaled so that its layer's output has unit variance on this batch.

    One pass suffices: a layer is linear in its kernel, and each layer sees the rescaled output of those before it.
    The variance is over batch, pixels and channels, without the bias.

    Raises:
        ValueError: a layer's output is constant or not finite on this batch.
    """
    scaled, scales = _rescaled(architecture, params, (image, condition, z_scale))
    for path, scale in jax.device_get(scales).items():
        if not np.isfinite(scale):
            raise ValueError(
                f"layer {path}: output variance on the first batch is zero or not finite; unit-variance "
                "initialization needs a batch of differing faces: check the records"
            )
    return scaled


@partial(jax.jit, static_argnums=0)
def _rescaled(
    architecture: Architecture, params: PyTree, inputs: tuple[Any, ...]
) -> tuple[PyTree, dict[str, Float[Array, ""]]]:
    """Returns the rescaled parameters, and the scale of each layer by its path."""
    scales: dict[str, Array] = {}

    def rescale(layer: Layer, output: Array) -> Array:
        bias = layer.variables["params"]["bias"].astype(output.dtype)
        bias = bias.reshape((1,) * (output.ndim - 1) + bias.shape)
        scale = 1.0 / jnp.std((output - bias).astype(jnp.float32))
        scales["/".join(layer.path)] = scale
        return (output - bias) * scale.astype(output.dtype) + bias

    # The observer keeps values of the trace, which a rematerialized block would hide.
    model = dataclasses.replace(architecture.model, remat=False)
    with observing(rescale):
        CVAE(model).apply({"params": params}, *inputs)
    flat: dict[str, Any] = dict(flax.traverse_util.flatten_dict(params, sep="/"))
    for path, scale in scales.items():
        flat[f"{path}/kernel"] = flat[f"{path}/kernel"] * scale
    return flax.traverse_util.unflatten_dict(flat, sep="/"), scales
