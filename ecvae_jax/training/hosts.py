"""Training on several hosts: joining, synchronizing, detecting a lost host, stopping on a signal.

Every host runs the same command; `jax.distributed` connects them.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils

from ecvae_jax.agreement import check_devices
from ecvae_jax.training.rendezvous import RendezvousError, find_host0, gather_hosts
from ecvae_jax.training.supervisor import ALONE, BY_HAND, check_hosts

SILENCE = 30
"""Seconds without a heartbeat after which a host counts as lost and the others stop; ECVAE_HOST_TIMEOUT changes it."""

_PATIENCE = 300  # seconds for all hosts to come up: a pod's do not start together

_ENDING = 10  # seconds, with the silence: a training that has lost a host has left host 0's port by then

_jax_sigterm: ctypes.Array[ctypes.c_char] | None = None
"""JAX's disposition of SIGTERM, a `struct sigaction`, while Python's is in its place."""

_STATE = re.compile(r"[A-Z]+(_[A-Z]+)*: ")

# Words in the error messages of JAX's runtime after another host has vanished.
_LOST = (
    "heartbeat",
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "gloo",
    "coordination service",
    "unavailable",
    "deadline_exceeded",
)


def join_hosts(hosts: str) -> None:
    """Connects this process to the others; does nothing for "one". Call it before JAX computes anything.

    JAX connects devices at their first use, on CPUs with a timeout of 30 s. Connecting here, where all hosts are in
    step, avoids a timeout while host 0 draws images. Open connections wait longer (tested on CPUs: 45 s).

    Args:
        hosts: "one", INDEX/COUNT@ADDRESS:PORT, or "auto": from the environment (Cloud TPU, GKE, Slurm, MPI).

    Raises:
        ValueError: no cluster is detected, host 0's port is taken, or the other hosts do not answer.
        DisagreementError: the hosts have other devices.
        jax.errors.JaxRuntimeError: a host is lost directly after joining (`is_lost_host`).
    """
    check_hosts(hosts)
    if hosts == ALONE:
        return
    found = BY_HAND.fullmatch(hosts)
    address, count, index = (found[3], int(found[2]), int(found[1])) if found else (None, None, None)
    silence = int(os.environ.get("ECVAE_HOST_TIMEOUT", SILENCE))
    try:
        if address is not None and index == 0:
            gather_hosts(address, count or 1, _PATIENCE)
        elif address is not None:
            find_host0(address, index or 0, count or 1, _PATIENCE, silence + _ENDING)
    except RendezvousError as error:
        raise ValueError(f"hosts={hosts!r}: {error}") from None
    try:
        jax.distributed.initialize(
            address, count, index,
            initialization_timeout=_PATIENCE, heartbeat_timeout_seconds=silence, shutdown_timeout_seconds=silence,
        )  # fmt: skip
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if not found:
            raise ValueError(
                f"hosts=auto: no cluster detected ({reason}); start it under Cloud TPU, GKE, Slurm or Open MPI, "
                "or give INDEX/COUNT@ADDRESS:PORT"
            ) from error
        raise ValueError(
            f"hosts={hosts!r}: cannot connect to the other hosts ({reason}); is every host started, and can each "
            f"reach host 0 at {address}?"
        ) from error
    _take_sigterm()
    check_devices()
    multihost_utils.sync_global_devices("joined")  # connects one device of each host with the same one of the others
    sync_hosts()  # connects all devices


def _take_sigterm() -> None:
    """Puts Python's handler of SIGTERM back, which JAX's runtime has replaced: it ends the process.

    JAX's handler only asks all hosts for a common step to stop after, and the first one compiles for minutes.
    """
    global _jax_sigterm
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGTERM"):
        buffer = ctypes.create_string_buffer(1024)  # more than a `struct sigaction` of any system
        if ctypes.CDLL(None).sigaction(int(signal.SIGTERM), None, buffer) == 0:
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
            _jax_sigterm = buffer


def _give_sigterm() -> None:
    """Puts JAX's handler of SIGTERM in the place of Python's."""
    global _jax_sigterm
    if _jax_sigterm is not None:
        ctypes.CDLL(None).sigaction(int(signal.SIGTERM), _jax_sigterm, None)
        _jax_sigterm = None


def sync_hosts() -> None:
    """Blocks, without a timeout, until all hosts have called it.

    Call it before a process exits as well: JAX gives the other hosts `SILENCE` seconds to exit, and aborts them after
    that as if a host was lost.

    Raises:
        jax.errors.JaxRuntimeError: a host is lost (`is_lost_host`).
    """
    if jax.process_count() > 1:
        total = jax.pmap(lambda one: jax.lax.psum(one, "devices"), axis_name="devices")
        jax.block_until_ready(total(jnp.ones(jax.local_device_count())))


def is_first_host() -> bool:
    """Returns whether this process writes logs and pictures."""
    return jax.process_index() == 0


def is_lost_host(error: BaseException) -> bool:
    """Returns whether an error of JAX's runtime means that another host is lost."""
    message = str(error).lower()
    # jaxlib 0.10.2 raises some states of its runtime, as "UNKNOWN: Gloo AllGather failed", as a ValueError
    state = isinstance(error, ValueError) and _STATE.match(str(error)) is not None
    return (
        (isinstance(error, jax.errors.JaxRuntimeError) or state)  # first: process_count starts JAX's backend
        and jax.process_count() > 1
        and any(word in message for word in _LOST)
    )


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the current step; the second one interrupts.

    With several hosts JAX's runtime handles SIGTERM: all hosts agree on a step to stop after. A Ctrl-C is resent as
    SIGTERM. Enter `catching` after the first step: before it nothing is lost, and SIGTERM ends the process.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """The signal that this process caught, or None."""

    def reached(self, call: int) -> bool:
        """Returns whether to stop after the call of that number; every host must ask at every one, without a gap."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(call)
        return self.signal is not None

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Catches the signals inside the block; does nothing outside the main thread, which alone receives signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT,) if jax.process_count() > 1 else (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._request) for number in numbers}
        _give_sigterm()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
