"""Flips bits of a checkpoint, one at a time, and counts what Orbax alone and what the checksums detect.

    python benchmarks/damage.py [--trials 4] [--seed 0]

Every file of a small checkpoint has one random bit flipped `--trials` times. "silent" is a state that was read without
an error and differs from the stored one.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import tempfile
from collections import Counter
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

from ecvae_jax.checkpoints import store as checkpoint
from ecvae_jax.checkpoints.integrity import find_damage
from ecvae_jax.config import ClusterConfig, Config, DataConfig, ModelConfig, TrainConfig
from ecvae_jax.training.loop import restore_state, train


def read(config: Config, workdir: Path) -> list[bytes]:
    """Returns the bytes of state and totals as Orbax restores them, without a check of the checksums."""
    checkpoint.set_damaged_aside = lambda directory: []
    opened = checkpoint.Checkpoints(workdir, config, {})
    try:
        state, totals = restore_state(opened, config)
    finally:
        opened.close()
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)] + [repr(sorted(totals.items())).encode()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    config = Config(
        data=DataConfig(cache="off"),
        clusters=ClusterConfig(count=6),
        model=ModelConfig(image_size=32, widths=(16, 16), z_dim=32, z_grid=4),
        train=TrainConfig(steps=2, batch_size=8),
    )
    tally: Counter[tuple[str, str]] = Counter()
    unnoticed = 0
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        step = workdir / "checkpoints" / str(train(config, workdir).step)
        whole = read(config, workdir)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # threads of Orbax print a traceback for each failure
        for file in sorted(path for path in step.rglob("*") if path.is_file()):
            good = file.read_bytes()
            name = re.sub(r"/[0-9a-f]{32}$", "/*", file.relative_to(step).as_posix())
            for _ in range(options.trials):
                bit = rng.randrange(8 * len(good))
                bad = bytearray(good)
                bad[bit // 8] ^= 1 << bit % 8
                file.write_bytes(bad)
                try:
                    outcome = "harmless" if read(config, workdir) == whole else "silent"
                except Exception:
                    outcome = "noticed"
                tally[name, outcome] += 1
                unnoticed += outcome != "harmless" and find_damage(step) is None
            file.write_bytes(good)
    for (name, outcome), count in sorted(tally.items()):
        print(f"{name:<45} {outcome:<9} {count}")
    sums = Counter({outcome: sum(count for (_, one), count in tally.items() if one == outcome) for _, outcome in tally})
    print(f"Orbax: {dict(sums)}; the checksums missed {unnoticed} of the noticed and silent ones")


if __name__ == "__main__":
    main()
