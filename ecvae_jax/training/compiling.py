"""How long JAX takes to compile, and what it reads from the cache instead."""

from __future__ import annotations

import time
from typing import Any

import jax

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
