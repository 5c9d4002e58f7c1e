"""The three priors: Eqs. (2), (3) and (4), their moments, their KL terms, and moving z between structures."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ecvae_jax.gaussian import DiagGaussian, kl_divergence
from ecvae_jax.prior import (
    GaussianMixture,
    effective_clusters,
    equilibrium_prior,
    init_cluster_means,
    make_prior,
    mixture_kl_monte_carlo,
    mixture_prior,
    standard_prior,
    transport,
)

stable = settings(deadline=None, derandomize=True, max_examples=40)
seeds = st.integers(0, 2**31)
K, D = 5, 3
monte_carlo = jax.jit(mixture_kl_monte_carlo, static_argnums=3)


@pytest.fixture(autouse=True)
def float64():
    """Lets the laws be checked to many digits."""
    with jax.enable_x64(True):
        yield


def clusters(seed, faces=4):
    """Returns random cluster weights, means and standard deviations, and a random posterior."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(K, 0.7), size=faces)
    mean, logvar = rng.normal(size=(2, faces, D))
    posterior = DiagGaussian(jnp.asarray(mean), jnp.asarray(logvar - 1))
    return jnp.asarray(weights), jnp.asarray(rng.normal(size=(K, D))), jnp.asarray(rng.uniform(0.1, 1.5, K)), posterior


def one_hot(faces=4):
    """Returns for each face one cluster alone, and which."""
    chosen = np.arange(faces) % K
    return jnp.asarray(np.eye(K)[chosen]), chosen


def kl_to_each_cluster(posterior, cluster_means, stddev):
    """Returns the KL of every face to every N(mu_k, sigma_k² I)."""
    each = DiagGaussian(cluster_means, jnp.tile(2 * jnp.log(stddev)[:, None], (1, D)))
    each = DiagGaussian(each.mean[None], each.logvar[None])
    return kl_divergence(DiagGaussian(posterior.mean[:, None], posterior.logvar[:, None]), each)


# Eq. (2)


def test_standard_prior_is_a_standard_normal_in_the_shape_and_type_of_the_weights():
    prior = standard_prior(jnp.ones((2, 4, K), jnp.float32), D)
    assert prior.mean.shape == prior.logvar.shape == (2, 4, D)
    assert prior.mean.dtype == jnp.float32
    assert not prior.mean.any()
    assert not prior.logvar.any()


# Eq. (4)


@stable
@given(seeds)
def test_equilibrium_prior_has_the_moments_of_the_weighted_sum_of_independent_draws(seed):
    weights, cluster_means, stddev, _ = clusters(seed)
    prior = equilibrium_prior(weights, cluster_means, stddev)
    # Var(sum of c_k z_k) = C diag(sigma²) Cᵀ for independent z_k; the faces are the rows of C.
    covariance = np.asarray(weights) @ np.diag(np.asarray(stddev) ** 2) @ np.asarray(weights).T
    np.testing.assert_allclose(prior.mean, np.asarray(weights) @ np.asarray(cluster_means), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(jnp.exp(prior.logvar), np.repeat(np.diag(covariance)[:, None], D, axis=1), rtol=1e-12)


def test_equilibrium_prior_is_the_law_of_the_weighted_sum():
    weights, cluster_means, stddev, _ = clusters(3)
    prior = equilibrium_prior(weights, cluster_means, stddev)
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(5000, K, D)) * np.asarray(stddev)[:, None] + np.asarray(cluster_means)
    sums = np.einsum("bk,nkd->nbd", np.asarray(weights), draws)
    standardized = (sums - np.asarray(prior.mean)) / np.asarray(prior.stddev)
    for face in range(len(weights)):
        assert stats.kstest(standardized[:, face].ravel(), "norm").pvalue > 1e-3


def test_one_cluster_alone_is_that_cluster():
    weights, chosen = one_hot()
    _, cluster_means, stddev, posterior = clusters(1)
    cluster = DiagGaussian(cluster_means[chosen], jnp.tile(2 * jnp.log(stddev)[chosen, None], (1, D)))
    for kind in ("equilibrium", "mixture"):
        prior = make_prior(kind, weights, cluster_means, stddev)
        reference = prior.reference
        np.testing.assert_allclose(reference.mean, cluster.mean, rtol=1e-12)
        np.testing.assert_allclose(reference.logvar, cluster.logvar, rtol=1e-12, atol=1e-14)
        kl = prior.kl(jax.random.split(jax.random.key(0), len(weights)), posterior)
        np.testing.assert_allclose(kl, kl_divergence(posterior, cluster), rtol=1e-12)


@stable
@given(seeds, st.permutations(range(K)))
def test_permuting_the_clusters_with_their_weights_changes_nothing(seed, order):
    weights, cluster_means, stddev, posterior = clusters(seed)
    order = np.array(order)
    permuted = weights[:, order], cluster_means[order], stddev[order]
    for kind in ("equilibrium", "mixture"):
        before, after = make_prior(kind, weights, cluster_means, stddev), make_prior(kind, *permuted)
        for a, b in zip(before.reference, after.reference, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(before.log_prob(posterior.mean), after.log_prob(posterior.mean), rtol=1e-11)
    np.testing.assert_allclose(effective_clusters(weights), effective_clusters(permuted[0]), rtol=1e-12)


@stable
@given(seeds)
def test_in_units_of_the_equilibrium_prior_everything_is_the_standard_vae(seed):
    weights, cluster_means, stddev, posterior = clusters(seed)
    prior = equilibrium_prior(weights, cluster_means, stddev)
    whitened = DiagGaussian((posterior.mean - prior.mean) / prior.stddev, posterior.logvar - prior.logvar)
    zeros = jnp.zeros(prior.mean.shape)
    standard = DiagGaussian(zeros, zeros)
    np.testing.assert_allclose(kl_divergence(posterior, prior), kl_divergence(whitened, standard), rtol=1e-12)
    z = prior.sample(jax.random.key(seed % 1000))
    density_change = jnp.sum(0.5 * prior.logvar, axis=-1)
    standard_log_prob = standard.log_prob((z - prior.mean) / prior.stddev)
    np.testing.assert_allclose(prior.log_prob(z), standard_log_prob - density_change, rtol=1e-11, atol=1e-11)


# Eq. (3)


@stable
@given(seeds)
def test_mixture_log_prob_is_the_weighted_sum_of_densities(seed):
    weights, cluster_means, stddev, posterior = clusters(seed)
    z = np.asarray(posterior.mean)
    densities = stats.norm.pdf(z[:, None], cluster_means, np.asarray(stddev)[:, None]).prod(axis=-1)
    wanted = np.log((np.asarray(weights) * densities).sum(axis=-1))
    ours = mixture_prior(weights, cluster_means, stddev).log_prob(posterior.mean)
    np.testing.assert_allclose(ours, wanted, rtol=1e-10)


def test_mixture_log_prob_stays_finite_far_away_and_with_absent_clusters():
    weights, _ = one_hot()
    _, cluster_means, stddev, _ = clusters(2)
    log_prob = lambda z, w: mixture_prior(w, cluster_means, stddev).log_prob(z).sum()  # noqa: E731
    far = jnp.full((4, D), 1e3)
    assert np.isfinite(log_prob(far, weights))
    for slope in jax.grad(log_prob, argnums=(0, 1))(far, weights):
        assert np.isfinite(slope).all()


def test_mixture_moments_are_those_of_its_density_and_of_its_samples():
    weights, cluster_means, stddev, _ = clusters(5, faces=2)
    mixture = mixture_prior(weights, cluster_means[:, :1], stddev)
    grid = np.linspace(-12, 12, 8001)
    density = np.exp(jax.jit(jax.vmap(lambda z: mixture.log_prob(jnp.full((2, 1), z))))(jnp.asarray(grid)))
    np.testing.assert_allclose(np.trapezoid(density, grid, axis=0), 1, rtol=1e-9)
    mean = np.trapezoid(density * grid[:, None], grid, axis=0)
    variance = np.trapezoid(density * (grid[:, None] - mean) ** 2, grid, axis=0)
    matched = mixture.moment_matched()
    np.testing.assert_allclose(matched.mean[:, 0], mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(jnp.exp(matched.logvar)[:, 0], variance, rtol=1e-9)
    z = np.asarray(jax.jit(jax.vmap(mixture.sample))(jax.random.split(jax.random.key(0), 20_000)))[..., 0]
    standard_error = np.sqrt(variance / len(z))
    assert (np.abs(z.mean(axis=0) - mean) < 4.5 * standard_error).all()
    np.testing.assert_allclose(z.var(axis=0), variance, rtol=0.05)


def test_components_are_drawn_as_often_as_their_weights_say():
    weights = jnp.asarray([[0.5, 0.3, 0.2, 0.0, 0.0]])
    _, cluster_means, stddev, _ = clusters(6)
    mixture = mixture_prior(weights, cluster_means, stddev)
    drawn = jax.vmap(mixture.draw_component)(jax.random.split(jax.random.key(0), 5000))
    which = np.argmin(np.abs(np.asarray(drawn.mean)[:, 0, :1] - np.asarray(cluster_means)[:, 0]), axis=1)
    counts = np.bincount(which, minlength=K)
    assert counts[3] == counts[4] == 0
    assert stats.chisquare(counts[:3], [2500, 1500, 1000]).pvalue > 1e-3
    np.testing.assert_allclose(drawn.stddev[:, 0, 0], np.asarray(stddev)[which], rtol=1e-12)


def test_monte_carlo_kl_agrees_with_the_closed_form_and_states_its_error_honestly():
    weights, _ = one_hot(1)
    _, cluster_means, stddev, _ = clusters(7)
    posterior = DiagGaussian(jnp.full((1, D), 0.4), jnp.full((1, D), -0.5))
    mixture = mixture_prior(weights, cluster_means, stddev)
    exact = float(kl_divergence(posterior, mixture.moment_matched())[0])
    keys = jax.random.split(jax.random.key(0), 400)
    estimate, error = jax.jit(jax.vmap(lambda key: mixture_kl_monte_carlo(key, posterior, mixture, 50)))(keys)
    deviations = np.asarray((estimate - exact) / error).ravel()
    assert abs(deviations.mean()) < 4.5 / 400**0.5 + 0.1
    assert 0.85 < deviations.std() < 1.2


@settings(stable, max_examples=10)
@given(seeds)
def test_the_drawn_component_bounds_the_kl_to_the_mixture_from_above(seed):
    weights, cluster_means, stddev, posterior = clusters(seed)
    mixture = mixture_prior(weights, cluster_means, stddev)
    expected = jnp.sum(weights * kl_to_each_cluster(posterior, cluster_means, stddev), axis=-1)
    estimate, error = monte_carlo(jax.random.key(0), posterior, mixture, 500)
    assert (np.asarray(estimate) <= np.asarray(expected) + 4.5 * np.asarray(error)).all()


def test_the_training_term_of_the_mixture_averages_to_the_weighted_kl_of_its_components():
    weights, cluster_means, stddev, posterior = clusters(8, faces=1)
    mixture = mixture_prior(weights, cluster_means, stddev)
    drawn = jax.vmap(lambda key: mixture.kl(key[None], posterior))(jax.random.split(jax.random.key(0), 4000))
    wanted = float(jnp.sum(weights * kl_to_each_cluster(posterior, cluster_means, stddev)))
    assert abs(float(drawn.mean()) - wanted) < 4.5 * float(drawn.std()) / 4000**0.5


# Moving between structures, and what is reported


@stable
@given(seeds)
def test_transport_keeps_the_place_in_the_prior_and_can_be_undone(seed):
    weights, cluster_means, stddev, posterior = clusters(seed)
    prior = equilibrium_prior(weights, cluster_means, stddev)
    source, target = DiagGaussian(prior.mean[:2], prior.logvar[:2]), DiagGaussian(prior.mean[2:], prior.logvar[2:])
    z = posterior.mean[:2]
    moved = transport(z, source, target)
    np.testing.assert_allclose((moved - target.mean) / target.stddev, (z - source.mean) / source.stddev, rtol=1e-9)
    np.testing.assert_allclose(transport(moved, target, source), z, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(transport(z, source, source), z, rtol=1e-12, atol=1e-14)


def test_transport_under_the_standard_prior_moves_nothing():
    z = jnp.arange(8.0).reshape(2, 4)
    prior = standard_prior(jnp.ones((2, K)) / K, 4)
    np.testing.assert_array_equal(transport(z, prior, prior), z)


@stable
@given(seeds)
def test_effective_clusters_lie_between_one_and_all(seed):
    weights = clusters(seed)[0]
    counted = np.asarray(effective_clusters(weights))
    assert counted.min() >= 1 - 1e-12
    assert counted.max() <= K + 1e-9
    np.testing.assert_allclose(counted, np.exp(stats.entropy(np.asarray(weights), axis=-1)), rtol=1e-10)


def test_effective_clusters_counts_equal_shares_and_has_a_finite_gradient():
    shares = jnp.asarray([[1, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [0.2] * 5])
    np.testing.assert_allclose(effective_clusters(shares), [1, 2, 5], rtol=1e-12)
    assert np.isfinite(jax.grad(lambda w: effective_clusters(w).sum())(shares)).all()


def test_cluster_means_have_the_wanted_length_and_come_from_the_key_alone():
    drawn = init_cluster_means(jax.random.key(0), 80, 150, 2.5)
    assert drawn.shape == (80, 150)
    np.testing.assert_allclose(jnp.linalg.norm(drawn, axis=-1), 2.5, rtol=1e-12)
    np.testing.assert_array_equal(drawn, init_cluster_means(jax.random.key(0), 80, 150, 2.5))
    assert not np.allclose(drawn, init_cluster_means(jax.random.key(1), 80, 150, 2.5))
    # Uniform in a cube before the scaling, so the coordinates have a kurtosis of 1.8, not the 3 of a normal.
    assert stats.kurtosis(np.asarray(drawn).ravel(), fisher=False) < 2.2


def test_make_prior_returns_the_prior_of_its_kind():
    weights, cluster_means, stddev, _ = clusters(9)
    assert isinstance(make_prior("mixture", weights, cluster_means, stddev), GaussianMixture)
    equilibrium = make_prior("equilibrium", weights, cluster_means, stddev)
    standard = make_prior("standard", weights, cluster_means, stddev)
    np.testing.assert_array_equal(equilibrium.mean, equilibrium_prior(weights, cluster_means, stddev).mean)
    assert standard.mean.shape == equilibrium.mean.shape
    assert not standard.mean.any()
    assert equilibrium.reference is equilibrium


@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_inputs_are_named():
    weights, cluster_means, stddev, posterior = clusters(9)
    with pytest.raises(ValueError, match=r"prior kind='gmm'.*'equilibrium'"):
        make_prior("gmm", weights, cluster_means, stddev)
    for prior in (equilibrium_prior, mixture_prior):
        with pytest.raises(ValueError, match=r"cluster_weights \(4, 5\), cluster_means \(4, 3\)"):
            prior(weights, cluster_means[:4], stddev)
    with pytest.raises(ValueError, match="num_samples=1"):
        mixture_kl_monte_carlo(jax.random.key(0), posterior, mixture_prior(weights, cluster_means, stddev), 1)


@pytest.mark.parametrize("kind", ["standard", "mixture", "equilibrium"])
def test_the_kl_of_every_prior_has_a_gradient_under_jit_and_keeps_float32(kind):
    weights, cluster_means, stddev, posterior = jax.tree.map(lambda a: a.astype(jnp.float32), clusters(10))

    @jax.jit
    def loss(posterior, weights):
        prior = make_prior(kind, weights, cluster_means, stddev)
        return prior.kl(jax.random.split(jax.random.key(0), len(weights)), posterior).sum()

    for weights_now in (weights, one_hot()[0].astype(jnp.float32)):
        slopes = jax.grad(loss, argnums=(0, 1))(posterior, weights_now)
        for slope in jax.tree.leaves(slopes):
            assert slope.dtype == jnp.float32
            assert np.isfinite(slope).all()
        assert np.abs(slopes[0].mean).min() > 0
        assert (np.abs(slopes[1]).max() > 0) == (kind == "equilibrium")


@pytest.mark.parametrize("kind", ["equilibrium", "mixture"])
def test_priors_without_spread_or_without_a_cluster_stay_finite(kind) -> None:
    means = jnp.asarray([[1.0, 0.0], [0.0, 1.0]])
    for weights, stddev in (([[0.5, 0.5]], [0.0, 0.0]), ([[0.0, 0.0]], [0.1, 0.1])):
        prior = make_prior(kind, jnp.asarray(weights), means, jnp.asarray(stddev))
        assert np.isfinite(prior.reference.logvar).all()
        assert np.isfinite(prior.transport(jnp.ones((1, 2)), prior)).all()
        assert np.isfinite(kl_divergence(prior.reference, prior.reference)).all()
