"""What the model is conditioned on, a function of the landmarks: sketch, cluster weights, prior, frame."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ecvae_jax.config import Architecture, Config
from ecvae_jax.gaussian import DiagGaussian
from ecvae_jax.model.frames import FaceFrame, PictureFrame, make_frame
from ecvae_jax.prior import (
    Covariances,
    Prior,
    effective_clusters,
    init_cluster_means,
    init_covariances,
    make_prior,
)
from ecvae_jax.structure.clusters import MAX_FITTED_FACES, Clusters, cluster_weights, fit_clusters
from ecvae_jax.structure.scheme import get_scheme
from ecvae_jax.structure.sketch import draw_sketch

LEARNED_MEANS = "cluster_means"
"""Name of the cluster means among the parameters if `prior.learned`."""


class Frozen(NamedTuple):
    """The part of the model that is fixed before training; no gradient reaches it.

    The training state and every checkpoint hold it beside the parameters. Learned cluster means start from
    `cluster_means` but are parameters. Only `covariances` changes while training, by moments (`training.covariance`).
    """

    clusters: Clusters
    cluster_means: Float[Array, "k d"]
    cluster_stddev: Float[Array, " k"]
    z_scale: Float[Array, ""]
    """Median standard deviation of the prior over the training faces; the decoder reads z in this unit."""
    covariances: Covariances | None = None
    """Of prior.kind="covariance"; None for all others."""


class Condition(NamedTuple):
    """All that the network knows of the landmarks of a batch."""

    sketch: Float[Array, "b h w s"]
    cluster_weights: Float[Array, "b k"]
    prior: Prior
    reference: DiagGaussian
    """The Gaussian that a relative posterior is relative to: the prior, or a mixture's first two moments."""
    frame: PictureFrame | FaceFrame
    """Where z has its cells (`model.frame`)."""


def sketch_channels(architecture: Architecture) -> int:
    """Returns s, the number of maps in a sketch."""
    return len(get_scheme(architecture.points).boundaries) if architecture.sketch.channels == "boundary" else 1


def init_frozen(key: Array, config: Config, landmarks: np.ndarray) -> Frozen:
    """Returns clusters fitted to the training landmarks, and random cluster means that stay fixed.

    Args:
        key: of the means, which are a pure function of it.
        landmarks: n p 2, crop units, the training faces in the order of the records.

    Raises:
        ValueError: fewer faces than clusters, or landmarks that are not finite.
    """
    scheme, settings = get_scheme(config.data.points), config.clusters
    faces = _some(landmarks)
    clusters = fit_clusters(faces, scheme, settings.count, settings.remove_roll, config.train.seed)
    means = init_cluster_means(key, settings.count, config.model.z_dim, config.prior.mean_norm)
    return begin_frozen(config, clusters, means, landmarks)


def begin_frozen(
    config: Config, clusters: Clusters, cluster_means: Float[Array, "k d"], landmarks: np.ndarray
) -> Frozen:
    """Returns the frozen part around clusters and their means: widths, scale of z, covariances fitted to no face.

    Args:
        landmarks: n p 2, crop units, the training faces.
    """
    stddev = jnp.full((config.clusters.count,), config.prior.stddev, jnp.float32)
    covariances = None
    if config.prior.kind == "covariance":
        z_dim = config.model.z_dim
        covariances = init_covariances(config.clusters.count, z_dim, min(config.prior.rank, z_dim))
    frozen = Frozen(clusters, cluster_means, stddev, jnp.ones((), jnp.float32), covariances)
    weights = _weights(config.architecture, frozen, jnp.asarray(_some(landmarks)[:4096], jnp.float32))
    prior = make_prior(
        config.prior.kind, weights, frozen.cluster_means, frozen.cluster_stddev, noise=config.prior.noise
    )
    return frozen._replace(z_scale=jnp.median(prior.reference.stddev).astype(jnp.float32))


def _some(landmarks: np.ndarray) -> np.ndarray:
    """Returns at most `MAX_FITTED_FACES` faces, evenly over the records."""
    return landmarks[np.linspace(0, len(landmarks) - 1, min(len(landmarks), MAX_FITTED_FACES)).astype(int)]


def add_learned_means(config: Config, params: PyTree, frozen: Frozen) -> PyTree:
    """Returns the parameters, with the cluster means added if `prior.learned`."""
    # A copy: a training step donates all its inputs, and a buffer can be donated only once.
    return {**params, LEARNED_MEANS: jnp.copy(frozen.cluster_means)} if config.prior.learned else params


def cluster_means(architecture: Architecture, params: PyTree | None, frozen: Frozen) -> Float[Array, "k d"]:
    """Returns the cluster means in use: the parameters if `prior.learned`, else the frozen ones.

    Deviation: the paper keeps the means fixed.
    """
    if architecture.prior.learned and params is not None:
        return params[LEARNED_MEANS]
    return frozen.cluster_means


def mean_effective_clusters(architecture: Architecture, frozen: Frozen, landmarks: np.ndarray) -> dict[str, float]:
    """Returns the mean of exp(H(c)) over faces, n p 2, by `clusters.mode`: from 1 (one cluster) to K (all equally)."""
    means = {}
    for mode in ("centered", "literal"):
        other = dataclasses.replace(architecture, clusters=dataclasses.replace(architecture.clusters, mode=mode))
        weights = _weights(other, frozen, jnp.asarray(landmarks, jnp.float32))
        means[mode] = float(jnp.mean(effective_clusters(weights)))
    return means


def make_condition(
    architecture: Architecture, params: PyTree | None, frozen: Frozen, landmarks: Float[Array, "b p 2"]
) -> Condition:
    """Returns the condition of a batch of landmarks; pure, jittable, differentiable in the landmarks.

    Args:
        architecture: static under jit.
        params: read only if `prior.learned`; None takes the frozen means.
        landmarks: crop units, 0..1 across the crop.
    """
    scheme, settings = get_scheme(architecture.points), architecture.sketch
    sketch = draw_sketch(
        landmarks, scheme, architecture.model.image_size, settings.sigma, settings.samples_per_span, settings.channels
    )
    weights = _weights(architecture, frozen, landmarks)
    prior = prior_of(architecture, params, frozen, weights)
    frame = make_frame(architecture.model, frozen.clusters.mean_shape, landmarks)
    return Condition(sketch, weights, prior, prior.reference, frame)


def prior_of(
    architecture: Architecture, params: PyTree | None, frozen: Frozen, cluster_weights: Float[Array, "b k"]
) -> Prior:
    """Returns the prior of the faces with these cluster weights; the arguments are those of `make_condition`."""
    means, settings = cluster_means(architecture, params, frozen), architecture.prior
    return make_prior(settings.kind, cluster_weights, means, frozen.cluster_stddev, frozen.covariances, settings.noise)


compiled_condition = jax.jit(make_condition, static_argnums=0)
"""`make_condition`, compiled once for all callers outside a larger program."""


def abstract_frozen(architecture: Architecture) -> Frozen:
    """Returns shapes and types of the frozen part, as `jax.ShapeDtypeStruct`s."""
    points, count = architecture.points, architecture.clusters.count

    def shape(*sides: int) -> Any:
        return jax.ShapeDtypeStruct(sides, jnp.float32)

    clusters = Clusters(shape(count, points, 2), shape(points, 2))
    z_dim = architecture.model.z_dim
    rank = min(architecture.prior.rank, z_dim)
    fitted = architecture.prior.kind == "covariance"
    covariances = Covariances(shape(z_dim), shape(z_dim, rank), shape(count, rank), shape()) if fitted else None
    return Frozen(clusters, shape(count, z_dim), shape(count), shape(), covariances)


def _weights(architecture: Architecture, frozen: Frozen, landmarks: Float[Array, "b p 2"]) -> Float[Array, "b k"]:
    settings, scheme = architecture.clusters, get_scheme(architecture.points)
    return cluster_weights(
        landmarks, frozen.clusters, scheme, settings.mode, settings.temperature, settings.remove_roll
    )
