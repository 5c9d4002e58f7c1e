"""Structural similarity of images (Wang et al. 2004)."""

from __future__ import annotations

from functools import partial

import einops
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_TAPS = np.exp(-((np.arange(7) - 3.0) ** 2) / (2 * 1.5**2))
_TAPS = (_TAPS / _TAPS.sum()).tolist()
"""The window along one axis: Gaussian, 7 pixels, standard deviation 1.5."""


def structural_similarity(first: Float[Array, "b h w 3"], second: Float[Array, "b h w 3"]) -> Float[Array, " b"]:
    """Returns the SSIM of images in [-1, 1], mean over the picture (Wang et al. 2004).

    Window: Gaussian, 7 pixels, standard deviation 1.5; K1 = 0.01, K2 = 0.03; no padding.
    """
    channels = first.shape[-1]
    one, two = (einops.rearrange(image, "b h w c -> b h (w c)") for image in (first, second))
    # The five maps as one: XLA would fuse five smaller programs and compute the rows seven times (benchmarks/ssim.py).
    maps = _smoothed(jnp.concatenate([one, two, one * one, two * two, one * two]), channels)
    mean1, mean2, square1, square2, product = jnp.split(maps, 5)
    c1, c2 = (0.01 * 2.0) ** 2, (0.03 * 2.0) ** 2
    variances = jnp.maximum(square1 - mean1**2 + square2 - mean2**2, 0.0)
    covariance = product - mean1 * mean2
    numerator = (2 * mean1 * mean2 + c1) * (2 * covariance + c2)
    return jnp.mean(numerator / ((mean1**2 + mean2**2 + c1) * (variances + c2)), axis=(1, 2))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _smoothed(maps: Float[Array, "n h wc"], channels: int) -> Float[Array, "n i jc"]:
    """Returns the maps averaged under the window, without padding: six rows and columns fewer.

    With the channels in the axis of the columns every read is of neighbors in memory.
    """
    return _along(_along(maps, 1, 1), 2, channels)


def _along(maps: Float[Array, "n h wc"], axis: int, step: int) -> Array:
    """Returns the maps under the window along one axis, whose neighbors are `step` apart."""
    length = maps.shape[axis] - (len(_TAPS) - 1) * step
    read = partial(jax.lax.slice_in_dim, maps, axis=axis)
    return sum(tap * read(k * step, k * step + length) for k, tap in enumerate(_TAPS))  # pyright: ignore[reportReturnType]


def _forward(maps: Array, channels: int) -> tuple[Array, None]:
    return _smoothed(maps, channels), None


def _backward(channels: int, _: None, gradient: Array) -> tuple[Array]:
    # The window is symmetric: the gradient is averaged under it, over a border of zeros.
    border = len(_TAPS) - 1
    wide = jnp.pad(gradient, ((0, 0), (border, border), (border * channels, border * channels)))
    return (_smoothed(wide, channels),)


_smoothed.defvjp(_forward, _backward)
