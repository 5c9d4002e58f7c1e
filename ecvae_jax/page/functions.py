"""The functions that the page runs: those of an export, and `overlay`, for the photo's own pixels."""

from __future__ import annotations

from jaxtyping import Array

from ecvae_jax.export.functions import Function, exported_functions
from ecvae_jax.model.model import Model
from ecvae_jax.synthesis.overlay import own_share
from ecvae_jax.synthesis.photo import photo_weights

FINE = 384
"""Pixels a side of the photo's crop whose own pixels are laid over; larger crops are reduced to it."""
NEEDED = ("encode", "draw", "move", "sample")
"""Functions of an export that the page runs; `transfer` is encode, move and draw."""


def fine_size(model: Model) -> int:
    """Returns the pixels a side of the pictures that the page draws with a photo's own pixels."""
    return max(FINE, model.config.model.image_size)


def page_functions(model: Model) -> list[Function]:
    """Returns encode, draw, move and overlay of a model, and sample if a Gaussian gives its z."""
    found = [function for function in exported_functions(model) if function.name in NEEDED]
    return [*found, _overlay(model)]


def _overlay(model: Model) -> Function:
    """Returns `synthesis.photo.photo_weights` for images in [0, 1].

    The page lays the photo over by them (overlay.js): in the graph, the gathers at the photo's size take 100 ms.
    """
    size, points = model.architecture.model.image_size, model.architecture.points

    def overlay(
        reconstruction: Array, drawn: Array, landmarks: Array, target_landmarks: Array, detail: Array
    ) -> tuple[Array, ...]:
        share = own_share(landmarks, target_landmarks, detail[:, 0], size)
        reconstruction, drawn = (2.0 * each - 1.0 for each in (reconstruction, drawn))
        return photo_weights(reconstruction, drawn, landmarks, target_landmarks, share)

    picture, face = (size, size, 3), (points, 2)
    inputs = {
        "reconstruction": picture,
        "drawn": picture,
        "landmarks": face,
        "target_landmarks": face,
        "detail": (1,),
    }
    about = "Where cells of the drawn image lie in the photo, and the weights of its pixels and texture, up to detail."
    return Function("overlay", overlay, inputs, ("places", "weight", "texture_weight"), about)
