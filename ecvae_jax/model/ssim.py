"""Structural similarity of images (Wang et al. 2004)."""

from __future__ import annotations

from functools import partial
from typing import cast

import einops
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_Maps = tuple[Array, ...]
"""Each b h w·c."""

_WINDOW = np.exp(-((np.arange(7) - 3.0) ** 2) / (2 * 1.5**2))
_TAPS: list[float] = (_WINDOW / _WINDOW.sum()).tolist()
"""The window along one axis: Gaussian, 7 pixels, standard deviation 1.5."""


def structural_similarity(first: Float[Array, "b h w 3"], second: Float[Array, "b h w 3"]) -> Float[Array, " b"]:
    """Returns the SSIM of images in [-1, 1], mean over the picture (Wang et al. 2004).

    Window: Gaussian, 7 pixels, standard deviation 1.5; K1 = 0.01, K2 = 0.03; no padding. `second` is a constant: it has
    no gradient.
    """
    channels = first.shape[-1]
    images = first, jax.lax.stop_gradient(second)
    one, two = (einops.rearrange(image, "b h w c -> b h (w c)") for image in images)
    smoothed = _smoothed((one, one * one + two * two, one * two), two, channels)
    mean1, squares, product, mean2 = cast(_Maps, smoothed)
    c1, c2 = (0.01 * 2.0) ** 2, (0.03 * 2.0) ** 2
    variances = jnp.maximum(squares - mean1**2 - mean2**2, 0.0)
    covariance = product - mean1 * mean2
    numerator = (2 * mean1 * mean2 + c1) * (2 * covariance + c2)
    return jnp.mean(numerator / ((mean1**2 + mean2**2 + c1) * (variances + c2)), axis=(1, 2))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _smoothed(maps: _Maps, constant: Array, channels: int) -> _Maps:
    """Returns the maps, then the constant one, averaged under the window, without padding: six rows and columns fewer.

    With the channels in the axis of the columns every read is of neighbors in memory.
    """
    # As one array: XLA would fuse four smaller programs, and compute the rows seven times (benchmarks/ssim.py).
    both = _along(_along(jnp.concatenate([*maps, constant]), 1, 1), 2, channels)
    return tuple(jnp.split(both, len(maps) + 1))


def _along(maps: Float[Array, "n h wc"], axis: int, step: int) -> Array:
    """Returns the maps under the window along one axis, whose neighbors are `step` apart."""
    length = maps.shape[axis] - (len(_TAPS) - 1) * step
    read = partial(jax.lax.slice_in_dim, maps, axis=axis)
    return sum(tap * read(k * step, k * step + length) for k, tap in enumerate(_TAPS))  # pyright: ignore[reportReturnType]


def _forward(maps: _Maps, constant: Array, channels: int) -> tuple[_Maps, None]:
    return _smoothed(maps, constant, channels), None


def _backward(channels: int, _: None, gradients: _Maps) -> tuple[_Maps, None]:
    gradients = gradients[:-1]
    # The window is symmetric: the gradients are averaged under it, over a border of zeros. They are written into it:
    # XLA's code for padding what it computes takes ten times as long.
    count, rows, columns = gradients[0].shape
    border = len(_TAPS) - 1
    wide = jnp.zeros((len(gradients) * count, rows + 2 * border, columns + 2 * border * channels), gradients[0].dtype)
    for number, gradient in enumerate(gradients):
        wide = jax.lax.dynamic_update_slice(wide, gradient, (number * count, border, border * channels))
    both = _along(_along(wide, 1, 1), 2, channels)
    return tuple(jnp.split(both, len(gradients))), None


_smoothed.defvjp(_forward, _backward)
