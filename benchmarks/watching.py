"""Images per second of training steps with and without `ecvae_jax.training.monitor`, on CPUs.

    python benchmarks/watching.py [--rounds 15]

The model is small, with steps of some tens of milliseconds, so that overhead shows. Both variants alternate in one
process with the same compiled step. On a shared machine trust the median of the ratios within a round; on a busy one
the ratio of CPU time, which includes the watchdog's thread.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

from ecvae_jax.cli.runtime import keep_freed_memory, set_platform_flags

set_platform_flags()
keep_freed_memory()

import jax

from ecvae_jax.config import Config, ModelConfig, TrainConfig
from ecvae_jax.data.batches import load_faces, training_batches
from ecvae_jax.training.monitor import StepMonitor
from ecvae_jax.training.parallel import map_step, replicate
from ecvae_jax.training.preview import device_views, first_examples
from ecvae_jax.training.state import init_state
from ecvae_jax.training.step import make_train_step

STEPS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    model = ModelConfig(image_size=32, widths=(16, 16), z_dim=32, z_grid=4)
    config = Config(model=model, train=TrainConfig(batch_size=8))
    faces = load_faces("rendered", "validation")
    state = replicate(init_state(config, faces.landmarks, device_views(first_examples(config, faces))))
    batches = training_batches(faces, config.data, 32, config.train.batch_size, 0)
    step = map_step(make_train_step(config), "shard_map")
    number = 0
    ratios, costs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.rounds + 1):
            speeds, spent = {}, {}
            for watched in (False, True) if turn % 2 else (True, False):
                monitor = StepMonitor(config.train, Path(folder), -1, None, print) if watched else None
                with monitor or contextlib.nullcontext():
                    start, busy = time.perf_counter(), time.process_time()
                    for _ in range(STEPS):
                        number += 1
                        with monitor.step(number) if monitor else contextlib.nullcontext():
                            state, metrics = step(state, next(batches))
                        if monitor:
                            monitor.dispatched(number, metrics)
                    jax.block_until_ready(metrics)
                    speeds[watched] = STEPS * config.train.batch_size / (time.perf_counter() - start)
                    spent[watched] = time.process_time() - busy
            if turn:  # the first one compiles
                ratios.append(speeds[True] / speeds[False])
                costs.append(spent[True] / spent[False])
                print(f"round {turn}: {speeds[False]:.1f} alone, {speeds[True]:.1f} watched, images/s", flush=True)
    for name, values in (("images/s", ratios), ("CPU time", costs)):
        low, high = min(values), max(values)
        print(f"watched / alone, {name}: median {statistics.median(values):.3f}, {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
