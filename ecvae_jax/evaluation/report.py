"""A report of scores: lines for the terminal, JSON, a Markdown table."""

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

from ecvae_jax.evaluation.pairs import Pairs
from ecvae_jax.evaluation.scoring import FACES, PIXELS, Method
from ecvae_jax.evaluation.statistics import Score
from ecvae_jax.files import write_text
from ecvae_jax.images import enlarge, save_png, tile


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
        pass  # IMPORT

        if out is not None:
            self.save(out)
        if markdown is not None:
            self.save_markdown(markdown)
        if figure is not None:
            save_png(draw_figure(self), figure)
        lines = [f"written: {path}" for path in (out, markdown, figure) if path is not None]
        if images is not None:
            lines.append(f"written: {save_images(self, images)} images below {images}")
        return lines


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

Scores = Mapping[str, Mapping[str, Score | None]]
"""By method and metric."""

LABELS = {"model": "transfer"}
"""What a reader is shown for a method's name, where it is another word."""

_SHOWN = {  # metric: heading, factor, digits
    "psnr": ("PSNR, dB", 1, 2), "ssim": ("SSIM", 1, 3), "identity": ("identity distance", 1, 3),
    "verified": ("verified, %", 100, 1), "nme": ("structure error, %", 100, 2), "face_found": ("face found, %", 100, 1),
}  # fmt: skip


_BREAKDOWNS = {"by_turn": "turn between the views, degrees", "by_view": "turn of the target, degrees",
               "by_expression": "expression of the target", "by_camera": "camera of the target"}  # fmt: skip


_ROWS = ("true_images", "likelihood", "samples", "samples_from_posterior")  # sections that are one row of numbers


def report_lines(scores: Scores, sections: Mapping[str, Any]) -> list[str]:
    """Returns a method a line, in brackets the 95% interval over people; then the sections that are single rows."""
    lines = []
    for name, each in scores.items():
        parts = [f"{metric.replace('_', ' ')} {_cell(each[metric], metric)}{' %' * (_SHOWN[metric][1] == 100)}"
                 for metric in _SHOWN if each.get(metric)]  # fmt: skip
        counted = each["psnr"]
        lines.append(f"{LABELS.get(name, name):<15} {'   '.join(parts)}   (n = {counted.count if counted else 0})")
    for name in _ROWS:
        if name in sections:
            parts = [f"{key.replace('_', ' ')} {_short(value)}" for key, value in sections[name].items()]
            lines.append(f"{name.replace('_', ' '):<15} {'   '.join(parts)}")
    return lines


def report_markdown(
    scores: Scores, sections: Mapping[str, Any], facts: Mapping[str, Any], notes: Sequence[str]
) -> str:
    """Returns Markdown: the methods, paired differences, breakdowns, the single rows, and how it was measured."""
    metrics = [metric for metric in _SHOWN if any(each.get(metric) for each in scores.values())]
    rows = [[LABELS.get(name, name), *(_cell(each.get(metric), metric) for metric in metrics)]
            for name, each in scores.items()]  # fmt: skip
    for name, each in sections.get("differences", {}).items():
        label = name.replace("model", "*transfer").replace("-", "−") + "*"
        rows.append([label, *(_cell(each.get(metric), metric) for metric in metrics)])
    blocks = [_table(["", *(_SHOWN[metric][0] for metric in metrics)], rows)]
    for breakdown, title in _BREAKDOWNS.items():
        if breakdown in sections:
            blocks.append(_breakdown(title, sections[breakdown], [m for m in metrics if m != "face_found"]))
    for name in _ROWS:
        if name in sections:
            title = name.replace("_", " ").capitalize()
            blocks.append(f"{title}: " + ", ".join(f"{key} {_short(value)}" for key, value in sections[name].items()) +
                          ".")  # fmt: skip
    words = [f"{key}: {value}" for key, value in facts.items() if not isinstance(value, dict)]
    blocks.append("In brackets: 95% bootstrap intervals over people. " + "; ".join(words) + ".")
    return "\n\n".join([*blocks, *notes]) + "\n"


def _breakdown(title: str, classes: Mapping[str, Mapping[str, Mapping[str, Any]]], metrics: Sequence[str]) -> str:
    """A class a row, its means as transfer / warp / copy."""
    methods = ("model", "warp", "copy")
    rows = []
    for label, each in classes.items():
        cells = [" / ".join(_number(each[method].get(metric), metric) for method in methods) for metric in metrics]
        rows.append([label, str(each["model"]["pairs"]), *cells])
    heads = [f"{_SHOWN[metric][0]}: transfer / warp / copy" for metric in metrics]
    return _table([title, "pairs", *heads], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _cell(score: Score | None, metric: str) -> str:
    """The mean and its interval."""
    if score is None:
        return "–"
    between = "?" if score.low is None else f"{_number(score.low, metric)} to {_number(score.high, metric)}"
    return f"{_number(score.mean, metric)} ({between})"


def _number(value: float | None, metric: str) -> str:
    _, factor, digits = _SHOWN[metric]
    return "–" if value is None else f"{factor * value:.{digits}f}"


def _short(value: float | int | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value)

_COLUMNS = 10


_FACE = 128  # px that small faces are enlarged to


_CAPTION = 150  # px for the names of the rows


_WORDS = {"psnr": "{:.2f} dB", "ssim": "SSIM {:.3f}", "identity": "identity {:.3f}", "nme": "structure {:.2%}"}


def draw_figure(report: Report) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a grid of at most ten pairs, evenly spaced: source, true target, then a row for each method.

    The copy has no row: it is the source. At the left stand the methods' means over all pairs.
    """
    chosen = np.unique(np.linspace(0, len(report.pairs) - 1, _COLUMNS).round().astype(int))
    names = [name for name in ("model", "plain", "warp", "reconstruction") if name in report.outputs]
    rows = [report.pairs.source[chosen], report.pairs.target[chosen], *(report.outputs[n][chosen] for n in names)]
    captions = [["source", *_caption(report, "copy")], ["target (true)"]]
    captions += [[LABELS.get(name, name), *_caption(report, name)] for name in names]
    picture = enlarge(tile([list(row) for row in rows]), max(1, _FACE // rows[0].shape[1]))
    canvas = Image.new("RGB", (picture.shape[1] + _CAPTION, picture.shape[0]), "white")
    canvas.paste(Image.fromarray(picture), (_CAPTION, 0))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for row, caption in enumerate(captions):
        pen.multiline_text((8, 8 + row * picture.shape[0] // len(rows)), "\n".join(caption), "black", font)
    return np.asarray(canvas)


def save_images(report: Report, folder: Path) -> int:
    """Writes every image as FOLDER/METHOD/NAME.png, with those of `source` and `target`; returns how many.

    Raises:
        OSError: the folder cannot be made or written.
    """
    sets = {"source": report.pairs.source, "target": report.pairs.target, **report.outputs}
    for method, images in sets.items():
        for name, image in zip(report.pairs.names, images, strict=True):
            save_png(image, folder / method / f"{name}.png")
    return sum(map(len, sets.values()))


def _caption(report: Report, method: str) -> list[str]:
    scores = report.scores.get(method, {})
    words = [text.format(each.mean) for name, text in _WORDS.items() if (each := scores.get(name))]
    return ["(copied:)", *words] if method == "copy" and words else words
