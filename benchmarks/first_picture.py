"""Seconds of `ecvae transfer` to its first picture: without a compile cache, and with the one that it filled.

    python benchmarks/first_picture.py [--against CHECKOUT] [--rounds 3]

Each run is a process of its own, with the bundled model and rendered faces. Rounds alternate between this checkout and
another one. CPU time counts all threads, and other work on the machine disturbs it less.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ecvae_jax.cli.runtime import VARIABLE

COMMAND = ["transfer", "--source", "rendered:test:0", "--target", "rendered:test:24", "--checkpoint", "face128"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--against", type=Path, help="another checkout of the project")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    here = Path(__file__).parents[1]
    checkouts = [here] if options.against is None else [options.against.absolute(), here]
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(options.rounds):
        for checkout in checkouts:
            with tempfile.TemporaryDirectory() as folder:
                for cache in ("no cache", "cache"):
                    found.setdefault((checkout.name, cache), []).append(run(checkout, Path(folder)))
    for (name, cache), times in found.items():
        elapsed, used = zip(*times, strict=True)
        print(f"{name}, {cache}: {spread(elapsed)} elapsed, {spread(used)} CPU")


def run(checkout: Path, folder: Path) -> tuple[float, float]:
    """Returns elapsed and CPU seconds of one process, with its compile cache in the folder."""
    cache = folder / "cache"
    cache.mkdir(mode=0o700, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(checkout), VARIABLE: str(cache)}
    command = [sys.executable, "-m", "ecvae_jax", *COMMAND, "--out", str(folder / "picture.png")]
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    elapsed, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def spread(seconds: tuple[float, ...]) -> str:
    """Returns the median of some seconds, with lowest and highest."""
    return f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"


if __name__ == "__main__":
    main()
