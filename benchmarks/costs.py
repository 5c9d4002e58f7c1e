"""What a run costs, and how two that ran by turns compare: for the other benchmarks.

"wall" is the time that passed, "cpu" the time that cores were at work: other programs on the machine disturb it less.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Cost(NamedTuple):
    """Of one photo, in seconds: that passed, and that cores were at work."""

    wall: float
    cpu: float


def cpu_seconds() -> float:
    """Of this process and of those that it has started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(work: Callable[[], object], count: int) -> Cost:
    begin, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost((time.perf_counter() - begin) / count, (time.process_time() - cpu) / count)


class Ratios:
    """What one costs as a multiple of what the other costs, over rounds."""

    def __init__(self, name: str) -> None:
        self._name, self._rounds = name, []

    def add(self, first: Cost, second: Cost) -> None:
        """Prints a round."""
        self._rounds.append((first, second))
        print(f"{self._name}: " + ", ".join(
            f"{kind} {1e3 * getattr(first, kind):.2f} / {1e3 * getattr(second, kind):.2f} ms" for kind in Cost._fields
        ), flush=True)  # fmt: skip

    def tell(self) -> None:
        """Prints the median over the rounds, the smallest and the largest."""
        for kind in Cost._fields:
            ordered = sorted(getattr(first, kind) / getattr(second, kind) for first, second in self._rounds)
            middle = statistics.median(ordered)
            print(f"{self._name}, {kind}: median {middle:.2f}, {ordered[0]:.2f} to {ordered[-1]:.2f}")
