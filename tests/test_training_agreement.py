"""Two processes take the decision of the first one, and fail when it fails."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

CODE = """
import sys
import jax
rank, port = int(sys.argv[1]), sys.argv[2]
jax.distributed.initialize(f"localhost:{port}", 2, rank)
from ecvae_jax.agreement import OtherProcessError, run_on_host0

def own() -> list:
    assert rank == 0, "only the first process looks"
    return [f"seen by {rank}", None, 3]

print("decided", run_on_host0(own))

def failing() -> None:
    raise ValueError(f"process {rank} saw a fire")

try:
    run_on_host0(failing)
except (ValueError, OtherProcessError) as error:
    print(type(error).__name__, error)
"""


def test_two_processes_decide_alike() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    both = [subprocess.Popen([sys.executable, "-c", CODE, str(rank), str(port)], env=environment, text=True,
                             stdout=subprocess.PIPE) for rank in (0, 1)]  # fmt: skip
    outputs = [process.communicate(timeout=240)[0].splitlines() for process in both]
    first, second = ([line for line in lines if not line.startswith("[Gloo]")] for lines in outputs)
    assert first == ["decided ['seen by 0', None, 3]", "ValueError process 0 saw a fire"]
    assert second == ["decided ['seen by 0', None, 3]", "OtherProcessError process 0 saw a fire"]
