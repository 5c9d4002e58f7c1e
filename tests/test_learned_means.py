"""Cluster means that are trained: what moves them, what stays, and that nothing changes where they are fixed."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.training import assert_same, before_step, restored

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.checkpoints.store import Checkpoints
from ecvae_jax.comparison.variants import with_settings
from ecvae_jax.config import Config
from ecvae_jax.data.faces import load_faces
from ecvae_jax.export.small import export_model
from ecvae_jax.model.conditioning import (
    LEARNED_MEANS,
    add_learned_means,
    cluster_means,
    init_frozen,
    make_condition,
)
from ecvae_jax.model.cvae import init_params
from ecvae_jax.model.model import Model
from ecvae_jax.objective import Terms, loss_terms
from ecvae_jax.synthesis.batches import move, sample
from ecvae_jax.training import loop
from ecvae_jax.training.loop import train
from ecvae_jax.training.preview import device_views, draw_views, first_examples
from ecvae_jax.training.state import TrainState


@pytest.fixture(scope="module")
def learned(tiny_config: Config) -> Config:
    return with_settings(tiny_config, {"prior.learned": True, "train.steps": 4, "train.checkpoint_every": 4})


@pytest.fixture(scope="module")
def workdir(learned: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of 4 steps."""
    folder = tmp_path_factory.mktemp("learned")
    assert train(learned, folder).finished
    return folder


@pytest.fixture(scope="module")
def state(learned: Config, workdir: Path) -> TrainState:
    return restored(learned, workdir)


@pytest.mark.parametrize("posterior", ["relative", "plain"])
def test_means_are_pulled_by_the_picture_and_by_the_kl_of_a_plain_posterior_alone(
    learned: Config, tiny_batch: dict[str, np.ndarray], posterior: str
) -> None:
    config = with_settings(learned, {"model.posterior": posterior})
    frozen = init_frozen(jax.random.key(0), config, tiny_batch["landmarks"])
    params = add_learned_means(config, init_params(jax.random.key(1), config.architecture), frozen)
    noise = jax.random.normal(jax.random.key(2), (8, config.model.z_dim))

    def pull(term: str, params: dict, config: Config = config) -> float:
        def value(params: dict) -> jax.Array:
            terms: Terms = loss_terms(config.architecture, params, frozen, device_views(tiny_batch), noise,
                                      jax.random.split(jax.random.key(3), 8), 1.0)[0]  # fmt: skip
            return getattr(terms, term).mean()

        return float(jnp.abs(jax.jit(jax.grad(value))(params)[LEARNED_MEANS]).max())

    assert pull("recon_nll", params) > 1.0
    # In units of the prior the KL holds no mean (rounding apart); a plain posterior and the prior pull at each other.
    assert pull("kl", params) < 1e-3 if posterior == "relative" else pull("kl", params) > 1.0
    fixed = with_settings(config, {"prior.learned": False})
    assert pull("recon_nll", params, fixed) == 0.0


def test_parameters_and_frozen_part_are_unchanged_where_means_are_fixed(tiny_config: Config) -> None:
    frozen = init_frozen(jax.random.key(0), tiny_config, load_faces(tiny_config.data.records, "train").landmarks)
    params = {"structure": jnp.ones(3)}
    assert add_learned_means(tiny_config, params, frozen) is params
    assert cluster_means(tiny_config.architecture, params, frozen) is frozen.cluster_means


def test_training_moves_the_means_and_keeps_the_frozen_ones(learned: Config, state: TrainState) -> None:
    faces = load_faces(learned.data.records, "train")
    first = device_views(first_examples(learned, faces))
    fixed = loop.init_state(with_settings(learned, {"prior.learned": False}), faces.landmarks, first)
    assert_same(state.frozen, fixed.frozen)
    assert state.params.keys() - fixed.params.keys() == {LEARNED_MEANS}
    moved = np.abs(state.params[LEARNED_MEANS] - state.frozen.cluster_means).max(axis=1)
    assert (moved > 1e-3).all()
    assert not np.array_equal(state.ema_params[LEARNED_MEANS], state.params[LEARNED_MEANS])


def test_a_loaded_model_has_the_averaged_means_in_its_prior(
    learned: Config, state: TrainState, workdir: Path, tmp_path: Path
) -> None:
    model = load_model(workdir)

    def means_of(model: Model) -> jax.Array:
        return cluster_means(model.architecture, model.params, model.frozen)

    assert np.array_equal(means_of(model), state.ema_params[LEARNED_MEANS])
    export_model(workdir, tmp_path / "small")
    halved = np.asarray(state.ema_params[LEARNED_MEANS]).astype(np.float16)
    assert np.array_equal(means_of(load_model(tmp_path / "small")), halved.astype(np.float32))
    landmarks = load_faces(learned.data.records, "test").landmarks[[0, 20]]
    weights = np.asarray(
        make_condition(learned.architecture, None, state.frozen, jnp.asarray(landmarks)).cluster_weights
    )
    # z = 0 is at -m(c)/σ(c) in the first prior; the second has it at m(c') - m(c) σ(c')/σ(c).
    means = weights @ np.asarray(state.ema_params[LEARNED_MEANS])
    stddev = 0.1 * np.sqrt((weights**2).sum(axis=1))
    expected = means[1] - means[0] * stddev[1] / stddev[0]
    np.testing.assert_allclose(move(model, np.zeros((1, 32)), landmarks[:1], landmarks[1:])[0], expected, atol=1e-4)
    before = dataclasses.replace(model, params={**model.params, LEARNED_MEANS: state.frozen.cluster_means})
    assert (sample(model, jax.random.key(0), landmarks, 2) != sample(before, jax.random.key(0), landmarks, 2)).any()


def test_the_pictures_of_a_training_are_drawn_with_the_trained_means(learned: Config, state: TrainState) -> None:
    batch = first_examples(learned, load_faces(learned.data.records, "train"))
    drawn = draw_views(learned, state.frozen, batch, state.ema_params)
    fixed = with_settings(learned, {"prior.learned": False})
    trained = state.frozen._replace(cluster_means=state.ema_params[LEARNED_MEANS])
    assert np.array_equal(drawn, draw_views(fixed, trained, batch, state.ema_params))
    assert not np.array_equal(drawn, draw_views(fixed, state.frozen, batch, state.ema_params))


def test_an_interrupted_training_of_them_resumes_bit_for_bit(
    learned: Config, state: TrainState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert train(learned, tmp_path).step == 2
    monkeypatch.undo()
    assert train(learned, tmp_path).finished
    assert_same(state, restored(learned, tmp_path))


def test_fixed_and_trained_means_are_two_experiments(learned: Config, workdir: Path) -> None:
    fixed = dataclasses.replace(learned, prior=dataclasses.replace(learned.prior, learned=False))
    with pytest.raises(ValueError, match=r"prior\.learned: True -> False"):
        Checkpoints(workdir, fixed, {})
