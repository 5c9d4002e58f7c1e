"""LPIPS: distance of two images in the features of a network trained on ImageNet (Zhang et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

Net = Literal["vgg16", "alexnet"]

_SHIFT = np.array([[[[-0.030, -0.088, -0.188]]]], np.float32)  # mean of ImageNet's colors, for images in [-1, 1]
_SCALE = np.array([[[[0.458, 0.448, 0.450]]]], np.float32)  # their standard deviation
_TINY = 1e-10  # added to the squared length of a feature vector: bounds the gradient where all features are 0


class _Block(NamedTuple):
    """Convolutions with ReLU between two taps; the tap is the output of the last one."""

    convolutions: int
    pool: int = 0
    """Window of the maximum before the block, with stride 2; 0: none."""
    stride: int = 1
    padding: int = 1


_BLOCKS: dict[Net, tuple[_Block, ...]] = {
    "vgg16": (_Block(2), _Block(2, pool=2), _Block(3, pool=2), _Block(3, pool=2), _Block(3, pool=2)),
    "alexnet": (_Block(1, stride=4, padding=2), _Block(1, pool=3, padding=2), _Block(1, pool=3), _Block(1), _Block(1)),
}


class PerceptualWeights(NamedTuple):
    """The frozen arrays of LPIPS: neither parameters nor part of a checkpoint."""

    kernels: tuple[Float[Array | np.ndarray, "kh kw i o"], ...]
    """One a convolution, up to the last tap in use."""
    biases: tuple[Float[Array | np.ndarray, " o"], ...]
    channels: tuple[Float[Array | np.ndarray, " o"], ...]
    """One a tap in use: the weight of each channel's squared difference, at least 0."""


def convolutions_until(net: Net, tap: int) -> int:
    """Returns the number of convolutions up to a tap, counted from 1."""
    return sum(block.convolutions for block in _BLOCKS[net][:tap])


def lpips(
    net: Net,
    taps: Sequence[int],
    weights: PerceptualWeights,
    first: Float[Array, "b h w 3"],
    second: Float[Array, "b h w 3"],
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, " b"]:
    """Returns the LPIPS of images in [-1, 1], at least 0: the sum over taps of Eq. (1) of Zhang et al. 2018.

    https://arxiv.org/abs/1801.03924, version 0.1. Equal images have 0, up to rounding.

    Args:
        taps: 1 to 5, increasing, those of `weights`.
        dtype: of the convolutions; lengths and means are float32.
    """
    pairs = (_features(net, taps, weights, images, dtype) for images in (first, second))
    total = jnp.zeros(first.shape[0], jnp.float32)
    for a, b, channels in zip(*pairs, weights.channels, strict=True):
        total += jnp.mean(jnp.sum(jnp.square(a - b) * channels[None, None, None], axis=-1), axis=(1, 2))
    return total


def resize(images: Float[Array, "b h w 3"], side: int) -> Float[Array, "b s s 3"]:
    """Returns square images at another resolution: linear, antialiased; unchanged if `side` is 0 or their own."""
    if side in (0, images.shape[1]):
        return images
    return jax.image.resize(images, (images.shape[0], side, side, 3), "linear")


def _features(
    net: Net, taps: Sequence[int], weights: PerceptualWeights, images: Float[Array, "b h w 3"], dtype: DTypeLike
) -> list[Float[Array, "b i j c"]]:
    """Returns the features at the taps, scaled to unit length at each pixel, float32."""
    values = ((images - _SHIFT) / _SCALE).astype(dtype)
    layers = iter(zip(weights.kernels, weights.biases, strict=True))
    found = []
    for tap, block in enumerate(_BLOCKS[net][: max(taps)], 1):
        values = _pool(values, block.pool) if block.pool else values
        for _ in range(block.convolutions):
            kernel, bias = next(layers)
            values = jax.lax.conv_general_dilated(
                values,
                jnp.asarray(kernel, dtype),
                (block.stride, block.stride),
                [(block.padding, block.padding)] * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            values = jax.nn.relu(values + bias[None, None, None].astype(dtype))
        if tap in taps:
            wide = values.astype(jnp.float32)
            found.append(wide * jax.lax.rsqrt(jnp.sum(jnp.square(wide), axis=-1, keepdims=True) + _TINY))
    return found


def _pool(values: Float[Array, "b h w c"], window: int) -> Float[Array, "b i j c"]:
    """Returns maxima of windows with stride 2, without padding."""
    if window == 2:  # XLA's gradient of reduce_window is a scatter, which is slow on a CPU (benchmarks/perceptual.py)
        b, h, w, c = values.shape
        even = values[:, : h // 2 * 2, : w // 2 * 2]
        return jnp.max(even.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))
    sides = (1, window, window, 1)
    return jax.lax.reduce_window(values, -jnp.inf, jax.lax.max, sides, (1, 2, 2, 1), "VALID")
