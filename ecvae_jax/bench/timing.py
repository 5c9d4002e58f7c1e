"""Seconds of several calls, measured in alternating rounds, and the product peak of the machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_MOST_CALLS = 200
_SIDES = {"cpu": 1024}
_SIDE = 8192
"""Side of the peak's square matrices on accelerators, which need large products; a CPU reaches its peak with 1024."""


class Spread(NamedTuple):
    """Median, smallest and largest of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Returns the spread of one value per round."""
        return cls(statistics.median(values), min(values), max(values))


Call = Callable[[], Any]
"""Dispatches one unit of work and returns arrays to wait for."""


def alternate(calls: Mapping[str, Call], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Returns the seconds per call of each round, by name; every round measures all calls one after another.

    Each call runs twice before: the first time compiles, the second sets how often a round repeats it.

    Args:
        rounds: at least 1.
        seconds: least duration of one measurement.
    """
    repeats = {}
    for name, call in calls.items():
        jax.block_until_ready(call())
        repeats[name] = min(_MOST_CALLS, max(1, round(seconds / max(_seconds(call, 1), 1e-6))))
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(_seconds(call, repeats[name]))
    return found


def _seconds(call: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / repeats


def products(side: int | None = None) -> dict[str, tuple[float, Call]]:
    """Returns FLOPs and call of a square matrix product: float32, and on accelerators bfloat16.

    Float32 has JAX's default precision, as in the network: TF32 on a GPU, bfloat16 passes on a TPU.
    """
    platform = jax.default_backend()
    side = side or _SIDES.get(platform, _SIDE)
    multiply = jax.jit(jnp.matmul)
    found = {}
    for name in ("float32",) if platform == "cpu" else ("float32", "bfloat16"):
        matrix = jnp.full((side, side), 1.0 / side, name)
        found[name] = 2.0 * side**3, (lambda matrix=matrix: multiply(matrix, matrix))
    return found
