"""The processes that work on the photos of a preparation."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from ecvae_jax.data.face_job import FaceJob, FaceOutcome, FaceWorker
from ecvae_jax.data.options import PrepareConfig

_TOGETHER = 8
"""Photos that go to a process at once."""
_AHEAD = 4
"""Such lots per process that are given out before the first must be back."""


class WorkerDiedError(RuntimeError):
    """A process of a preparation was killed, or crashed."""


def work_on(jobs: Iterator[FaceJob], count: int, options: PrepareConfig, detect: bool) -> Iterator[FaceOutcome]:
    """Yields the outcomes in the order of the jobs.

    Args:
        jobs: the photos; a few lots of them are taken ahead of the outcomes.
        count: how many there are.
        options: how; `options.processes` of them work.
        detect: landmarks are to be found.

    Raises:
        WorkerDiedError: a process was killed, or crashed.
    """
    processes = min(options.processes, -(-count // _TOGETHER))  # starting one does not pay for fewer photos
    if processes <= 1:
        yield from map(FaceWorker(options, detect), jobs)
        return
    # "spawn": a fork would copy the threads' locks of whatever the program has loaded (TensorFlow, JAX)
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _start_worker, (options, detect))
    waiting: deque[Future[list[FaceOutcome]]] = deque()
    try:
        while lot := list(islice(jobs, _TOGETHER)):
            waiting.append(pool.submit(_work, lot))
            # Not all at once: contents, and outcomes that nobody has taken yet, lie in memory.
            if len(waiting) > _AHEAD * processes:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool:
        raise WorkerDiedError(
            "a worker process died (out of memory, or a photo that crashes the detector): "
            "try --workers 1, or a smaller --max-megapixels"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: FaceWorker | None = None


def _start_worker(options: PrepareConfig, detect: bool) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which then stops the workers
    _worker = FaceWorker(options, detect)


def _work(jobs: list[FaceJob]) -> list[FaceOutcome]:
    assert _worker is not None
    return [_worker(job) for job in jobs]
