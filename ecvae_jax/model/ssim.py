"""Structural similarity of images (Wang et al. 2004)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def structural_similarity(first: Float[Array, "b h w 3"], second: Float[Array, "b h w 3"]) -> Float[Array, " b"]:
    """Returns the SSIM of images in [-1, 1], mean over the picture (Wang et al. 2004).

    Window: Gaussian, 7 pixels, standard deviation 1.5; K1 = 0.01, K2 = 0.03; no padding.
    """
    # Two banded matrix products give the values of a depthwise convolution and are many times faster on a CPU, gradient
    # included (benchmarks/ssim.py).
    rows, columns = (jnp.asarray(_ssim_window(side), first.dtype) for side in first.shape[1:3])

    def smooth(maps: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
        # The variances below are differences of nearly equal numbers: TPUs and GPUs must not multiply in fewer bits.
        return jnp.einsum("ih,bhwc,jw->bijc", rows, maps, columns, precision=jax.lax.Precision.HIGHEST)

    c1, c2 = (0.01 * 2.0) ** 2, (0.03 * 2.0) ** 2
    mean1, mean2 = smooth(first), smooth(second)
    variances = jnp.maximum(smooth(first**2) - mean1**2 + smooth(second**2) - mean2**2, 0.0)
    covariance = smooth(first * second) - mean1 * mean2
    numerator = (2 * mean1 * mean2 + c1) * (2 * covariance + c2)
    return jnp.mean(numerator / ((mean1**2 + mean2**2 + c1) * (variances + c2)), axis=(1, 2, 3))


def _ssim_window(side: int, size: int = 7, stddev: float = 1.5) -> np.ndarray:
    weights = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * stddev**2))
    window = np.zeros((side - size + 1, side), np.float32)
    for row in range(len(window)):
        window[row, row : row + size] = weights / weights.sum()
    return window
