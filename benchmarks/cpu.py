"""Images per second of a training step on CPUs, with and without the settings of `ecvae_jax.cli.runtime`.

    python benchmarks/cpu.py [--rounds 3] [--image-size 64]

"plain" has JAX's defaults. "flag" adds the XLA flag. "both" adds the memory setting too, as the command `ecvae` does.
The variants alternate, each in a separate process, because XLA reads its flags once. On a shared machine only the
median of the ratios within a round is reliable.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

MEASURE = """
import sys, time
import numpy as np
from ecvae_jax.cli.runtime import keep_freed_memory, set_platform_flags
if sys.argv[1] in ("flag", "both"):
    assert set_platform_flags()
if sys.argv[1] == "both":
    assert keep_freed_memory()
import jax
from ecvae_jax.config import Config, ModelConfig, TrainConfig
from ecvae_jax.data.batches import load_faces, training_batches
from ecvae_jax.training.preview import device_views, first_examples
from ecvae_jax.training.parallel import map_step, replicate
from ecvae_jax.training.state import init_state
from ecvae_jax.training.step import make_train_step

size = int(sys.argv[2])
widths = {32: (32, 64), 64: (32, 64, 128), 128: (32, 64, 128, 128), 256: (32, 64, 128, 128, 128)}[size]
config = Config(model=ModelConfig(image_size=size, widths=widths), train=TrainConfig(batch_size=8))
faces = load_faces("rendered", "validation")
state = replicate(init_state(config, faces.landmarks, device_views(first_examples(config, faces))))
batches = training_batches(faces, config.data, size, config.train.batch_size, 0)
step = map_step(make_train_step(config), "shard_map")
for _ in range(3):
    state, metrics = step(state, next(batches))
jax.block_until_ready(metrics)
start, steps = time.perf_counter(), 20
for _ in range(steps):
    state, metrics = step(state, next(batches))
jax.block_until_ready(metrics)
print("images/s", steps * config.train.batch_size / (time.perf_counter() - start))
"""


def measure(setting: str, image_size: int) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["JAX_PLATFORMS"] = "cpu"
    command = [sys.executable, "-c", MEASURE, setting, str(image_size)]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(shown.stdout.rsplit("images/s", 1)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=64, choices=(32, 64, 128, 256))
    options = parser.parse_args()
    rounds = []
    for number in range(options.rounds):
        rounds.append({setting: measure(setting, options.image_size) for setting in ("plain", "flag", "both")})
        shown = ", ".join(f"{setting} {speed:.1f}" for setting, speed in rounds[-1].items())
        print(f"round {number + 1}: {shown} images/s", flush=True)
    for setting in ("flag", "both"):
        ratios = sorted(speeds[setting] / speeds["plain"] for speeds in rounds)
        print(f"{setting} / plain: median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
