"""CPU time of our training step and of the PyTorch twin's, the sketch given to both: for a machine with other work.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.torch_cpu_time configs/paper_256.py [--batch 4] [--rounds 4]

Other work changes elapsed time by factors, and CPU time little. PyTorch's threads must sleep while they wait, not
spin: hence the variable. Rounds alternate in one process; the ratio is PyTorch's time over ours. Eager,
channels-last, float32, as in `torch_twin`.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

from ecvae_jax.cli.runtime import keep_freed_memory, set_platform_flags

set_platform_flags()
keep_freed_memory()

import jax
import numpy as np
import torch

from benchmarks.costs import Cost, timed
from benchmarks.torch_twin import Call, Twin, for_twin, ours_given, torch_call
from ecvae_jax.bench.workloads import random_state
from ecvae_jax.config import load_config
from ecvae_jax.data.batches import load_faces, training_batches
from ecvae_jax.training.step import read_by_step

STEPS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config", type=Path)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    config = for_twin(load_config(options.config), None, options.batch)
    size, count = config.model.image_size, config.train.batch_size
    batches = training_batches(load_faces("rendered", "train"), config.data, size, count, 0)
    batch, state = read_by_step(config, next(batches)), jax.device_get(random_state(config))
    twin = Twin(config, state.params, state.frozen)
    names = [name for name in ("source_landmarks", "landmarks") if name in batch]
    with torch.no_grad():
        drawn = [twin.sketch(torch.from_numpy(batch[name].copy())) for name in names]
    sketches = [np.ascontiguousarray(each.permute(0, 2, 3, 1)) for each in drawn]
    calls: dict[str, Call] = {
        "ours": ours_given(config, batch, sketches),
        "torch": torch_call(twin, batch, True, False),
    }

    def run(call: Call) -> None:
        for _ in range(STEPS):
            result = call()
        jax.block_until_ready(result)

    for call in calls.values():
        run(call)
    found: dict[str, list[Cost]] = {name: [] for name in calls}
    for _ in range(options.rounds):
        for name, call in calls.items():
            found[name].append(timed(lambda call=call: run(call), STEPS))
    for name, costs in found.items():
        print(f"{name}: CPU {statistics.median(cost.cpu for cost in costs):.3f} s a step")
    ratios = sorted(other.cpu / own.cpu for own, other in zip(found["ours"], found["torch"], strict=True))
    print(f"{options.config.stem}, batch {count}: torch / ours, CPU time {statistics.median(ratios):.2f} "
          f"({ratios[0]:.2f} to {ratios[-1]:.2f}); load {os.getloadavg()[0]:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
