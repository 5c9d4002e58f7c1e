"""The wish to stop a training: Ctrl-C and SIGTERM, obeyed after a whole step, by all hosts after the same one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils


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
