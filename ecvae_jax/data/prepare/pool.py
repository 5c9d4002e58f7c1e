"""The processes that work on the photos of a preparation."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from ecvae_jax.data.prepare.job import FaceJob, FaceOutcome, FaceWorker
from ecvae_jax.data.prepare.options import PrepareConfig

_TOGETHER = 8
"""Photos that go to a process at once."""


_AHEAD = 4
"""Such lots per process that are given out before the first must be back."""


class WorkerDiedError(RuntimeError):
    """A process of a preparation was killed, or crashed, before it came to a photo."""


def work_on(
    jobs: Iterator[FaceJob], count: int, options: PrepareConfig, detect: bool, mark: Path | None = None
) -> Iterator[FaceOutcome]:
    """Yields the outcomes in the order of the jobs.

    A photo that kills the process which reads it (a decoder or a detector that crashes, the system out of memory) is
    rejected; the others go on in a new one. Where all work is done in this process, it dies of the photo, and `mark`
    tells the next one to be careful.

    Args:
        jobs: the photos; a few lots of them are taken ahead of the outcomes.
        count: how many there are.
        options: how; `options.processes` of them work.
        detect: landmarks are to be found.
        mark: a file that is there while this process itself does the work, and stays if it is killed at that.

    Raises:
        WorkerDiedError: a process was killed, or crashed, while it started.
    """
    processes = min(options.processes, -(-count // _TOGETHER))  # starting one does not pay for fewer photos
    if processes > 1:
        yield from _in_processes(jobs, processes, options, detect)
        return
    if mark and mark.exists():  # the next photo may be what killed the process before, and others may be like it
        with contextlib.closing(SoloWorker(options, detect)) as alone:
            yield from map(alone, jobs)
        return
    try:
        if mark:
            mark.touch()
        yield from map(FaceWorker(options, detect), jobs)
    finally:
        if mark:
            mark.unlink(missing_ok=True)


def _in_processes(
    jobs: Iterator[FaceJob], processes: int, options: PrepareConfig, detect: bool
) -> Iterator[FaceOutcome]:
    waiting: deque[tuple[list[FaceJob], Future[list[FaceOutcome]] | None]] = deque()
    again: deque[list[FaceJob]] = deque()
    while True:
        # "spawn": a fork would copy the threads' locks of whatever the program has loaded (TensorFlow, JAX)
        pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _start_worker, (options, detect))
        try:
            while lot := again.popleft() if again else list(islice(jobs, _TOGETHER)):
                waiting.append((lot, None))  # before it is submitted: that may fail
                waiting[-1] = (lot, pool.submit(_work, lot))
                # Not all at once: contents, and outcomes that nobody has taken yet, lie in memory.
                if len(waiting) > _AHEAD * processes:
                    yield from _taken(waiting)
            while waiting:
                yield from _taken(waiting)
            return
        except BrokenProcessPool:
            pass  # its other processes are gone too: whatever was not back is done again
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        print("a worker process died: the photos that it may have died of are tried one by one", file=sys.stderr)
        with contextlib.closing(SoloWorker(options, detect)) as alone:
            while waiting and not alone.died:
                lot, future = waiting.popleft()
                good = future is not None and future.done() and not future.cancelled() and future.exception() is None
                yield from future.result() if future is not None and good else map(alone, lot)
        # The one that killed is known: processes together are faster than one alone.
        again.extendleft(lot for lot, _ in reversed(waiting))
        waiting.clear()


def _taken(waiting: deque[tuple[list[FaceJob], Future[list[FaceOutcome]] | None]]) -> list[FaceOutcome]:
    """The outcomes of the first lot, which is only then no longer waited for."""
    future = waiting[0][1]
    assert future is not None
    outcomes = future.result()
    waiting.popleft()
    return outcomes


class SoloWorker:
    """Does jobs one by one in a process of its own, and a photo that kills that process is an outcome.

    Attributes:
        died: whether a photo has killed one.
    """

    def __init__(self, options: PrepareConfig, detect: bool) -> None:
        """Starts nothing yet: that is done for the first photo, and after one that killed."""
        self._arguments = (options, detect)
        self._process: BaseProcess | None = None
        self.died = False

    def __call__(self, job: FaceJob) -> FaceOutcome:
        """Returns what became of the photo.

        Raises:
            WorkerDiedError: the process died, or failed, while it started.
        """
        try:
            if self._process is None:
                self._start()
            self._pipe.send(job)
            return self._pipe.recv()
        except (EOFError, OSError):
            self.died = True
            return FaceOutcome(reason=f"the process reading it died ({self._ended()})")

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._pipe.close()
            self._process.join()
            self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        process = context.Process(target=_work_alone, args=(theirs, _start_worker, self._arguments), daemon=True)
        process.start()
        self._process = process
        theirs.close()
        try:
            self._pipe.recv()
        except EOFError:
            raise WorkerDiedError(
                f"a worker process died while it started ({self._ended()}): free memory, or give fewer --workers"
            ) from None

    def _ended(self) -> str:
        assert self._process is not None
        self._process.join()
        code = self._process.exitcode or 0
        self.close()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


_worker: FaceWorker | None = None


def _start_worker(options: PrepareConfig, detect: bool) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which then stops the workers
    _worker = FaceWorker(options, detect)


def _work(jobs: list[FaceJob]) -> list[FaceOutcome]:
    assert _worker is not None
    return [_worker(job) for job in jobs]


def _work_alone(pipe: Connection, start: Callable[..., None], arguments: tuple[PrepareConfig, bool]) -> None:
    start(*arguments)
    pipe.send("ready")
    while True:
        try:
            job = pipe.recv()
        except EOFError:  # nobody asks any more
            return
        pipe.send(_work([job])[0])
