"""Several hosts in one training: how a process joins the others, and how it learns that one of them is lost.

Every host runs the same command; JAX's own distributed runtime (`jax.distributed`) connects them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils

from ecvae_jax.training.supervisor import ALONE, BY_HAND, check_hosts

SILENCE = 30
"""Seconds without a heartbeat after which a host counts as lost and the others stop; ECVAE_HOST_TIMEOUT changes it."""

_PATIENCE = 300  # seconds for all hosts to come up: a pod's do not start together


_LOST = ("heartbeat", "connection closed by peer", "connection reset by peer", "broken pipe", "gloo",
         "coordination service", "unavailable", "deadline_exceeded")  # fmt: skip


def join_hosts(hosts: str) -> None:
    """Connects this process to the others; does nothing for "one". To be called before JAX computes anything.

    The connections between their devices are opened here, where all hosts come at the same moment: JAX opens each at
    its first use, on CPUs with 30 s for the last host to come, and later on some hosts are busy with what the others
    do not do (the first one draws pictures). Once open they wait longer (tried on CPUs: 45 s).

    Args:
        hosts: "one", INDEX/COUNT@ADDRESS:PORT, or "auto": ask what started the processes (Cloud TPU, GKE, Slurm, MPI).

    Raises:
        ValueError: hosts are asked for that nothing here knows of, or do not answer.
        jax.errors.JaxRuntimeError: one is lost right after they met (`is_lost_host`).
    """
    check_hosts(hosts)
    if hosts == ALONE:
        return
    found = BY_HAND.fullmatch(hosts)
    address, count, index = (found[3], int(found[2]), int(found[1])) if found else (None, None, None)
    silence = int(os.environ.get("ECVAE_HOST_TIMEOUT", SILENCE))
    try:
        jax.distributed.initialize(
            address, count, index,
            initialization_timeout=_PATIENCE, heartbeat_timeout_seconds=silence, shutdown_timeout_seconds=silence,
        )  # fmt: skip
    except (ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        if not found:
            raise ValueError(
                f"hosts=auto: nothing here tells of other hosts ({said}); start it under Cloud TPU, GKE, Slurm or Open "
                "MPI, or give INDEX/COUNT@ADDRESS:PORT"
            ) from error
        raise ValueError(f"hosts={hosts!r}: cannot meet the others ({said}); is every host started, and can each reach "
                         f"host 0 at {address}?") from error  # fmt: skip
    multihost_utils.sync_global_devices("joined")  # between one device of each host and its like on the others
    sync_hosts()  # between all devices


def sync_hosts() -> None:
    """Returns when all hosts have called it, however late the last one comes; at once where there is one host.

    To be called before a process leaves as well: at its exit JAX gives the others `SILENCE` seconds to do the same,
    and ends them as if one was lost where it takes longer.

    Raises:
        jax.errors.JaxRuntimeError: one is lost (`is_lost_host`).
    """
    if jax.process_count() > 1:
        add_up = jax.pmap(lambda one: jax.lax.psum(one, "devices"), axis_name="devices")
        jax.block_until_ready(add_up(jnp.ones(jax.local_device_count())))


def is_first_host() -> bool:
    """Returns whether this process is the one that writes logs and pictures."""
    return jax.process_index() == 0


def is_lost_host(error: BaseException) -> bool:
    """Returns whether an error of JAX's runtime, in a training on several hosts, means that one of them is lost."""
    said = str(error).lower()
    return (
        isinstance(error, jax.errors.JaxRuntimeError)  # first: to count processes starts JAX's backend
        and jax.process_count() > 1
        and any(word in said for word in _LOST)
    )


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the running step; the second one is obeyed.

    With several hosts JAX's runtime catches SIGTERM by itself, tells the others, and agrees with them on a step; a
    Ctrl-C is made one.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """The signal that asked, where this process caught it itself."""

    def reached(self, step: int) -> bool:
        """Returns whether the training is to stop after `step`; every host has to ask at every step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.signal is not None

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Holds the signals inside the block; does nothing outside the main thread, where Python sends none."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT,) if jax.process_count() > 1 else (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._request) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
