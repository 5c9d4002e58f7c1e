"""Adam with its learning-rate schedule and clipping, and the ramp of the KL's weight."""

from __future__ import annotations

import optax

from ecvae_jax.config import Config, OptimConfig


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


def make_optimiser(config: OptimConfig, steps: int) -> optax.GradientTransformation:
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
