"""Yaw, expression and camera from the tags of records, and the classes of pairs that breakdowns use."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

_TURNS = (0.0, 7.5, 22.5, 37.5)  # degrees; MultiPIE's cameras, 15 apart, fall into their middles
_FIRST_RECORDING = "01"  # MultiPIE's neutral one, in every session


def yaw_of(tags: Mapping[str, Any]) -> float | None:
    """Returns the head's turn in degrees; None if unknown."""
    yaw = tags.get("yaw")
    return float(yaw) if isinstance(yaw, int | float) else None


def expression_of(tags: Mapping[str, Any]) -> str | None:
    """Returns the name of the expression (the strongest of a mixture), or MultiPIE's recording; None without either."""
    expression = tags.get("expression")
    if isinstance(expression, Mapping) and expression:
        return str(max(expression, key=lambda name: expression[name]))
    if isinstance(expression, str):
        return expression
    return f"recording {tags['recording']}" if "recording" in tags else None


def is_neutral(tags: Mapping[str, Any]) -> bool:
    """Returns whether the view is tagged as neutral."""
    return expression_of(tags) in ("neutral", f"recording {_FIRST_RECORDING}")


def pair_classes(
    source_tags: Sequence[Mapping[str, Any]], target_tags: Sequence[Mapping[str, Any]]
) -> dict[str, list[str | None]]:
    """Returns each pair's class (or None) by breakdown, leaving out breakdowns without any class.

    `by_turn`: difference of yaw between source and target; `by_view`: the target's yaw; `by_expression` and
    `by_camera`: the target's.
    """
    yaws = [(yaw_of(source), yaw_of(target)) for source, target in zip(source_tags, target_tags, strict=True)]
    classes: dict[str, list[str | None]] = {
        "by_turn": [_turn(None if a is None or b is None else b - a) for a, b in yaws],
        "by_view": [_turn(b) for _, b in yaws],
        "by_expression": [expression_of(tags) for tags in target_tags],
        "by_camera": [str(tags["camera"]) if "camera" in tags else None for tags in target_tags],
    }
    return {name: labels for name, labels in classes.items() if any(label is not None for label in labels)}


def in_order(labels: Sequence[str | None]) -> list[str]:
    """Returns the distinct classes: turns by degrees, others by name."""
    turns = [_turn(degrees) for degrees in _TURNS]
    found = {label for label in labels if label is not None}
    return [*(turn for turn in turns if turn is not None and turn in found), *sorted(found.difference(turns))]


def _turn(degrees: float | None) -> str | None:
    if degrees is None:
        return None
    index = bisect.bisect_right(_TURNS, abs(degrees))
    low = _TURNS[index - 1]
    return f"{low:g}-{_TURNS[index]:g}" if index < len(_TURNS) else f"{low:g}+"
