"""Start-up: a child process that compiles and runs one training step, with an empty compile cache and a filled one.

As a module it is that child: it reads the experiment's JSON on standard input and prints its seconds as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from ecvae_jax.config import Config

_SETTINGS = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


class Start(NamedTuple):
    """Seconds of one process."""

    process: float
    """From the start of the interpreter to its end."""
    compile: float
    """To trace and compile the step, or to read it from the cache."""
    first_step: float
    """From the first import to the first loss."""


def measure_start(config: Config) -> tuple[Start, Start]:
    """Returns the start-up with an empty compile cache and the next one, which reads the cache.

    Raises:
        RuntimeError: the child failed; the message is the last line that it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _start(config, folder), _start(config, folder)


def _start(config: Config, cache: str) -> Start:
    environment = {**os.environ, **_SETTINGS, "JAX_COMPILATION_CACHE_DIR": cache}
    begin = time.perf_counter()
    command = [sys.executable, "-m", "ecvae_jax.bench.start"]
    done = subprocess.run(command, env=environment, input=config.to_json(), capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"the process that measures the start-up exited with {done.returncode}: {lines[-1]}")
    return Start(seconds, **json.loads(done.stdout.splitlines()[-1]))


def _main() -> None:
    begin = time.perf_counter()
    config = Config.from_json(sys.stdin.read())

    from ecvae_jax.bench.workloads import Training, random_batch

    batch = random_batch(config)
    training = Training(config, batch)
    training.run(batch).block_until_ready()
    first = time.perf_counter() - begin
    print(json.dumps({"compile": training.figures.compile_seconds, "first_step": first}))


if __name__ == "__main__":
    _main()
