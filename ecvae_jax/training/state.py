"""The training state: everything a step changes, and the frozen part that it must not."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PyTree

from ecvae_jax.config import Config, OptimConfig
from ecvae_jax.model.conditioning import Frozen, add_learned_means, init_frozen, make_condition, sketch_channels
from ecvae_jax.model.cvae import init_params
from ecvae_jax.model.lsuv import init_unit_variance
from ecvae_jax.objective import Views
from ecvae_jax.structure.clusters import Clusters


class TrainState(NamedTuple):
    """What a checkpoint holds. `frozen` is outside the optimizer: no step changes a bit of it."""

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
    optimizer = make_optimizer(config.optim, config.train.steps)
    # A copy: the step donates its input, and a buffer may be given away only once.
    ema_params = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema_params, optimizer.init(params), frozen)


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
        opt_state = make_optimizer(config.optim, config.train.steps).init(params)
        return TrainState(jnp.zeros((), jnp.int32), params, params, opt_state, frozen)

    return jax.eval_shape(build)


def count_params(params: PyTree) -> int:
    """Returns the number of trained parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def learning_rate(config: OptimConfig, steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step: linear warm-up, then a fall to 0 at the end or none."""
    warmup = min(config.warmup_steps, steps - 1)
    rest = max(steps - warmup, 1)
    fall = {
        "cosine": optax.cosine_decay_schedule(config.learning_rate, rest),
        "linear": optax.linear_schedule(config.learning_rate, 0.0, rest),
        "constant": optax.constant_schedule(config.learning_rate),
    }[config.schedule]
    return optax.join_schedules([optax.linear_schedule(0.0, config.learning_rate, max(warmup, 1)), fall], [warmup])


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Returns Adam (the paper's) under the schedule, after clipping by the global norm."""
    adam = optax.adam(learning_rate(config, steps))
    if not config.clip_norm:
        return adam
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adam)


def kl_weight(config: Config) -> optax.Schedule:
    """Returns beta as a function of the step: from 0 linearly to its value over the first part of the training.

    Deviation: the paper does not say; its ancestors ramp too (VUNet), since a full KL at the start switches z off.
    """
    ramp = round(config.objective.beta_ramp * config.train.steps)
    if not ramp:
        return optax.constant_schedule(config.objective.beta)
    return optax.linear_schedule(0.0, config.objective.beta, ramp)
