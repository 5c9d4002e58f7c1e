"""Observation of the steps of a training: watchdog, profiler traces, compile times, peak memory."""

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

TRACES = "profile"
"""Folder of a working directory for traces, in the layout of TensorBoard's profile page."""

_COMPILE_EVENTS = "/jax/core/compile/"
_CACHE_HIT = "/jax/compilation_cache/cache_hits"
_GIB = 2**30


class StepMonitor:
    """Watchdog, tracer and compile log of a training: run each step inside `step`, then call `dispatched`."""

    def __init__(
        self, config: TrainConfig, workdir: Path, start_step: int, profile: Span | None, say: Callable[[str], None]
    ) -> None:
        """Prepares all parts; `say` receives the lines for the user.

        Raises:
            ValueError: the training resumes after the steps of `profile`.
        """
        self._tracer = Tracer(profile, workdir, start_step, say)
        self._watchdog = Watchdog(config, workdir, start_step)
        self._compiled = CompileLog()
        self._first, self._say = start_step + 1, say
        self._compiles = True

    def __enter__(self) -> StepMonitor:
        with ExitStack() as stack:
            stack.callback(self._tracer.close)
            stack.enter_context(self._compiled)
            stack.enter_context(self._watchdog)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Runs its block, which dispatches step `number`, or the steps of a call from `number` on."""
        if number == self._first:
            self._compiled.mark()
        with self._tracer.step(number):
            yield

    def dispatched(self, number: int, metrics: Metrics) -> None:
        """Records the pending metrics of step `number`, the last of its call; blocks only at the end of a trace."""
        self._watchdog.dispatched(number, metrics["loss"])
        self._tracer.dispatched(number, metrics)
        if self._compiles:
            self._compiles = False
            self._say(f"training step: {self._compiled.since_mark()}")

    def readings(self) -> dict[str, float]:
        """Returns the compile seconds and the peak memory in GiB, both since the training began."""
        return {"compile_seconds": self._compiled.seconds, "peak_memory_gib": peak_memory()[0]}


class Tracer:
    """Annotates every step for the profiler, and traces the steps of `span` into `TRACES`."""

    def __init__(self, span: Span | None, workdir: Path, start_step: int, say: Callable[[str], None]) -> None:
        """Prepares the trace; `say` receives its path.

        Raises:
            ValueError: the training resumes after the span.
        """
        if span is not None and span.last <= start_step:
            raise ValueError(
                f"profile={span.first}:{span.last}: the training in {workdir} resumes from step {start_step}; "
                "choose later steps"
            )
        # Every host checks the span, the first one traces.
        self._span = span if jax.process_index() == 0 else None
        self._folder, self._say = workdir / TRACES, say
        self._next = start_step + 1
        self._newest: PyTree = None
        self._running = False

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Runs its block as step `number`; starts the trace before the first step of the span."""
        if self._span is not None and number == max(self._span.first, self._next):
            jax.block_until_ready(self._newest)  # earlier steps stay outside the trace
            jax.profiler.start_trace(self._folder)
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def dispatched(self, number: int, results: PyTree) -> None:
        """Records the results of step `number`; ends the trace after the last step of the span."""
        if self._span is None:
            return
        self._newest = results
        if number == self._span.last:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Ends the trace if it is running."""
        if not self._running:
            return
        self._running = False
        jax.profiler.stop_trace()
        newest = max(self._folder.rglob("*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
        self._say(
            f"trace: {newest}: open it at https://ui.perfetto.dev, or `pip install xprof` and then "
            f"`tensorboard --logdir {self._folder.parent}`"
        )


class CompileLog:
    """Measures what JAX compiles inside a `with` block, in any thread."""

    def __init__(self) -> None:
        self._hits = 0
        self._mark = (0.0, 0)
        self._spans: list[tuple[float, float]] = []

    def __enter__(self) -> CompileLog:
        jax.monitoring.register_event_duration_secs_listener(self._add_duration)
        jax.monitoring.register_event_listener(self._add_event)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._add_duration)
        jax.monitoring.unregister_event_listener(self._add_event)

    @property
    def seconds(self) -> float:
        """Seconds of tracing, lowering, compiling, and reading from the compile cache."""
        return sum(end - begin for begin, end in self._spans)

    def mark(self) -> None:
        """Sets the start of `since_mark`."""
        self._mark = (self.seconds, self._hits)

    def since_mark(self) -> str:
        """Returns the compile time since `mark`, and whether the program came from the cache, as text."""
        seconds, hits = self._mark
        folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
        if not folder or not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
            source = "no compile cache"
        else:
            source = f"{'read from' if self._hits > hits else 'not yet in'} the compile cache {folder}"
        return f"compiled in {self.seconds - seconds:.1f} s ({source})"

    def _add_duration(self, event: str, duration_secs: float, **_: Any) -> None:
        if not event.startswith(_COMPILE_EVENTS):
            return
        end = time.monotonic()
        begin = end - duration_secs
        # JAX reports a function after the nested ones, whose time it includes.
        while self._spans and self._spans[-1][1] > begin:
            begin = min(begin, self._spans.pop()[0])
        self._spans.append((begin, end))

    def _add_event(self, event: str, **_: Any) -> None:
        self._hits += event == _CACHE_HIT


def peak_memory() -> tuple[float, str]:
    """Returns the peak in GiB and its owner: "device" (the fullest of this process) or "process".

    XLA's CPU backend keeps no memory statistics; there it is the peak resident memory of the process.
    """
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [entry["peak_bytes_in_use"] for entry in stats if entry and "peak_bytes_in_use" in entry]
    if peaks:
        return max(peaks) / _GIB, "device"
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident * (1 if sys.platform == "darwin" else 1024) / _GIB, "process"
