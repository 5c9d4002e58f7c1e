"""Group normalization and SiLU as one function, with a gradient that keeps only its input.

Flax's GroupNorm splits the channel axis into groups. XLA's CPU code then reads maps several times more slowly: 32
channels at 128 × 128, batch 4, take 6.2 ms of CPU time there and 1.3 ms here (docs/measurements/speed.md).
"""

from __future__ import annotations

from functools import partial

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

EPSILON = 1e-6
"""Added to a group's variance, as in Flax."""

_Residuals = tuple[Array, Array, Array, Array, Array]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalized_silu(
    maps: Float[Array, "b h w c"], scale: Float[Array, " c"], bias: Float[Array, " c"], groups: int
) -> Float[Array, "b h w c"]:
    """Returns SiLU(scale · x̂ + bias), of the type of `maps`; x̂ has mean 0 and variance 1 in each group of channels.

    Statistics and everything before the result are float32. Wu & He 2018, https://arxiv.org/abs/1803.08494.
    """
    return _normalized_silu(maps, scale, bias, groups)


class GroupNorm(nn.Module):
    """Group normalization followed by SiLU; the parameters have the names of `nn.GroupNorm`."""

    num_groups: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, maps: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns SiLU of the normalized maps."""
        shape = (maps.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        result = normalized_silu(maps, scale, bias, self.num_groups)
        assert isinstance(result, jax.Array)
        return result.astype(self.dtype)


@partial(jax.jit, static_argnums=3)  # a name in the traced program, by which an export finds it
def _normalized_silu(maps: Array, scale: Array, bias: Array, groups: int) -> Array:
    return _forward(maps, scale, bias, groups)[0]


def _forward(maps: Array, scale: Array, bias: Array, groups: int) -> tuple[Array, _Residuals]:
    values = maps.astype(jnp.float32)
    # Sums per channel first: a reduction over part of the channel axis is slow.
    mean = _group_mean(jnp.sum(values, (1, 2)), groups, maps.shape)
    square = _group_mean(jnp.sum(values * values, (1, 2)), groups, maps.shape)
    inverse = jax.lax.rsqrt(jnp.maximum(square - mean * mean, 0.0) + EPSILON)
    before = _normalized(values, mean, inverse * scale[None], bias)
    return (before * jax.nn.sigmoid(before)).astype(maps.dtype), (maps, scale, bias, mean, inverse)


def _backward(groups: int, residuals: _Residuals, gradient: Array) -> tuple[Array, Array, Array]:
    parted, whole = (partial(_gradients, groups, barriers) for barriers in (True, False))
    if residuals[0].dtype == jnp.float32:
        return parted(residuals, gradient)
    # In half precision the barriers take 9% off the bytes of an H100's step and add 8% to a TPU v5e's (by compilers).
    return jax.lax.platform_dependent(residuals, gradient, cuda=parted, rocm=parted, default=whole)


def _gradients(groups: int, barriers: bool, residuals: _Residuals, gradient: Array) -> tuple[Array, Array, Array]:
    maps, scale, bias, mean, inverse = residuals
    factor = inverse * scale[None]
    values, inner = _inner_gradient(maps, gradient, mean, factor, bias)
    # Sums over pixels of the gradient, and of the gradient times x̂: the gradients of bias and scale.
    plain = jnp.sum(inner, (1, 2))
    if barriers:  # else XLA sums over pixels and batch in a pass of its own for the bias
        plain = jax.lax.optimization_barrier(plain)
    along = (jnp.sum(inner * values, (1, 2)) - mean * plain) * inverse
    # d/dx of x̂ = (x - mean) · inverse: the mean over the group, and the part along x̂, drop out.
    shift = _group_mean(plain * scale[None], groups, maps.shape) * inverse
    slope = _group_mean(along * scale[None], groups, maps.shape) * inverse * inverse
    if barriers and maps.dtype != jnp.float32:  # maps are read again; else XLA keeps `inner`, of twice their bytes
        maps, gradient = jax.lax.optimization_barrier((maps, gradient))
        values, inner = _inner_gradient(maps, gradient, mean, factor, bias)
    centered = values - _over_pixels(mean)
    outer = inner * _over_pixels(factor) - _over_pixels(shift) - centered * _over_pixels(slope)
    return outer.astype(maps.dtype), jnp.sum(along, 0), jnp.sum(plain, 0)


normalized_silu.defvjp(_forward, _backward)


def _inner_gradient(
    maps: Float[Array, "b h w c"], gradient: Array, mean: Array, factor: Array, bias: Array
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
    """Returns the maps and the gradient before SiLU, both float32."""
    values = maps.astype(jnp.float32)
    before = _normalized(values, mean, factor, bias)
    gate = jax.nn.sigmoid(before)
    return values, gradient.astype(jnp.float32) * (gate * (1.0 + before * (1.0 - gate)))


def _group_mean(sums: Float[Array, "b c"], groups: int, shape: tuple[int, ...]) -> Float[Array, "b c"]:
    """Returns each channel's mean over its group, from the channels' sums over pixels."""
    _, height, width, channels = shape
    size = channels // groups
    totals = jnp.sum(einops.rearrange(sums, "b (g c) -> b g c", g=groups), -1) / (height * width * size)
    return einops.repeat(totals, "b g -> b (g c)", c=size)


def _over_pixels(channels: Float[Array, "b c"]) -> Float[Array, "b 1 1 c"]:
    return channels[:, None, None, :]


def _normalized(values: Array, mean: Array, factor: Array, bias: Array) -> Array:
    return (values - _over_pixels(mean)) * _over_pixels(factor) + _over_pixels(bias[None])
