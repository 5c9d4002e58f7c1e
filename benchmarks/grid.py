"""A grid of N sources × M targets, drawn as a grid and pair by pair.

    python benchmarks/grid.py [--sources 16] [--targets 16] [--pairs 16] [--rounds 3]

Both draw with the bundled model, the source's pixels laid over. The loop draws `--pairs` pairs of the grid, one call
each. Rounds alternate; the ratio is of seconds a picture. "decoder alone" is the floor of a grid: its pictures, 32 in
a call, from z and conditions at hand.
"""

from __future__ import annotations

import argparse
import statistics
import time

from ecvae_jax.cli.runtime import keep_freed_memory, set_platform_flags

set_platform_flags()
keep_freed_memory()

import jax
import jax.numpy as jnp
import numpy as np

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.data.faces import load_faces
from ecvae_jax.model.cvae import decode
from ecvae_jax.model.model import condition_of
from ecvae_jax.synthesis.adapt import transfer_adapted
from ecvae_jax.synthesis.cross import transfer_cross


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, default in (("sources", 16), ("targets", 16), ("pairs", 16), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    model, faces = load_model(None), load_faces("rendered", "test")
    n, m = options.sources, options.targets
    at = np.linspace(0, len(faces) - 1, n + m).astype(int)
    images = faces.images(at, model.config.model.image_size)
    landmarks = faces.landmarks_as(model.config.data.points)[at]
    sources, targets = (images[:n], landmarks[:n]), landmarks[n:]

    def grid() -> np.ndarray:
        return transfer_cross(model, *sources, targets)

    def loop() -> list[np.ndarray]:
        drawn = []
        for number in range(options.pairs):
            row, column = number % n, number % m
            one, other = slice(row, row + 1), slice(column, column + 1)
            drawn.append(transfer_adapted(model, sources[0][one], sources[1][one], targets[other])[0])
        return drawn

    decoder, z = jax.jit(decode, static_argnums=0), jnp.zeros((32, model.config.model.z_dim))
    condition = condition_of(model, targets[:2])

    def floor() -> None:
        for _ in range(0, n * m, len(z)):
            decoder(model.architecture, model.params, z, condition, model.frozen.z_scale).block_until_ready()

    whole, pairs, _ = grid(), loop(), floor()  # compiles
    off = max(int(np.abs(whole[i % n, i % m].astype(int) - pair).max()) for i, pair in enumerate(pairs))
    print(f"largest difference of a pixel: {off} levels of 255", flush=True)
    ratios = []
    for number in range(options.rounds):
        seconds, cpu = [], []
        for draw, count in ((grid, n * m), (loop, options.pairs), (floor, n * m)):
            start, used = time.perf_counter(), time.process_time()
            draw()
            seconds.append((time.perf_counter() - start) / count)
            cpu.append((time.process_time() - used) / count)
        ratios.append(cpu[1] / cpu[0])
        print(f"round {number + 1}: grid {1e3 * seconds[0]:.1f} ms a picture (CPU {1e3 * cpu[0]:.1f}), pair by pair "
              f"{1e3 * seconds[1]:.1f} (CPU {1e3 * cpu[1]:.1f}), decoder alone {1e3 * seconds[2]:.1f} "
              f"(CPU {1e3 * cpu[2]:.1f})", flush=True)  # fmt: skip
    print(
        f"CPU time, pair by pair / grid: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
