"""Progress on standard error: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_LINE_EVERY = 10.0  # seconds


def track(items: Iterable[T], total: int, unit: str) -> Iterator[T]:
    """Returns the items, unchanged; standard error tells how many of `total` have passed."""
    return _with_bar(items, total, unit) if sys.stderr.isatty() else _with_lines(items, total, unit)


def _with_bar(items: Iterable[T], total: int, unit: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"), TimeRemainingColumn(),
    )  # fmt: skip
    start = time.perf_counter()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(unit, total=total, speed="")
        for done, item in enumerate(items, 1):
            progress.update(task, completed=done, speed=f"{done / (time.perf_counter() - start):.1f} {unit}/s")
            yield item


def _with_lines(items: Iterable[T], total: int, unit: str) -> Iterator[T]:
    start = said = time.perf_counter()
    for done, item in enumerate(items, 1):
        now = time.perf_counter()
        if now - said > _LINE_EVERY:
            said = now
            speed = done / (now - start)
            left = (total - done) / speed
            print(f"{done}/{total} {unit}, {speed:.1f}/s, {left:.0f} s left", file=sys.stderr, flush=True)
        yield item


def _make_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[note]}"))
    return Progress(*columns, console=Console(stderr=True))


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
