"""The KL to a spiked Gaussian: against 50 digits, a dense matrix and Eq. (5), and the laws it obeys."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, PartitionSpec
from scipy import stats

from ecvae_jax.gaussian import DiagGaussian, SpikedGaussian, kl_divergence, spiked_kl_divergence

stable = settings(deadline=None, derandomize=True, max_examples=40)
seeds = st.integers(0, 2**31)
D, R = 7, 3


def pair(
    seed: int, faces: int = 4, d: int = D, r: int = R, most: float = 500.0, dtype: Any = np.float64
) -> tuple[DiagGaussian, SpikedGaussian]:
    """Returns random posteriors and spiked priors with spikes from 0 to `most`."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(d, r)))[0]
    spikes = rng.uniform(0, 1, (faces, r)) ** 4 * most
    arrays = rng.normal(size=(faces, d)), rng.normal(size=(faces, d)) - 1, rng.normal(size=(faces, d)) * 3
    mean, logvar, prior_mean = (jnp.asarray(array, dtype) for array in arrays)
    s = jnp.asarray(rng.normal(size=(faces, 1)) * 2 - 3, dtype)
    return DiagGaussian(mean, logvar), SpikedGaussian(
        prior_mean, s, jnp.asarray(directions, dtype), jnp.asarray(spikes, dtype)
    )


def covariances(prior: SpikedGaussian) -> np.ndarray:
    """Returns the dense covariance matrices, f d d."""
    s, u, t = (np.asarray(a, np.float64) for a in (np.exp(prior.logvar), prior.directions, prior.spikes))
    return s[..., None] * (np.eye(len(u)) + np.einsum("ji,fi,ki->fjk", u, t, u))


@stable
@given(seeds)
def test_kl_and_log_prob_are_those_of_the_dense_covariance(seed: int) -> None:
    with jax.enable_x64(True):
        posterior, prior = pair(seed)
        parts, logs = spiked_kl_divergence(posterior, prior), prior.log_prob(posterior.mean)
        variances = prior.variances
    for face, sigma in enumerate(covariances(prior)):
        delta, q = np.asarray(posterior.mean - prior.mean)[face], np.exp(np.asarray(posterior.logvar)[face])
        inverse = np.linalg.inv(sigma)
        width = 0.5 * (np.trace(inverse * q) - D - np.log(q).sum() + np.linalg.slogdet(sigma)[1])
        np.testing.assert_allclose(parts.distance[face], 0.5 * delta @ inverse @ delta, rtol=1e-9)
        np.testing.assert_allclose(parts.width[face], width, rtol=1e-9)
        wanted = stats.multivariate_normal.logpdf(posterior.mean[face], prior.mean[face], sigma)
        np.testing.assert_allclose(logs[face], wanted, rtol=1e-9)
        np.testing.assert_allclose(variances[face], np.diag(sigma), rtol=1e-12)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 3e-6), (np.float64, 1e-13)])
def test_kl_matches_fifty_digits(dtype: Any, bound: float) -> None:
    """U is exact in both types (a signed permutation and a rotation by halves), so that only the arithmetic errs."""
    with jax.enable_x64(dtype is np.float64):
        posterior, prior = pair(5, faces=40, d=4, r=2, most=1e4, dtype=dtype)
        u = np.array([[0.5, 0.5], [0.5, -0.5], [0.5, 0.5], [0.5, -0.5]])
        prior = prior._replace(
            directions=jnp.asarray(u, dtype), mean=posterior.mean + 30 * jnp.asarray(u[None, :, 0], dtype)
        )
        total = np.asarray(jax.jit(spiked_kl_divergence)(posterior, prior).total)
    assert total.dtype == dtype
    with mpmath.workdps(50):
        for face in range(40):
            mean_q, logvar, mean_p, t = (
                [mpmath.mpf(float(v)) for v in np.asarray(array)[face]]
                for array in (posterior.mean, posterior.logvar, prior.mean, prior.spikes)
            )
            s = mpmath.exp(mpmath.mpf(float(prior.logvar[face, 0])))
            matrix = mpmath.matrix(u.tolist())
            sigma = s * (mpmath.eye(4) + matrix * mpmath.diag(t) * matrix.T)
            delta = mpmath.matrix([a - b for a, b in zip(mean_q, mean_p, strict=True)])
            inverse = sigma**-1
            trace = sum(inverse[j, j] * mpmath.exp(logvar[j]) for j in range(4))
            exact = ((delta.T * inverse * delta)[0] + trace - 4 - sum(logvar) + mpmath.log(mpmath.det(sigma))) / 2
            size = abs(exact) + sum(mpmath.exp(v) for v in logvar) / s + (delta.T * delta)[0] / s * mpmath.mpf(2) ** -40
            assert abs(mpmath.mpf(float(total[face])) - exact) <= bound * size


@stable
@given(seeds)
def test_without_spikes_it_is_equation_5(seed: int) -> None:
    with jax.enable_x64(True):
        posterior, prior = pair(seed)
        plain = prior._replace(spikes=jnp.zeros_like(prior.spikes))
        isotropic = DiagGaussian(prior.mean, jnp.broadcast_to(prior.logvar, prior.mean.shape))
        kl = spiked_kl_divergence(posterior, plain).total
        np.testing.assert_allclose(kl, kl_divergence(posterior, isotropic), rtol=1e-12)
        np.testing.assert_allclose(plain.log_prob(posterior.mean), isotropic.log_prob(posterior.mean), rtol=1e-12)
        key = jax.random.key(1)
        np.testing.assert_array_equal(plain.sample(key), isotropic.sample(key))


@stable
@given(seeds)
def test_it_is_zero_where_the_gaussians_are_equal_and_positive_elsewhere(seed: int) -> None:
    """A spiked Gaussian is diagonal where its directions are coordinates."""
    with jax.enable_x64(True):
        posterior, prior = pair(seed)
        prior = prior._replace(directions=jnp.eye(D, R))
        equal = DiagGaussian(prior.mean, jnp.log(prior.variances))
        np.testing.assert_allclose(spiked_kl_divergence(equal, prior).total, 0, atol=1e-12)
        wider = equal._replace(logvar=equal.logvar.at[:, seed % D].add(1e-3))
        assert (spiked_kl_divergence(wider, prior).total > 1e-7).all()
        moved = equal._replace(mean=equal.mean.at[:, seed % D].add(1e-3))
        assert (spiked_kl_divergence(moved, prior).total > 0).all()
        parts = spiked_kl_divergence(posterior, prior)
        assert min(parts.distance.min(), parts.width.min()) >= 0


@stable
@given(seeds)
def test_whitening_makes_it_the_standard_normal(seed: int) -> None:
    """KL(N(μ, Q) || N(m, Σ)) = KL(N(Σ^-½ (μ - m), Σ^-½ Q Σ^-½) || N(0, I))."""
    with jax.enable_x64(True):
        posterior, prior = pair(seed)
        u = prior.whiten(posterior.mean)
        root = jax.vmap(prior._replace(mean=jnp.zeros(D), logvar=prior.logvar[0], spikes=prior.spikes[0]).whiten)
        np.testing.assert_allclose(prior.color(u), posterior.mean, rtol=1e-9, atol=1e-9)
        q = np.asarray(root(jnp.diag(jnp.exp(0.5 * posterior.logvar[0]))))
        second = q.T @ q
        standard = 0.5 * (np.sum(np.asarray(u[0]) ** 2) + np.trace(second) - D - np.linalg.slogdet(second)[1])
        np.testing.assert_allclose(spiked_kl_divergence(posterior, prior).total[0], standard, rtol=1e-9)
        volume = 0.5 * np.linalg.slogdet(covariances(prior))[1]
        wanted = stats.norm.logpdf(u).sum(axis=-1) - volume
        np.testing.assert_allclose(prior.log_prob(posterior.mean), wanted, rtol=1e-9)


@stable
@given(seeds)
def test_transport_keeps_the_place_and_can_be_undone(seed: int) -> None:
    with jax.enable_x64(True):
        posterior, prior = pair(seed)
        source, target = (
            SpikedGaussian(prior.mean[rows], prior.logvar[rows], prior.directions, prior.spikes[rows])
            for rows in (slice(0, 2), slice(2, 4))
        )
        z = posterior.mean[:2]
        moved = source.transport(z, target)
        np.testing.assert_allclose(target.whiten(moved), source.whiten(z), rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(target.transport(moved, source), z, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(source.transport(z, source), z, rtol=1e-12)


def test_samples_have_the_covariance() -> None:
    _, prior = pair(3, faces=1)
    drawn = np.asarray(jax.jit(jax.vmap(prior.sample))(jax.random.split(jax.random.key(0), 40_000)))[:, 0]
    root = np.linalg.inv(np.linalg.cholesky(covariances(prior)[0]))
    standard = (drawn - np.asarray(prior.mean[0])) @ root.T
    for dimension in standard.T:
        assert stats.kstest(dimension, "norm").pvalue > 1e-3
    np.testing.assert_allclose(np.cov(standard.T), np.eye(D), atol=0.03)


@pytest.mark.parametrize("most", [0.0, 1e-7, 500.0, 1e6])
def test_gradients_in_float32_are_those_in_float64(most: float) -> None:
    def slopes(dtype: Any) -> Any:
        posterior, prior = pair(4, d=64, r=8, most=most, dtype=dtype)
        return jax.jit(jax.grad(lambda *both: spiked_kl_divergence(*both).total.sum(), (0, 1)))(posterior, prior)

    with jax.enable_x64(True):
        wanted = jax.device_get(slopes(np.float64))
    for ours, exact in zip(jax.tree.leaves(slopes(np.float32)), jax.tree.leaves(wanted), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, exact, rtol=2e-4, atol=2e-5 * np.abs(exact).max())


def test_maps_agree_and_half_precision_stays_finite() -> None:
    posterior, prior = pair(6, faces=8, dtype=np.float32)

    def kl(mean: Any, logvar: Any, *prior_rows: Any) -> Any:
        prior_mean, s, spikes = prior_rows
        return spiked_kl_divergence(
            DiagGaussian(mean, logvar), SpikedGaussian(prior_mean, s, prior.directions, spikes)
        ).total

    rows = (*posterior, prior.mean, prior.logvar, prior.spikes)
    wanted = kl(*rows)
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    spec = PartitionSpec("batch")
    for mapped in (jax.jit(kl), jax.vmap(kl), jax.jit(jax.shard_map(kl, mesh=mesh, in_specs=spec, out_specs=spec))):
        np.testing.assert_allclose(mapped(*rows), wanted, rtol=1e-5)
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (posterior, prior))
    assert spiked_kl_divergence(*half).total.dtype == jnp.bfloat16
    assert np.isfinite(np.asarray(spiked_kl_divergence(*half).total, np.float32)).all()
