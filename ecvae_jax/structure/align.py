"""Alignment: landmarks without position, size and, optionally, roll of the head."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ecvae_jax.structure.scheme import Scheme, check_landmarks

_SMALLEST = 1e-12
"""Squared length treated as zero: keeps coincident points and their gradient finite."""


@functools.partial(jax.jit, static_argnames=("scheme", "remove_roll"))
def align_landmarks(
    landmarks: Float[Array | np.ndarray, "*b p 2"], scheme: Scheme, remove_roll: bool
) -> Float[Array, "*b p 2"]:
    """Returns the landmarks with centroid 0 and root mean square distance 1 from it, (…, p, 2).

    With remove_roll, the line from the left eye's center to the right eye's is rotated onto the x axis. If all points
    coincide, the result is 0.

    Raises:
        ValueError: the landmarks do not have the scheme's shape.
    """
    check_landmarks(landmarks, scheme)
    landmarks = jnp.asarray(landmarks)
    # Relative to the first point: a small face far from the origin keeps its digits, coincident points give exactly 0.
    centered = landmarks - landmarks[..., :1, :]
    centered = centered - jnp.mean(centered, axis=-2, keepdims=True)
    radius_square = jnp.mean(jnp.sum(jnp.square(centered), axis=-1, keepdims=True), axis=-2, keepdims=True)
    aligned = centered * jax.lax.rsqrt(jnp.maximum(radius_square, _SMALLEST))
    return _without_roll(aligned, scheme) if remove_roll else aligned


def _without_roll(aligned: Float[Array, "*b p 2"], scheme: Scheme) -> Float[Array, "*b p 2"]:
    left, right = (jnp.mean(aligned[..., np.asarray(eye), :], axis=-2) for eye in scheme.eyes)
    eye_line = right - left
    square = jnp.sum(jnp.square(eye_line), axis=-1, keepdims=True)
    upright = jnp.broadcast_to(jnp.array([1.0, 0.0], aligned.dtype), eye_line.shape)
    direction = jnp.where(square > _SMALLEST, eye_line * jax.lax.rsqrt(jnp.maximum(square, _SMALLEST)), upright)
    cos, sin = direction[..., None, 0], direction[..., None, 1]
    x, y = aligned[..., 0], aligned[..., 1]
    return jnp.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)
