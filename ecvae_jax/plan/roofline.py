"""The search for the largest batch that fits a chip's memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ecvae_jax.plan.chips import TooLargeError, Topology

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

HOP_SECONDS = 1e-6
"""Assumed time for a message to pass from a chip to its neighbor, whatever its size."""


@dataclass(frozen=True)
class Roofline:
    """Predicted times of one step, seconds. Nothing is taken to overlap with the collectives."""

    compute: float
    """FLOPs at the matrix units' peak."""
    memory: float
    """Bytes at the HBM's full bandwidth."""
    collective: float
    """All collectives, one after the other."""
    efficiency: float
    """Fraction of the peak or bandwidth that the chip is assumed to reach on its own work."""

    @property
    def work(self) -> float:
        """Time of what each chip does by itself."""
        return max(self.compute, self.memory) / self.efficiency

    @property
    def step(self) -> float:
        """Time of one step."""
        return self.work + self.collective

    @property
    def limit(self) -> str:
        """What takes longest: "compute", "memory" (HBM bandwidth) or "collectives"."""
        if self.collective > self.work:
            return "collectives"
        return "compute" if self.compute >= self.memory else "memory"

    @property
    def scaling(self) -> float:
        """Share of the step in which chips do their own work: how far n chips are n times as fast as one."""
        return self.work / self.step if self.step else 1.0


def all_reduce_seconds(topology: Topology, size: int) -> float:
    """Returns the time to sum arrays of `size` bytes over all chips, each ending with the sum.

    Every chip sends and receives 2 (n - 1) / n of the size. An axis closed to a ring carries it over its links in both
    directions, an open one in one direction; all axes share the work. To that, `HOP_SECONDS` a hop: there and back
    along each axis, one after the other.
    """
    if topology.chips == 1:
        return 0.0
    used = [(side, ring) for side, ring in zip(topology.sides, topology.wrapped, strict=True) if side > 1]
    bandwidth = sum((2 if ring else 1) * topology.chip.link_bandwidth for _, ring in used)
    hops = sum(2 * (side - 1) for side, _ in used)
    return 2 * (topology.chips - 1) / topology.chips * size / bandwidth + hops * HOP_SECONDS


def roofline(
    topology: Topology, flops: float, moved: float, reduced: list[int], efficiency: float = 1.0
) -> Roofline:
    """Returns the predicted times.

    Args:
        topology: the chips.
        flops: of one chip and step.
        moved: bytes that one chip and step read from and write to HBM.
        reduced: bytes of each collective, all taken to cost what an all-reduce costs.
        efficiency: see `Roofline.efficiency`.
    """
    chip = topology.chip
    return Roofline(
        flops / chip.bf16_flops,
        moved / chip.hbm_bandwidth,
        sum(all_reduce_seconds(topology, size) for size in reduced),
        efficiency,
    )


def largest_batch(limit: int, first: tuple[int, int], second: tuple[int, int]) -> int:
    """Returns the largest batch whose memory stays within `limit`, were memory linear in the batch.

    Args:
        limit: bytes.
        first: a batch and the bytes that it takes.
        second: another, larger one.
    """
    slope = (second[1] - first[1]) / (second[0] - first[0])
    if slope <= 0:
        return second[0]
    return max(0, int((limit - first[1]) / slope + first[0] + 1e-9))
