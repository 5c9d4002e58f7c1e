"""The page's sliders: named changes of an aligned face, from the directions that the package fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ecvae_jax.structure.scheme import Scheme, get_scheme
from ecvae_jax.synthesis.directions import POSES, fit_directions

_BROWS, _MOUTH = ("brow",), ("lip", "contour")
"""Beginnings of the names of boundaries whose points a slider moves."""

_UNITS = {"yaw": 15.0, "pitch": 10.0}
"""Degrees that count as one full expression."""
_RIDGE = 0.03
"""Relative to the directions' mean square."""


@dataclass(frozen=True)
class Slider:
    """A range of amounts along one direction; 0 is the face itself."""

    name: str
    label: str
    direction: str
    low: float
    high: float
    unit: str = ""
    parts: tuple[str, ...] = ()
    """Boundaries that move, by the beginning of their names; (): all points."""
    group: str = "Expression"


SLIDERS = (
    Slider("smile", "Smile", "smile", -0.6, 1.4),
    Slider("open", "Open mouth", "surprise", 0.0, 1.2, parts=_MOUTH),
    Slider("eyes", "Close eyes", "closed", -0.5, 1.4),
    Slider("brows", "Raise brows", "surprise", -1.0, 1.5, parts=_BROWS),
    Slider("kiss", "Pout", "kiss", 0.0, 1.2),
    Slider("anger", "Frown", "anger", 0.0, 1.2),
    Slider("wink", "Wink", "wink", 0.0, 1.0),
    Slider("turn", "Turn", "yaw", -25.0, 25.0, "°", group="Head"),
    Slider("nod", "Nod", "pitch", -15.0, 15.0, "°", group="Head"),
    Slider("tilt", "Tilt", "", -25.0, 25.0, "°", group="Head"),
)
"""`tilt` has no direction: it rotates the landmarks about their center."""


def slider_facts(points: int) -> list[dict[str, Any]]:
    """Returns the sliders for the page: ranges, and each direction as changes of the aligned face, points × 2.

    Raises:
        DataError: the package was installed without its data files.
    """
    directions, scheme = fit_directions(points), get_scheme(points)
    facts = []
    for slider in SLIDERS:
        fact = {
            "name": slider.name, "label": slider.label, "group": slider.group, "low": slider.low, "high": slider.high,
            "unit": slider.unit,
        }  # fmt: skip
        if slider.direction:
            moved = _of_parts(anchored(directions[slider.direction], slider.direction, scheme), slider.parts, scheme)
            fact["direction"] = np.round(moved, 5).tolist()
        facts.append(fact)
    return facts


def expression_facts(points: int) -> dict[str, Any]:
    """Returns the directions by which the page takes another face's expression and pose, and how to find amounts.

    Ridge regression finds the amounts of a difference between two aligned faces; what it leaves is the faces' shape.

    Returns:
        `directions`, k × points × 2, and `solve`, k × (2 · points): amounts = solve · difference.

    Raises:
        DataError: the package was installed without its data files.
    """
    scheme, found = get_scheme(points), fit_directions(points)
    fitted = {name: found[name] * _UNITS.get(name, 1.0) for name in found}
    rows = np.stack([direction.ravel() for direction in fitted.values()])
    moment = rows @ rows.T
    solve = np.linalg.solve(moment + _RIDGE * np.trace(moment) / len(rows) * np.eye(len(rows)), rows)
    placed = np.stack([anchored(direction, name, scheme) for name, direction in fitted.items()])
    return {"directions": np.round(placed, 5).tolist(), "solve": np.round(solve, 5).tolist()}


def anchored(direction: Float[np.ndarray, "p 2"], name: str, scheme: Scheme) -> Float[np.ndarray, "p 2"]:
    """Returns an expression's direction with the bridge of the nose at rest, a pose's direction unchanged."""
    if name in POSES:
        return direction
    return direction - direction[list(dict(scheme.boundaries)["nose_bridge"])].mean(axis=0)


def _of_parts(direction: Float[np.ndarray, "p 2"], parts: tuple[str, ...], scheme: Scheme) -> np.ndarray:
    if not parts:
        return direction
    moving = sorted({point for name, curve in scheme.boundaries if name.startswith(parts) for point in curve})
    kept = np.zeros_like(direction)
    kept[moving] = direction[moving]
    return kept
