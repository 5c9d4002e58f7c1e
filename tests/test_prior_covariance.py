"""The prior with covariances: the law it is, its fit to moments, and trainings with it."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.training import assert_same, before_step, restored

from ecvae_jax.checkpoints import store
from ecvae_jax.checkpoints.integrity import CheckpointError
from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.comparison.variants import with_settings
from ecvae_jax.config import AdaptConfig, Config, PriorConfig, PriorNoise
from ecvae_jax.data.batches import load_faces
from ecvae_jax.export.small import export_model
from ecvae_jax.gaussian import DiagGaussian
from ecvae_jax.model.conditioning import Frozen
from ecvae_jax.model.model import condition_of
from ecvae_jax.prior import CovariancePrior, Covariances, covariance_prior, equilibrium_prior, init_covariances
from ecvae_jax.synthesis.batches import decode, encode, move, reconstruct, sample, transfer_plain
from ecvae_jax.synthesis.transfer import interpolate
from ecvae_jax.training.covariance import add_moments, batch_moments, init_moments, principal_directions, refit
from ecvae_jax.training.loop import train
from ecvae_jax.training.parallel import make_mesh, shard_step
from ecvae_jax.training.preview import device_views, first_examples
from ecvae_jax.training.state import init_state
from ecvae_jax.training.step import make_train_step, step_function


class Face(NamedTuple):
    images: np.ndarray
    landmarks: np.ndarray


stable = settings(deadline=None, derandomize=True, max_examples=30)
K, D, R, FACES = 5, 6, 2, 4


def clusters(seed: int):
    """Returns cluster weights, means, standard deviations and covariances, float64."""
    rng = np.random.default_rng(seed)
    u = np.linalg.qr(rng.normal(size=(D, R)))[0]
    arrays = (rng.dirichlet(np.full(K, 0.7), size=FACES), rng.normal(size=(K, D)), rng.uniform(0.1, 1.5, K))
    return *map(jnp.asarray, arrays), Covariances(
        *map(jnp.asarray, (rng.normal(size=D), u, rng.uniform(0, 50, (K, R)), rng.uniform(0.05, 1)))
    )


@stable
@given(st.integers(0, 2**31), st.permutations(range(K)))
def test_it_has_the_moments_of_the_weighted_sum_of_independent_draws(seed: int, order: list[int]) -> None:
    with jax.enable_x64(True):
        weights, means, stddev, fitted = clusters(seed)
        prior = covariance_prior(weights, means, stddev, fitted)
        u, spikes = np.asarray(fitted.directions), np.asarray(fitted.spikes)
        each = np.eye(D) + np.einsum("jr,kr,ir->kji", u, spikes, u)
        each = float(fitted.floor) * np.asarray(stddev)[:, None, None] ** 2 * each
        wanted = np.einsum("fk,kji->fji", np.asarray(weights) ** 2, each)
        s, t = np.exp(prior.gaussian.logvar)[..., None], np.asarray(prior.gaussian.spikes)
        ours = s * (np.eye(D) + np.einsum("jr,fr,ir->fji", u, t, u))
        np.testing.assert_allclose(ours, wanted, rtol=1e-10, atol=1e-12)
        deviation = np.sqrt(np.asarray(weights) ** 2 @ np.asarray(stddev) ** 2)[:, None]
        mean = np.asarray(weights) @ np.asarray(means) + deviation * np.asarray(fitted.offset)
        np.testing.assert_allclose(prior.center, mean, rtol=1e-10, atol=1e-12)
        index = np.array(order)
        other = covariance_prior(
            weights[:, index], means[index], stddev[index], fitted._replace(spikes=fitted.spikes[index])
        )
        for a, b in zip(jax.tree.leaves(prior), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@stable
@given(st.integers(0, 2**31))
def test_shared_noise_gives_the_moments_of_the_weighted_sum_of_draws_with_one_noise(seed: int) -> None:
    with jax.enable_x64(True):
        weights, means, stddev, fitted = clusters(seed)
        prior = covariance_prior(weights, means, stddev, fitted, noise="shared")
        u, spikes = np.asarray(fitted.directions), np.asarray(fitted.spikes)
        roots = np.eye(D) + np.einsum("jr,kr,ir->kji", u, np.sqrt(1 + spikes) - 1, u)
        roots *= float(fitted.floor) ** 0.5
        root = np.einsum("fk,kji->fji", np.asarray(weights), np.asarray(stddev)[:, None, None] * roots)
        s, t = np.exp(prior.gaussian.logvar)[..., None], np.asarray(prior.gaussian.spikes)
        ours = s * (np.eye(D) + np.einsum("jr,fr,ir->fji", u, t, u))
        np.testing.assert_allclose(ours, root @ root, rtol=1e-10, atol=1e-12)
        deviation = (np.asarray(weights) @ np.asarray(stddev))[:, None]
        mean = np.asarray(weights) @ np.asarray(means) + deviation * np.asarray(fitted.offset)
        np.testing.assert_allclose(prior.center, mean, rtol=1e-10)
        alone, one = (covariance_prior(jnp.eye(K), means, stddev, fitted, noise) for noise in ("shared", "independent"))
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
        equal = covariance_prior(weights, means, jnp.full(K, 0.1), fitted, "shared")
        np.testing.assert_allclose(equal.reference.stddev, 0.1, rtol=1e-10)


@functools.partial(jax.jit, static_argnames=("steps", "noise"))
def walk(arrays, key: jax.Array, steps: int, noise: PriorNoise):
    """Returns z at `steps` structures from the first face's to the second's, its whitened places, and z moved back."""
    weights, means, stddev, fitted = arrays
    start = covariance_prior(jnp.repeat(weights[:1], steps, axis=0), means, stddev, fitted, noise)
    along = jnp.linspace(0.0, 1.0, steps)[:, None]
    path = covariance_prior((1 - along) * weights[:1] + along * weights[1:2], means, stddev, fitted, noise)
    z = jnp.repeat(start.sample(key)[:1], steps, axis=0)
    moved = start.transport(z, path)
    return z, moved, start.gaussian.whiten(z), path.gaussian.whiten(moved), path.transport(moved, start)


@pytest.mark.parametrize("noise", ["independent", "shared"])
@settings(stable, max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_z_moves_continuously_between_two_structures(noise: PriorNoise, seed: int) -> None:
    with jax.enable_x64(True):
        arrays, longest = clusters(seed), []
        for steps in (65, 129):
            z, moved, before, after, back = walk(arrays, jax.random.key(seed % 1000), steps, noise)
            np.testing.assert_allclose(after, before, rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(moved[0], z[0], rtol=1e-10)
            np.testing.assert_allclose(back, z, rtol=1e-8, atol=1e-10)
            longest.append(np.linalg.norm(np.diff(moved, axis=0), axis=1).max())
            ends = covariance_prior(arrays[0][:2], *arrays[1:3], arrays[3], noise)
            there = ends.gaussian.color(before[:1])[1]
            np.testing.assert_allclose(moved[-1], there, rtol=1e-8, atol=1e-10)
        assert longest[1] <= 0.75 * longest[0]  # a jump would stay


def test_before_it_is_fitted_it_is_equation_4() -> None:
    weights, means, stddev, _ = jax.tree.map(lambda a: a.astype(jnp.float32), clusters(1))
    plain = equilibrium_prior(weights, means, stddev)
    prior = covariance_prior(weights, means, stddev, init_covariances(K, D, R))
    assert_same(prior.reference, DiagGaussian(*plain))
    posterior = DiagGaussian(plain.mean + 0.3, plain.logvar - 1.0)
    keys = jax.random.split(jax.random.key(0), FACES)
    np.testing.assert_allclose(prior.kl(keys, posterior), plain.kl(keys, posterior), rtol=1e-5)
    np.testing.assert_allclose(prior.sample(keys[0]), plain.sample(keys[0]), rtol=1e-6)


@pytest.mark.parametrize(("rows", "count"), [(12, 12), (40, 7), (30, 1)])
def test_principal_directions_are_those_of_lapack(rows: int, count: int) -> None:
    rng = np.random.default_rng(count)
    matrix = (rng.normal(size=(rows, count)) * np.geomspace(1e3, 1e-3, count)).astype(np.float32)
    directions, lengths = jax.jit(principal_directions)(matrix)
    np.testing.assert_allclose(lengths, np.linalg.svd(matrix.astype(np.float64))[1], rtol=1e-4)
    np.testing.assert_allclose(directions.T @ directions, np.eye(count), atol=2e-6)


def test_the_fit_finds_offset_directions_and_variances_of_the_faces() -> None:
    """Faces of N(10 b, I + U diag(a) Uᵀ) in the prior's units; the second half of the clusters has twice the spikes."""
    rng = np.random.default_rng(0)
    weights, means, stddev, _ = clusters(2)
    chosen = rng.integers(0, K, 4000)
    weights, means, stddev = jnp.eye(K)[chosen], means.astype(jnp.float32), jnp.full(K, 0.1)
    u = np.linalg.qr(rng.normal(size=(D, R)))[0]
    spikes = np.array([80.0, 15.0]) * np.where(np.arange(K) < 3, 1.0, 2.0)[:, None]
    b = rng.normal(size=D)
    scale = np.sqrt(1 + spikes[chosen]) - 1
    e = rng.normal(size=(4000, D))
    z = np.asarray(means)[chosen] + b + 0.1 * (e + (scale * (e @ u)) @ u.T)
    fitted, moments = init_covariances(K, D, R), init_moments(init_covariances(K, D, R))
    narrow = jnp.full((4000, D), np.log(1e-8), jnp.float32)
    settings = PriorConfig(kind="covariance", rank=R, pooling=1.0)
    once = jax.jit(lambda fitted, moments: refit(settings, fitted, add_moments(moments, batch_moments(
        DiagGaussian(jnp.asarray(z, jnp.float32), narrow), covariance_prior(weights, means, stddev, fitted), weights,
        stddev), 0.5)))  # fmt: skip
    for _ in range(12):
        fitted, moments = once(fitted, moments)
    np.testing.assert_allclose(fitted.offset, 10 * b, atol=0.6)
    np.testing.assert_allclose(np.abs(u.T @ np.asarray(fitted.directions)), np.eye(R), atol=0.03)
    np.testing.assert_allclose(fitted.spikes, spikes, rtol=0.15)
    pooled, _ = refit(PriorConfig(kind="covariance", rank=R), fitted, moments)
    np.testing.assert_allclose(pooled.spikes, np.broadcast_to(pooled.spikes[:1], (K, R)), rtol=1e-3)
    np.testing.assert_allclose(pooled.spikes[0], spikes[chosen].mean(axis=0), rtol=0.15)


def test_the_floor_is_the_variance_across_the_directions_between_its_least_and_equation_4() -> None:
    """Faces of N(0, f (I + U diag(a) Uᵀ)) in the prior's units: narrower than Eq. (4) but for two directions."""
    rng, d, count, true = np.random.default_rng(3), 12, 3000, 0.2
    u = np.linalg.qr(rng.normal(size=(d, R)))[0]
    z = rng.normal(size=(count, d)) + rng.normal(size=(count, R)) * [9.0, 5.0] @ u.T
    z = jnp.asarray(0.1 * (true - 0.05) ** 0.5 * z, jnp.float32)
    posterior = DiagGaussian(z, jnp.full((count, d), np.log(0.05 * 0.01), jnp.float32))  # its width counts too
    weights, means, stddev = jnp.ones((count, 1)), jnp.zeros((1, d)), jnp.full(1, 0.1)
    keys, kl = jax.random.split(jax.random.key(0), count), {}

    @functools.partial(jax.jit, static_argnums=0)
    def fit(settings: PriorConfig, fitted: Covariances) -> Covariances:
        prior = covariance_prior(weights, means, stddev, fitted)
        return refit(settings, fitted, batch_moments(posterior, prior, weights, stddev))[0]

    for least, wanted in ((0.01, true), (0.5, 0.5)):
        fitted = init_covariances(1, d, R)
        assert float(fitted.floor) == 1.0
        for _ in range(8):
            fitted = fit(PriorConfig(kind="covariance", rank=R, least_floor=least), fitted)
        np.testing.assert_allclose(fitted.floor, wanted, rtol=0.03)
        along = fitted.floor * (1 + fitted.spikes[0])
        np.testing.assert_allclose(along, 0.05 + (true - 0.05) * (1 + np.array([81.0, 25.0])), rtol=0.1)
        kl[least] = float(covariance_prior(weights, means, stddev, fitted).kl(keys, posterior).mean())
    assert kl[0.01] < kl[0.5]
    full = init_covariances(1, 2, 2)  # no direction is left across
    both = DiagGaussian(z[:, :2], posterior.logvar[:, :2])
    prior = covariance_prior(weights, means[:, :2], stddev, full)
    fitted, _ = refit(PriorConfig(kind="covariance"), full, batch_moments(both, prior, weights, stddev))
    assert float(fitted.floor) == 1.0


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> Config:
    changed = {"prior.kind": "covariance", "prior.rank": 8, "prior.fit_every": 2, "prior.pooling": 20.0}
    return with_settings(tiny_config, changed)


@pytest.fixture(scope="module")
def workdir(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("covariance")
    assert train(config, folder).finished
    return folder


@pytest.mark.slow
def test_training_fits_the_covariances_and_nothing_else_of_the_frozen_part(config: Config, workdir: Path) -> None:
    state = restored(config, workdir)
    faces = load_faces(config.data.records, "train")
    fresh = init_state(config, faces.landmarks, device_views(first_examples(config, faces)))
    assert_same(state.frozen._replace(covariances=None), fresh.frozen._replace(covariances=None))
    fitted = state.frozen.covariances
    np.testing.assert_allclose(fitted.directions.T @ fitted.directions, np.eye(8), atol=1e-5)
    assert (fitted.spikes >= 0).all()
    assert fitted.spikes.max() > 0
    assert np.abs(fitted.offset).max() > 0
    np.testing.assert_allclose(state.moments.faces, 8 * (1 - 0.999**10) / (1 - 0.999), rtol=1e-5)


@pytest.mark.slow
def test_interrupted_it_resumes_bit_for_bit(
    config: Config, workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert train(config, tmp_path).step == 5
    monkeypatch.undo()
    assert train(config, tmp_path).finished
    assert_same(restored(config, workdir), restored(config, tmp_path))


@pytest.mark.slow
def test_one_device_fits_what_several_fit(config: Config, tiny_batch: dict[str, np.ndarray]) -> None:
    faces = load_faces(config.data.records, "train")
    step, fits = make_train_step(config), []
    for count in (1, 2):
        mapped = shard_step(step_function(step.program), make_mesh(jax.devices()[:count]))
        state = init_state(config, faces.landmarks, device_views(first_examples(config, faces)))
        for _ in range(4):
            state, _ = mapped(jax.device_get(state), dict(tiny_batch), step.hyper)
        fits.append(jax.device_get((state.frozen.covariances, state.moments)))
    for one, two in zip(*map(jax.tree.leaves, fits), strict=True):
        np.testing.assert_allclose(two, one, rtol=2e-2, atol=2e-3 * np.abs(one).max())


@pytest.mark.slow
def test_a_stored_model_samples_moves_and_exports_with_them(config: Config, workdir: Path, tmp_path: Path) -> None:
    model, faces = load_model(workdir), load_faces(config.data.records, "test")
    assert_same(model.frozen, restored(config, workdir).frozen)
    landmarks = faces.landmarks[[0, 20]]
    priors = condition_of(model, landmarks).prior
    assert isinstance(priors, CovariancePrior)
    still = sample(model, jax.random.key(0), landmarks, 2, temperature=0.0)
    assert np.array_equal(still[:, 0], still[:, 1])
    assert np.array_equal(still[:, 0], decode(model, np.asarray(priors.center), landmarks))
    assert (sample(model, jax.random.key(0), landmarks, 2) != still).any()
    z = np.asarray(encode(model, faces.images([0], 32), landmarks[:1]).mean)
    moved = move(model, z, landmarks[:1], landmarks[1:])
    there, here = (condition_of(model, marks).prior for marks in (landmarks[1:], landmarks[:1]))
    assert isinstance(there, CovariancePrior)
    assert isinstance(here, CovariancePrior)
    np.testing.assert_allclose(
        there.gaussian.whiten(jnp.asarray(moved)), here.gaussian.whiten(jnp.asarray(z)), rtol=1e-3, atol=1e-3
    )
    export_model(workdir, tmp_path / "small")
    assert_same(load_model(tmp_path / "small").frozen, model.frozen)


@pytest.mark.slow
def test_pictures_change_continuously_between_two_structures(config: Config, workdir: Path) -> None:
    model, faces = load_model(workdir), load_faces(config.data.records, "test")
    ends = [Face(faces.images([row], 32), faces.landmarks[[row]]) for row in (0, 20)]
    drawn = interpolate(model, *ends, steps=17, adaptation=AdaptConfig(detail=0.0))[0].astype(int)
    plain = transfer_plain(model, ends[0].images, ends[0].landmarks, ends[1].landmarks)[0]
    own = reconstruct(model, *ends[0])[0]
    assert np.abs(drawn[-1] - plain).max() <= 1
    assert np.abs(drawn[0] - own).max() <= 1
    changes = np.abs(np.diff(drawn, axis=0)).mean(axis=(1, 2, 3))
    whole = np.abs(drawn[-1] - drawn[0]).mean()
    assert whole > 1
    assert changes.max() < 0.5 * whole


def test_settings_that_cannot_be_are_refused(config: Config) -> None:
    with pytest.raises(ValueError, match=r"prior\.pooling=0\.5: must be at least 1"):
        with_settings(config, {"prior.pooling": 0.5})
    with pytest.raises(ValueError, match=r"prior\.kind='covariance': needs model\.posterior='relative'"):
        with_settings(config, {"model.posterior": "plain"})


@pytest.mark.slow  # two trainings for one line
def test_a_checkpoint_of_covariances_without_a_floor_is_one_line(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As trainings of an earlier version stored them."""
    config = with_settings(tiny_config, {"prior.kind": "covariance", "train.steps": 1, "train.checkpoint_every": 1})
    to_store = store.frozen_to_store

    def without_floor(frozen: Frozen) -> dict[str, Any]:
        stored = to_store(frozen)
        return {**stored, "covariances": {k: v for k, v in stored["covariances"].items() if k != "floor"}}

    with monkeypatch.context() as earlier:
        earlier.setattr(store, "frozen_to_store", without_floor)
        assert train(config, tmp_path).finished
    line = "checkpoints/1 was written by an earlier version of ecvae_jax: its covariances have no floor .*train again$"
    with pytest.raises(CheckpointError, match=line):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match=line):
        train(with_settings(config, {"train.steps": 2}), tmp_path, allowed=["train.steps"])
    assert (tmp_path / "checkpoints" / "1").is_dir()
