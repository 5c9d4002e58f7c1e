"""Figure 3 of the paper: (a) emotion transfer and (b) conditional pose generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ecvae_jax.config import AdaptConfig
from ecvae_jax.data.faces import Faces
from ecvae_jax.figures.choose import Face, choose_expressions, choose_sources, choose_yaws, format_yaw, tagged_faces
from ecvae_jax.images import enlarge, sketch_image, tile
from ecvae_jax.model.model import Model, condition_of
from ecvae_jax.synthesis.cross import transfer_cross

SOURCES, EXPRESSIONS = 4, 7
YAWS = (-40.0, -27.0, -13.0, 0.0, 13.0, 27.0, 40.0)

_FACE = 128  # px that small faces are enlarged to, by whole factors
_DPI = 100
_LEFT, _TOP, _LINE = 96, 58, 15  # px: captions of rows, captions of columns and title, a line of the text below


def draw_emotions(model: Model, faces: Faces, note: str) -> Any:
    """Returns figure 3 (a): the expressions of one person on the faces of others.

    `note` is the text below, about model and records.

    Raises:
        DataError: too few people or tags.
    """
    found = tagged_faces(faces)
    targets = choose_expressions(found, EXPRESSIONS)
    sources = choose_sources(found, SOURCES, without=targets[0].person)
    below = [f"Expressions of {targets[0].person} (the model sees only the sketch) on the faces of others.", note]
    names = ["neutral" if face.neutral else face.expression for face in targets]
    return _draw(model, faces, sources, targets, names, "Emotion transfer", below)


def draw_poses(model: Model, faces: Faces, note: str) -> Any:
    """Returns figure 3 (b): each source under poses from left to right, taken from neutral views of other people.

    `note` is the text below.

    Raises:
        DataError: too few people or tags.
    """
    found = tagged_faces(faces)
    sources = choose_sources(found, SOURCES)
    targets = choose_yaws(found, YAWS, without=[face.person for face in sources])
    below = ["Poses of other people (the model sees only the sketch).", note]
    names = [format_yaw(face.yaw) for face in targets]
    return _draw(model, faces, sources, targets, names, "Conditional pose generation", below)


def face_page(
    rows: Sequence[Sequence[UInt8[np.ndarray, "h w 3"] | None]],
    columns: Sequence[str],
    captions: Sequence[str],
    title: str,
    below: Sequence[str],
) -> Any:
    """Returns a Matplotlib figure: a grid of faces, pixel for pixel, with title, captions, and text below.

    Args:
        rows: faces of one size; None leaves a cell empty.
        columns: captions above, one a column.
        captions: captions at the left, one a row.
    """
    from matplotlib.figure import Figure

    side = next(face for row in rows for face in row if face is not None).shape[0]
    picture = enlarge(tile(rows), max(1, _FACE // side))
    height, width = picture.shape[:2]
    bottom = _LINE * len(below) + 14
    across, down = width + _LEFT + 8, height + _TOP + bottom
    figure = Figure(figsize=(across / _DPI, down / _DPI), dpi=_DPI)
    axes = figure.add_axes((_LEFT / across, bottom / down, width / across, height / down))
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for number, words in enumerate(columns):
        x = _LEFT + (number + 0.5) * width / len(columns)
        figure.text(x / across, (down - _TOP + 5) / down, words, ha="center", va="bottom", fontsize=9)
    for number, words in enumerate(captions):
        y = bottom + height - (number + 0.5) * height / len(captions)
        figure.text((_LEFT - 8) / across, y / down, words, ha="right", va="center", fontsize=9)
    figure.text(0.5, 1 - 8 / down, title, ha="center", va="top", fontsize=12)
    for number, line in enumerate(below):
        figure.text(8 / across, (bottom - 10 - _LINE * number) / down, line, va="top", fontsize=8, color="0.25")
    return figure


def _draw(
    model: Model,
    faces: Faces,
    sources: Sequence[Face],
    targets: Sequence[Face],
    names: Sequence[str],
    title: str,
    below: Sequence[str],
) -> Any:
    """Targets and their sketches above, then a row a source: its image, then the transfers."""
    size, landmarks = model.config.model.image_size, faces.landmarks_as(model.config.data.points)
    from_, to = ([face.index for face in chosen] for chosen in (sources, targets))
    pictures, target_pictures = faces.images(from_, size), faces.images(to, size)
    drawn = transfer_cross(model, pictures, landmarks[from_], landmarks[to], adaptation=AdaptConfig(detail=0.0))
    sketch = condition_of(model, landmarks[to]).sketch
    rows = [[None, *target_pictures], [None, *sketch_image(np.asarray(sketch))]]
    rows += [[picture, *row] for picture, row in zip(pictures, drawn, strict=True)]
    captions = ["target", "its sketch", *(face.person for face in sources)]
    return face_page(rows, ["source", *names], captions, title, below)
