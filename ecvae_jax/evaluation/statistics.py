"""Confidence intervals over people: views of one person are not independent, so people are drawn again, not pairs."""

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



class Summary(NamedTuple):
    """One measure of one variant over its trainings."""

    mean: float
    stddev: float | None
    """Between trainings of different seeds; none of a single one."""
    seeds: int


class Difference(NamedTuple):
    """First variant minus second, over the same pairs and equal seeds."""

    mean: float
    low: float | None
    """Lower end of the 95% interval; none where it cannot be told."""
    high: float | None
    per_seed: tuple[float, ...]
    people: int
    """0 where only trainings have values."""

    @property
    def told(self) -> int:
        """1: the first is larger, -1: smaller, 0: the interval holds zero (or there is none)."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def summarize(runs: Sequence[Float[np.ndarray, " n"]]) -> Summary | None:
    """Returns mean and standard deviation over trainings of the means over pairs; none where no value is there."""
    means = [float(each[np.isfinite(each)].mean()) for each in runs if np.isfinite(each).any()]
    if not means:
        return None
    return Summary(float(np.mean(means)), float(np.std(means, ddof=1)) if len(means) > 1 else None, len(means))


def paired_difference(
    first: Sequence[Float[np.ndarray, " n"]], second: Sequence[Float[np.ndarray, " n"]], people: Sequence[str] | None
) -> Difference | None:
    """Returns first − second with its interval over people and over trainings; none where no pair has both values.

    Two things are drawn at random: the people, and each training (its seed). The variance of the mean is the sum of
    two parts: between people, of the differences averaged over seeds (cluster-robust: people, not pairs, are
    independent), and between seeds, of the differences averaged over pairs. The two share the people-by-seed part, so
    that the interval is rather too wide than too narrow. Student's t with Satterthwaite's degrees of freedom; a
    percentile bootstrap over three seeds would be much too narrow. With one seed the interval is over people alone,
    without people over seeds alone.

    Args:
        first: one array a seed, one value a pair.
        second: of the same seeds, in the same order.
        people: whose pair it is; none where a training has a single value.

    Raises:
        ValueError: not as many seeds, values or people on both sides.
    """
    if len(first) != len(second) or any(len(a) != len(b) for a, b in zip(first, second, strict=False)):
        raise ValueError("a paired difference needs the same seeds and pairs on both sides")
    apart = np.array([np.asarray(a, np.float64) - b for a, b in zip(first, second, strict=True)])
    apart = apart[np.isfinite(apart).any(axis=1)] if apart.size else apart
    if not apart.size:
        return None
    if people is not None and len(people) != apart.shape[1]:
        raise ValueError(f"{len(people)} people for {apart.shape[1]} values: give one a value")
    per_seed = np.array([row[np.isfinite(row)].mean() for row in apart])
    mean = float(per_seed.mean())
    parts: list[tuple[float, int]] = []  # variance of the mean, degrees of freedom
    count = 0
    if people is not None:
        there = np.isfinite(apart).any(axis=0)
        averaged = np.nanmean(apart[:, there], axis=0)
        names, index = np.unique(np.asarray(people)[there], return_inverse=True)
        count = len(names)
        if count > 1:
            off = np.bincount(index, averaged - averaged.mean())
            parts.append((float(count / (count - 1) * (off**2).sum() / len(averaged) ** 2), count - 1))
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
