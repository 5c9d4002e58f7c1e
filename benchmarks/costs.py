"""The cost of a run, and the ratio of two runs that alternate; the other benchmarks use it.

"wall" is elapsed time. "cpu" is CPU time, which other programs on the machine disturb less.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Cost(NamedTuple):
    """Elapsed and CPU time of one photo, seconds."""

    wall: float
    cpu: float


def cpu_seconds() -> float:
    """Returns the CPU time of this process and of its children that have ended, seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(work: Callable[[], object], count: int) -> Cost:
    """Returns the cost of `work` divided by `count`."""
    begin, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost((time.perf_counter() - begin) / count, (time.process_time() - cpu) / count)


class Ratios:
    """The ratios of two costs, one ratio a round."""

    def __init__(self, name: str) -> None:
        self._name, self._rounds = name, []

    def add(self, first: Cost, second: Cost) -> None:
        """Adds a round and prints both costs."""
        self._rounds.append((first, second))
        print(f"{self._name}: " + ", ".join(
            f"{kind} {1e3 * getattr(first, kind):.2f} / {1e3 * getattr(second, kind):.2f} ms" for kind in Cost._fields
        ), flush=True)  # fmt: skip

    def print_summary(self) -> None:
        """Prints the median, smallest and largest ratio of the rounds."""
        for kind in Cost._fields:
            ordered = sorted(getattr(first, kind) / getattr(second, kind) for first, second in self._rounds)
            middle = statistics.median(ordered)
            print(f"{self._name}, {kind}: median {middle:.2f}, {ordered[0]:.2f} to {ordered[-1]:.2f}")
