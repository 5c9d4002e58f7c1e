"""The training state: everything a step changes, and the frozen part that it must not."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PyTree

from ecvae_jax.config import Config
from ecvae_jax.model.conditioning import Frozen, add_learned_means, init_frozen, make_condition, sketch_channels
from ecvae_jax.model.cvae import init_params
from ecvae_jax.model.lsuv import init_unit_variance
from ecvae_jax.objective import Views
from ecvae_jax.structure.clusters import Clusters
from ecvae_jax.training.optim import make_optimiser


class TrainState(NamedTuple):
    """What a checkpoint holds. `frozen` is outside the optimiser: no step changes a bit of it."""

    step: Int[Array, ""]
    params: PyTree
    ema_params: PyTree
    opt_state: optax.OptState
    frozen: Frozen


def init_state(config: Config, landmarks: np.ndarray, first: Views) -> TrainState:
    """Returns the state before the first step.

    Args:
        config: the experiment; its seed decides everything drawn here.
        landmarks: n p 2, crop units: the training faces, on which clusters and the scale of z are fitted.
        first: a batch of images, on which the layers are brought to unit variance (LSUV).

    Raises:
        ValueError: fewer faces than clusters, or a first batch without variation.
    """
    means_key, params_key = jax.random.split(jax.random.key(config.train.seed))
    frozen = init_frozen(means_key, config, landmarks)
    params = init_params(params_key, config, sketch_channels(config))
    condition = make_condition(config, frozen, first.landmarks)
    params = init_unit_variance(config, params, first.image, condition, frozen.z_scale)
    params = add_learned_means(config, params, frozen)
    optimiser = make_optimiser(config.optim, config.train.steps)
    # A copy: the step donates its input, and a buffer may be given away only once.
    ema_params = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema_params, optimiser.init(params), frozen)


def abstract_state(config: Config) -> TrainState:
    """Returns the shapes and types of the state, as `jax.ShapeDtypeStruct`s; nothing is computed."""
    points, count = config.data.points, config.clusters.count

    def build() -> TrainState:
        frozen = Frozen(
            Clusters(jnp.zeros((count, points, 2)), jnp.zeros((points, 2))),
            jnp.zeros((count, config.model.z_dim)),
            jnp.zeros((count,)),
            jnp.zeros(()),
        )
        params = add_learned_means(config, init_params(jax.random.key(0), config, sketch_channels(config)), frozen)
        opt_state = make_optimiser(config.optim, config.train.steps).init(params)
        return TrainState(jnp.zeros((), jnp.int32), params, params, opt_state, frozen)

    return jax.eval_shape(build)


def count_params(params: PyTree) -> int:
    """Returns the number of trained parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
