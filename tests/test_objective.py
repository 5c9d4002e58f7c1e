"""The terms of the objective, each against an independent implementation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from ecvae_jax.config import Config, ObjectiveConfig, PriorConfig
from ecvae_jax.gaussian import DiagGaussian, kl_divergence
from ecvae_jax.model.conditioning import init_frozen, make_condition
from ecvae_jax.model.cvae import decode, encode, init_params
from ecvae_jax.model.ssim import structural_similarity
from ecvae_jax.objective import Terms, likelihood_scale, loss_terms, recon_nll
from ecvae_jax.training.step import to_views

LAPLACE, GAUSSIAN = ObjectiveConfig(likelihood="laplace"), ObjectiveConfig(likelihood="gaussian")


@pytest.fixture(scope="module")
def error() -> jax.Array:
    return 0.2 * jax.random.normal(jax.random.key(0), (3, 8, 8, 3))


@pytest.mark.parametrize(("config", "law"), [(LAPLACE, stats.laplace), (GAUSSIAN, stats.norm)])
def test_recon_nll_is_the_density_summed_over_pixels(config: ObjectiveConfig, law, error: jax.Array) -> None:
    expected = -law.logpdf(np.asarray(error, np.float64), scale=0.13).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(recon_nll(config, error, jnp.asarray(0.13)), expected, rtol=1e-5)


@pytest.mark.parametrize("config", [LAPLACE, GAUSSIAN])
def test_analytic_scale_is_the_minimum_of_the_nll(config: ObjectiveConfig, error: jax.Array) -> None:
    best = likelihood_scale(config, error)
    lowest = recon_nll(config, error, best).mean()
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert recon_nll(config, error, best * factor).mean() > lowest


def test_a_set_scale_is_taken_and_a_perfect_image_has_a_finite_nll(error: jax.Array) -> None:
    assert float(likelihood_scale(ObjectiveConfig(scale=0.3), error)) == pytest.approx(0.3)
    assert float(likelihood_scale(LAPLACE, 0 * error)) == pytest.approx(2 / 255)


def ssim_by_definition(first: np.ndarray, second: np.ndarray) -> float:
    """Wang et al.'s formula at every place where the whole 7-pixel window lies inside, in float64 by SciPy."""

    def smooth(maps: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            maps = ndimage.gaussian_filter1d(maps, 1.5, axis=axis, radius=3)
        return maps[3:-3, 3:-3]

    mean1, mean2 = smooth(first), smooth(second)
    variance1, variance2 = smooth(first**2) - mean1**2, smooth(second**2) - mean2**2
    covariance = smooth(first * second) - mean1 * mean2
    c1, c2 = 0.02**2, 0.06**2
    luminance = (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)
    structure = (2 * covariance + c2) / (variance1 + variance2 + c2)
    return float((luminance * structure).mean())


def test_ssim_equals_its_definition() -> None:
    first, second = (jax.random.uniform(jax.random.key(i), (2, 20, 24, 3), minval=-1.0) for i in range(2))
    second = 0.6 * first + 0.4 * second
    expected = [
        ssim_by_definition(a, b) for a, b in zip(*(np.asarray(x, np.float64) for x in (first, second)), strict=True)
    ]
    np.testing.assert_allclose(structural_similarity(first, second), expected, rtol=1e-4)
    np.testing.assert_allclose(structural_similarity(first, first), 1.0, rtol=1e-5)


@pytest.mark.parametrize("shape", [(9, 8), (7, 20)])
def test_the_gradient_of_ssim_is_its_derivative(shape: tuple[int, int]) -> None:
    first, second = (np.random.default_rng(i).uniform(-1, 1, (2, *shape, 3)).astype(np.float32) for i in range(2))
    second = (0.6 * first + 0.4 * second).astype(np.float32)
    gradient = jax.grad(lambda image: structural_similarity(image, second).sum())(first)
    for row, column in ((0, 0), (shape[0] // 2, 3), (shape[0] - 1, shape[1] - 1)):
        change = np.zeros(first.shape)
        change[1, row, column, 1] = 1e-4
        ends = [ssim_by_definition((first + sign * change)[1], second[1].astype(np.float64)) for sign in (1, -1)]
        np.testing.assert_allclose(gradient[1, row, column, 1], (ends[0] - ends[1]) / 2e-4, rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def model(tiny_config: Config, tiny_batch: dict[str, np.ndarray]):
    frozen = init_frozen(jax.random.key(1), tiny_config, tiny_batch["landmarks"])
    params = init_params(jax.random.key(0), tiny_config.architecture)
    views = to_views({name: jnp.asarray(value) for name, value in tiny_batch.items()})
    noise = jax.random.normal(jax.random.key(2), (8, tiny_config.model.z_dim))
    return params, frozen, views, noise, jax.random.split(jax.random.key(3), 8)


@pytest.mark.parametrize("kind", ["equilibrium", "mixture", "standard"])
def test_terms_add_up_for_every_prior(tiny_config: Config, model, kind: str) -> None:
    config = dataclasses.replace(tiny_config, prior=PriorConfig(kind=kind), objective=ObjectiveConfig(ssim_weight=0.0))
    terms, image, *_ = loss_terms(config.architecture, *model, 0.25)
    assert isinstance(terms, Terms)
    assert image.shape == (8, 32, 32, 3)
    np.testing.assert_allclose(terms.loss, terms.recon_nll + 0.25 * terms.kl, rtol=1e-6)
    np.testing.assert_allclose(terms.elbo, -(terms.recon_nll + terms.kl), rtol=1e-6)
    assert (terms.kl >= 0).all()
    assert ((terms.effective_clusters >= 1) & (terms.effective_clusters <= 6)).all()


def test_ssim_weight_adds_its_share(tiny_config: Config, model) -> None:
    without = dataclasses.replace(tiny_config, objective=ObjectiveConfig(ssim_weight=0.0, scale=0.5))
    with_it = dataclasses.replace(tiny_config, objective=ObjectiveConfig(ssim_weight=0.3, scale=0.5))
    plain, *_ = loss_terms(without.architecture, *model, 1.0)
    terms, *_ = loss_terms(with_it.architecture, *model, 1.0)
    np.testing.assert_allclose(terms.loss - plain.loss, 0.3 * 32 * 32 * 3 / 0.5 * (1 - terms.ssim), rtol=1e-3)


def test_kl_and_image_follow_the_equations(tiny_config: Config, model) -> None:
    """z of the source under its own prior, moved under the target's, decoded with the target's sketch."""
    params, frozen, views, noise, keys = model
    terms, image, *_ = loss_terms(tiny_config.architecture, params, frozen, views, noise, keys, 1.0)
    source = make_condition(tiny_config.architecture, None, frozen, views.source_landmarks)
    target = make_condition(tiny_config.architecture, None, frozen, views.landmarks)
    posterior = encode(tiny_config.architecture, params, views.source_image, source)
    assert isinstance(source.prior, DiagGaussian)
    np.testing.assert_allclose(terms.kl, kl_divergence(posterior, source.prior), rtol=1e-4)
    u = (posterior.mean + posterior.stddev * noise - source.reference.mean) / source.reference.stddev
    moved = target.reference.mean + target.reference.stddev * u
    expected = decode(tiny_config.architecture, params, moved, target, frozen.z_scale)
    np.testing.assert_allclose(image, expected, atol=1e-4)


def test_no_gradient_reaches_the_frozen_means_or_clusters_from_training(tiny_config: Config, model) -> None:
    params, frozen, views, noise, keys = model

    def loss(frozen):
        # z_scale is a unit of the decoder's input and no part of the prior: it is held.
        frozen = frozen._replace(z_scale=jax.lax.stop_gradient(frozen.z_scale))
        terms, *_ = loss_terms(tiny_config.architecture, params, frozen, views, noise, keys, 1.0)
        return terms.loss.mean()

    gradient = jax.grad(loss)(frozen)
    assert all(float(jnp.abs(leaf).max()) == 0.0 for leaf in jax.tree.leaves(gradient))
