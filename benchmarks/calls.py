"""Four training steps in one call (`train.steps_per_call`) against four single steps.

    python -m benchmarks.calls [--config configs/demo.py] [--rounds 7]

Rounds alternate in one process. Ratios are of elapsed and of CPU time; above 1 the single steps are faster.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ecvae_jax.cli.runtime import keep_freed_memory, set_platform_flags

set_platform_flags()
keep_freed_memory()

import jax
import numpy as np

from benchmarks.costs import Ratios, timed
from ecvae_jax.bench.workloads import random_batch, random_state
from ecvae_jax.config import load_config
from ecvae_jax.training.parallel import map_step, map_steps, place_batch
from ecvae_jax.training.step import make_train_step, read_by_step

STEPS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.py"))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    config = load_config(options.config)
    step, batch = make_train_step(config), read_by_step(config, random_batch(config))
    one, several = map_step(step, "shard_map"), map_steps(step, "shard_map")
    stacked = place_batch({name: np.stack([value] * STEPS) for name, value in batch.items()}, "shard_map", True)
    states = [random_state(config), random_state(config)]

    def single() -> None:
        for _ in range(STEPS):
            states[0], metrics = one(states[0], batch)
        jax.block_until_ready(metrics)

    def together() -> None:
        states[1], metrics = several(states[1], stacked, STEPS)
        jax.block_until_ready(metrics)

    single()
    together()
    ratios = Ratios(f"{STEPS} steps in a call / single steps")
    for _ in range(options.rounds):
        ratios.add(timed(together, STEPS), timed(single, STEPS))
    ratios.print_summary()


if __name__ == "__main__":
    main()
