"""A thread that reports a training which makes no progress, with the stacks of all threads."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path

import jax

from ecvae_jax.config import TrainConfig
from ecvae_jax.training.supervisor import TRY_AGAIN

_FIRST_STEP = 6  # times as long may the first step take: it compiles, on a large pod for many minutes
_LOOKS = 10  # within train.hang_after


class Watchdog:
    """Looks at the results of the steps from aside: the training itself never waits for it.

    A step is done when its results are there, not when it was handed to the devices.
    """

    def __init__(self, config: TrainConfig, workdir: Path, start_step: int) -> None:
        """Does nothing yet, and never anything where `train.hang_after` is 0."""
        self._after, self._exits, self._workdir = config.hang_after, config.hang_exit, workdir
        self._pending: deque[tuple[int, jax.Array]] = deque()
        self._dispatched = start_step
        self._any_done = self._reported = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._tick = self._after / _LOOKS

    def __enter__(self) -> Watchdog:
        """Starts looking."""
        self._looked = self._since = time.monotonic()
        if self._after:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops looking."""
        self._closing.set()
        if self._after:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def dispatched(self, step: int, result: jax.Array) -> None:
        """Notes that a step was handed to the devices, and one of its results."""
        self._dispatched = step
        if self._after:
            self._pending.append((step, result))

    def _watch(self) -> None:
        while not self._closing.wait(self._tick):
            # Should native code never give the interpreter back, then this thread stands still as well: Python's C
            # timer, which needs no interpreter, writes the stacks to standard error.
            faulthandler.dump_traceback_later(self._limit + self._after, file=2)
            self._look(time.monotonic())

    @property
    def _limit(self) -> float:
        return self._after if self._any_done else self._after * _FIRST_STEP

    def _look(self, now: float) -> None:
        # A process that was stopped (Ctrl-Z) did not hang.
        self._since += max(0.0, now - self._looked - 2 * self._tick)
        self._looked = now
        done = None
        while self._pending and self._pending[0][1].is_ready():  # type: ignore[attr-defined]
            done = self._pending.popleft()[0]
        if done is not None:
            if self._reported:
                print(f"{_who()}step {done} is done after {now - self._since:.0f} s: the training goes on",
                      file=sys.stderr, flush=True)  # fmt: skip
            self._any_done, self._reported, self._since = True, False, now
        elif not self._reported and now - self._since >= self._limit:
            self._reported = True
            self._report(now - self._since)

    def _report(self, seconds: float) -> None:
        if self._pending:
            where = f"step {self._pending[0][0]} was handed to the devices and is not done"
        else:
            where = f"step {self._dispatched + 1} was not handed to the devices: the host is busy or waits"
        name = f"hang-{time.strftime('%Y%m%d-%H%M%S')}"
        if jax.process_count() > 1:
            name += f"-process{jax.process_index()}"
        path = self._workdir / f"{name}.txt"
        then = f"exit code {TRY_AGAIN}" if self._exits else "the training is left alone"
        line = (f"{_who()}no step was done for {seconds:.0f} s (train.hang_after={self._after:g}): {where}; {then}; "
                f"all stacks: {path}")  # fmt: skip
        text = f"{line}\n\n{_stacks()}"
        print(text, file=sys.stderr, flush=True)  # first: the folder may be what hangs
        try:
            path.write_text(text)
        except OSError as error:
            print(f"{path}: {error}", file=sys.stderr, flush=True)
        if self._exits:
            os._exit(TRY_AGAIN)


def _who() -> str:
    return f"process {jax.process_index()}: " if jax.process_count() > 1 else ""


def _stacks() -> str:
    """The stack of every thread that Python knows, newest call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sorted(sys._current_frames().items(), key=lambda item: item[0] != threading.main_thread().ident)
    return "\n".join(
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in frames
    )
