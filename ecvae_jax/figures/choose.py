"""Faces for a figure, chosen deterministically by their tags."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import Faces
from ecvae_jax.evaluation.tags import expression_of, is_neutral, yaw_of


class Face(NamedTuple):
    """The tags of one face of the records."""

    index: int
    person: str
    sitting: str
    """Light, clothes and glasses are constant within one."""
    yaw: float
    expression: str
    strength: float
    """Weight of the expression; 1 if the tags have none."""
    neutral: bool
    tilt: float
    """|pitch| + |roll|, degrees; 0 if unknown."""


def tagged_faces(faces: Faces) -> list[Face]:
    """Returns the faces with the tags yaw and expression.

    Raises:
        DataError: no face has them.
    """
    found = []
    for index, tags in enumerate(faces.tags):
        yaw, expression = yaw_of(tags), expression_of(tags)
        if yaw is None or expression is None:
            continue
        weights = tags.get("expression")
        strength = float(weights[expression]) if isinstance(weights, dict) else 1.0
        if isinstance(weights, dict) and len(weights) > 1:
            strength /= 2  # a mixture shows no expression well
        tilt = sum(abs(float(tags.get(name) or 0.0)) for name in ("pitch", "roll"))
        person, sitting = faces.identities[index], faces.groups[index]
        found.append(Face(index, person, sitting, yaw, expression, strength, is_neutral(tags), tilt))
    if not found:
        raise DataError(
            f"{faces.records.name}, split {faces.split}: no face has the tags yaw and expression, which the figure "
            "needs; `ecvae transfer` draws faces of your choice"
        )
    return found


def choose_sources(found: Sequence[Face], count: int, without: str = "") -> list[Face]:
    """Returns the most frontal neutral view of `count` people, evenly spaced over all people except `without`."""
    views: dict[str, list[Face]] = defaultdict(list)
    for face in found:
        if face.person != without:
            views[face.person].append(face)
    people = sorted(views)
    count = min(count, len(people))
    chosen = [people[(2 * i + 1) * len(people) // (2 * count)] for i in range(count)]
    return [min(views[person], key=lambda face: (not face.neutral, abs(face.yaw) + face.tilt)) for person in chosen]


def choose_expressions(found: Sequence[Face], count: int, most_yaw: float = 25.0) -> list[Face]:
    """Returns views of one sitting: neutral, then one view of each other expression, within `most_yaw` degrees.

    It is the sitting with the most expressions; among equals, the one that shows them most clearly.

    Raises:
        DataError: no sitting shows two expressions.
    """
    best: dict[str, dict[str, Face]] = defaultdict(dict)
    for face in found:
        if abs(face.yaw) > most_yaw:
            continue
        views, key = best[face.sitting], "neutral" if face.neutral else face.expression
        if key not in views or _clarity(face) > _clarity(views[key]):
            views[key] = face
    sets: list[tuple[int, float, str, list[Face]]] = []
    for sitting, views in best.items():
        neutral = [views.pop("neutral")] if "neutral" in views else []
        chosen = neutral + sorted(views.values(), key=_clarity, reverse=True)[: count - len(neutral)]
        by_name = neutral + sorted(chosen[len(neutral) :], key=lambda face: face.expression)
        sets.append((len(chosen), sum(map(_clarity, chosen)), sitting, by_name))
    if not sets or max(sets)[0] < 2:
        raise DataError(f"no sitting shows two expressions within {most_yaw:g}° of frontal, which the figure needs")
    return max(sets)[3]


def choose_yaws(found: Sequence[Face], steps: Sequence[float], without: Sequence[str] = ()) -> list[Face]:
    """Returns the view nearest to each yaw in degrees, of people not in `without`, sorted by yaw.

    The distance grows by 10 degrees if the view is not neutral, and by half its pitch and roll.

    Raises:
        DataError: no other person is left.
    """
    others = [face for face in found if face.person not in without]
    if not others:
        raise DataError("too few people for a figure: none is left to take poses from")
    chosen: list[Face] = []
    for step in steps:
        face = min(others, key=lambda face: abs(face.yaw - step) + 10.0 * (not face.neutral) + face.tilt / 2)
        if face not in chosen:
            chosen.append(face)
    return sorted(chosen, key=lambda face: face.yaw)


def format_yaw(yaw: float) -> str:
    """Returns the yaw in whole degrees with its sign, for a caption."""
    return f"{round(yaw):+d}°".replace("-", "−") if round(yaw) else "0°"


def _clarity(face: Face) -> float:
    """How well a view shows its expression: strong, frontal, upright ones best."""
    return face.strength - abs(face.yaw) / 50 - face.tilt / 60
