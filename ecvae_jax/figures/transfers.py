"""Figure 3 of the paper: (a) emotion transfer and (b) conditional pose generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ecvae_jax.data.faces import Faces
from ecvae_jax.figures.choose import Face, choose_expressions, choose_sources, choose_yaws, tagged_faces, told_yaw
from ecvae_jax.figures.page import face_page
from ecvae_jax.images import sketch_image
from ecvae_jax.model.conditioning import condition_of
from ecvae_jax.model.model import Model
from ecvae_jax.synthesis.batches import transfer_grid

SOURCES, EXPRESSIONS = 4, 7
YAWS = (-40.0, -27.0, -13.0, 0.0, 13.0, 27.0, 40.0)


def draw_emotions(model: Model, faces: Faces, told: str) -> Any:
    """Returns figure 3 (a): the expressions of one person on the faces of others.

    Args:
        model: a loaded checkpoint.
        faces: records with the tags yaw and expression.
        told: what is said below of model and records.

    Raises:
        DataError: too few people or tags.
    """
    found = tagged_faces(faces)
    targets = choose_expressions(found, EXPRESSIONS)
    sources = choose_sources(found, SOURCES, without=targets[0].person)
    below = [f"Expressions of {targets[0].person}, of which the model sees the sketch alone, on the faces of others.",
             told]  # fmt: skip
    names = ["neutral" if face.neutral else face.expression for face in targets]
    return _draw(model, faces, sources, targets, names, "Emotion transfer", below)


def draw_poses(model: Model, faces: Faces, told: str) -> Any:
    """Returns figure 3 (b): each source under poses from left to right, taken from neutral views of other people.

    Args:
        model: a loaded checkpoint.
        faces: records with the tags yaw and expression.
        told: what is said below of model and records.

    Raises:
        DataError: too few people or tags.
    """
    found = tagged_faces(faces)
    sources = choose_sources(found, SOURCES)
    targets = choose_yaws(found, YAWS, without=[face.person for face in sources])
    below = ["Poses of other people, of which the model sees the sketch alone.", told]
    names = [told_yaw(face.yaw) for face in targets]
    return _draw(model, faces, sources, targets, names, "Conditional pose generation", below)




def _draw(
    model: Model, faces: Faces, sources: Sequence[Face], targets: Sequence[Face], names: Sequence[str], title: str,
    below: Sequence[str],
) -> Any:  # fmt: skip
    """Targets and their sketches above, then a row a source: the true picture first, then what is drawn."""
    size, points = model.config.model.image_size, model.config.data.points
    from_, to = ([face.index for face in chosen] for chosen in (sources, targets))
    landmarks = faces.landmarks_as(points)
    pictures, target_pictures = faces.images(from_, size), faces.images(to, size)
    drawn = transfer_grid(model, pictures, landmarks[from_], landmarks[to])
    sketch = condition_of(model.architecture, model.params, model.frozen, jnp.asarray(landmarks[to])).sketch
    rows = [[None, *target_pictures], [None, *sketch_image(np.asarray(sketch))]]
    rows += [[picture, *row] for picture, row in zip(pictures, drawn, strict=True)]
    captions = ["target", "its sketch", *(face.person for face in sources)]
    return face_page(rows, ["source", *names], captions, title, below)
