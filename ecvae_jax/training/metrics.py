"""The steps since the last line of the log: what a line, and a point of a curve in TensorBoard, is the mean of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ecvae_jax.objective import Terms

_STEPS = "steps"


_SKIPPED = "skipped"


_IN_A_ROW = "skipped_in_a_row"

# A term that is no number makes the sums no number that it enters, and these the gradient: causes are named first.
_CAUSES = (*(name for name in Terms._fields if name != "loss"), "elbo", "loss", "gradient_norm")


class TrainingError(RuntimeError):
    """A training that cannot go on: too many steps in a row had a term that is no number."""


class SkippedStep:
    """A step whose loss or gradient was not finite, and why."""

    def __init__(self, step: int, values: Mapping[str, float]) -> None:
        """Finds the first of the metrics that is not finite, causes before what follows from them."""
        self.step = step
        bad = [name for name in (*_CAUSES, *sorted(values)) if name in values and not math.isfinite(values[name])]
        self.why = f"{bad[0]} is {values[bad[0]]}" if bad else "something was not finite"

    def __str__(self) -> str:
        return f"step {self.step}: {self.why}"


class Window:
    """Sums of the metrics of some steps, without those that were skipped, which are counted.

    They are stored in every checkpoint, and added up in the order of the steps, so that a training that was interrupted
    between two lines has the same curve, to the last bit, as one that was not.
    """

    def __init__(self, totals: Mapping[str, float]) -> None:
        """Goes on from the `totals` of a checkpoint; an empty mapping begins a new window."""
        self.totals: dict[str, float] = {_STEPS: 0.0, _SKIPPED: 0.0, _IN_A_ROW: 0.0, **totals}
        self.last_skipped: SkippedStep | None = None
        """Of those that were added by this process."""

    @property
    def skipped(self) -> int:
        """How many steps of the window were skipped."""
        return int(self.totals[_SKIPPED])

    def next(self) -> Window:
        """Returns an empty window that remembers how many steps at the end of this one were skipped in a row."""
        return Window({_IN_A_ROW: self.totals[_IN_A_ROW]})

    def add(self, metrics: Sequence[Mapping[str, np.ndarray]], last_step: int, most: int) -> SkippedStep | None:
        """Adds the metrics of the steps up to `last_step`.

        Returns:
            The step with which `most` steps in a row were skipped, if it came to that; what comes after is not added.
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
        """Returns the mean of each metric over the window, and the number of skipped steps; {} where all were."""
        steps = self.totals[_STEPS]
        if not steps:
            return {}
        means = {name: total / steps for name, total in self.totals.items() if name not in (_STEPS, _IN_A_ROW)}
        return {**means, _SKIPPED: self.totals[_SKIPPED]}
