"""Time of a training step with and without the LPIPS term, alternating in one run.

Usage: python benchmarks/perceptual.py [--size 64] [--batch 8] [--rounds 7]
"""

from __future__ import annotations

import dataclasses
import statistics
import time

import jax
import numpy as np
from device_cache import make_parser, rendered_config

from ecvae_jax.config import Config
from ecvae_jax.data.batches import load_faces, training_batches
from ecvae_jax.training.parallel import map_step, replicate
from ecvae_jax.training.preview import device_views
from ecvae_jax.training.state import init_state
from ecvae_jax.training.step import make_train_step

VARIANTS = {
    "off": {},
    "taps 1-4": {},
    "taps 1-4, every 4": {"perceptual_every": 4},
    "taps 1-3": {"perceptual_taps": (1, 2, 3)},
    "taps 1-3, 64 px": {"perceptual_taps": (1, 2, 3), "perceptual_resolution": 64},
    "taps 1-3, 64 px, every 4": {
        "perceptual_taps": (1, 2, 3),
        "perceptual_resolution": 64,
        "perceptual_every": 4,
    },
}


def make_config(name: str, size: int, batch: int) -> Config:
    config, weight = rendered_config(size, batch), 0.0 if name == "off" else 0.5
    objective = dataclasses.replace(config.objective, perceptual_weight=weight, **VARIANTS[name])
    return dataclasses.replace(config, objective=objective)


def main() -> None:
    parser = make_parser(__doc__)
    options = parser.parse_args()
    first = make_config("off", options.size, options.batch)
    faces = load_faces("rendered", "train")
    uncached = dataclasses.replace(first.data, cache="off")
    batch = next(training_batches(faces, uncached, options.size, options.batch, 0))
    start = jax.device_get(init_state(first, faces.landmarks_as(first.data.points), device_views(batch)))
    steps, seconds = {}, {name: [] for name in VARIANTS}
    names = [name for name in VARIANTS if options.size > 64 or "64 px" not in name]
    for name in names:
        config = make_config(name, options.size, options.batch)
        step, every = make_train_step(config), config.objective.perceptual_every
        both = [map_step(step, "shard_map"), map_step(step.without_perceptual(), "shard_map")]
        steps[name] = [both[number % every > 0] for number in range(4)], replicate(start)
    for turn in range(options.rounds + 1):  # the first compiles
        for name in names:
            period, state = steps[name]
            began = time.perf_counter()
            for step in period:
                state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
            steps[name] = period, state
            if turn:
                seconds[name].append((time.perf_counter() - began) / 4)
    print(
        f"{options.size} px, batch {options.batch}, {options.rounds} rounds of 4 steps, {jax.devices()[0].device_kind}"
    )
    off = statistics.median(seconds["off"])
    for name in names:
        ratios = np.array(seconds[name]) / np.array(seconds["off"])
        median = statistics.median(seconds[name])
        spread = f"{ratios.min():.2f} to {ratios.max():.2f}"
        print(f"{name:26} {1000 * median:8.1f} ms a step, {median / off:5.2f} of off ({spread})")


if __name__ == "__main__":
    main()
