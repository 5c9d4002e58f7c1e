"""Classes of pairs, for breakdowns: pose, expression and camera; sex, age and ancestry; the skin in the picture."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from skimage.color import rgb2lab

from ecvae_jax.structure.scheme import get_scheme

_TURNS = (0.0, 7.5, 22.5, 37.5)  # degrees; MultiPIE's cameras, 15 apart, fall into their middles
_SKIN = ((41.0, "light"), (28.0, "intermediate"), (10.0, "tan"), (-30.0, "brown"), (-np.inf, "dark"))
"""Lower ends of the classes of the individual typology angle, degrees (Del Bino & Bernerd 2013; very light counts as
light)."""
_AGES = ((1 / 3, "up to 0.33"), (2 / 3, "0.33 to 0.67"), (np.inf, "above 0.67"))  # of the rendered heads' range of ages
_FIRST_RECORDING = "01"  # MultiPIE's neutral one, in every session


def yaw_of(tags: Mapping[str, Any]) -> float | None:
    """Returns the head's turn in degrees; None if unknown."""
    yaw = tags.get("yaw")
    return float(yaw) if isinstance(yaw, int | float) else None


def expression_of(tags: Mapping[str, Any]) -> str | None:
    """Returns the name of the expression (the strongest of a mixture), or MultiPIE's recording; None without either."""
    expression = _strongest(tags.get("expression"))
    if expression is not None:
        return expression
    return f"recording {tags['recording']}" if "recording" in tags else None


def is_neutral(tags: Mapping[str, Any]) -> bool:
    """Returns whether the view is tagged as neutral."""
    return expression_of(tags) in ("neutral", f"recording {_FIRST_RECORDING}")


def pair_classes(
    source_tags: Sequence[Mapping[str, Any]], target_tags: Sequence[Mapping[str, Any]]
) -> dict[str, list[str | None]]:
    """Returns each pair's class (or None) by breakdown, leaving out breakdowns without any class.

    `by_turn`: difference of yaw between source and target; `by_view`: the target's yaw; `by_expression`, `by_camera`,
    `by_sex`, `by_age` and `by_ancestry`: the target's.
    """
    yaws = [(yaw_of(source), yaw_of(target)) for source, target in zip(source_tags, target_tags, strict=True)]
    classes: dict[str, list[str | None]] = {
        "by_turn": [_turn(None if a is None or b is None else b - a) for a, b in yaws],
        "by_view": [_turn(b) for _, b in yaws],
        "by_expression": [expression_of(tags) for tags in target_tags],
        "by_camera": [str(tags["camera"]) if "camera" in tags else None for tags in target_tags],
        "by_sex": [str(tags["sex"]) if "sex" in tags else None for tags in target_tags],
        "by_age": [_age(tags.get("age")) for tags in target_tags],
        "by_ancestry": [_strongest(tags.get("ancestry")) for tags in target_tags],
    }
    return {name: labels for name, labels in classes.items() if any(label is not None for label in labels)}


def skin_classes(
    images: UInt8[np.ndarray, "n h w 3"], landmarks: Float[np.ndarray, "n p 2"], people: Sequence[str]
) -> list[str]:
    """Returns the class of each image's person by skin tone, from light to dark.

    The individual typology angle is atan((L* − 50) / b*) of the median color of both cheeks, averaged over all images
    of the person. Colored or dim light shifts it.

    Args:
        landmarks: crop units.
    """
    angles = np.array([_typology_angle(image, points) for image, points in zip(images, landmarks, strict=True)])
    _, index = np.unique(np.asarray(people), return_inverse=True)
    means = np.bincount(index, angles) / np.bincount(index)
    return [next(name for low, name in _SKIN if means[person] > low) for person in index]


def in_order(labels: Sequence[str | None]) -> list[str]:
    """Returns the distinct classes: turns by degrees, skin from light to dark, others by name."""
    known = [*map(_turn, _TURNS), *(name for _, name in _SKIN)]
    found = {label for label in labels if label is not None}
    return [*(label for label in known if label is not None and label in found), *sorted(found.difference(known))]


def _typology_angle(image: UInt8[np.ndarray, "h w 3"], landmarks: Float[np.ndarray, "p 2"]) -> float:
    """Returns the individual typology angle of the cheeks, in degrees."""
    size = len(image)
    scheme = get_scheme(len(landmarks))
    mouth = landmarks[list(dict(scheme.boundaries)["lip_upper_outer"])].mean(axis=0)
    cheeks = []
    for eye in (landmarks[list(each)].mean(axis=0) for each in scheme.eyes):
        # Midway from the eye to the mouth, then outward to where the eye is: below the eye, beside the nose.
        x, y = (np.array([eye[0], (eye[1] + mouth[1]) / 2]) * size).round().astype(int)
        reach = max(1, round(float(np.hypot(*(eye - mouth))) * size * 0.08))
        x, y = np.clip([x, y], reach, size - 1 - reach)
        cheeks.append(image[y - reach : y + reach + 1, x - reach : x + reach + 1].reshape(-1, 3))
    lightness, _, yellow = np.median(rgb2lab(np.concatenate(cheeks)[None])[0], axis=0)
    return float(np.degrees(np.arctan2(lightness - 50.0, max(yellow, 1e-3))))


def _strongest(value: Any) -> str | None:
    """Returns the part with the largest weight of a mixture, or the word itself; None for anything else."""
    if isinstance(value, Mapping) and value:
        return str(max(value, key=lambda name: value[name]))
    return value if isinstance(value, str) else None


def _age(age: Any) -> str | None:
    if not isinstance(age, int | float) or isinstance(age, bool):
        return None
    return next(name for end, name in _AGES if age <= end)


def _turn(degrees: float | None) -> str | None:
    if degrees is None:
        return None
    index = bisect.bisect_right(_TURNS, abs(degrees))
    low = _TURNS[index - 1]
    return f"{low:g}-{_TURNS[index]:g}" if index < len(_TURNS) else f"{low:g}+"
