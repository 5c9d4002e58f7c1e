"""Means of the metrics between two log lines, and steps whose loss or gradient is not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ecvae_jax.objective import Terms

_STEPS, _SKIPPED, _IN_A_ROW = "steps", "skipped", "skipped_in_a_row"

# NaNs propagate from terms to loss to gradient, so the earliest one is reported.
_CAUSES = (*(name for name in Terms._fields if name != "loss"), "elbo", "loss", "gradient_norm")


class TrainingError(RuntimeError):
    """A training that cannot continue: too many consecutive steps had a NaN or infinite loss or gradient."""


class SkippedStep:
    """A step whose loss or gradient was not finite, and the cause."""

    def __init__(self, step: int, values: Mapping[str, float]) -> None:
        """Finds the first metric that is not finite, causes before effects."""
        self.step = step
        bad = [name for name in (*_CAUSES, *sorted(values)) if name in values and not math.isfinite(values[name])]
        self.why = f"{bad[0]} is {values[bad[0]]}" if bad else "a value was not finite"

    def __str__(self) -> str:
        return f"step {self.step}: {self.why}"


class MetricAverages:
    """Sums of the metrics since the last log line; skipped steps are counted, not summed.

    The sums are stored in every checkpoint and added in the order of the steps. A training interrupted between two log
    lines therefore has the same curves, bit for bit, as an uninterrupted one.
    """

    def __init__(self, totals: Mapping[str, float]) -> None:
        """Resumes from the `totals` of a checkpoint; an empty mapping starts at zero."""
        self.totals: dict[str, float] = {_STEPS: 0.0, _SKIPPED: 0.0, _IN_A_ROW: 0.0, **totals}
        self.last_skipped: SkippedStep | None = None
        """The last skipped step that this process added."""

    @property
    def skipped(self) -> int:
        """Number of skipped steps."""
        return int(self.totals[_SKIPPED])

    def next(self) -> MetricAverages:
        """Returns empty sums that remember the number of consecutive skipped steps."""
        return MetricAverages({_IN_A_ROW: self.totals[_IN_A_ROW]})

    def add(self, metrics: Sequence[Mapping[str, np.ndarray]], last_step: int, most: int) -> SkippedStep | None:
        """Adds the metrics of the steps up to `last_step`.

        Returns:
            The step that was the `most`-th consecutive skipped one, or None; later steps are not added.
        """
        for step, arrays in enumerate(metrics, last_step - len(metrics) + 1):
            values = {name: float(array) for name, array in arrays.items()}
            if values.pop(_SKIPPED):
                self.last_skipped = SkippedStep(step, values)
                self.totals[_SKIPPED] += 1
                self.totals[_IN_A_ROW] += 1
                if self.totals[_IN_A_ROW] >= most:
                    return self.last_skipped
                continue
            self.totals[_IN_A_ROW] = 0.0
            self.totals[_STEPS] += 1
            for name, value in values.items():
                self.totals[name] = self.totals.get(name, 0.0) + value
        return None

    def means(self) -> dict[str, float]:
        """Returns the mean of each metric and the number of skipped steps; {} if every step was skipped."""
        steps = self.totals[_STEPS]
        if not steps:
            return {}
        means = {name: total / steps for name, total in self.totals.items() if name not in (_STEPS, _IN_A_ROW)}
        return {**means, _SKIPPED: self.totals[_SKIPPED]}
