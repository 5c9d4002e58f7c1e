"""Progress on standard error: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_LINE_EVERY = 10.0  # seconds


def track(items: Iterable[T], total: int, unit: str) -> Iterator[T]:
    """Yields the items unchanged and reports how many of `total` have passed, in `unit`s."""
    return _with_bar(items, total, unit) if sys.stderr.isatty() else _with_lines(items, total, unit)


def progress_bar(transient: bool = False) -> Any:
    """Returns a `rich.progress.Progress` on standard error; its tasks have a field `note`.

    A transient bar disappears when it stops.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=transient,
    )


def duration(seconds: float) -> str:
    """Returns seconds as m:ss or h:mm:ss; infinity as "?"."""
    if math.isinf(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _with_bar(items: Iterable[T], total: int, unit: str) -> Iterator[T]:
    start = time.perf_counter()
    with progress_bar(transient=True) as progress:
        task = progress.add_task(unit, total=total, note="")
        for done, item in enumerate(items, 1):
            progress.update(task, completed=done, note=f"{done / (time.perf_counter() - start):.1f} {unit}/s")
            yield item


def _with_lines(items: Iterable[T], total: int, unit: str) -> Iterator[T]:
    start = printed = time.perf_counter()
    for done, item in enumerate(items, 1):
        now = time.perf_counter()
        if now - printed > _LINE_EVERY:
            printed = now
            speed = done / (now - start)
            left = duration((total - done) / speed)
            with contextlib.suppress(OSError):  # its reader has left; the work is worth more than its progress
                print(f"{done}/{total} {unit}, {speed:.1f}/s, {left} left", file=sys.stderr, flush=True)
        yield item
