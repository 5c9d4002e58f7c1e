"""Scores as text: lines for the terminal and Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ecvae_jax.evaluation.bootstrap import Score

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
