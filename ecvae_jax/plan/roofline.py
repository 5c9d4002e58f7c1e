"""The times of a compiled program by a roofline, and the search for the largest batch that fits a chip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ecvae_jax.plan.chips import TooLargeError, Topology

HOP_SECONDS = 1e-6
"""Assumed latency of a message from a chip to its neighbor, of any size."""

# Each try is a compilation of a minute or two.
_MOST_TRIES = 6
# The search stops at a batch that uses this fraction of the memory.
_CLOSE = 0.97
# Extrapolation goes at most this many times beyond the largest batch known to fit.
_FURTHEST = 8


@dataclass(frozen=True)
class Roofline:
    """Predicted times of one step, in seconds. Nothing is assumed to overlap with the collectives."""

    compute: float
    """FLOPs at the matrix units' peak."""
    memory: float
    """Bytes at the HBM's full bandwidth."""
    collective: float
    """All collectives, one after another."""
    efficiency: float
    """Assumed fraction of peak or bandwidth that a chip reaches on its own work."""

    @property
    def work(self) -> float:
        """Time of each chip's own work, without collectives."""
        return max(self.compute, self.memory) / self.efficiency

    @property
    def step(self) -> float:
        """Time of one step."""
        return self.work + self.collective

    @property
    def limit(self) -> str:
        """The largest part: "compute", "memory" (HBM bandwidth) or "collectives"."""
        if self.collective > self.work:
            return "collectives"
        return "compute" if self.compute >= self.memory else "memory"

    @property
    def scaling(self) -> float:
        """Fraction of the step in which chips do their own work; 1 is linear scaling."""
        return self.work / self.step if self.step else 1.0


def all_reduce_seconds(topology: Topology, size: int) -> float:
    """Returns the seconds of an all-reduce of `size` bytes over all chips.

    Each chip sends and receives 2 (n - 1) / n of the size, shared by all axes. A ring uses its links in both
    directions, an open axis in one. Latency adds `HOP_SECONDS` per hop: forth and back along each axis in turn.
    """
    if topology.chips == 1:
        return 0.0
    used = [(side, ring) for side, ring in zip(topology.sides, topology.wrapped, strict=True) if side > 1]
    bandwidth = sum((2 if ring else 1) * topology.chip.link_bandwidth for _, ring in used)
    hops = sum(2 * (side - 1) for side, _ in used)
    return 2 * (topology.chips - 1) / topology.chips * size / bandwidth + hops * HOP_SECONDS


def roofline(topology: Topology, flops: float, moved: float, reduced: list[int], efficiency: float = 1.0) -> Roofline:
    """Returns the predicted times of one step.

    Args:
        flops: per chip.
        moved: bytes that one chip reads from and writes to HBM.
        reduced: bytes of each collective; each is assumed to cost as much as an all-reduce.
    """
    chip = topology.chip
    return Roofline(
        flops / chip.bf16_flops,
        moved / chip.hbm_bandwidth,
        sum(all_reduce_seconds(topology, size) for size in reduced),
        efficiency,
    )


@dataclass(frozen=True)
class Largest:
    """The largest batch that was compiled and fits."""

    batch_per_chip: int
    memory: int
    """Bytes of HBM of its program."""
    compiled: tuple[int, ...]
    """Batches per chip that were compiled, in order; the given one first."""
    refused: tuple[int, ...]
    """Those that did not fit."""


def find_largest_batch(memory_of: Callable[[int], int], limit: int, batch: int, memory: int) -> Largest:
    """Returns the largest batch per chip found by linear extrapolation; it was compiled and fits.

    Args:
        memory_of: compiles for a batch per chip and returns its bytes; raises TooLargeError if it does not fit.
        batch: a batch that fits in `memory` bytes; the chip has `limit` bytes.
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
        if refused and candidate >= min(refused):  # memory is not quite linear: go back an eighth of the way
            candidate = (best + 7 * min(refused)) // 8
        if candidate <= best:
            break
    best = max(fitting)
    return Largest(best, fitting[best], tuple(tried), tuple(refused))


def largest_batch(limit: int, first: tuple[int, int], second: tuple[int, int]) -> int:
    """Returns the largest batch that fits `limit` bytes, assuming that memory is linear in the batch.

    `first` and `second` are a batch with its bytes, the smaller batch first.
    """
    slope = (second[1] - first[1]) / (second[0] - first[0])
    if slope <= 0:
        return second[0]
    return max(0, int((limit - first[1]) / slope + first[0] + 1e-9))
