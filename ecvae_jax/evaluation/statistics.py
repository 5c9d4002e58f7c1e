"""Means with bootstrap intervals over people, and paired differences over people and trainings.

Views of one person are not independent, so people are resampled, not pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats
from scipy.stats import bootstrap

RESAMPLES = 1000
LEVEL = 0.95


class Score(NamedTuple):
    """The mean of one metric over pairs, with its interval."""

    mean: float
    low: float | None
    """Lower end of the 95% interval; None for a single person."""
    high: float | None
    count: int
    """Pairs with a value."""


def score(values: Float[np.ndarray, " n"], people: Sequence[str], seed: int = 0) -> Score | None:
    """Returns the mean over pairs with its bootstrap interval over people; None if no pair has a value.

    SciPy's percentile bootstrap: `RESAMPLES` draws of as many people, each with all their pairs. `values` has one a
    pair; NaN is left out.

    Raises:
        ValueError: the lengths differ.
    """
    if len(values) != len(people):
        raise ValueError(f"{len(people)} people for {len(values)} values: give one a value")
    present = np.isfinite(values)
    if not present.any():
        return None
    kept = np.asarray(values, np.float64)[present]
    names, index = np.unique(np.asarray(people)[present], return_inverse=True)
    sums, counts = np.bincount(index, kept), np.bincount(index)
    mean = float(kept.mean())
    if len(names) < 2:
        return Score(mean, None, None, len(kept))
    interval = bootstrap(
        (sums, counts),
        lambda total, number, axis=-1: total.sum(axis) / number.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Score(mean, float(interval.low), float(interval.high), len(kept))


class Summary(NamedTuple):
    """One measure of one variant over its trainings."""

    mean: float
    stddev: float | None
    """Between trainings of different seeds; None for a single one."""
    seeds: int


class Difference(NamedTuple):
    """First variant minus second, over the same pairs and equal seeds."""

    mean: float
    low: float | None
    """Lower end of the 95% interval; None with one person and one training."""
    high: float | None
    per_seed: tuple[float, ...]
    people: int
    """0 for measures with one value a training."""

    @property
    def sign(self) -> int:
        """1: the first is larger; -1: smaller; 0: the interval holds zero or does not exist."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def summarize(runs: Sequence[Float[np.ndarray, " n"]]) -> Summary | None:
    """Returns mean and standard deviation over trainings of the means over pairs; None without any value."""
    means = [float(each[np.isfinite(each)].mean()) for each in runs if np.isfinite(each).any()]
    if not means:
        return None
    return Summary(float(np.mean(means)), float(np.std(means, ddof=1)) if len(means) > 1 else None, len(means))


def paired_difference(
    first: Sequence[Float[np.ndarray, " n"]], second: Sequence[Float[np.ndarray, " n"]], people: Sequence[str] | None
) -> Difference | None:
    """Returns first − second with its interval over people and trainings; None if no pair has both values.

    People and trainings (seeds) are both random. The variance of the mean is the sum of two parts:

    - between people, of the differences averaged over seeds (cluster-robust: people, not pairs, are independent),
    - between seeds, of the differences averaged over pairs.

    Both parts contain the people-by-seed part, so the interval is too wide rather than too narrow. It uses Student's t
    with Satterthwaite's degrees of freedom; a percentile bootstrap over three seeds would be much too narrow. With a
    single seed, only between-person variance is used; without people, only between-seed variance.

    Args:
        first: one array a seed, one value a pair; `second` likewise.
        people: whose pair it is; None for one value a training.

    Raises:
        ValueError: seeds, values or people differ in number.
    """
    if len(first) != len(second) or any(len(a) != len(b) for a, b in zip(first, second, strict=False)):
        raise ValueError("a paired difference needs the same seeds and pairs on both sides")
    differences = np.array([np.asarray(a, np.float64) - b for a, b in zip(first, second, strict=True)])
    differences = differences[np.isfinite(differences).any(axis=1)] if differences.size else differences
    if not differences.size:
        return None
    if people is not None and len(people) != differences.shape[1]:
        raise ValueError(f"{len(people)} people for {differences.shape[1]} values: give one a value")
    per_seed = np.array([row[np.isfinite(row)].mean() for row in differences])
    mean = float(per_seed.mean())
    parts: list[tuple[float, int]] = []  # variance of the mean, degrees of freedom
    count = 0
    if people is not None:
        present = np.isfinite(differences).any(axis=0)
        averaged = np.nanmean(differences[:, present], axis=0)
        names, index = np.unique(np.asarray(people)[present], return_inverse=True)
        count = len(names)
        if count > 1:
            residuals = np.bincount(index, averaged - averaged.mean())
            parts.append((float(count / (count - 1) * (residuals**2).sum() / len(averaged) ** 2), count - 1))
    if len(per_seed) > 1:
        parts.append((float(per_seed.var(ddof=1) / len(per_seed)), len(per_seed) - 1))
    low, high = _interval(mean, parts)
    return Difference(mean, low, high, tuple(map(float, per_seed)), count)


def _interval(mean: float, parts: Sequence[tuple[float, int]]) -> tuple[float | None, float | None]:
    if not parts:
        return None, None
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return mean, mean
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in parts)
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, freedom)) * total**0.5
    return mean - reach, mean + reach
