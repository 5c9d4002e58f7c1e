"""The training state, the optimizer and its schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PyTree, UInt8, UInt32

from ecvae_jax.checkpoints.store import Stored
from ecvae_jax.config import Config
from ecvae_jax.data.feature_weights import load_lpips
from ecvae_jax.model.conditioning import Frozen, add_learned_means, compiled_condition, init_frozen
from ecvae_jax.model.cvae import init_params
from ecvae_jax.model.lsuv import init_unit_variance
from ecvae_jax.model.model import abstract_arrays
from ecvae_jax.model.perceptual import PerceptualWeights
from ecvae_jax.objective import Views
from ecvae_jax.training.covariance import Moments, init_moments


class TrainState(NamedTuple):
    """The arrays that a step updates, and the frozen part, of which only fitted covariances change."""

    step: Int[Array, ""]
    params: PyTree
    ema_params: PyTree
    opt_state: optax.OptState
    frozen: Frozen
    moments: Moments | None = None
    """Of the posteriors, for prior.kind="covariance"; None for all others."""


class Hyperparameters(NamedTuple):
    """Constants of one training, arguments of the compiled step, so that trainings share its program."""

    key_data: UInt32[Array | np.ndarray, " w"]
    """Data of the JAX key of `train.seed`."""
    learning_rate: Float[Array | np.ndarray, ""]
    warmup_steps: Int[Array | np.ndarray, ""]
    decay_steps: Int[Array | np.ndarray, ""]
    """Steps after the warm-up."""
    clip_norm: Float[Array | np.ndarray, ""]
    ema_decay: Float[Array | np.ndarray, ""]
    beta: Float[Array | np.ndarray, ""]
    beta_ramp_steps: Int[Array | np.ndarray, ""]
    color_jitter: Float[Array | np.ndarray, ""]
    perceptual: PerceptualWeights | None = None
    """None: the step has no LPIPS. Arguments, because as constants they enlarge the program by up to 59 MB."""
    images: UInt8[Array, "n h w 3"] | None = None
    """All training images, of `data.cache` "device"; None: batches hold their own."""


def hyperparameters(config: Config) -> Hyperparameters:
    """Returns the constants of a training as host arrays.

    Raises:
        MissingExtraError: `objective.perceptual_weight` needs the extra lpips.
    """
    steps, optim = config.train.steps, config.optim
    warmup = min(optim.warmup_steps, steps - 1)
    return Hyperparameters(
        key_data=np.asarray(jax.random.key_data(jax.random.key(config.train.seed))),
        learning_rate=np.asarray(optim.learning_rate, np.float32),
        warmup_steps=np.asarray(warmup, np.int32),
        decay_steps=np.asarray(max(steps - warmup, 1), np.int32),
        clip_norm=np.asarray(optim.clip_norm, np.float32),
        ema_decay=np.asarray(optim.ema_decay, np.float32),
        beta=np.asarray(config.objective.beta, np.float32),
        beta_ramp_steps=np.asarray(round(config.objective.beta_ramp * steps), np.int32),
        color_jitter=np.asarray(config.data.color_jitter, np.float32),
        perceptual=load_lpips("vgg16", config.objective.perceptual_taps)
        if config.objective.perceptual_weight
        else None,
    )


def learning_rate(
    hyper: Hyperparameters, schedule: Literal["cosine", "linear", "constant"], step: Int[Array, "*s"]
) -> Float[Array, "*s"]:
    """Returns the learning rate of a step: linear warm-up, then a fall to 0 at the end, or none.

    Bitwise that of optax's schedules, whose lengths are constants of the program.
    """
    peak = jnp.asarray(hyper.learning_rate)
    rising = _linear(step, hyper.warmup_steps, 0.0, peak)
    after = step - hyper.warmup_steps
    if schedule == "cosine":
        part = jnp.pi * jnp.minimum(after, hyper.decay_steps) * _inverse(hyper.decay_steps)
        falling = peak * (0.5 * (1 + jnp.cos(part)))
    else:
        falling = _linear(after, hyper.decay_steps, peak, peak if schedule == "constant" else 0.0)
    return jnp.where(step < hyper.warmup_steps, rising, falling)


def kl_weight(hyper: Hyperparameters, step: Int[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns beta of a step: a linear rise from 0 over the first part of the training.

    Deviation: the paper specifies no ramp. VUNet has one, since a full KL at the start makes the posterior collapse.
    """
    beta = jnp.asarray(hyper.beta)
    return jnp.where(hyper.beta_ramp_steps > 0, _linear(step, hyper.beta_ramp_steps, 0.0, beta), beta)


def _linear(
    step: Int[Array, "*s"],
    steps: Int[Array | np.ndarray, ""],
    start: Float[Array, ""] | float,
    end: Float[Array, ""] | float,
) -> Float[Array, "*s"]:
    return (start - end) * (1 - jnp.clip(step, 0, steps) * _inverse(steps)) + end


def _inverse(steps: Int[Array | np.ndarray, ""]) -> Float[Array, ""]:
    # XLA divides by a constant as it multiplies by the rounded reciprocal.
    return 1 / jnp.maximum(steps, 1).astype(jnp.float32)


def global_norm(gradient: PyTree) -> Float[Array, ""]:
    """Returns the Euclidean norm over all arrays of the gradient.

    On GPUs they are joined first: a sum for each array takes 440 kernels in configs/paper_256.py, that of one vector 3.
    """

    def joined(gradient: PyTree) -> Float[Array, ""]:
        return optax.tree.norm(jnp.concatenate([part.ravel() for part in jax.tree.leaves(gradient)]))

    return jax.lax.platform_dependent(gradient, cuda=joined, rocm=joined, default=optax.tree.norm)


def row_major(gradient: PyTree) -> PyTree:
    """Returns the gradient; on GPUs each array is laid out as its parameter is.

    cuDNN writes gradients of kernels in a layout of its own. Without this, XLA computes Adam and the moving average in
    that layout and copies four arrays of each kernel back.
    """

    def laid_out(gradient: PyTree) -> PyTree:
        return jax.tree.map(lambda part: with_layout_constraint(part, Layout(tuple(range(part.ndim)))), gradient)

    return jax.lax.platform_dependent(gradient, cuda=laid_out, rocm=laid_out, default=lambda gradient: gradient)


def make_optimizer(
    rate: Callable[[ArrayLike], Array], clip_norm: Float[Array, ""] | None
) -> optax.GradientTransformation:
    """Returns Adam (the paper's) at a scheduled rate, after clipping by the global norm unless `clip_norm` is None."""
    adam = optax.adam(rate)
    if clip_norm is None:
        return adam

    def clip(gradient: PyTree, params: PyTree) -> PyTree:
        """`optax.clip_by_global_norm` with one factor: it divides each array by the norm, in a pass of its own."""
        norm = global_norm(gradient)
        factor = jnp.where(norm < clip_norm, 1.0, clip_norm / norm)
        return jax.tree.map(lambda part: part * factor, gradient)

    return optax.chain(optax.stateless(clip), adam)


def init_state(config: Config, landmarks: np.ndarray, first: Views) -> TrainState:
    """Returns the state before the first step; all randomness comes from `train.seed`.

    Args:
        landmarks: n p 2, crop units: the training faces, which fit the clusters and the scale of z.
        first: a batch that scales the layers to unit variance (LSUV).

    Raises:
        ValueError: fewer faces than clusters, or a first batch without variation.
    """
    architecture = config.architecture
    means_key, params_key = jax.random.split(jax.random.key(config.train.seed))
    frozen = init_frozen(means_key, config, landmarks)
    params = init_params(params_key, architecture)
    condition = compiled_condition(architecture, None, frozen, first.landmarks)
    params = init_unit_variance(architecture, params, first.image, condition, frozen.z_scale)
    return begin_state(config, add_learned_means(config, params, frozen), frozen)


def begin_state(config: Config, params: PyTree, frozen: Frozen) -> TrainState:
    """Returns the state of step 0 with these parameters, which are also their average, and a new optimizer."""

    @jax.jit  # a copy of the parameters: the step donates its input, and a buffer may be donated only once
    def start(params: PyTree) -> tuple[Array, PyTree, optax.OptState]:
        return jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params), _init_optimizer(config, params)

    step, ema_params, opt_state = start(params)
    return TrainState(step, params, ema_params, opt_state, frozen, _init_moments(frozen))


def abstract_state(config: Config) -> TrainState:
    """Returns the state as `jax.ShapeDtypeStruct`s; computes nothing."""
    params, frozen = abstract_arrays(config)
    opt_state = jax.eval_shape(lambda params: _init_optimizer(config, params), params)
    step, moments = jax.ShapeDtypeStruct((), jnp.int32), jax.eval_shape(_init_moments, frozen)
    return TrainState(step, params, params, opt_state, frozen, moments)  # type: ignore[arg-type]


def stored_part(state: TrainState) -> Stored:
    """Returns the arrays that a checkpoint stores beside the step."""
    return Stored(state.params, state.ema_params, state.opt_state, state.frozen, state.moments)


def count_params(params: PyTree) -> int:
    """Returns the number of trained parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _init_moments(frozen: Frozen) -> Moments | None:
    return None if frozen.covariances is None else init_moments(frozen.covariances)


def _init_optimizer(config: Config, params: PyTree) -> optax.OptState:
    clip_norm = jnp.ones(()) if config.optim.clip_norm else None
    return make_optimizer(lambda count: jnp.zeros(()), clip_norm).init(params)
