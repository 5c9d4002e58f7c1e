"""The steps since the last line of the log: what a line, and a point of a curve in TensorBoard, is the mean of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

_STEPS = "steps"


class TrainingError(RuntimeError):
    """A training that cannot go on: its loss is no number."""


class Window:
    """Sums of the metrics of some steps.

    They are stored in every checkpoint, and added up in the order of the steps, so that a training that was interrupted
    between two lines has the same curve, to the last bit, as one that was not.
    """

    def __init__(self, totals: Mapping[str, float]) -> None:
        """Goes on from the `totals` of a checkpoint; an empty mapping begins a new window."""
        self.totals: dict[str, float] = {_STEPS: 0.0, **totals}

    def add(self, metrics: Sequence[Mapping[str, np.ndarray]], last_step: int, workdir: Path) -> None:
        """Adds the metrics of the steps up to `last_step`.

        Raises:
            TrainingError: one of them is not finite.
        """
        for step, values in enumerate(metrics, last_step - len(metrics) + 1):
            for name, array in values.items():
                value = float(array)
                if not math.isfinite(value):
                    raise TrainingError(
                        f"step {step}: {name} is {value}; nothing of this was stored, the last checkpoint in {workdir} "
                        "is good: lower optim.learning_rate or optim.clip_norm"
                    )
                self.totals[name] = self.totals.get(name, 0.0) + value
            self.totals[_STEPS] += 1

    def means(self) -> dict[str, float]:
        """Returns the mean of each metric over the window."""
        return {name: total / self.totals[_STEPS] for name, total in self.totals.items() if name != _STEPS}
