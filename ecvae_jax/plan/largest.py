"""The search for the largest batch that fits a chip's memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ecvae_jax.plan.errors import TooLargeError
from ecvae_jax.plan.roofline import largest_batch

_MOST_TRIES = 6
_FURTHEST = 8
"""Times the largest batch known to fit: further than that no extrapolation is trusted."""
_CLOSE = 0.97
"""A batch that takes this share of the memory is not improved upon: each try is a compilation of a minute or two."""


@dataclass(frozen=True)
class Largest:
    """The largest batch found."""

    batch_per_chip: int
    memory: int
    """Bytes of HBM that its program takes."""
    compiled: tuple[int, ...]
    """The batches a chip that were compiled to find it, in this order, the given one first."""
    refused: tuple[int, ...]
    """Those of them that did not fit."""


def find_largest_batch(memory_of: Callable[[int], int], limit: int, batch: int, memory: int) -> Largest:
    """Returns the largest batch found by extrapolation from two batches, always one that was compiled.

    Args:
        memory_of: compiles for a batch a chip and returns its bytes; raises TooLargeError where it does not fit.
        limit: the chip's bytes.
        batch: a batch that fits.
        memory: its bytes.
    """
    fitting, tried, refused = {batch: memory}, [batch], []
    candidate = 2 * batch
    for _ in range(_MOST_TRIES):
        tried.append(candidate)
        try:
            fitting[candidate] = memory_of(candidate)
        except TooLargeError:
            refused.append(candidate)
        best = max(fitting)
        if fitting[best] >= _CLOSE * limit:
            break
        if len(fitting) > 1:
            low, high = sorted(fitting)[-2:]
            candidate = largest_batch(limit, (low, fitting[low]), (high, fitting[high]))
        else:
            candidate = (best + candidate) // 2
        candidate = min(candidate, _FURTHEST * best)
        if refused and candidate >= min(refused):  # memory is not quite linear: an eighth of the way back
            candidate = (best + 7 * min(refused)) // 8
        if candidate <= best:
            break
    best = max(fitting)
    return Largest(best, fitting[best], tuple(tried), tuple(refused))
