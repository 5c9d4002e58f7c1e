"""GFLOP/s of 3 × 3 convolutions on CPUs: XLA's and PyTorch's, forward and both gradients.

    pip install -e .[bench]
    python -m benchmarks.convolutions [--rounds 15]

float32, channels last, batch 4, alternating in one process; medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from ecvae_jax.cli.runtime import keep_freed_memory, set_platform_flags

set_platform_flags()
keep_freed_memory()

import jax
import jax.numpy as jnp
import numpy as np
import torch

SHAPES = ((128, 32), (64, 64), (32, 128), (16, 128), (8, 256))
"""Side and channels of the maps, as in configs/paper_256.py."""
BATCH = 4
PAUSE = 0.1
"""Seconds before each library: PyTorch's threads spin for some milliseconds after their work."""
REPEATS = 4


def ours(maps: np.ndarray, kernel: np.ndarray, gradient: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Returns XLA's forward pass, gradient of the maps and gradient of the kernel."""

    def convolved(maps: jax.Array, kernel: jax.Array) -> jax.Array:
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(maps, kernel, (1, 1), "SAME", dimension_numbers=dimensions)

    parts = {
        "forward": lambda x, w, g: convolved(x, w),
        "maps": lambda x, w, g: jax.vjp(lambda x: convolved(x, w), x)[1](g)[0],
        "kernel": lambda x, w, g: jax.vjp(lambda w: convolved(x, w), w)[1](g)[0],
    }
    given = [jnp.asarray(part) for part in (maps, kernel, gradient)]
    jitted = {name: jax.jit(part) for name, part in parts.items()}
    return {name: lambda part=part: part(*given).block_until_ready() for name, part in jitted.items()}


def theirs(maps: np.ndarray, kernel: np.ndarray, gradient: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Returns the same of PyTorch."""

    def channels_last(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(memory_format=torch.channels_last)

    x, g = (channels_last(np.ascontiguousarray(part.transpose(0, 3, 1, 2))) for part in (maps, gradient))
    w = channels_last(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
    backward, one = torch.ops.aten.convolution_backward, [1, 1]

    def gradient_of(*wanted: bool) -> Callable[[], Any]:
        return lambda: backward(g, x, w, None, one, one, one, False, [0, 0], 1, [*wanted, False])

    return {
        "forward": lambda: torch.nn.functional.conv2d(x, w, padding=1),
        "maps": gradient_of(True, False),
        "kernel": gradient_of(False, True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    print(f"jax {jax.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads; GFLOP/s: forward, "
          "gradient of the maps, gradient of the kernel")  # fmt: skip
    for side, channels in SHAPES:
        shapes = (BATCH, side, side, channels), (3, 3, channels, channels), (BATCH, side, side, channels)
        arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        flops = 2 * 9 * BATCH * side**2 * channels**2
        libraries = {"XLA": ours(*arrays), "PyTorch": theirs(*arrays)}
        times: dict[tuple[str, str], list[float]] = defaultdict(list)
        for number in range(rounds + 1):  # the first compiles
            for library, calls in libraries.items():
                time.sleep(PAUSE)
                for call in calls.values():  # wakes the threads
                    call()
                for name, call in calls.items():
                    start = time.perf_counter()
                    for _ in range(REPEATS):
                        call()
                    if number:
                        times[library, name].append((time.perf_counter() - start) / REPEATS)
        found = {key: flops / statistics.median(seconds) / 1e9 for key, seconds in times.items()}
        row = "; ".join(
            f"{library} {', '.join(f'{found[library, part]:.0f}' for part in ('forward', 'maps', 'kernel'))}"
            for library in ("XLA", "PyTorch")
        )
        print(f"{side} × {side} × {channels}: {row}", flush=True)


if __name__ == "__main__":
    main()
