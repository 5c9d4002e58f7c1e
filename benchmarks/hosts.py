"""Compares one training in several layouts of processes and devices: losses and checkpoints.

    python benchmarks/hosts.py --folder runs/hosts [--steps 20]

Trains one small experiment on the embedded heads as 1 process × 1 device, 1 × 8 and 2 × 4, each by shard_map and by
pmap. Prints losses and the largest relative difference of any step's loss to that of 1 × 1. Every layout's middle
checkpoint then resumes in every other layout (by shard_map), with the same output for the last step. The processes are
those of `launch/local_multiprocess.sh`. Times on one machine mean nothing and are not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

LAYOUTS = ((1, 1), (1, 8), (2, 4))
EXPERIMENT = {
    "data": {"cache": True},
    "clusters": {"count": 8},
    "model": {"image_size": 32, "patch": 4, "widths": [16, 32], "z_dim": 64, "z_grid": 4},
    "objective": {"beta_ramp": 0.0},
    "optim": {"warmup_steps": 2},
}


def train(layout: tuple[int, int], parallel: str, config: Path, workdir: Path) -> None:
    """Runs one training to its end in a layout."""
    processes, devices = layout
    words = [str(processes), str(devices), str(config.absolute()), "--workdir", str(workdir.absolute())]
    command = ["bash", "launch/local_multiprocess.sh", *words, "--train.parallel", parallel]
    environment = {**os.environ, "ECVAE_READY_PYTHON": sys.executable}
    ended = subprocess.run(command, cwd=Path(__file__).parent.parent, env=environment, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")


def losses(workdir: Path) -> dict[int, float]:
    """Returns the loss of every step."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row["loss"] for row in map(json.loads, lines)}


def name(layout: tuple[int, int]) -> str:
    """Returns "processes × devices"."""
    return f"{layout[0]} × {layout[1]}"


def main() -> None:
    """Trains, and prints two tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--folder", type=Path, required=True, help="folder to create")
    parser.add_argument("--steps", type=int, default=20, help="steps of each training")
    options = parser.parse_args()
    half = options.steps // 2
    options.folder.mkdir(parents=True)
    config = options.folder / "config.json"
    train_section = {"steps": options.steps, "batch_size": 8, "log_every": 1, "checkpoint_every": half}
    config.write_text(json.dumps({**EXPERIMENT, "train": train_section}))

    shown = sorted({1, 2, half, options.steps})
    titles = ["processes × devices", "map", *(f"loss, step {step}" for step in shown), "largest difference"]
    print(f"| {' | '.join(titles)} |")
    print("|---|---|" + "---|" * (len(shown) + 1))
    first: dict[int, float] = {}
    for layout in LAYOUTS:
        for parallel in ("shard_map", "pmap"):
            workdir = options.folder / f"{layout[0]}x{layout[1]}-{parallel}"
            train(layout, parallel, config, workdir)
            found = losses(workdir)
            first = first or found
            apart = max(abs(found[step] / first[step] - 1) for step in first)
            values = " | ".join(f"{found[step]:.3f}" for step in shown)
            print(f"| {name(layout)} | {parallel} | {values} | {apart:.1e} |", flush=True)

    print(f"\n| stored at step {half} in | resumed in | loss, step {options.steps} | difference to 1 × 1 |")
    print("|---|---|---|---|")
    for written in LAYOUTS:
        for layout in LAYOUTS:
            if layout == written:
                continue
            workdir = options.folder / f"from-{written[0]}x{written[1]}-in-{layout[0]}x{layout[1]}"
            shutil.copytree(options.folder / f"{written[0]}x{written[1]}-shard_map", workdir)
            shutil.rmtree(workdir / "checkpoints" / str(options.steps))
            train(layout, "shard_map", config, workdir)
            last = losses(workdir)[options.steps]
            apart = abs(last / first[options.steps] - 1)
            print(f"| {name(written)} | {name(layout)} | {last:.3f} | {apart:.1e} |", flush=True)


if __name__ == "__main__":
    main()
