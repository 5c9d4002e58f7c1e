"""The report of an evaluation: lines for the terminal, JSON, Markdown tables, a figure, and all images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from ecvae_jax.evaluation.metrics import PAIR_METRICS, Metric
from ecvae_jax.evaluation.pairs import Pairs, evenly_spaced
from ecvae_jax.evaluation.scoring import Method, Samples
from ecvae_jax.evaluation.statistics import Score
from ecvae_jax.files import write_text
from ecvae_jax.images import enlarge, save_png, tile

_LABELS = {"model": "transfer"}  # a reader's word for a method

_SHOWN = tuple(metric for metric in PAIR_METRICS if metric.shown)

_BREAKDOWNS = {
    "by_turn": "turn between the views, degrees",
    "by_view": "turn of the target, degrees",
    "by_expression": "expression of the target",
    "by_camera": "camera of the target",
}

# Sections that are one row of numbers.
_ROWS = ("true_images", "likelihood", "kl_parts", "spectrum", "samples", "samples_from_posterior")

_COLUMNS = 10  # pairs in the figure
_FACE = 128  # px that small faces are enlarged to
_CAPTION = 150  # px for the captions of the rows


@dataclass(frozen=True)
class Report:
    """Scores by method, and all that belongs to them."""

    methods: Mapping[str, Method]
    sections: dict[str, Any]
    """Further parts of the JSON: breakdowns, differences, samples, likelihood."""
    facts: dict[str, Any]
    """How it was measured."""
    notes: list[str]
    """For the user, a line each."""
    pairs: Pairs
    outputs: Mapping[str, UInt8[np.ndarray, "n h w 3"]]
    """Each method's images, one a pair."""
    samples: Samples | None = None
    """The values behind the section `samples`; None from `evaluate_pairs`."""

    @property
    def scores(self) -> dict[str, Mapping[str, Score | None]]:
        """Scores by method and metric: `scores["model"]["psnr"]`."""
        return {name: method.scores for name, method in self.methods.items()}

    def to_lines(self) -> list[str]:
        """Returns a line a method, with 95% intervals over people in brackets, then the sections of one row."""
        lines = []
        for name, scores in self.scores.items():
            parts = [
                f"{_words(metric.key)} {_cell(scores[metric.key], metric)}{' %' * (metric.unit == '%')}"
                for metric in _SHOWN
                if scores.get(metric.key)
            ]
            psnr = scores["psnr"]
            lines.append(f"{_label(name):<15} {'   '.join(parts)}   (n = {psnr.count if psnr else 0})")
        for name in _ROWS:
            if name in self.sections:
                parts = [f"{_words(key)} {_short(value)}" for key, value in self.sections[name].items()]
                lines.append(f"{_words(name):<15} {'   '.join(parts)}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain dictionaries for JSON: methods, sections, then `protocol` and `notes`."""
        methods = {name: _plain_method(method) for name, method in self.methods.items()}
        return {**methods, **_plain(self.sections), "protocol": self.facts, "notes": self.notes}

    def to_markdown(self) -> str:
        """Returns Markdown: methods and paired differences, breakdowns, rows of numbers, and how it was measured."""
        metrics = [metric for metric in _SHOWN if any(scores.get(metric.key) for scores in self.scores.values())]
        rows = [
            [_label(name), *(_cell(scores.get(metric.key), metric) for metric in metrics)]
            for name, scores in self.scores.items()
        ]
        for name, scores in self.sections.get("differences", {}).items():
            label = name.replace("model", "*transfer").replace("-", "−") + "*"
            rows.append([label, *(_cell(scores.get(metric.key), metric) for metric in metrics)])
        blocks = [markdown_table(["", *(metric.heading for metric in metrics)], rows)]
        for breakdown, title in _BREAKDOWNS.items():
            if breakdown in self.sections:
                broken_down = [metric for metric in metrics if metric.key != "face_found"]
                blocks.append(_breakdown(title, self.sections[breakdown], broken_down))
        for name in _ROWS:
            if name in self.sections:
                numbers = ", ".join(f"{key} {_short(value)}" for key, value in self.sections[name].items())
                blocks.append(f"{_words(name).capitalize()}: {numbers}.")
        facts = [f"{key}: {value}" for key, value in self.facts.items() if not isinstance(value, dict)]
        blocks.append(f"In brackets: 95% bootstrap intervals over people. {'; '.join(facts)}.")
        return "\n\n".join([*blocks, *self.notes]) + "\n"

    def save(self, path: Path) -> None:
        """Writes the report as JSON, atomically."""
        write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")

    def write(
        self,
        out: Path | None = None,
        markdown: Path | None = None,
        figure: Path | None = None,
        images: Path | None = None,
    ) -> list[str]:
        """Writes JSON, Markdown, a figure (PNG) and a folder of all images, each if given; returns a line for each.

        Raises:
            OSError: a file cannot be written.
            ValueError: the figure's name does not end in .png.
        """
        if out is not None:
            self.save(out)
        if markdown is not None:
            write_text(markdown, self.to_markdown())
        if figure is not None:
            save_png(draw_figure(self), figure)
        lines = [f"written: {path}" for path in (out, markdown, figure) if path is not None]
        if images is not None:
            lines.append(f"written: {save_images(self, images)} images below {images}")
        return lines


def draw_figure(report: Report) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a grid of at most ten pairs, evenly spaced: source, true target, then a row a method.

    The captions hold each method's means over all pairs. The source's row has those of the copy.
    """
    chosen = evenly_spaced(len(report.pairs), _COLUMNS)
    names = [name for name in ("model", "plain", "warp", "reconstruction") if name in report.outputs]
    rows = [report.pairs.source[chosen], report.pairs.target[chosen], *(report.outputs[n][chosen] for n in names)]
    copied = _caption(report, "copy")
    captions = [["source", *(["(copied:)", *copied] if copied else [])], ["target (true)"]]
    captions += [[_label(name), *_caption(report, name)] for name in names]
    picture = enlarge(tile([list(row) for row in rows]), max(1, _FACE // rows[0].shape[1]))
    canvas = Image.new("RGB", (picture.shape[1] + _CAPTION, picture.shape[0]), "white")
    canvas.paste(Image.fromarray(picture), (_CAPTION, 0))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for row, caption in enumerate(captions):
        pen.multiline_text((8, 8 + row * picture.shape[0] // len(rows)), "\n".join(caption), "black", font)
    return np.asarray(canvas)


def save_images(report: Report, folder: Path) -> int:
    """Writes FOLDER/METHOD/NAME.png for every method, `source` and `target`; returns the number of images.

    Raises:
        OSError: a file cannot be written.
    """
    sets = {"source": report.pairs.source, "target": report.pairs.target, **report.outputs}
    for method, images in sets.items():
        for name, image in zip(report.pairs.names, images, strict=True):
            save_png(image, folder / method / f"{name}.png")
    return sum(map(len, sets.values()))


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _plain_method(method: Method) -> dict[str, Any]:
    """Metric and interval side by side; null if not measured, so that the keys are always the same."""
    psnr = method.scores["psnr"]
    assert psnr is not None
    out: dict[str, Any] = {"pairs": psnr.count}
    for metric in PAIR_METRICS:
        out |= _plain_score(metric.key, method.scores.get(metric.key))
    return out | dict(method.numbers)


def _plain_score(key: str, score: Score | None) -> dict[str, Any]:
    interval = None if score is None or score.low is None else [score.low, score.high]
    return {key: None if score is None else score.mean, f"{key}_ci": interval}


def _plain(value: Any) -> Any:
    """Nested dictionaries with each score as `metric` and `metric_ci`."""
    if not isinstance(value, Mapping):
        return value
    out: dict[str, Any] = {}
    for key, each in value.items():
        out |= _plain_score(key, each) if isinstance(each, Score) else {key: _plain(each)}
    return out


def _breakdown(title: str, classes: Mapping[str, Mapping[str, Mapping[str, Any]]], metrics: Sequence[Metric]) -> str:
    """A class a row, its means as transfer / warp / copy."""
    methods = ("model", "warp", "copy")
    rows = []
    for label, means in classes.items():
        cells = [" / ".join(metric.format(means[method].get(metric.key)) for method in methods) for metric in metrics]
        rows.append([label, str(means["model"]["pairs"]), *cells])
    return markdown_table([title, "pairs", *(f"{metric.heading}: transfer / warp / copy" for metric in metrics)], rows)


def _caption(report: Report, method: str) -> list[str]:
    """A line a metric that has a word for captions."""
    scores = report.scores.get(method, {})
    found = [(metric, score) for metric in PAIR_METRICS if metric.caption and (score := scores.get(metric.key))]
    return [f"{metric.caption} {metric.format(score.mean)} {metric.unit}".rstrip() for metric, score in found]


def _label(method: str) -> str:
    return _LABELS.get(method, method)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _cell(score: Score | None, metric: Metric) -> str:
    """The mean and its interval."""
    if score is None:
        return "–"
    interval = "?" if score.low is None else f"{metric.format(score.low)} to {metric.format(score.high)}"
    return f"{metric.format(score.mean)} ({interval})"


def _short(value: float | int | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value)
