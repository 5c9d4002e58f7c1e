"""The functions that the page runs: those of an export, and `overlay`, the photo's own pixels."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from ecvae_jax.export.functions import Function, exported_functions
from ecvae_jax.model.model import Model
from ecvae_jax.synthesis.adapt import lay_photo_over

NEEDED = ("encode", "draw", "move", "sample")
"""Functions of an export that the page runs; `transfer` is encode, move and draw."""


def page_functions(model: Model) -> list[Function]:
    """Returns encode, draw, move and overlay of a model, and sample if a Gaussian gives its z."""
    found = [function for function in exported_functions(model) if function.name in NEEDED]
    return [*found, _overlay(model)]


def _overlay(model: Model) -> Function:
    """Returns `synthesis.adapt.lay_photo_over` for images in [0, 1]."""
    size, points = model.architecture.model.image_size, model.architecture.points

    def overlay(
        image: Array, reconstruction: Array, drawn: Array, landmarks: Array, target_landmarks: Array, detail: Array
    ) -> tuple[Array, ...]:
        signed = (2.0 * each - 1.0 for each in (image, reconstruction, drawn))
        laid = lay_photo_over(*signed, landmarks, target_landmarks, detail[:, :, None, None])
        return (jnp.clip(0.5 * laid + 0.5, 0.0, 1.0),)

    picture, face = (size, size, 3), (points, 2)
    inputs = {
        "image": picture,
        "reconstruction": picture,
        "drawn": picture,
        "landmarks": face,
        "target_landmarks": face,
        "detail": (1,),
    }
    about = "The drawn image with the photo's own pixels where both agree; detail is their weight, 0 to 1."
    return Function("overlay", overlay, inputs, ("laid",), about)
