"""Structure clusters: k-means over aligned landmarks, and the weight c_k of each cluster for a face."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ecvae_jax.structure.align import align_landmarks
from ecvae_jax.structure.scheme import Scheme, check_landmarks

MAX_FITTED_FACES = 20_000
"""Largest number of faces to fit: more no longer move the centers, and cost minutes."""
_RESTARTS = 4
_SMALLEST_SQUARE = 1e-12
_SMALLEST_COSINE = 1e-6
"""Cosines up to this count as 0, so that every weight has a finite gradient at any temperature."""


class Clusters(NamedTuple):
    """K typical structures in the aligned frame: a pytree of arrays, stored in the training state and checkpoint."""

    centers: Float[Array | np.ndarray, "k p 2"]
    mean_shape: Float[Array | np.ndarray, "p 2"]


def fit_clusters(
    landmarks: Float[np.ndarray, "n p 2"], scheme: Scheme, count: int, remove_roll: bool, seed: int
) -> Clusters:
    """Returns k-means centers of the aligned faces and their mean shape (NumPy, float32); deterministic in `seed`.

    Of more than `MAX_FITTED_FACES` faces, that many are drawn without replacement.

    Raises:
        ValueError: a landmark is not finite, or there are fewer distinct faces than clusters.
    """
    landmarks = np.asarray(landmarks)
    check_landmarks(landmarks, scheme)
    bad = np.flatnonzero(~np.isfinite(landmarks).all(axis=(1, 2)))
    if len(bad):
        raise ValueError(
            f"landmarks of {len(bad)} faces, the first at index {bad[0]}, are not finite: remove those faces"
        )
    if len(landmarks) > MAX_FITTED_FACES:
        landmarks = landmarks[np.random.default_rng(seed).choice(len(landmarks), MAX_FITTED_FACES, replace=False)]
    aligned = np.asarray(align_landmarks(landmarks, scheme, remove_roll))
    vectors = aligned.reshape(len(aligned), -1)
    faces = len(np.unique(vectors, axis=0))
    if not 1 <= count <= faces:
        raise ValueError(
            f"clusters.count={count}: must be between 1 and the number of distinct faces, {faces}; "
            f"set clusters.count to at most {faces}, or use more faces"
        )

    from sklearn.cluster import KMeans  # 1.4 s to import, used only here
    from threadpoolctl import threadpool_limits

    kmeans = KMeans(count, n_init=_RESTARTS, random_state=seed)  # pyright: ignore[reportArgumentType]
    # Each thread sums its own faces: with other numbers of threads the centers differ by up to 7e-7.
    with threadpool_limits(1):
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
    """Returns c_k of each face: the normalized cosine similarity to the cluster centers, summing to 1 over k.

    "literal": cosines of the aligned landmark vectors, negative ones set to 0, divided by their sum; temperature is
    unused. "centered": the mean shape is subtracted first, and each cosine is raised to 1 / temperature before the sum.
    A face without a similar center (in "centered": the mean shape itself) gets equal weights.

    Deviation: the paper describes "literal". All faces have a cosine near 1 with all centers, so the weights are nearly
    equal (31.99 effective clusters of 32) and the prior of Eq. (4) hardly depends on the face. The config's default is
    "centered".

    Raises:
        ValueError: mode is unknown, or the landmarks do not have the scheme's shape.
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
    # TPUs multiply in bfloat16 by default, which changes a cosine by 0.01.
    cosine = jnp.matmul(_unit_vectors(shapes), _unit_vectors(centers).T, precision=jax.lax.Precision.HIGHEST)
    similar = ~(cosine <= _SMALLEST_COSINE)  # not ">": NaN must give NaN, not equal weights
    # A softmax of power · log cosine divides by the largest similarity, so no temperature can underflow the sum.
    logits = jnp.where(similar, power * jnp.log(jnp.where(similar, cosine, 1.0)), -jnp.inf)
    alone = ~jnp.any(similar, axis=-1, keepdims=True)
    return jax.nn.softmax(jnp.where(alone, 0.0, logits), axis=-1)


def _unit_vectors(shapes: Float[Array, "n p 2"]) -> Float[Array, "n q"]:
    vectors = shapes.reshape(shapes.shape[0], -1)  # not len: an export traces a symbolic size
    square = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(square, _SMALLEST_SQUARE))
