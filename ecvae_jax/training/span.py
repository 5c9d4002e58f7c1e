"""Which steps of a training are traced. Imports nothing heavy."""

from __future__ import annotations

import re
from typing import NamedTuple


class Span(NamedTuple):
    """Steps to be traced, both ends included; the first step of a training is 1."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str, steps: int) -> Span:
        """Returns the span written as A:B.

        Raises:
            ValueError: it is none, or reaches beyond the training's `steps`.
        """
        match = re.fullmatch(r"([0-9]+):([0-9]+)", text)
        if match is None:
            raise ValueError(f"profile={text!r}: must be two steps with a colon between them, such as 10:15")
        span = cls(int(match[1]), int(match[2]))
        if not 1 <= span.first <= span.last <= steps:
            raise ValueError(
                f"profile={text!r}: the first step must not be above the last, and both must lie in 1 to {steps} "
                "(train.steps)"
            )
        return span
