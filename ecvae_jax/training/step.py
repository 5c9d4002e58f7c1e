"""One training step on one device; `parallel` maps it over all devices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree, UInt8

from ecvae_jax.config import Architecture, Config
from ecvae_jax.images import to_float
from ecvae_jax.objective import Terms, Views, loss_terms
from ecvae_jax.prior import CovariancePrior
from ecvae_jax.training.covariance import Moments, batch_moments, fit_step
from ecvae_jax.training.state import (
    Hyperparameters,
    TrainState,
    global_norm,
    hyperparameters,
    kl_weight,
    learning_rate,
    make_optimizer,
    row_major,
)

AXIS = "batch"
"""Name of the mapped axis that shards the batch and averages gradients."""

Batch = Mapping[str, Array]
Metrics = dict[str, Array]
StepFunction = Callable[[TrainState, Batch, Hyperparameters], tuple[TrainState, Metrics]]


def to_views(batch: Batch) -> Views:
    """Returns a batch of `data.batches` as views with float images in [-1, 1]; without a source, both are one."""
    if "source_image" not in batch:
        image, landmarks = to_float(batch["image"]), batch["landmarks"]
        return Views(image, landmarks, image, landmarks)
    return Views(
        to_float(batch["source_image"]), batch["source_landmarks"], to_float(batch["image"]), batch["landmarks"]
    )


def with_images(batch: Batch, images: UInt8[Array, "n h w 3"]) -> Batch:
    """Returns a batch of `data.cache` "device" with its images, gathered from all of them and mirrored."""

    def gather(at: Array) -> Array:
        chosen = jnp.take(images, at, axis=0, mode="clip")
        return jnp.where(batch["flip"][:, None, None, None], chosen[:, :, ::-1], chosen)

    names = {"index": "image", "source_index": "source_image"}
    held = {name: value for name, value in batch.items() if name not in (*names, "flip")}
    return held | {image: gather(batch[index]) for index, image in names.items() if index in batch}


def read_by_step(config: Config, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a batch that the step needs: in self-reconstruction the source is the target."""
    return {name: value for name, value in batch.items() if config.data.pairs or not name.startswith("source_")}


def jitter_colors(key: Array, views: Views, strength: Float[Array, ""] | float) -> Views:
    """Returns the views of one example with random exposure and tint, the same for both; images stay in [-1, 1].

    Args:
        views: without the batch axis.
        strength: see `data.color_jitter`.
    """
    contrast, brightness, tint = (
        jax.random.uniform(part_key, shape, minval=-strength, maxval=strength)
        for part_key, shape in zip(jax.random.split(key, 3), ((), (), (3,)), strict=True)
    )
    gain = jnp.exp(brightness + tint / 3)[None, None]

    def change(image: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
        brighter = (image + 1.0) * gain - 1.0
        return jnp.clip(jnp.exp(contrast) * brighter, -1.0, 1.0)

    return views._replace(source_image=change(views.source_image), image=change(views.image))


class StepProgram(NamedTuple):
    """The static part of the compiled step; trainings with equal ones share the program."""

    architecture: Architecture
    schedule: Literal["cosine", "linear", "constant"]
    clips: bool
    jitters: bool

    @classmethod
    def of(cls, config: Config) -> StepProgram:
        """Returns the program of an experiment."""
        return cls(config.architecture, config.optim.schedule, config.optim.clip_norm > 0, config.data.color_jitter > 0)


class TrainStep(NamedTuple):
    """`train_step(state, batch) -> (state, metrics)` for one device inside a mapped axis named `AXIS`."""

    program: StepProgram
    hyper: Hyperparameters

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Returns the next state and the metrics of this step."""
        return step_function(self.program)(state, batch, self.hyper)

    def without_perceptual(self) -> TrainStep:
        """Returns the step without LPIPS, for those between every N-th."""
        return self._replace(hyper=self.hyper._replace(perceptual=None))

    def with_images(self, images: UInt8[Array, "n h w 3"] | None) -> TrainStep:
        """Returns the step that reads its images from these, of which batches name the rows."""
        return self._replace(hyper=self.hyper._replace(images=images))


def make_train_step(config: Config) -> TrainStep:
    """Returns the step of an experiment: its program and its hyperparameters."""
    return TrainStep(StepProgram.of(config), hyperparameters(config))


@functools.cache
def step_function(program: StepProgram) -> StepFunction:
    """Returns `(state, batch, hyper) -> (state, metrics)` for one device; equal programs get the same function.

    Gradients, metrics and the likelihood's scale are averaged over the axis in float32. The noise of an image depends
    on its index in the global batch, so the result does not depend on the number of devices.

    If a term or the gradient is NaN or infinite, the update is skipped: only the step counter and the schedule advance,
    and the metric `skipped` is 1. All devices decide alike, since they test averages.
    """
    architecture = program.architecture

    def train_step(state: TrainState, batch: Batch, hyper: Hyperparameters) -> tuple[TrainState, Metrics]:
        rate = learning_rate(hyper, program.schedule, state.step)
        optimizer = make_optimizer(lambda count: rate, jnp.asarray(hyper.clip_norm) if program.clips else None)
        views = to_views(batch if hyper.images is None else with_images(batch, hyper.images))
        images = views.image.shape[0]
        indices = jax.lax.axis_index(AXIS) * images + jnp.arange(images)
        step_key = jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(hyper.key_data)), state.step)
        keys = jax.vmap(lambda index: jax.random.split(jax.random.fold_in(step_key, index)))(indices)
        noise = jax.vmap(lambda key: jax.random.normal(key, (architecture.model.z_dim,)))(keys[:, 0])
        beta = kl_weight(hyper, state.step)
        if program.jitters:
            jitter_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys[:, 0])
            strength = jnp.asarray(hyper.color_jitter)
            jittered = jax.vmap(jitter_colors, in_axes=(0, 0, None))(jitter_keys, views, strength)
            views = views._replace(source_image=jittered.source_image, image=jittered.image)

        def objective(params: PyTree) -> tuple[Float[Array, ""], tuple[Terms, Moments | None]]:
            terms, _, posterior, source = loss_terms(
                architecture, params, state.frozen, views, noise, keys[:, 1], beta, AXIS, hyper.perceptual
            )
            sums = None
            if state.moments is not None:
                assert isinstance(source.prior, CovariancePrior)
                weights, stddev = source.cluster_weights, state.frozen.cluster_stddev
                sums = batch_moments(posterior, source.prior, weights, stddev, architecture.prior.noise)
            return jnp.mean(terms.loss), (terms, sums)

        gradient, (terms, sums) = jax.grad(objective, has_aux=True)(state.params)
        alone = jax.lax.axis_size(AXIS) == 1  # XLA's CPU code would copy every gradient
        gradient, sums = (gradient, sums) if alone else (jax.lax.pmean(gradient, AXIS), jax.lax.psum(sums, AXIS))
        gradient = row_major(gradient)
        means = {name: jnp.mean(value) for name, value in terms._asdict().items() if value is not None}
        means["elbo"] = jnp.mean(terms.elbo)
        metrics = jax.lax.pmean(means, AXIS)
        metrics["gradient_norm"] = global_norm(gradient)
        metrics["learning_rate"] = rate
        metrics["beta"] = beta

        # The gradient's norm is NaN or infinite if any part of the gradient is.
        finite = jnp.all(jnp.isfinite(jnp.stack(list(metrics.values()))))
        metrics["skipped"] = 1.0 - finite

        # With a constant decay the average would keep the initial draw for 1/(1 - decay) steps, so the decay ramps up.
        decay = jnp.minimum(hyper.ema_decay, (1.0 + state.step) / (10.0 + state.step))

        def update(params: PyTree, ema_params: PyTree, opt_state: optax.OptState) -> tuple[PyTree, ...]:
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            params = optax.apply_updates(params, updates)
            return params, optax.incremental_update(params, ema_params, 1.0 - decay), opt_state

        def skip(params: PyTree, ema_params: PyTree, opt_state: optax.OptState) -> tuple[PyTree, ...]:
            return params, ema_params, _advance_schedule(opt_state)

        # jnp.where is as fast but needs memory for the old and the new state together.
        params, ema_params, opt_state = jax.lax.cond(
            finite, update, skip, state.params, state.ema_params, state.opt_state
        )
        frozen, moments = state.frozen, state.moments
        if moments is not None and sums is not None:
            # A skipped step has no posteriors: its sums may be NaN.
            sums = jax.tree.map(lambda new: jnp.where(finite, new, 0.0), sums)
            frozen, moments = fit_step(architecture.prior, frozen, moments, sums, state.step + 1)
        return TrainState(state.step + 1, params, ema_params, opt_state, frozen, moments), metrics

    return train_step


@functools.cache
def steps_function(program: StepProgram) -> Callable[..., tuple[TrainState, Metrics]]:
    """Returns `(state, batches, count, hyper) -> (state, metrics)` for one device: the first `count` steps in one call.

    `batches` and the metrics have a leading axis of steps, longer than `count` if need be. The loop's body is one
    program for every `count`: the bits of the result do not depend on how steps are grouped into calls.
    """
    step = step_function(program)

    def train_steps(
        state: TrainState, batches: Batch, count: Array, hyper: Hyperparameters
    ) -> tuple[TrainState, Metrics]:
        def at(number: Array | int) -> Batch:
            return {name: array[number] for name, array in batches.items()}

        length = len(next(iter(batches.values())))
        shapes = jax.eval_shape(lambda state: step(state, at(0), hyper)[1], state)
        found = {name: jnp.zeros((length, *each.shape), each.dtype) for name, each in shapes.items()}

        def body(number: Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, metrics = step(carry[0], at(number), hyper)
            return state, {name: carry[1][name].at[number].set(value) for name, value in metrics.items()}

        return jax.lax.fori_loop(0, count, body, (state, found))

    return train_steps


def _advance_schedule(opt_state: optax.OptState) -> optax.OptState:
    """Returns the optimizer state with only the counter of its schedule advanced."""

    def advance(part: Any) -> Any:
        if isinstance(part, optax.ScaleByScheduleState):
            return optax.ScaleByScheduleState(optax.safe_increment(part.count))
        return part

    return jax.tree.map(advance, opt_state, is_leaf=lambda part: isinstance(part, optax.ScaleByScheduleState))
