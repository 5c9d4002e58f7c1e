"""Eq. (5) against 50-digit arithmetic, quadrature and sampling, and the laws a KL divergence obeys."""

from __future__ import annotations

import functools
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

from ecvae_jax.gaussian import DiagGaussian, kl_divergence

stable = settings(deadline=None, derandomize=True, max_examples=60)
means = st.floats(-5, 5)
logvars = st.floats(-8, 8)
gaussians = st.lists(st.tuples(means, logvars, means, logvars), min_size=4, max_size=4)

RELATIVE_BOUND = {np.float32: 1e-5, np.float64: 1e-12}


def pair(rows, dtype: type = np.float64):
    """Returns the posterior and the prior whose (mean, logvar, mean, logvar) per dimension are the rows."""
    mean_q, logvar_q, mean_p, logvar_p = np.asarray(rows, dtype).T
    posterior = DiagGaussian(jnp.asarray(mean_q), jnp.asarray(logvar_q))
    return posterior, DiagGaussian(jnp.asarray(mean_p), jnp.asarray(logvar_p))


def one_dimension(row):
    """Returns the KL of one (mean, logvar, mean, logvar)."""
    return kl_divergence(DiagGaussian(row[0:1], row[1:2]), DiagGaussian(row[2:3], row[3:4]))


def hard_rows(dtype):
    """Returns rows with log-variance gaps of 1e-6 to 30, either sign, around several levels and mean differences."""
    rng = np.random.default_rng(0)
    rows = []
    for size in np.geomspace(1e-6, 30, 36):
        for gap in (size, -size):
            for logvar_p in (0.0, -4.6, 7.3, -15.0, 15.0):
                for shift in (0.0, 1e-3, 0.7):
                    mean_p = dtype(rng.normal())
                    rows.append((dtype(mean_p + dtype(shift)), dtype(dtype(logvar_p) + dtype(gap)), mean_p, logvar_p))
    return np.array(rows, dtype)


@functools.cache
def exact(dtype):
    """Returns KL and its four derivatives for hard_rows in 50 digits, with the size each is to be accurate against."""
    values, sizes = [], []
    with mpmath.workdps(50):
        for row in hard_rows(dtype):
            mean_q, logvar_q, mean_p, logvar_p = (mpmath.mpf(float(v)) for v in row)
            gap, precision, delta = logvar_q - logvar_p, mpmath.exp(-logvar_p), mean_q - mean_p
            growth, shift = mpmath.expm1(gap), delta**2 * precision
            slope = delta * precision
            row_values = [(growth - gap + shift) / 2, slope, growth / 2, -slope, -(growth + shift) / 2]
            values.append(row_values)
            # The last is a difference of two terms where the gap is negative: accurate against the terms.
            sizes.append([abs(v) for v in row_values[:4]] + [(abs(growth) + shift) / 2])
    return values, sizes


def over_devices(function, rows):
    """Returns function mapped over the rows, which are split over the largest fitting number of devices."""
    count = max(n for n in range(1, len(jax.devices()) + 1) if len(rows) % n == 0)
    mesh = jax.make_mesh((count,), ("batch",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("batch")
    return jax.jit(jax.shard_map(jax.vmap(function), mesh=mesh, in_specs=spec, out_specs=spec))(rows)


MAPS = {
    "jit": lambda function, rows: jax.jit(functools.partial(jax.lax.map, function))(rows),
    "vmap": lambda function, rows: jax.jit(jax.vmap(function))(rows),
    "shard_map": over_devices,
}


@pytest.mark.parametrize("mapped", MAPS)
@pytest.mark.parametrize("dtype", RELATIVE_BOUND)
def test_value_and_gradients_match_fifty_digits(dtype, mapped):
    with jax.enable_x64(dtype is np.float64):
        rows = jnp.asarray(hard_rows(dtype))
        value_and_slopes = lambda row: jnp.concatenate([one_dimension(row)[None], jax.grad(one_dimension)(row)])  # noqa: E731
        results = np.asarray(MAPS[mapped](value_and_slopes, rows))
    assert results.dtype == dtype
    values, sizes = exact(dtype)
    with mpmath.workdps(50):
        for row, ours, wanted, size in zip(hard_rows(dtype), results, values, sizes, strict=True):
            for got, want, scale in zip(ours, wanted, size, strict=True):
                error = abs(mpmath.mpf(float(got)) - want)
                assert error <= RELATIVE_BOUND[dtype] * scale, f"{row}: got {got}, exact {mpmath.nstr(want, 17)}"


def test_equation_5_as_printed_is_useless_in_float32_where_ours_is_exact():
    def printed(logvar_q, logvar_p):
        return 0.5 * (logvar_p - logvar_q) + jnp.exp(logvar_q) / (2 * jnp.exp(logvar_p)) - 0.5

    gap = np.float32(1e-4)
    wanted = float(mpmath.expm1(float(gap)) - float(gap)) / 2
    posterior, prior = pair([(0, gap, 0, 0)], np.float32)
    assert abs(float(printed(posterior.logvar[0], prior.logvar[0])) - wanted) > 0.5 * wanted
    assert abs(float(kl_divergence(posterior, prior)) - wanted) < 1e-5 * wanted


@pytest.mark.parametrize("dtype", RELATIVE_BOUND)
def test_derivatives_to_second_order_are_finite_on_both_branches_and_where_they_meet(dtype):
    gaps = np.array([0.0, 1e-30, -1e-30, 0.4999, 0.5, -0.5, 80.0, -80.0, -1e4], dtype)
    with jax.enable_x64(dtype is np.float64):
        kl_of_gap = lambda gap: one_dimension(jnp.stack([0 * gap, gap, 0 * gap, 0 * gap]))  # noqa: E731
        first = jax.jit(jax.vmap(jax.grad(kl_of_gap)))(gaps)
        second = jax.jit(jax.vmap(jax.grad(jax.grad(kl_of_gap))))(gaps)
    tolerance = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(first, np.expm1(gaps) / 2, rtol=tolerance)
    np.testing.assert_allclose(second, np.exp(gaps) / 2, rtol=tolerance, atol=tolerance)


@stable
@given(gaussians)
def test_never_negative_and_zero_only_when_equal(rows):
    with jax.enable_x64(True):
        posterior, prior = pair(rows)
        kl = float(kl_divergence(posterior, prior))
        assert kl >= 0
        assert float(kl_divergence(posterior, posterior)) == 0
        different = any(abs(mq - mp) > 1e-6 or abs(lq - lp) > 1e-6 for mq, lq, mp, lp in rows)
        assert kl > 0 or not different


@stable
@given(st.tuples(st.floats(-2, 2), st.floats(-3, 3), st.floats(-2, 2), st.floats(-3, 3)))
def test_equals_quadrature(row):
    mean_q, logvar_q, mean_p, logvar_p = row
    stddev = np.exp(logvar_q / 2)
    z = np.linspace(mean_q - 12 * stddev, mean_q + 12 * stddev, 4001)
    log_q, log_p = stats.norm.logpdf(z, mean_q, stddev), stats.norm.logpdf(z, mean_p, np.exp(logvar_p / 2))
    integral = np.trapezoid(np.exp(log_q) * (log_q - log_p), z)
    with jax.enable_x64(True):
        np.testing.assert_allclose(kl_divergence(*pair([row])), integral, rtol=1e-9, atol=1e-12)


@settings(stable, max_examples=12)
@given(gaussians)
def test_equals_monte_carlo_within_its_standard_error(rows):
    with jax.enable_x64(True):
        posterior, prior = pair(rows)
        z = jax.vmap(posterior.sample)(jax.random.split(jax.random.key(1), 4000))
        ratios = jax.vmap(lambda draw: posterior.log_prob(draw) - prior.log_prob(draw))(z)
        error = float(jnp.std(ratios)) / 4000**0.5
        assert abs(float(jnp.mean(ratios)) - float(kl_divergence(posterior, prior))) <= 4.5 * error + 1e-9


@stable
@given(gaussians)
def test_with_unit_variances_it_is_half_the_squared_distance(rows):
    with jax.enable_x64(True):
        posterior, prior = pair([(mq, 0, mp, 0) for mq, _, mp, _ in rows])
        wanted = 0.5 * np.sum((np.asarray(posterior.mean) - np.asarray(prior.mean)) ** 2)
        np.testing.assert_allclose(kl_divergence(posterior, prior), wanted, rtol=1e-13)


@stable
@given(gaussians, st.integers(1, 3))
def test_adds_up_over_dimensions(rows, cut):
    with jax.enable_x64(True):
        parts = float(kl_divergence(*pair(rows[:cut]))) + float(kl_divergence(*pair(rows[cut:])))
        np.testing.assert_allclose(kl_divergence(*pair(rows)), parts, rtol=1e-12)


@stable
@given(gaussians, st.floats(-3, 3), st.floats(-3, 3))
def test_does_not_change_when_both_are_moved_and_stretched(rows, move, stretch):
    with jax.enable_x64(True):
        moved = [
            (mq * np.exp(stretch) + move, lq + 2 * stretch, mp * np.exp(stretch) + move, lp + 2 * stretch)
            for mq, lq, mp, lp in rows
        ]
        np.testing.assert_allclose(kl_divergence(*pair(moved)), kl_divergence(*pair(rows)), rtol=1e-9, atol=1e-12)


def test_leading_axes_are_independent_and_axes_of_one_are_shared():
    rng = np.random.default_rng(2)
    mean, logvar = jnp.asarray(rng.normal(size=(2, 3, 5, 4)), jnp.float32)
    prior = DiagGaussian(mean[:1, :1], logvar[:1, :1])
    kl = kl_divergence(DiagGaussian(mean, logvar), prior)
    assert kl.shape == (3, 5)
    alone = kl_divergence(DiagGaussian(mean[1, 2], logvar[1, 2]), DiagGaussian(mean[0, 0], logvar[0, 0]))
    np.testing.assert_allclose(kl[1, 2], alone, rtol=1e-6)


def test_standard_normal_is_the_reference_of_a_vanilla_vae():
    prior = DiagGaussian(jnp.zeros((3, 4)), jnp.zeros((3, 4)))
    posterior = DiagGaussian(jnp.full((3, 4), 0.3), jnp.full((3, 4), -1.2))
    wanted = 4 * 0.5 * (np.exp(-1.2) + 0.3**2 - 1 + 1.2)
    np.testing.assert_allclose(kl_divergence(posterior, prior), np.full(3, wanted), rtol=1e-6)


def test_log_prob_is_the_normal_density():
    rng = np.random.default_rng(3)
    mean, logvar, z = rng.normal(size=(3, 6, 4))
    with jax.enable_x64(True):
        ours = DiagGaussian(jnp.asarray(mean), jnp.asarray(logvar)).log_prob(jnp.asarray(z))
    np.testing.assert_allclose(ours, stats.norm.logpdf(z, mean, np.exp(logvar / 2)).sum(axis=-1), rtol=1e-12)


def test_samples_follow_the_distribution_and_carry_its_gradient():
    gaussian = DiagGaussian(jnp.array([2.0, -1.0]), jnp.array([0.7, -3.0]))
    z = np.asarray(jax.vmap(gaussian.sample)(jax.random.split(jax.random.key(0), 20_000)))
    standardized = (z - np.asarray(gaussian.mean)) / np.asarray(gaussian.stddev)
    for dimension in standardized.T:
        assert stats.kstest(dimension, "norm").pvalue > 1e-3
    slope = jax.grad(lambda g: g.sample(jax.random.key(5)).sum())(gaussian)
    noise = (gaussian.sample(jax.random.key(5)) - gaussian.mean) / gaussian.stddev
    np.testing.assert_allclose(slope.mean, 1.0)
    np.testing.assert_allclose(slope.logvar, 0.5 * gaussian.stddev * noise, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "logvar"), [(jnp.float16, -80.0), (jnp.float32, -200.0), (jnp.bfloat16, -80.0)])
def test_equal_gaussians_of_tiny_variance_have_no_kl(dtype: Any, logvar: float) -> None:
    """1 / stddev overflows there, and 0 · inf is NaN."""
    narrow = DiagGaussian(jnp.ones((2, 3), dtype), jnp.full((2, 3), logvar, dtype))
    assert np.array_equal(kl_divergence(narrow, narrow), np.zeros(2, dtype))
    gradient = jax.grad(lambda q, p: kl_divergence(q, p).sum(), (0, 1))(narrow, narrow)
    assert all(np.isfinite(leaf.astype(np.float32)).all() for leaf in jax.tree.leaves(gradient))
