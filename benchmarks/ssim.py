"""Milliseconds per image of SSIM with its gradient: by sums of shifted maps (ours), products or convolutions.

    python benchmarks/ssim.py [--image-size 64] [--rounds 7]

They run alternately in one process. Their values are compared first; the ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

from ecvae_jax.cli.runtime import set_platform_flags

set_platform_flags()

import jax
import jax.numpy as jnp
from jax import Array

from ecvae_jax.model.ssim import structural_similarity


def window() -> Array:
    """Returns the 7 pixels of the Gaussian window."""
    values = jnp.exp(-(jnp.arange(-3.0, 4.0) ** 2) / (2 * 1.5**2))
    return values / values.sum()


def convolved(maps: Array) -> Array:
    """Returns the maps under the window, by two depthwise convolutions."""
    for shape in ((7, 1), (1, 7)):
        kernel = jnp.broadcast_to(window().reshape(*shape, 1, 1), (*shape, 1, 3))
        maps = jax.lax.conv_general_dilated(
            maps, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
        )
    return maps


def multiplied(maps: Array) -> Array:
    """Returns the maps under the window, by two products with banded matrices."""
    band = jnp.stack([jnp.pad(window(), (row, maps.shape[1] - row - 7)) for row in range(maps.shape[1] - 6)])
    return jnp.einsum("ih,bhwc,jw->bijc", band, maps, band, precision=jax.lax.Precision.HIGHEST)


def similarity(smooth: Callable[[Array], Array], first: Array, second: Array) -> Array:
    """Returns SSIM an image, n."""
    c1, c2 = 0.02**2, 0.06**2
    mean1, mean2 = smooth(first), smooth(second)
    variances = smooth(first**2) - mean1**2 + smooth(second**2) - mean2**2
    covariance = smooth(first * second) - mean1 * mean2
    found = (2 * mean1 * mean2 + c1) * (2 * covariance + c2) / ((mean1**2 + mean2**2 + c1) * (variances + c2))
    return found.mean((1, 2, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    shape = (16, options.image_size, options.image_size, 3)
    first, second = (jax.random.uniform(jax.random.key(i), shape, minval=-1.0) for i in range(2))
    ways = {
        "ours": structural_similarity,
        "products": partial(similarity, multiplied),
        "convolutions": partial(similarity, convolved),
    }
    values = [way(first, second) for way in ways.values()]
    print(f"largest difference of values: {max(float(jnp.abs(values[0] - other).max()) for other in values[1:]):.1e}")
    calls = {name: jax.jit(jax.value_and_grad(lambda a, b, way=way: way(a, b).sum())) for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for call in calls.values():
        jax.block_until_ready(call(first, second))
    for _ in range(options.rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(10):
                jax.block_until_ready(call(first, second))
            times[name].append((time.perf_counter() - start) / 10 / shape[0] * 1e3)
    for name, taken in times.items():
        ratio = statistics.median(b / a for a, b in zip(times["ours"], taken, strict=True))
        print(f"{options.image_size} px, {name}: {statistics.median(taken):.2f} ms an image, {ratio:.1f} times ours")


if __name__ == "__main__":
    main()
