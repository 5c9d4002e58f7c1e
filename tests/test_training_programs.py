"""Trainings share compiled programs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecvae_jax.comparison.variants import VARIANTS, with_settings
from ecvae_jax.config import Config
from ecvae_jax.data.faces import load_faces
from ecvae_jax.training import parallel
from ecvae_jax.training.state import init_state
from ecvae_jax.training.step import StepProgram, make_train_step, step_function, to_views


def test_other_seeds_lengths_rates_and_intervals_compile_nothing(
    tiny_config: Config, tiny_batch: dict[str, np.ndarray]
) -> None:
    landmarks = load_faces(tiny_config.data.records, "train").landmarks
    first = to_views({name: jnp.asarray(value) for name, value in tiny_batch.items()})
    state = jax.device_get(init_state(tiny_config, landmarks, first))
    metrics, compiled = [], []
    for settings in (
        {},
        {"train.seed": 7},
        {"train.steps": 30, "objective.beta_ramp": 0.5},
        {"optim.learning_rate": 1e-4, "optim.warmup_steps": 0, "optim.clip_norm": 0.5, "optim.ema_decay": 0.5},
        {"train.log_every": 3, "train.checkpoint_every": 4, "data.records": "rendered", "data.pairs": 0.0},
    ):
        step = make_train_step(with_settings(tiny_config, settings))
        assert step.program == StepProgram.of(tiny_config)
        metrics.append(parallel.map_step(step, "shard_map")(parallel.replicate(state), tiny_batch)[1])
        compiled.append(parallel.shard_step(step_function(step.program), parallel.make_mesh())._cache_size())
    # Other tests of this process may have compiled this step for other batches: their number does not matter here.
    assert compiled == compiled[:1] * 5, "only the first of the five compiles"
    losses = [float(each["loss"]) for each in metrics]
    assert losses[1] != losses[0], "the seed is an argument"
    assert losses[4] == losses[0]
    assert [float(each["beta"]) for each in metrics] == pytest.approx([1.0, 1.0, 0.0, 1.0, 1.0])
    assert [float(each["learning_rate"]) for each in metrics] == pytest.approx([0.0, 0.0, 0.0, 1e-4, 0.0])


def test_the_trainings_of_compare_need_thirteen_programs(tiny_config: Config) -> None:
    trained = [variant for variant in VARIANTS.values() if not variant.trained_as]
    configs = [
        with_settings(tiny_config, {**variant.settings, "train.seed": seed}) for variant in trained for seed in range(3)
    ]
    assert len(configs) == 60
    assert len({StepProgram.of(config) for config in configs}) == 13
