"""Self-reconstruction: one sketch and one picture; no SSIM where it has no weight."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecvae_jax import objective
from ecvae_jax.config import Config, ObjectiveConfig
from ecvae_jax.data.faces import load_faces
from ecvae_jax.model.conditioning import init_frozen
from ecvae_jax.model.cvae import init_params
from ecvae_jax.training.step import read_by_step, to_views


@pytest.fixture
def self_config(tiny_config: Config) -> Config:
    return dataclasses.replace(
        tiny_config,
        data=dataclasses.replace(tiny_config.data, pairs=0.0),
        objective=ObjectiveConfig(ssim_weight=0.0, beta_ramp=0.0),
    )


def test_one_view_has_the_terms_of_two_equal_ones_with_one_sketch(
    self_config: Config, tiny_batch: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = {name: jnp.asarray(tiny_batch[name.removeprefix("source_")]) for name in tiny_batch}
    small = read_by_step(self_config, batch)
    assert sorted(small) == ["image", "landmarks"]
    architecture = self_config.architecture
    landmarks = load_faces(self_config.data.records, "train").landmarks
    frozen, params = (
        init_frozen(jax.random.key(1), self_config, landmarks),
        init_params(jax.random.key(0), architecture),
    )
    noise, keys = jax.random.normal(jax.random.key(2), (8, 32)), jax.random.split(jax.random.key(3), 8)
    made, drawn = objective.make_condition, []
    monkeypatch.setattr(objective, "make_condition", lambda *inputs: (drawn.append(1), made(*inputs))[1])

    def terms(views):
        return objective.loss_terms(architecture, params, frozen, views, noise, keys, 1.0)[0]

    two = jax.jit(lambda batch: terms(to_views(batch)))(batch)
    assert len(drawn) == 2
    one = jax.jit(lambda batch: terms(to_views(batch)))(small)
    assert len(drawn) == 3
    assert one.ssim is None
    for name in ("recon_nll", "kl", "loss"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-5)


def test_views_of_pairs_keep_their_source(tiny_config: Config, tiny_batch: dict[str, np.ndarray]) -> None:
    assert read_by_step(tiny_config, tiny_batch) == tiny_batch
