"""A thread that reports a training without progress, with the stacks of all threads."""

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

_FIRST_STEP = 6  # factor on the timeout of the first step, which compiles: many minutes on a large pod
_LOOKS = 10  # checks within train.hang_after


class Watchdog:
    """Observer of the results of the steps; the training never waits for it.

    A step is done when its results are ready on the devices, not when it is dispatched.
    """

    def __init__(self, config: TrainConfig, workdir: Path, start_step: int) -> None:
        """Prepares the thread; with `train.hang_after` = 0 it never starts."""
        self._after, self._exits, self._workdir = config.hang_after, config.hang_exit, workdir
        self._pending: deque[tuple[int, jax.Array]] = deque()
        self._dispatched = start_step
        self._any_done = self._reported = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._tick = self._after / _LOOKS

    def __enter__(self) -> Watchdog:
        self._looked = self._since = time.monotonic()
        if self._after:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._after:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def dispatched(self, step: int, result: jax.Array) -> None:
        """Records a dispatched step, and one of its pending results."""
        self._dispatched = step
        if self._after:
            self._pending.append((step, result))

    def _watch(self) -> None:
        while not self._closing.wait(self._tick):
            # If native code holds the GIL forever, this thread stops as well. Python's C timer needs no GIL: it then
            # writes the stacks to standard error.
            faulthandler.dump_traceback_later(self._limit + self._after, file=2)
            self._look(time.monotonic())

    @property
    def _limit(self) -> float:
        return self._after if self._any_done else self._after * _FIRST_STEP

    def _look(self, now: float) -> None:
        # A process that was suspended (Ctrl-Z) did not hang.
        self._since += max(0.0, now - self._looked - 2 * self._tick)
        self._looked = now
        done = None
        while self._pending and self._pending[0][1].is_ready():  # type: ignore[attr-defined]
            done = self._pending.popleft()[0]
        if done is not None:
            if self._reported:
                line = f"{_process()}step {done} finished after {now - self._since:.0f} s: training continues"
                print(line, file=sys.stderr, flush=True)
            self._any_done, self._reported, self._since = True, False, now
        elif not self._reported and now - self._since >= self._limit:
            self._reported = True
            self._report(now - self._since)

    def _report(self, seconds: float) -> None:
        if self._pending:
            cause = f"step {self._pending[0][0]} was dispatched to the devices and has not finished"
        else:
            cause = f"step {self._dispatched + 1} was not dispatched: the host is busy or waiting"
        name = f"hang-{time.strftime('%Y%m%d-%H%M%S')}"
        if jax.process_count() > 1:
            name += f"-process{jax.process_index()}"
        path = self._workdir / f"{name}.txt"
        action = f"exit code {TRY_AGAIN}" if self._exits else "the training is left running"
        line = (
            f"{_process()}no step finished for {seconds:.0f} s (train.hang_after={self._after:g}): {cause}; "
            f"{action}; all stacks: {path}"
        )
        text = f"{line}\n\n{_stacks()}"
        print(text, file=sys.stderr, flush=True)  # before the file: its folder may be the cause of the hang
        try:
            path.write_text(text)
        except OSError as error:
            print(f"{path}: {error}", file=sys.stderr, flush=True)
        if self._exits:
            os._exit(TRY_AGAIN)


def _process() -> str:
    return f"process {jax.process_index()}: " if jax.process_count() > 1 else ""


def _stacks() -> str:
    """Returns the stacks of all Python threads, the main thread first, newest call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sorted(sys._current_frames().items(), key=lambda item: item[0] != threading.main_thread().ident)
    return "\n".join(
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in frames
    )
