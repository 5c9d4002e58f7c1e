"""The first state of a training that begins with the weights of a trained model (`train.init_from`)."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ecvae_jax.checkpoints.integrity import CheckpointError
from ecvae_jax.config import Config
from ecvae_jax.data.faces import Faces
from ecvae_jax.gaussian import DiagGaussian
from ecvae_jax.images import to_float
from ecvae_jax.model.conditioning import Frozen, begin_frozen, cluster_means, make_condition
from ecvae_jax.model.cvae import encode
from ecvae_jax.model.model import Model
from ecvae_jax.prior import Covariances, covariance_prior
from ecvae_jax.training.covariance import Moments, batch_moments, refit
from ecvae_jax.training.state import TrainState, begin_state

FITTED = 2048
"""Largest number of faces to which covariances are fitted before the first step."""
_AT_ONCE = 32
_PASSES = 12
"""Steps of subspace iteration over these faces."""

_FREE = frozenset({"model.dtype"})
"""Settings of the sections below without effect on the meaning of the weights."""

_MOST_NAMED = 4
"""Largest number of differences that a message lists."""


def warm_state(config: Config, model: Model, faces: Faces) -> tuple[TrainState, str]:
    """Returns the state before the first step with the weights of `model`, and a line about what was taken over.

    Taken over are the averaged parameters, the clusters and the cluster means, which the network has learned to read.
    Under the same prior its scale of z and its fitted covariances are taken over too. All else starts fresh. Fresh
    covariances are fitted to the model's posteriors of up to `FITTED` training faces before the first step. Equation
    (4) itself may be thousands of nats away, and the first steps would tear the network towards it.

    Args:
        faces: of the training; their landmarks fit the scale of z under another prior.

    Raises:
        CheckpointError: the model has other settings of the network, the sketch or the clusters.
    """
    _check_same_network(config, model)
    landmarks = faces.landmarks_as(config.data.points)
    frozen = begin_frozen(config, model.frozen.clusters, model.frozen.cluster_means, landmarks)
    same_prior = _same_prior(config, model.config)
    if same_prior:
        frozen = frozen._replace(z_scale=model.frozen.z_scale, covariances=model.frozen.covariances)
    state = begin_state(config, model.params, frozen)
    taken = ["parameters", "clusters", "cluster means"]
    fresh = ["optimizer", "step count", "moving average (equal to the parameters)"]
    (taken if same_prior else fresh).append("scale of z")
    if state.frozen.covariances is not None and same_prior:
        taken.append("covariances of the prior")
        fresh.append("their moments")
    elif state.frozen.covariances is not None:
        state, count = _fit_covariances(config, state, faces)
        fresh.append(f"covariances of the prior (fitted to {count} faces)")
    return state, (
        f"begun with the weights of {config.train.init_from}, step {model.step} ({_fingerprint(model.params)}): "
        f"taken over: {', '.join(taken)}; fresh: {', '.join(fresh)}"
    )


def _fit_covariances(config: Config, state: TrainState, faces: Faces) -> tuple[TrainState, int]:
    """Returns the state with covariances fitted to the network's posteriors, and the number of faces."""
    architecture, frozen = config.architecture, state.frozen

    @jax.jit
    def encode_faces(params: PyTree, frozen: Frozen, images: Array, landmarks: Array) -> tuple[DiagGaussian, Array]:
        condition = make_condition(architecture, params, frozen, landmarks)
        return encode(architecture, params, to_float(images), condition), condition.cluster_weights

    @jax.jit
    def fit(
        covariances: Covariances, means: Array, posterior: DiagGaussian, weights: Array
    ) -> tuple[Covariances, Moments]:
        settings, stddev = config.prior, frozen.cluster_stddev
        prior = covariance_prior(weights, means, stddev, covariances, settings.noise)
        moments = batch_moments(posterior, prior, weights, stddev, settings.noise)
        return refit(settings, covariances, moments)

    rows = np.linspace(0, len(faces) - 1, min(len(faces), FITTED)).astype(int)
    rows = rows[: max(1, len(rows) // _AT_ONCE) * _AT_ONCE]  # whole batches, so that one program serves all
    landmarks, parts = faces.landmarks_as(config.data.points), []
    for part in np.split(rows, range(_AT_ONCE, len(rows), _AT_ONCE)):
        images = faces.images(part, config.model.image_size)
        parts.append(jax.device_get(encode_faces(state.params, frozen, images, landmarks[part])))
    posterior, weights = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    means = cluster_means(architecture, state.params, frozen)
    covariances, moments = frozen.covariances, state.moments
    assert covariances is not None
    for _ in range(_PASSES):
        covariances, moments = fit(covariances, means, posterior, weights)
    return state._replace(frozen=frozen._replace(covariances=covariances), moments=moments), len(rows)


def _same_prior(config: Config, other: Config) -> bool:
    """Returns whether both trainings have the same law of z, up to how its covariances are fitted."""
    mine, theirs = (
        (c.prior.kind, c.prior.stddev, c.prior.rank if c.prior.kind == "covariance" else None, c.prior.noise)
        for c in (config, other)
    )
    return mine == theirs


def _check_same_network(config: Config, model: Model) -> None:
    differences = []
    wanted, given = (_meaning(c) for c in (config, model.config))
    for name, value in wanted.items():
        if value != given[name]:
            differences.append(f"{name}: {given[name]!r} -> {value!r}")
    if differences:
        more = f" and {len(differences) - _MOST_NAMED} more" if len(differences) > _MOST_NAMED else ""
        raise CheckpointError(
            f"train.init_from={config.train.init_from!r}: its weights do not fit this training, its settings -> "
            f"yours: {'; '.join(differences[:_MOST_NAMED])}{more}; take its settings, or a model with yours"
        )


def _meaning(config: Config) -> dict[str, Any]:
    """Returns the settings that fix shapes and meaning of the weights, by section.field."""
    sections = {name: dataclasses.asdict(getattr(config, name)) for name in ("sketch", "clusters", "model")}
    settings = {f"{section}.{name}": value for section, fields in sections.items() for name, value in fields.items()}
    prior = {"prior.mean_norm": config.prior.mean_norm, "prior.learned": config.prior.learned}
    return {name: value for name, value in settings.items() if name not in _FREE} | {
        "data.points": config.data.points,
        **prior,
    }


def _fingerprint(params: PyTree) -> str:
    """Returns 12 hexadecimal digits: a hash of the parameters."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:12]
