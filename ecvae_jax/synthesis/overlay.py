"""z drawn under other landmarks with its photo's own pixels, at the photo's size: for videos, the page, the server."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ecvae_jax.config import Architecture
from ecvae_jax.model.conditioning import Frozen, make_condition
from ecvae_jax.model.cvae import decode
from ecvae_jax.structure.openings import inner_openings
from ecvae_jax.structure.scheme import get_scheme
from ecvae_jax.synthesis.photo import lay_photo_over, photo_layers

_LEFT_OPEN = (0.35, 0.7)
"""Fractions of its openness below which an eye counts as closed, and above which as open as in the photo."""
_EYE_REACH = 0.75
"""Radius about an eye, in its widths, that belongs to it: its lids without the brow."""


@partial(jax.jit, static_argnames=("architecture", "transport", "keep_closed"))
def draw_over(
    architecture: Architecture,
    params: PyTree,
    frozen: Frozen,
    z: Float[Array, "n d"],
    photo: Float[Array, "n side side 3"],
    landmarks: Float[Array, "n p 2"],
    target_landmarks: Float[Array, "b p 2"],
    share: Float[Array, ""],
    reconstruction: Float[Array, "n h w 3"] | None = None,
    transport: bool = True,
    keep_closed: bool = True,
) -> Float[Array, "b side side 3"]:
    """Returns z drawn under target landmarks, with its photo's own pixels where they agree (`photo.lay_photo_over`).

    One source (n = 1) serves all b targets; else n = b.

    Args:
        photo: in [-1, 1], of any size: the picture's.
        landmarks: of the photo and of z.
        share: weight of the photo where it agrees fully, 0 to 1.
        reconstruction: z drawn under its own landmarks, if it is known.
        transport: whether z moves between the priors of the two structures.
        keep_closed: whether eyes that close are the model's alone (`own_share`); False draws as `ecvae transfer`.
    """
    source, target = (make_condition(architecture, params, frozen, face) for face in (landmarks, target_landmarks))
    if reconstruction is None:
        reconstruction = decode(architecture, params, z, source, frozen.z_scale)
    if keep_closed:  # clipped, as the page's images are
        reconstruction = jnp.clip(reconstruction, -1.0, 1.0)
    count = len(target_landmarks) // len(z)
    layers = photo_layers(photo, reconstruction)
    z, layers, reconstruction, landmarks = (
        jnp.repeat(each, count, axis=0) for each in (z, layers, reconstruction, landmarks)
    )
    if transport:
        prior = make_condition(architecture, params, frozen, landmarks).prior if count > 1 else source.prior
        z = prior.transport(z, target.prior)
    drawn = decode(architecture, params, z, target, frozen.z_scale)
    if keep_closed:
        drawn = jnp.clip(drawn, -1.0, 1.0)
        shares = jnp.broadcast_to(share, (len(z),))
        share = own_share(landmarks, target_landmarks, shares, drawn.shape[1])
    return lay_photo_over(layers, reconstruction, drawn, landmarks, target_landmarks, share)


def own_share(
    landmarks: Float[Array, "b p 2"], target_landmarks: Float[Array, "b p 2"], detail: Float[Array, " b"], size: int
) -> Float[Array, "b size size 1"]:
    """Returns the share of a photo's own pixels: `detail`, and 0 at eyes that close.

    `photo.photo_weights` compares means over an eye's surroundings, so it keeps half of an open eye on a closed one.
    """
    scheme = get_scheme(landmarks.shape[1])
    middles = (jnp.arange(size) + 0.5) / size
    share = jnp.broadcast_to(detail[:, None, None, None], (landmarks.shape[0], size, size, 1))
    for eye, (upper, lower) in zip(scheme.eyes, inner_openings(scheme), strict=False):  # the third opening is the mouth
        before, after = (_openness(face, eye, upper, lower) for face in (landmarks, target_landmarks))
        closed = jnp.clip((_LEFT_OPEN[1] - after / before) / (_LEFT_OPEN[1] - _LEFT_OPEN[0]), 0.0, 1.0)
        points = target_landmarks[:, np.asarray(eye)]
        width = jnp.max(points[..., 0], axis=1) - jnp.min(points[..., 0], axis=1)
        center, reach = jnp.mean(points, axis=1), _EYE_REACH * width + 1e-6
        x, y = (jnp.square((middles[None] - center[:, axis, None]) / reach[:, None]) for axis in (0, 1))
        near = jnp.exp(-jnp.square(x[:, None, :] + y[:, :, None]))[..., None]
        share = share * (1.0 - closed[:, None, None, None] * near)
    return share


def _openness(face: Float[Array, "b p 2"], eye: tuple[int, ...], upper: list[int], lower: list[int]) -> Array:
    """Returns the distance of an eye's lids over the width of the eye."""
    points = face[:, np.asarray(eye)]
    width = jnp.sqrt(jnp.sum(jnp.square(jnp.max(points, axis=1) - jnp.min(points, axis=1)), axis=1))
    gap = face[:, np.asarray(lower)] - face[:, np.asarray(upper)]
    return jnp.mean(jnp.sqrt(jnp.sum(jnp.square(gap), axis=-1) + 1e-12), axis=1) / (width + 1e-6)
