"""An XLA trace of some steps of a training: `ecvae train --profile A:B`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from jaxtyping import PyTree

from ecvae_jax.training.span import Span

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
