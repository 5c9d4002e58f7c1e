"""The arithmetic of a plan: topologies, times, the search for the largest batch."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecvae_jax.plan.chips import CHIPS, PlanError, TooLargeError, Topology
from ecvae_jax.plan.roofline import HOP_SECONDS, all_reduce_seconds, find_largest_batch, largest_batch, roofline

TOPOLOGIES = ["v5e:1x1", "v5e:2x4", "v5e:16x16", "v6e:8x16", "v4:2x2x1", "v4:4x4x8", "v5p:2x2x2", "v5p:4x4x4"]
topologies = st.sampled_from([Topology.parse(text) for text in TOPOLOGIES])
amounts = st.floats(0, 1e15)


@pytest.mark.parametrize("text", TOPOLOGIES)
def test_a_topology_is_read_and_written(text: str) -> None:
    topology = Topology.parse(text)
    assert str(topology) == text
    assert topology.chips == math.prod(topology.sides) <= topology.chip.largest
    assert len(topology.wrapped) == len(topology.sides) == topology.chip.axes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("v5:4x4", "did you mean 'v5"),
        ("h100:8", "must be one of v4, v5e, v5p, v6e"),
        ("v5e", "the shape of a v5e must be one of 1x1, 2x2"),
        ("v5e:3x3", "the shape of a v5e must be one of 1x1, 2x2"),
        ("v5e:-4x-4", "the shape of a v5e"),
        ("v5e:2x2x2", "the shape of a v5e"),
        ("v5p:2x2", "three multiples of 4, at most 6144 chips"),
        ("v4:4x4x0", "the shape of a v4"),
        ("v4:4x4x6", "the shape of a v4"),
        ("v4:16x16x32", "at most 4096 chips"),
    ],
)
def test_unknown_topology_is_refused(text: str, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        Topology.parse(text)


def test_axes_are_closed_in_full_pods_and_whole_cubes() -> None:
    closed = {text: Topology.parse(text).wrapped for text in ("v5e:8x16", "v5e:16x16", "v4:2x4x4", "v5p:4x4x8")}
    assert closed == {
        "v5e:8x16": (False, True),
        "v5e:16x16": (True, True),
        "v4:2x4x4": (False,) * 3,
        "v5p:4x4x8": (True,) * 3,
    }


@given(topologies, st.integers(0, 10**10), st.integers(0, 10**10))
def test_an_all_reduce_takes_longer_for_more_and_no_less_than_all_links_could(
    topology: Topology, size: int, more: int
) -> None:
    seconds = all_reduce_seconds(topology, size)
    if topology.chips == 1:
        assert seconds == 0
        return
    links = 2 * topology.chip.axes * topology.chip.link_bandwidth
    assert seconds > 2 * (topology.chips - 1) / topology.chips * size / links
    assert all_reduce_seconds(topology, size + more) >= seconds


def test_all_reduce_by_hand() -> None:
    """100 MB over 4 × 4 open axes: 2 · 15/16 of it over two links of 50 GB/s, and 12 hops; a pod has four links."""
    small, pod = Topology.parse("v5e:4x4"), Topology.parse("v5e:16x16")
    assert all_reduce_seconds(small, 10**8) == pytest.approx(1.875e8 / 100e9 + 12 * HOP_SECONDS)
    assert all_reduce_seconds(pod, 10**8) == pytest.approx(2e8 * 255 / 256 / 200e9 + 60 * HOP_SECONDS)


@given(topologies, amounts, amounts, st.lists(st.integers(0, 10**9), max_size=4), st.floats(0.01, 1))
def test_a_step_is_no_shorter_than_any_part_of_it(
    topology: Topology, flops: float, moved: float, reduced: list[int], efficiency: float
) -> None:
    times, bound = (roofline(topology, flops, moved, reduced, e) for e in (efficiency, 1.0))
    assert times.step >= bound.step >= max(bound.compute, bound.memory, bound.collective)
    assert times.scaling >= bound.scaling >= 0  # collectives weigh most where own work is fastest
    assert bound.scaling <= times.scaling <= 1
    parts = {
        "compute": times.compute / efficiency,
        "memory": times.memory / efficiency,
        "collectives": times.collective,
    }
    assert parts[times.limit] == max(parts.values())


def test_a_step_by_hand() -> None:
    times = roofline(Topology.parse("v5e:1x1"), 197e12, 819e9 / 2, [10**9], 0.5)
    assert (times.compute, times.memory, times.collective) == (1.0, 0.5, 0.0)
    assert (times.step, times.limit, times.scaling) == (2.0, "compute", 1.0)


@given(st.integers(0, 10**9), st.integers(1, 10**8), st.integers(1, 64), st.integers(1, 64))
def test_extrapolation_of_a_line_is_exact(fixed: int, each: int, first: int, more: int) -> None:
    limit = 16 * 2**30
    found = largest_batch(limit, (first, fixed + each * first), (first + more, fixed + each * (first + more)))
    assert fixed + each * found <= limit < fixed + each * (found + 1)


@given(
    st.sampled_from([chip.hbm_bytes for chip in CHIPS.values()]),
    st.integers(10**7, 10**9),
    st.floats(5e7, 3e8),
    st.floats(0.95, 1.05),
    st.integers(1, 16),
)
def test_the_largest_batch_was_compiled_and_fits(limit: int, fixed: int, each: float, power: float, start: int) -> None:
    """Also where memory is not quite linear in the batch. Little memory stays unused."""
    compiled = []

    def memory_of(batch: int) -> int:
        compiled.append(batch)
        needed = int(fixed + each * batch**power)
        if needed > limit:
            raise TooLargeError("too large")
        return needed

    found = find_largest_batch(memory_of, limit, start, memory_of(start))
    assert found.batch_per_chip in compiled
    assert list(found.compiled) == compiled
    assert len(compiled) <= 7
    assert found.memory == memory_of(found.batch_per_chip) <= limit
    assert found.batch_per_chip >= max(batch for batch in compiled if batch not in found.refused)
    assert fixed + each * (found.batch_per_chip * 1.25 + 1) ** power > limit


def test_batch_that_just_fits_is_the_largest() -> None:
    def memory_of(batch: int) -> int:
        if batch > 10:
            raise TooLargeError("too large")
        return batch * 100

    found = find_largest_batch(memory_of, 1000, 10, 1000)
    assert (found.batch_per_chip, found.memory) == (10, 1000)


def test_small_batches_do_not_extrapolate_far() -> None:
    """Two small batches may take the same memory, which does not extrapolate to a hundred times as much."""

    def memory_of(batch: int) -> int:
        if batch > 200:
            raise TooLargeError("too large")
        return max(100 + batch, 50 * batch)

    found = find_largest_batch(memory_of, 10_000, 1, 101)
    assert found.batch_per_chip == 200
