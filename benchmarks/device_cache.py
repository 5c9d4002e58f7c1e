"""Time of a training step with the faces in host memory and in the device's, alternating in one run.

Usage: python benchmarks/device_cache.py [--size 64] [--batch 8] [--rounds 7] [--steps 8]
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from pathlib import Path
from typing import Any

import jax

from ecvae_jax.bench.workloads import random_state
from ecvae_jax.config import Config, load_config
from ecvae_jax.data.batches import load_faces, training_batches
from ecvae_jax.training.device_faces import device_images
from ecvae_jax.training.parallel import map_step
from ecvae_jax.training.step import make_train_step


def rendered_config(size: int, batch: int) -> Config:
    """Returns the demo's experiment at 64 px, the bundled model's at 128 px, on the rendered heads."""
    config = load_config(Path(__file__).parents[1] / "configs" / ("demo.py" if size == 64 else "shipped.py"))
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, records="rendered"),
        model=dataclasses.replace(config.model, image_size=size),
        train=dataclasses.replace(config.train, batch_size=batch),
    )


def make_parser(about: str | None) -> argparse.ArgumentParser:
    """Returns a parser of `rendered_config`'s arguments and the number of rounds."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--size", type=int, default=64, choices=(64, 128))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    return parser


def make_config(cache: Any, size: int, batch: int) -> Config:
    config = rendered_config(size, batch)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, cache=cache))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=8, help="steps of a round")
    options = parser.parse_args()
    faces = load_faces("rendered", "train")
    trainings, sent = {}, {}
    for cache in ("host", "device"):
        config = make_config(cache, options.size, options.batch)
        step = map_step(make_train_step(config).with_images(device_images(config, faces)), "shard_map")
        batches = training_batches(faces, config.data, options.size, options.batch, seed=0)
        sent[cache] = sum(value.nbytes for value in next(batches).values())
        state, _ = step(random_state(config), next(batches))
        trainings[cache] = [step, batches, jax.block_until_ready(state)]
    seconds: dict[str, list[float]] = {cache: [] for cache in trainings}
    for _ in range(options.rounds):
        for cache, training in trainings.items():
            step, batches, state = training
            start = time.perf_counter()
            for _ in range(options.steps):
                state, _ = step(state, next(batches))
            training[2] = jax.block_until_ready(state)
            seconds[cache].append((time.perf_counter() - start) / options.steps)
    ratios = [device / host for host, device in zip(seconds["host"], seconds["device"], strict=True)]
    print(f"{jax.default_backend()}, {options.size} px, batch {options.batch}, {options.rounds} rounds")
    for cache, times in seconds.items():
        print(f"{cache:7} {1e3 * statistics.median(times):8.1f} ms a step, {sent[cache] / 1e3:8.1f} kB sent")
    print(f"device / host: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
