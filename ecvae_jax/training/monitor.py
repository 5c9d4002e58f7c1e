"""What looks at a training's steps while they run: the profiler, the clock of the compiler, the watchdog."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from ecvae_jax.config import Span, TrainConfig
from ecvae_jax.training.step import Metrics
from ecvae_jax.training.watchdog import Watchdog


class Watch:
    """Every step runs inside `step`, and its results go to `dispatched`."""

    def __init__(
        self, config: TrainConfig, workdir: Path, start_step: int, profile: Span | None, say: Callable[[str], None]
    ) -> None:
        """Prepares everything; `say` is told what the user should know.

        Raises:
            ValueError: the training goes on from a step behind `profile`.
        """
        self._tracer = Tracer(profile, workdir, start_step, say)
        self._watchdog = Watchdog(config, workdir, start_step)
        self._compiled = CompileLog()
        self._first, self._say = start_step + 1, say

    def __enter__(self) -> Watch:
        """Starts to look."""
        with ExitStack() as stack:
            stack.callback(self._tracer.close)
            stack.enter_context(self._compiled)
            stack.enter_context(self._watchdog)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops, and ends a trace that still runs."""
        self._stack.close()

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Runs its block, which hands step `number` to the devices."""
        if number == self._first:
            self._compiled.mark()
        with self._tracer.step(number):
            yield

    def dispatched(self, number: int, metrics: Metrics) -> None:
        """Notes what step `number` will result in; does not wait for it (but at the end of a trace)."""
        self._watchdog.dispatched(number, metrics["loss"])
        self._tracer.dispatched(number, metrics)
        if number == self._first:
            self._say(f"training step: {self._compiled.since_mark()}")

    def readings(self) -> dict[str, float]:
        """Returns seconds spent on compiling and the peak of the memory in GiB, both since the training began."""
        return {"compile_seconds": self._compiled.seconds, "peak_memory_gib": peak_memory()[0]}

FOLDER = "profile"
"""Name of the folder of traces inside a working directory, laid out as TensorBoard's profile page wants it."""


class Tracer:
    """Names every step for the profiler, and traces the steps of `span` into `workdir/profile`."""

    def __init__(self, span: Span | None, workdir: Path, start_step: int, say: Callable[[str], None]) -> None:
        """Prepares the trace; `say` is told where it is.

        Raises:
            ValueError: the training goes on from a step behind the span.
        """
        if span is not None and span.last <= start_step:
            raise ValueError(
                f"profile={span.first}:{span.last}: the training in {workdir} goes on from step {start_step}; "
                "take later steps"
            )
        # Every host refuses, the first one traces.
        self._span = span if jax.process_index() == 0 else None
        self._folder, self._say = workdir / FOLDER, say
        self._next = start_step + 1
        self._newest: PyTree = None
        self._running = False

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Runs its block as step `number`; the trace begins before it where it is the first of the span."""
        if self._span is not None and number == max(self._span.first, self._next):
            jax.block_until_ready(self._newest)  # what was dispatched before belongs outside
            jax.profiler.start_trace(self._folder)
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def dispatched(self, number: int, results: PyTree) -> None:
        """Notes the results of step `number`; the trace ends with them where it is the last of the span."""
        if self._span is None:
            return
        self._newest = results
        if number == self._span.last:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Ends the trace where it runs."""
        if not self._running:
            return
        self._running = False
        jax.profiler.stop_trace()
        newest = max(self._folder.rglob("*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
        self._say(f"trace: {newest}: open it at https://ui.perfetto.dev, or `pip install xprof` and then "
                  f"`tensorboard --logdir {self._folder.parent}`")  # fmt: skip

_DURATIONS = "/jax/core/compile/"


_HIT = "/jax/compilation_cache/cache_hits"


class CompileLog:
    """Counts what JAX compiles inside a `with` block, in any thread."""

    def __init__(self) -> None:
        self._hits = 0
        self._mark = (0.0, 0)
        self._spans: list[tuple[float, float]] = []

    def __enter__(self) -> CompileLog:
        """Starts counting."""
        jax.monitoring.register_event_duration_secs_listener(self._took)
        jax.monitoring.register_event_listener(self._happened)
        return self

    def __exit__(self, *_: object) -> None:
        """Stops counting."""
        jax.monitoring.unregister_event_duration_listener(self._took)
        jax.monitoring.unregister_event_listener(self._happened)

    @property
    def seconds(self) -> float:
        """Seconds of tracing, lowering and compiling, or of reading what was compiled before."""
        return sum(end - begin for begin, end in self._spans)

    def mark(self) -> None:
        """Begins what `since_mark` tells of."""
        self._mark = (self.seconds, self._hits)

    def since_mark(self) -> str:
        """Returns how long it took, and whether it came from the cache, in words."""
        seconds, hits = self._mark
        folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
        if not folder or not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
            how = "no compile cache"
        else:
            how = f"{'read from' if self._hits > hits else 'not yet in'} the compile cache {folder}"
        return f"compiled in {self.seconds - seconds:.1f} s ({how})"

    def _took(self, event: str, duration_secs: float, **_: Any) -> None:
        if not event.startswith(_DURATIONS):
            return
        end = time.monotonic()
        begin = end - duration_secs
        # A function is reported after those inside it, whose time is part of its own.
        while self._spans and self._spans[-1][1] > begin:
            begin = min(begin, self._spans.pop()[0])
        self._spans.append((begin, end))

    def _happened(self, event: str, **_: Any) -> None:
        self._hits += event == _HIT

_GIB = 2**30


def peak_memory() -> tuple[float, str]:
    """Returns the peak in GiB, and of what: of the fullest device of this process, or of the process itself.

    XLA's CPU backend keeps no account of its memory, which is the process's.
    """
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [each["peak_bytes_in_use"] for each in stats if each and "peak_bytes_in_use" in each]
    if peaks:
        return max(peaks) / _GIB, "device"
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident * (1 if sys.platform == "darwin" else 1024) / _GIB, "process"
