"""Processes of this machine that find the faces in photos."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from ecvae_jax.data.prepare.job import FaceJob, FaceOutcome, FaceWorker
from ecvae_jax.data.prepare.options import PrepareConfig

_CHUNK = 8
"""Photos that go to a process at once; fewer where they reach `_CHUNK_BYTES`."""
_AHEAD = 4
"""Chunks per process that are submitted before the first must be finished."""
_CHUNK_BYTES = 16 * 2**20
"""Bytes of contents after which a chunk takes no more photos. Files count nothing: the workers open them."""
_BYTES, _BYTES_PER_PROCESS = 256 * 2**20, 2 * _CHUNK_BYTES
"""Bytes of contents under way, at least and per process; above them nothing is submitted. A last chunk may exceed it.
"""


class WorkerDiedError(RuntimeError):
    """A worker process was killed, or crashed, before its first photo."""


def find_faces(
    jobs: Iterator[FaceJob], count: int, options: PrepareConfig, detect: bool, mark: Path | None = None
) -> Generator[FaceOutcome, None, None]:
    """Yields the outcomes in the order of the jobs.

    A photo may kill the process that reads it: a decoder or a detector crashes, or memory runs out. That photo is
    rejected, and new processes do the others. If this process itself reads the photos, it dies too; `mark` then makes
    the next call read each photo in a separate process.

    Args:
        jobs: the photos; a few chunks of them are read ahead of the outcomes.
        mark: a file that exists while this process itself reads photos, and remains if it is killed meanwhile; None:
            do not mark.

    Raises:
        WorkerDiedError: a process was killed, or crashed, while it started.
    """
    processes = min(options.processes, -(-count // _CHUNK))  # for fewer photos a start does not pay
    if processes > 1:
        yield from _in_processes(jobs, processes, options, detect)
        return
    if mark and mark.exists():  # the next photo may have killed the process before, and others may kill too
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
) -> Generator[FaceOutcome, None, None]:
    waiting: deque[tuple[list[FaceJob], Future[list[FaceOutcome]] | None]] = deque()
    again: deque[list[FaceJob]] = deque()
    chunks, most_bytes = _chunks(jobs), max(_BYTES, processes * _BYTES_PER_PROCESS)
    while True:
        # "spawn": a fork would copy the locks of TensorFlow's and JAX's threads
        pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _start_worker, (options, detect))
        try:
            while chunk := again.popleft() if again else next(chunks, None):
                waiting.append((chunk, None))  # before it is submitted: that may fail
                waiting[-1] = (chunk, pool.submit(_work, chunk))
                # Not all at once: contents and unread outcomes take memory.
                while len(waiting) > _AHEAD * processes or sum(_size(of) for of, _ in waiting) >= most_bytes:
                    yield from _taken(waiting)
            while waiting:
                yield from _taken(waiting)
            return
        except BrokenProcessPool:
            pass  # its other processes are gone too: unfinished chunks are retried
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        print("a worker process died: its possible causes are retried one by one", file=sys.stderr)
        with contextlib.closing(SoloWorker(options, detect)) as alone:
            while waiting and not alone.died:
                chunk, future = waiting.popleft()
                good = future is not None and future.done() and not future.cancelled() and future.exception() is None
                yield from future.result() if future is not None and good else map(alone, chunk)
        # The photo that killed is known, and several processes are faster than one.
        again.extendleft(chunk for chunk, _ in reversed(waiting))
        waiting.clear()


def _chunks(jobs: Iterator[FaceJob]) -> Iterator[list[FaceJob]]:
    chunk: list[FaceJob] = []
    for job in jobs:
        chunk.append(job)
        if len(chunk) == _CHUNK or _size(chunk) >= _CHUNK_BYTES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _size(chunk: list[FaceJob]) -> int:
    """Returns the bytes of contents in memory."""
    contents = (job.content for job in chunk)
    return sum(
        len(content) if isinstance(content, bytes) else content.nbytes if isinstance(content, np.ndarray) else 0
        for content in contents
    )


def _taken(waiting: deque[tuple[list[FaceJob], Future[list[FaceOutcome]] | None]]) -> list[FaceOutcome]:
    """Returns the outcomes of the first chunk, and removes it only when they exist."""
    future = waiting[0][1]
    assert future is not None
    outcomes = future.result()
    waiting.popleft()
    return outcomes


class SoloWorker:
    """Does jobs one by one in a separate process; a photo that kills the process is an outcome.

    Attributes:
        died: whether a photo has killed a process.
    """

    def __init__(self, options: PrepareConfig, detect: bool) -> None:
        """Starts nothing yet: the process starts with the first photo, and again after each one that killed."""
        self._arguments = (options, detect)
        self._process: BaseProcess | None = None
        self.died = False

    def __call__(self, job: FaceJob) -> FaceOutcome:
        """Returns the outcome of the photo.

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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C and stops the workers
    # PR_SET_PDEATHSIG would also fire when the thread ends that started the process; Beam's threads do.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = FaceWorker(options, detect)


def _end_with_parent() -> None:
    """Waits for the end of the main process, then ends this one: after a SIGKILL nothing else would."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(jobs: list[FaceJob]) -> list[FaceOutcome]:
    assert _worker is not None
    return [_worker(job) for job in jobs]


def _work_alone(pipe: Connection, start: Callable[..., None], arguments: tuple[PrepareConfig, bool]) -> None:
    start(*arguments)
    pipe.send("ready")
    while True:
        try:
            job = pipe.recv()
        except EOFError:  # the main process has closed its end
            return
        pipe.send(_work([job])[0])
