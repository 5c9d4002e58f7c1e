"""A report of scores: lines for the terminal, JSON, a Markdown table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ecvae_jax.evaluation.bootstrap import Score
from ecvae_jax.evaluation.pairs import Pairs
from ecvae_jax.evaluation.scoring import FACES, PIXELS, Method
from ecvae_jax.evaluation.tables import report_lines, report_markdown
from ecvae_jax.pictures import save_picture, write_aside


@dataclass(frozen=True)
class Report:
    """Scores by method, and all that belongs to them."""

    methods: Mapping[str, Method]
    sections: dict[str, Any]
    """Further parts of the JSON: breakdowns, differences, samples, likelihood."""
    facts: dict[str, Any]
    """How it was measured."""
    notes: list[str]
    """What the user should know."""
    pairs: Pairs
    outputs: Mapping[str, UInt8[np.ndarray, "n h w 3"]]
    """What each method drew, one image a pair."""

    @property
    def scores(self) -> dict[str, Mapping[str, Score | None]]:
        """Scores by method and metric: `scores["model"]["psnr"]`."""
        return {name: method.scores for name, method in self.methods.items()}

    def to_lines(self) -> list[str]:
        """Returns the report as lines of text, a method a line; in brackets the 95% interval over people."""
        return report_lines(self.scores, self.sections)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain dictionaries, for JSON: the methods, the sections, then `protocol`."""
        methods = {name: _plain_method(method) for name, method in self.methods.items()}
        return {**methods, **_plain(self.sections), "protocol": self.facts, "notes": self.notes}

    def to_markdown(self) -> str:
        """Returns a table of the methods with intervals, the breakdowns, and how it was measured below them."""
        return report_markdown(self.scores, self.sections, self.facts, self.notes)

    def save(self, path: Path) -> None:
        """Writes the report as JSON, aside and then renamed."""
        write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")

    def save_markdown(self, path: Path) -> None:
        """Writes the table as Markdown, aside and then renamed."""
        write_text(path, self.to_markdown())

    def write(
        self, out: Path | None = None, markdown: Path | None = None, figure: Path | None = None,
        images: Path | None = None,
    ) -> list[str]:  # fmt: skip
        """Writes what is asked for: JSON, Markdown, a figure (PNG), a folder of all images; returns a line for each.

        Raises:
            OSError: one of them cannot be written.
            ValueError: the figure's name does not end in .png.
        """
        from ecvae_jax.evaluation.figure import draw_figure, save_images

        if out is not None:
            self.save(out)
        if markdown is not None:
            self.save_markdown(markdown)
        if figure is not None:
            save_picture(draw_figure(self), figure)
        lines = [f"written: {path}" for path in (out, markdown, figure) if path is not None]
        if images is not None:
            lines.append(f"written: {save_images(self, images)} images below {images}")
        return lines


def write_text(path: Path, text: str) -> None:
    """Writes a text file, aside and then renamed, so that no half-written file is ever left.

    Raises:
        OSError: the folder cannot be made or written.
    """
    write_aside(path, lambda file: file.write(text.encode()))


def _plain_method(method: Method) -> dict[str, Any]:
    """Metric and interval side by side; what was not measured is null, so that the keys are always the same."""
    out: dict[str, Any] = {"pairs": _score(method.scores, "psnr").count}
    for metric in (*PIXELS, *FACES):
        out |= _plain_score(metric, method.scores.get(metric))
    return out | dict(method.numbers)


def _plain_score(metric: str, score: Score | None) -> dict[str, Any]:
    interval = None if score is None or score.low is None else [score.low, score.high]
    return {metric: None if score is None else score.mean, f"{metric}_ci": interval}


def _plain(value: Any) -> Any:
    """Dictionaries with their scores written out, as `metric` and `metric_ci`."""
    if not isinstance(value, Mapping):
        return value
    out: dict[str, Any] = {}
    for key, each in value.items():
        out |= _plain_score(key, each) if isinstance(each, Score) else {key: _plain(each)}
    return out


def _score(scores: Mapping[str, Score | None], metric: str) -> Score:
    found = scores[metric]
    assert found is not None, metric
    return found
