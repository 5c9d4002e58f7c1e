"""SIGTERM and SIGHUP at any moment of a command: it unwinds, or ends where its main thread is blocked.

Imports nothing heavy: the handlers are installed before everything else.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from types import FrameType

GRACE = 8.0
"""Seconds to unwind after a signal, then the process ends at once. Preempted machines give 15 to 30 seconds."""

_CLOSE = b"\0"  # no signal has this number


class Stopping:
    """The signal that ended a command, and its exit code."""

    def __init__(self, terminated: int, last_words: str) -> None:
        """Prepares the thread that ends a blocked process."""
        self.number: int | None = None
        """The signal that unwinds the command, or None."""
        self._terminated, self._last_words = terminated, last_words
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stopping", daemon=True)

    @property
    def code(self) -> int:
        """The exit code after `number`."""
        return self._terminated if self.number == signal.SIGTERM else 128 + (self.number or 0)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Unwinds the main thread by SystemExit; within an import it ends the process at once.

        An exception inside the initialization of a C++ module aborts the process: SIGABRT in 1 of 13 starts of jax
        0.10.2. An import has written nothing.
        """
        self._receive(number)
        if _is_importing(frame):
            os._exit(self.code)
        raise SystemExit(self.code)

    def _receive(self, number: int) -> None:
        if self.number is None and number == signal.SIGTERM:
            with contextlib.suppress(OSError):  # not by Python's stream, which the main thread may have locked
                if select.select([], [2], [], 0)[1]:
                    os.write(2, self._last_words.encode())
        self.number = number

    def start(self) -> None:
        """Makes Python's C handler write the number of each signal to the pipe that the thread reads."""
        self._thread.start()
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def close(self) -> None:
        """Stops the thread."""
        signal.set_wakeup_fd(self._before)
        self._closed.set()
        os.write(self._writer, _CLOSE)
        self._thread.join()
        os.close(self._writer)
        os.close(self._reader)

    def _watch(self) -> None:
        """Ends the process `GRACE` seconds after a signal.

        Python runs a handler only between two instructions of the main thread. Compiling a program or reading a FIFO
        keeps it away for minutes. Both release the interpreter's lock (jaxlib 0.10.2, array_record 0.8.3), so this
        thread runs.
        """
        while (received := os.read(self._reader, 1)) != _CLOSE:
            number = received[0]
            if signal.getsignal(number) != self.handle:
                continue  # the training stores its state first
            if self._closed.wait(GRACE):
                return
            if signal.getsignal(number) == self.handle:
                self._receive(number)
                os._exit(self.code)
            elif self.number == number:  # a library swallowed the SystemExit, and a training began
                os.kill(os.getpid(), number)


@contextlib.contextmanager
def unwinding_on_signals(terminated: int, last_words: str) -> Iterator[Stopping | None]:
    """Makes SIGTERM and SIGHUP unwind the block as Ctrl-C does; yields the state, or None outside the main thread.

    An unwound command leaves no half-written file or process. After `GRACE` seconds the process ends in any case. Once
    a training has taken a step, it handles SIGTERM itself and stores its state first. After SIGTERM the exit code is
    `terminated`, and `last_words` are printed on standard error.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    stopping = Stopping(terminated, last_words)
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # nohup ignores SIGHUP, and the command must survive the logout.
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stopping.handle) for number in numbers}
    stopping.start()
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stopping.close()


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _leave_to_parent() -> None:
    """Keeps the signals of a forked child, which inherits the pipe, from ending its parent."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_leave_to_parent)
