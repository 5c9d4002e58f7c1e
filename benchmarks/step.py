"""The training step of this checkout against that of another one, alternating in one process.

    python benchmarks/step.py CONFIG --against CHECKOUT [--batch 8] [--rounds 60]

Random parameters and noise as faces, float32, one step a round and checkout. Ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]


def training_step(checkout: Path, config_path: Path, batch: int) -> Callable[[], Any]:
    """Returns one step of a checkout, compiled. The package is imported from there, whatever was imported before."""
    for name in [name for name in sys.modules if name.split(".")[0] == "ecvae_jax"]:
        del sys.modules[name]
    sys.path.insert(0, str(checkout))
    try:
        from ecvae_jax.cli.runtime import keep_freed_memory, set_platform_flags

        set_platform_flags()
        keep_freed_memory()
        from ecvae_jax.bench.workloads import Training, random_batch
        from ecvae_jax.config import load_config

        config = load_config(config_path)
        config = dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, dtype="float32"),
            train=dataclasses.replace(config.train, batch_size=batch),
        )
        given = random_batch(config)
        training = Training(config, given)
        training.run(given).block_until_ready()
    finally:
        sys.path.remove(str(checkout))
    return lambda: training.run(given).block_until_ready()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config", type=Path)
    parser.add_argument("--against", type=Path, required=True, help="another checkout of the project")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    if options.batch < 1 or options.rounds < 2:
        parser.error(f"--batch {options.batch} --rounds {options.rounds}: must be at least 1 and 2")
    if not (options.against / "ecvae_jax").is_dir():
        parser.error(f"--against {options.against}: must be a checkout, with a folder ecvae_jax")
    checkouts = {"other": options.against.resolve(), "this": HERE}
    steps = {name: training_step(path, options.config.resolve(), options.batch) for name, path in checkouts.items()}
    elapsed: dict[str, list[float]] = {name: [] for name in steps}
    used: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.rounds):
        for name in list(steps)[:: 1 if number % 2 else -1]:
            start, cpu = time.perf_counter(), time.process_time()
            steps[name]()
            elapsed[name].append(1e3 * (time.perf_counter() - start))
            used[name].append(1e3 * (time.process_time() - cpu))
    for name, path in checkouts.items():
        spread = f"{min(elapsed[name]):.1f} to {max(elapsed[name]):.1f}"
        print(f"{name} ({path}): {statistics.median(elapsed[name]):.1f} ms a step, {spread}; "
              f"CPU {statistics.median(used[name]):.1f}")  # fmt: skip
    for kind, times in (("elapsed", elapsed), ("CPU", used)):
        ratios = [other / this for other, this in zip(times["other"], times["this"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        print(f"other / this, {kind}: {statistics.median(ratios):.3f}, quartiles {low:.3f} to {high:.3f}")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
