"""Milliseconds per image of SSIM with its gradient: two banded matrix products (ours) against depthwise convolutions.

    python benchmarks/ssim.py [--image-size 64] [--rounds 7]

Both run alternately in one process. Their values are compared first; the printed ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time

from ecvae_jax.cli.runtime import set_platform_flags

set_platform_flags()

import jax
import jax.numpy as jnp
from jax import Array

from ecvae_jax.model.ssim import structural_similarity


def by_convolution(first: Array, second: Array) -> Array:
    """Returns SSIM an image, n, with the 7-pixel Gaussian window as two depthwise convolutions."""
    window = jnp.exp(-(jnp.arange(-3.0, 4.0) ** 2) / (2 * 1.5**2))
    window = window / window.sum()

    def smooth(maps: Array) -> Array:
        for shape in ((7, 1), (1, 7)):
            kernel = jnp.broadcast_to(window.reshape(*shape, 1, 1), (*shape, 1, 3))
            maps = jax.lax.conv_general_dilated(
                maps, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
            )
        return maps

    c1, c2 = 0.02**2, 0.06**2
    mean1, mean2 = smooth(first), smooth(second)
    variances = smooth(first**2) - mean1**2 + smooth(second**2) - mean2**2
    covariance = smooth(first * second) - mean1 * mean2
    similarity = (2 * mean1 * mean2 + c1) * (2 * covariance + c2) / ((mean1**2 + mean2**2 + c1) * (variances + c2))
    return similarity.mean((1, 2, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    shape = (16, options.image_size, options.image_size, 3)
    first, second = (jax.random.uniform(jax.random.key(i), shape, minval=-1.0) for i in range(2))
    difference = float(jnp.abs(structural_similarity(first, second) - by_convolution(first, second)).max())
    print(f"largest difference of values: {difference:.1e}")
    calls = [
        jax.jit(jax.value_and_grad(lambda a, b, f=f: f(a, b).sum())) for f in (structural_similarity, by_convolution)
    ]
    times: list[list[float]] = [[], []]
    for call in calls:
        jax.block_until_ready(call(first, second))
    for _ in range(options.rounds):
        for taken, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            for _ in range(10):
                jax.block_until_ready(call(first, second))
            taken.append((time.perf_counter() - start) / 10 / shape[0] * 1e3)
    ours, theirs = (statistics.median(taken) for taken in times)
    ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
    print(f"{options.image_size} px: ours {ours:.2f} ms an image, convolutions {theirs:.2f} ms; ratio {ratio:.1f}")


if __name__ == "__main__":
    main()
