"""For a fixed structure, the equilibrium prior is N(0, I) in other coordinates: in formulas, loss and training."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.comparison.variants import with_settings
from ecvae_jax.config import Config
from ecvae_jax.data.faces import load_faces
from ecvae_jax.gaussian import DiagGaussian, kl_divergence
from ecvae_jax.model.conditioning import init_frozen, make_condition
from ecvae_jax.model.cvae import decode, encode, init_params
from ecvae_jax.objective import loss_terms
from ecvae_jax.prior import equilibrium_prior, init_cluster_means, transport
from ecvae_jax.training.loop import train
from ecvae_jax.training.preview import device_views


@given(seed=st.integers(0, 2**31 - 1), clusters=st.sampled_from([1, 2, 12]), norm=st.floats(0.0, 10.0))
@settings(max_examples=30, deadline=None)
def test_in_units_of_the_prior_eq_4_is_standard_and_eq_5_the_standard_kl(seed: int, clusters: int, norm: float) -> None:
    keys = jax.random.split(jax.random.key(seed), 4)
    weights = jax.nn.softmax(2 * jax.random.normal(keys[0], (3, clusters)))
    means = init_cluster_means(keys[1], clusters, 16, norm)
    prior = equilibrium_prior(weights, means, jnp.full(clusters, 0.1))
    own = DiagGaussian(*(jax.random.normal(key, (3, 16)) for key in keys[2:]))
    standard = DiagGaussian(jnp.zeros((3, 16)), jnp.zeros((3, 16)))
    in_z = DiagGaussian(prior.mean + prior.stddev * own.mean, prior.logvar + own.logvar)
    # float32: a mean far from 0 loses digits of the small offset that the posterior adds to it
    digits = 1e-5 + 4e-6 * float(jnp.abs(prior.mean).max() / prior.stddev.min())
    np.testing.assert_allclose(kl_divergence(in_z, prior), kl_divergence(own, standard), rtol=digits, atol=digits)
    z = in_z.mean + in_z.stddev
    u = (z - prior.mean) / prior.stddev
    np.testing.assert_allclose(u, own.mean + own.stddev, rtol=digits, atol=20 * digits)
    volume = jnp.sum(0.5 * prior.logvar, axis=-1)
    np.testing.assert_allclose(prior.log_prob(z) + volume, standard.log_prob(u), rtol=10 * digits, atol=100 * digits)


def test_in_the_loss_only_the_code_differs(tiny_config: Config, tiny_batch: dict[str, np.ndarray]) -> None:
    config = with_settings(tiny_config, {"objective.ssim_weight": 0.0})
    plain = with_settings(config, {"prior.kind": "standard"})
    landmarks = load_faces(config.data.records, "train").landmarks
    frozen, other = (init_frozen(jax.random.key(0), each, landmarks) for each in (config, plain))
    params = init_params(jax.random.key(1), config.architecture)
    views, keys = device_views(tiny_batch), jax.random.split(jax.random.key(3), 8)
    noise = jax.random.normal(jax.random.key(2), (8, config.model.z_dim))
    terms, drawn, *_ = loss_terms(config.architecture, params, frozen, views, noise, keys, 1.0)
    standard, without, *_ = loss_terms(plain.architecture, params, other, views, noise, keys, 1.0)
    np.testing.assert_allclose(terms.kl, standard.kl, rtol=1e-4)

    target = make_condition(config.architecture, None, frozen, views.landmarks)
    source = make_condition(plain.architecture, None, other, views.source_landmarks)
    own = encode(plain.architecture, params, views.source_image, source)
    u = own.mean + own.stddev * noise
    code = target.cluster_weights @ frozen.cluster_means / frozen.z_scale
    width = target.reference.stddev / frozen.z_scale
    again = decode(plain.architecture, params, code + width * u, target, jnp.ones(()))
    np.testing.assert_allclose(drawn, again, atol=1e-4)
    assert float(other.z_scale) == 1.0
    np.testing.assert_allclose(without, decode(plain.architecture, params, u, target, jnp.ones(())), atol=1e-4)
    assert float(jnp.abs(drawn - without).max()) > 0.05
    # without transport it is the code of the other structure that is added
    start = make_condition(config.architecture, None, frozen, views.source_landmarks).reference
    moved = transport(start.mean + start.stddev * u, start, target.reference)
    np.testing.assert_allclose(moved, frozen.z_scale * (code + width * u), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({"clusters.count": 1, "prior.mean_norm": 0.0}, True),  # no code, one width: N(0, I) in other units
        ({"clusters.count": 1, "prior.mean_norm": 1.0}, False),  # a constant code: a bias of the first layer
        ({"prior.kind": "standard", "model.posterior": "plain"}, True),  # relative to N(0, I) is plain
    ],
)
@pytest.mark.slow
def test_in_training_a_prior_without_a_code_is_the_standard_one(
    settings: dict, same: bool, tiny_config: Config, standard: list[np.ndarray], tmp_path: Path
) -> None:
    train(with_settings(tiny_config, {"train.steps": 4, "train.checkpoint_every": 4, **settings}), tmp_path)
    params = [np.asarray(leaf) for leaf in jax.tree.leaves(load_model(tmp_path).params)]
    apart = max(float(np.abs(a - b).max()) for a, b in zip(params, standard, strict=True))
    assert apart < 2e-3 if same else apart > 5e-3, apart


@pytest.fixture(scope="module")
def standard(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Parameters of a tiny model of N(0, I)."""
    folder = tmp_path_factory.mktemp("standard")
    changed = {"train.steps": 4, "train.checkpoint_every": 4, "prior.kind": "standard"}
    train(with_settings(tiny_config, changed), folder)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(load_model(folder).params)]
