"""What looks at a training's steps while they run: the profiler, the clock of the compiler, the watchdog."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ecvae_jax.config import TrainConfig
from ecvae_jax.training.compiling import CompileLog
from ecvae_jax.training.memory import peak_memory
from ecvae_jax.training.step import Metrics
from ecvae_jax.training.tracing import Span, Tracer
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
