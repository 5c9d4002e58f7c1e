"""The parent process of a training on several hosts: it runs the training in a child process.

When a host vanishes, JAX's distributed runtime aborts the processes of all others, with a message for its developers.
The parent survives, prints what happened, and exits with the code on which launchers retry. Imports nothing heavy.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

ALONE, DETECTED = "one", "auto"
"""The values of `ecvae train --hosts` that name no address."""

BY_HAND = re.compile(r"(\d+)/(\d+)@(\S+:\d+)")
"""Its other values: INDEX/COUNT@ADDRESS:PORT, INDEX from 0."""

TRY_AGAIN = 75
"""Exit code of an interrupted training; the same command resumes it (EX_TEMPFAIL of sysexits.h)."""

_CHILD = "ECVAE_WATCHED"  # set in the child's environment
_PARENT_DIED_SIGNAL = 1  # PR_SET_PDEATHSIG


def check_hosts(hosts: str) -> None:
    """Raises ValueError if `hosts` is neither "one", "auto" nor INDEX/COUNT@ADDRESS:PORT."""
    if hosts in (ALONE, DETECTED):
        return
    found = BY_HAND.fullmatch(hosts)
    if not found:
        raise ValueError(f"hosts={hosts!r}: must be one, auto or INDEX/COUNT@ADDRESS:PORT, such as 0/2@10.0.0.1:1234")
    if not 0 < int(found[3].rpartition(":")[2]) < 65536:
        raise ValueError(f"hosts={hosts!r}: PORT must be between 1 and 65535")
    if not int(found[1]) < int(found[2]):
        raise ValueError(f"hosts={hosts!r}: INDEX counts from 0, so the last of {found[2]} is {int(found[2]) - 1}")


def is_supervised() -> bool:
    """Returns whether `supervise` started this process."""
    return _CHILD in os.environ


def supervise(arguments: Sequence[str]) -> tuple[int, bool]:
    """Runs `ecvae` with the arguments in a child process; returns its exit code, and whether it aborted.

    Ctrl-C, SIGTERM and SIGHUP are forwarded. The child does not outlive this process.
    """
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "ecvae_jax", *arguments],
        env={**os.environ, _CHILD: "1"},
        start_new_session=True,  # a terminal's Ctrl-C then reaches the child once, through `forward`
        preexec_fn=_die_with_parent,
    )

    forwarded: set[int] = set()

    def forward(number: int, frame: FrameType | None) -> None:
        forwarded.add(number)
        with suppress(ProcessLookupError):
            process.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code == -signal.SIGTERM and signal.SIGTERM in forwarded:  # before the child had its handler
        return TRY_AGAIN, False
    return (code if code >= 0 else 128 - code), code == -signal.SIGABRT


def _die_with_parent() -> None:
    with suppress(OSError, AttributeError):  # only Linux has it
        ctypes.CDLL(None).prctl(_PARENT_DIED_SIGNAL, signal.SIGKILL)
