"""Processes of tests: a clean environment, and Python code in children forked from a process with the libraries."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from pathlib import Path

_PRELOADED = ["tensorflow", "tensorboard", "ecvae_jax.training.loop", "ecvae_jax.cli.commands"]

QUICK_COMPILATION = (
    "--xla_backend_optimization_level=0",
    *(["--xla_cpu_use_fusion_emitters=false"] if version("jaxlib").startswith(("0.10.", "0.11.")) else []),
)
"""Flags of XLA with which small programs compile faster and run slower. jaxlib 0.12.0.1 ends the process at the second:
"Unknown flag in XLA_FLAGS"."""

LONG = 300
"""Seconds a test waits for another process: far beyond what one takes on a loaded machine."""


def environment(without: tuple[str, ...] = (), devices: int | None = None, **more: str) -> dict[str, str]:
    """Returns this process's environment variables, changed.

    Args:
        without: prefixes of the variables left out.
        devices: virtual CPU devices; None: as here.
    """
    values = {name: value for name, value in os.environ.items() if not name.startswith(without or ("\0",))}
    if devices is not None:
        flags = [f for f in values.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in f]
        values["XLA_FLAGS"] = " ".join([*flags, f"--xla_force_host_platform_device_count={devices}"])
    return values | more


def run_python(code: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    """Returns the result of the code in a new interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, check=check
    )


class Forked:
    """Python code in a child forked from a process that has imported JAX, TensorFlow and the package.

    It starts in a fraction of a second instead of several. JAX's own variables have been read: only XLA_FLAGS and
    those that the code itself reads take effect. Standard output and error go to the file `log`.
    """

    def __init__(self, code: str, log: Path, variables: Mapping[str, str] | None = None) -> None:
        self.log = log
        log.touch()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self.process: BaseProcess = context.Process(
            target=_execute, args=(code, str(log), dict(os.environ if variables is None else variables))
        )
        self.process.start()

    @property
    def pid(self) -> int:
        """The child's process number."""
        assert self.process.pid is not None
        return self.process.pid

    def text(self) -> str:
        """Returns what the child has written so far."""
        return self.log.read_text()

    def poll(self) -> int | None:
        """Returns the exit code; None while the child runs."""
        return self.process.exitcode

    def wait(self, seconds: float = LONG) -> int:
        """Returns the exit code."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still running after {seconds} s:\n{self.text()[-3000:]}"
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """Sends a signal to the child."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends the child by SIGKILL and waits for its end."""
        self.process.kill()
        self.process.join()


def _execute(code: str, log: str, variables: dict[str, str]) -> None:
    """What a child does; `sys.exit` in the code gives the exit code."""
    os.environ.clear()
    os.environ.update(variables)
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def wait_until(condition: Callable[[], bool], *processes: Forked | subprocess.Popen, seconds: float = LONG) -> None:
    """Returns once the condition holds; fails where a process ends before, or after that many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        for process in processes:
            assert process.poll() is None, process.text()[-3000:] if isinstance(process, Forked) else process.args
        assert time.monotonic() < deadline
        time.sleep(0.02)
