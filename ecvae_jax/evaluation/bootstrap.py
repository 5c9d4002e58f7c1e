"""Confidence intervals over people: views of one person are not independent, so people are drawn again, not pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import bootstrap

RESAMPLES = 1000
LEVEL = 0.95


class Score(NamedTuple):
    """The mean of one metric over pairs, and its interval."""

    mean: float
    low: float | None
    """Lower end of the 95% interval; none of a single person."""
    high: float | None
    count: int
    """Pairs that have a value."""


def score(values: Float[np.ndarray, " n"], people: Sequence[str], seed: int = 0) -> Score | None:
    """Returns the mean over pairs with its bootstrap interval over people; none where no pair has a value.

    Percentile bootstrap of scipy, `RESAMPLES` draws of as many people as there are, each with all their pairs.

    Args:
        values: one a pair; NaN where it has none, which is left out.
        people: whose pair it is.
        seed: of the draws.

    Raises:
        ValueError: not as many people as values.
    """
    if len(values) != len(people):
        raise ValueError(f"{len(people)} people for {len(values)} values: give one a value")
    there = np.isfinite(values)
    if not there.any():
        return None
    kept = np.asarray(values, np.float64)[there]
    names, index = np.unique(np.asarray(people)[there], return_inverse=True)
    sums, counts = np.bincount(index, kept), np.bincount(index)
    mean = float(kept.mean())
    if len(names) < 2:
        return Score(mean, None, None, len(kept))
    drawn = bootstrap(
        (sums, counts), lambda total, number, axis=-1: total.sum(axis) / number.sum(axis), paired=True, vectorized=True,
        n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Score(mean, float(drawn.low), float(drawn.high), len(kept))
