"""Structure clusters: k-means over aligned landmarks, and the weight c_k of each cluster in a face."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ecvae_jax.structure.align import align_landmarks
from ecvae_jax.structure.scheme import Scheme, check_landmarks

_MOST_FACES = 20_000
"""Faces that k-means looks at; more of them no longer move the centers, and cost minutes."""
_RESTARTS = 4
_SMALLEST_SQUARE = 1e-12
_SMALLEST_COSINE = 1e-6
"""Similarities up to here count as none, so that every weight has a finite gradient at any temperature."""


class Clusters(NamedTuple):
    """K typical structures, in the aligned frame. Arrays only: they ride in the training state and the checkpoint."""

    centers: Float[Array | np.ndarray, "k p 2"]
    mean_shape: Float[Array | np.ndarray, "p 2"]


def fit_clusters(
    landmarks: Float[np.ndarray, "n p 2"], scheme: Scheme, count: int, remove_roll: bool, seed: int
) -> Clusters:
    """Returns k-means centers of the aligned faces and their mean shape (NumPy, float32), the same for the same seed.

    At most 20,000 faces are looked at, drawn without replacement from the seed.

    Raises:
        ValueError: a landmark is not finite, or there are fewer different faces than clusters.
    """
    landmarks = np.asarray(landmarks)
    check_landmarks(landmarks, scheme)
    bad = np.flatnonzero(~np.isfinite(landmarks).all(axis=(1, 2)))
    if len(bad):
        raise ValueError(f"landmarks of {len(bad)} faces, the first at index {bad[0]}, are not finite: leave those out")
    if len(landmarks) > _MOST_FACES:
        landmarks = landmarks[np.random.default_rng(seed).choice(len(landmarks), _MOST_FACES, replace=False)]
    aligned = np.asarray(align_landmarks(landmarks, scheme, remove_roll))
    vectors = aligned.reshape(len(aligned), -1)
    faces = len(np.unique(vectors, axis=0))
    if not 1 <= count <= faces:
        raise ValueError(f"clusters count={count}: must be from 1 to the number of different faces, which is {faces}")

    from sklearn.cluster import KMeans  # 1.4 s of import, wanted by nothing but this function

    kmeans = KMeans(count, n_init=_RESTARTS, random_state=seed)  # pyright: ignore[reportArgumentType]
    kmeans.fit(vectors)
    centers = kmeans.cluster_centers_.reshape(count, scheme.points, 2)
    return Clusters(centers.astype(np.float32), aligned.mean(axis=0).astype(np.float32))


@functools.partial(jax.jit, static_argnames=("scheme", "mode", "remove_roll"))
def cluster_weights(
    landmarks: Float[Array | np.ndarray, "b p 2"],
    clusters: Clusters,
    scheme: Scheme,
    mode: Literal["centered", "literal"],
    temperature: float,
    remove_roll: bool,
) -> Float[Array, "b k"]:
    """Returns c_k of each face: the normalized cosine similarity to the cluster centers; it sums to 1 over k.

    "literal": cosine of the aligned landmark vectors, negatives to 0, divided by the sum (temperature is unused).
    "centered": the same after the mean shape is taken away, with each cosine raised to 1 / temperature before the sum.
    A face that is similar to no center at all (in "centered": the mean shape itself) gets equal weights.

    Deviation: the paper's words are "literal". All faces have a cosine near 1 with all centers, so its weights are
    nearly equal (31.99 effective clusters of 32) and the prior of Eq. (4) hardly depends on the face; the default of
    the config is "centered".

    Raises:
        ValueError: mode is neither, or the landmarks do not have the scheme's shape.
    """
    shapes = align_landmarks(landmarks, scheme, remove_roll)
    centers = jnp.asarray(clusters.centers, shapes.dtype)
    if mode == "centered":
        mean_shape = jnp.asarray(clusters.mean_shape, shapes.dtype)[None]
        shapes, centers = shapes - mean_shape, centers - mean_shape
        power = 1.0 / jnp.asarray(temperature, shapes.dtype)
    elif mode == "literal":
        power = jnp.ones((), shapes.dtype)
    else:
        raise ValueError(f"clusters mode={mode!r}: must be 'centered' or 'literal'")
    # A TPU would multiply in bfloat16 by default, which alone moves a cosine by a hundredth.
    cosine = jnp.matmul(_unit_vectors(shapes), _unit_vectors(centers).T, precision=jax.lax.Precision.HIGHEST)
    similar = ~(cosine <= _SMALLEST_COSINE)  # not ">": a nan must come out as nan, not as equal weights
    # A softmax of power · log cosine: the largest similarity is divided out, so no temperature can underflow the sum.
    logits = jnp.where(similar, power * jnp.log(jnp.where(similar, cosine, 1.0)), -jnp.inf)
    alone = ~jnp.any(similar, axis=-1, keepdims=True)
    return jax.nn.softmax(jnp.where(alone, 0.0, logits), axis=-1)


def _unit_vectors(shapes: Float[Array, "n p 2"]) -> Float[Array, "n q"]:
    vectors = shapes.reshape(len(shapes), -1)
    square = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(square, _SMALLEST_SQUARE))
