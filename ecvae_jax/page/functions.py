"""The functions that the page runs: those of an export, and `overlay`, for the photo's own pixels."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ecvae_jax.export.functions import Function, exported_functions
from ecvae_jax.model.model import Model
from ecvae_jax.structure.openings import inner_openings
from ecvae_jax.structure.scheme import get_scheme
from ecvae_jax.structure.warp import cell_centers
from ecvae_jax.synthesis.adapt import photo_weights

FINE = 384
"""Pixels a side of the photo's crop whose own pixels are laid over; larger crops are reduced to it."""
_LEFT_OPEN = (0.35, 0.7)
"""Fractions of its openness below which an eye counts as closed, and above which as open as in the photo."""
_EYE_REACH = 0.75
"""Radius about an eye, in its widths, that belongs to it: its lids without the brow."""
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
    """Returns `synthesis.adapt.photo_weights` for images in [0, 1].

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


def own_share(
    landmarks: Float[Array, "b p 2"], target_landmarks: Float[Array, "b p 2"], detail: Float[Array, " b"], size: int
) -> Float[Array, "b size size 1"]:
    """Returns the share of a photo's own pixels: `detail`, and 0 at eyes that close.

    `photo_weights` compares means over an eye's surroundings, so it keeps half of an open eye on a closed one.
    """
    scheme = get_scheme(landmarks.shape[1])
    centers = cell_centers(size)[None]
    share = jnp.broadcast_to(detail[:, None, None, None], (landmarks.shape[0], size, size, 1))
    for eye, (upper, lower) in zip(scheme.eyes, inner_openings(scheme), strict=False):  # the third opening is the mouth
        before, after = (_openness(face, eye, upper, lower) for face in (landmarks, target_landmarks))
        closed = jnp.clip((_LEFT_OPEN[1] - after / before) / (_LEFT_OPEN[1] - _LEFT_OPEN[0]), 0.0, 1.0)
        points = target_landmarks[:, np.asarray(eye)]
        width = jnp.max(points[..., 0], axis=1) - jnp.min(points[..., 0], axis=1)
        offset = (centers - jnp.mean(points, axis=1)[:, None, None]) / (_EYE_REACH * width + 1e-6)[:, None, None, None]
        near = jnp.exp(-jnp.square(jnp.sum(jnp.square(offset), axis=-1, keepdims=True)))
        share = share * (1.0 - closed[:, None, None, None] * near)
    return share


def _openness(face: Float[Array, "b p 2"], eye: tuple[int, ...], upper: list[int], lower: list[int]) -> Array:
    """Returns the distance of an eye's lids over the width of the eye."""
    points = face[:, np.asarray(eye)]
    width = jnp.sqrt(jnp.sum(jnp.square(jnp.max(points, axis=1) - jnp.min(points, axis=1)), axis=1))
    gap = face[:, np.asarray(lower)] - face[:, np.asarray(upper)]
    return jnp.mean(jnp.sqrt(jnp.sum(jnp.square(gap), axis=-1) + 1e-12), axis=1) / (width + 1e-6)
