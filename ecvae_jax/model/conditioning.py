"""What the model is conditioned on, all of it a function of the landmarks: sketch, cluster weights, prior."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ecvae_jax.config import Architecture, Config
from ecvae_jax.gaussian import DiagGaussian
from ecvae_jax.prior import Prior, effective_clusters, init_cluster_means, make_prior
from ecvae_jax.structure.clusters import MAX_FITTED_FACES, Clusters, cluster_weights, fit_clusters
from ecvae_jax.structure.scheme import get_scheme
from ecvae_jax.structure.sketch import draw_sketch
from ecvae_jax.structure.warp import smooth_map

# Root mean square distance of the mean shape's landmarks from its center in the face frame, crop units: that of the
# crops that `ecvae prepare` cuts, so that the frame shows as much around a face as they do.
FRAME_SCALE = 0.22


LEARNED_MEANS = "cluster_means"
"""Their name among the parameters where `prior.learned`, beside the branches of the network."""


class Frozen(NamedTuple):
    """The part of the model that is fixed before training.

    It rides in the state beside the parameters, is stored in every checkpoint, and no gradient reaches it. Trained
    cluster means start from these and live among the parameters (`cluster_means`); these stay unchanged.
    """

    clusters: Clusters
    cluster_means: Float[Array, "k d"]
    cluster_stddev: Float[Array, " k"]
    z_scale: Float[Array, ""]
    """Median standard deviation of the prior over the training faces: the unit in which the decoder reads z."""


class Frame(NamedTuple):
    """How the face frame, in which all faces have the mean shape, lies over a picture; grids of the finest level."""

    to_face: Float[Array, "b r r 2"]
    """Where each cell of the picture lies in the face frame."""
    to_picture: Float[Array, "b r r 2"]
    """Where each cell of the face frame lies in the picture."""


class Condition(NamedTuple):
    """Everything that follows from the landmarks of a batch."""

    sketch: Float[Array, "b h w s"]
    cluster_weights: Float[Array, "b k"]
    prior: Prior
    reference: DiagGaussian
    """The Gaussian that a relative posterior is written against: the prior, or a mixture's first two moments."""
    frame: Frame | None = None
    """Where z has its places in the face frame (`model.frame`)."""


def sketch_channels(architecture: Architecture) -> int:
    """Returns s, the number of maps of the sketch."""
    return len(get_scheme(architecture.points).boundaries) if architecture.sketch.channels == "boundary" else 1


def init_frozen(key: Array, config: Config, landmarks: np.ndarray) -> Frozen:
    """Returns clusters fitted to the training landmarks, and cluster means drawn at random once and for all.

    Args:
        key: JAX key; the means are a pure function of it.
        config: the experiment.
        landmarks: n p 2, crop units, the training faces in the order of the records.

    Raises:
        ValueError: fewer faces than clusters, or landmarks that are not finite.
    """
    scheme = get_scheme(config.data.points)
    faces = landmarks[np.linspace(0, len(landmarks) - 1, min(len(landmarks), MAX_FITTED_FACES)).astype(int)]
    settings = config.clusters
    clusters = fit_clusters(faces, scheme, settings.count, settings.remove_roll, config.train.seed)
    means = init_cluster_means(key, settings.count, config.model.z_dim, config.prior.mean_norm)
    stddev = jnp.full((settings.count,), config.prior.stddev, jnp.float32)
    frozen = Frozen(clusters, means, stddev, jnp.ones((), jnp.float32))
    weights = _weights(config.architecture, frozen, jnp.asarray(faces[:4096], jnp.float32))
    prior = make_prior(config.prior.kind, weights, frozen.cluster_means, frozen.cluster_stddev)
    return frozen._replace(z_scale=jnp.median(prior.reference.stddev).astype(jnp.float32))


def add_learned_means(config: Config, params: PyTree, frozen: Frozen) -> PyTree:
    """Returns the parameters with the cluster means among them where these are trained, else as they are."""
    # A copy: a step donates its whole input, and a buffer may be given away only once.
    return {**params, LEARNED_MEANS: jnp.copy(frozen.cluster_means)} if config.prior.learned else params


def cluster_means(architecture: Architecture, params: PyTree | None, frozen: Frozen) -> Float[Array, "k d"]:
    """Returns the cluster means in use: the trained ones among the parameters where `prior.learned`, else the frozen.

    Deviation: the paper keeps the means fixed.
    """
    if architecture.prior.learned and params is not None:
        return params[LEARNED_MEANS]
    return frozen.cluster_means


def mean_effective_clusters(architecture: Architecture, frozen: Frozen, landmarks: np.ndarray) -> dict[str, float]:
    """Returns the mean of exp(H(c)) over faces, n p 2, for either `clusters.mode`: from 1 (one cluster) to K (all)."""
    means = {}
    for mode in ("centered", "literal"):
        other = dataclasses.replace(architecture, clusters=dataclasses.replace(architecture.clusters, mode=mode))
        weights = _weights(other, frozen, jnp.asarray(landmarks, jnp.float32))
        means[mode] = float(jnp.mean(effective_clusters(weights)))
    return means


def make_condition(
    architecture: Architecture, params: PyTree | None, frozen: Frozen, landmarks: Float[Array, "b p 2"]
) -> Condition:
    """Returns sketch, cluster weights and prior of a batch of landmarks: pure, jittable, differentiable in them.

    Args:
        architecture: static.
        params: of the network; None where no parameter can matter, which holds unless `prior.learned`.
        frozen: clusters, cluster means and scales.
        landmarks: crop units, 0..1 across the crop, in the scheme of `architecture.points`.
    """
    scheme, settings = get_scheme(architecture.points), architecture.sketch
    sketch = draw_sketch(
        landmarks, scheme, architecture.model.image_size, settings.sigma, settings.samples_per_span, settings.channels
    )
    weights = _weights(architecture, frozen, landmarks)
    means = cluster_means(architecture, params, frozen)
    prior = make_prior(architecture.prior.kind, weights, means, frozen.cluster_stddev)
    frame = _frame(architecture, frozen, landmarks) if architecture.model.frame == "face" else None
    return Condition(sketch, weights, prior, prior.reference, frame)


compiled_condition = jax.jit(make_condition, static_argnums=0)
"""`make_condition`, compiled once for all callers outside a larger program."""


def _weights(architecture: Architecture, frozen: Frozen, landmarks: Float[Array, "b p 2"]) -> Float[Array, "b k"]:
    settings, scheme = architecture.clusters, get_scheme(architecture.points)
    return cluster_weights(
        landmarks, frozen.clusters, scheme, settings.mode, settings.temperature, settings.remove_roll
    )


def _frame(architecture: Architecture, frozen: Frozen, landmarks: Float[Array, "b p 2"]) -> Frame:
    side = architecture.model.level_sides[0]
    mean_face = 0.5 + FRAME_SCALE * jnp.asarray(frozen.clusters.mean_shape, landmarks.dtype)
    mean_faces = jnp.broadcast_to(mean_face[None], landmarks.shape)
    return Frame(smooth_map(landmarks, mean_faces, side), smooth_map(mean_faces, landmarks, side))
