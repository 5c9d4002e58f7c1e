"""The frozen part, and the condition of a batch of landmarks."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.training import assert_same

from ecvae_jax.config import Config, PriorConfig, SketchConfig
from ecvae_jax.data.batches import load_faces
from ecvae_jax.gaussian import DiagGaussian
from ecvae_jax.model.conditioning import (
    Frozen,
    abstract_frozen,
    init_frozen,
    make_condition,
    mean_effective_clusters,
    sketch_channels,
)
from ecvae_jax.model.frames import FaceFrame, PictureFrame
from ecvae_jax.prior import GaussianMixture


@pytest.fixture(scope="module")
def landmarks(tiny_config: Config) -> np.ndarray:
    return load_faces(tiny_config.data.records, "train").landmarks


@pytest.fixture(scope="module")
def frozen(tiny_config: Config, landmarks: np.ndarray) -> Frozen:
    return init_frozen(jax.random.key(0), tiny_config, landmarks)


def test_frozen_part_is_a_function_of_key_and_faces(tiny_config: Config, landmarks: np.ndarray, frozen: Frozen) -> None:
    again = init_frozen(jax.random.key(0), tiny_config, landmarks)
    assert_same(frozen, again)
    other = init_frozen(jax.random.key(1), tiny_config, landmarks)
    assert not np.array_equal(frozen.cluster_means, other.cluster_means)
    assert np.array_equal(frozen.clusters.centers, other.clusters.centers)


def test_means_and_deviations_are_those_of_the_config(tiny_config: Config, frozen: Frozen) -> None:
    np.testing.assert_allclose(np.linalg.norm(frozen.cluster_means, axis=1), tiny_config.prior.mean_norm, rtol=1e-5)
    assert np.array_equal(frozen.cluster_stddev, np.full(6, 0.1, np.float32))


def test_scale_of_z_is_the_median_deviation_of_the_prior(tiny_config: Config, landmarks, frozen: Frozen) -> None:
    prior = make_condition(tiny_config.architecture, None, frozen, jnp.asarray(landmarks)).reference
    assert float(frozen.z_scale) == pytest.approx(float(np.median(prior.stddev)), rel=1e-5)
    standard = dataclasses.replace(tiny_config, prior=PriorConfig(kind="standard"))
    assert float(init_frozen(jax.random.key(0), standard, landmarks).z_scale) == 1.0


def test_literal_weights_use_all_clusters_and_centered_ones_few(tiny_config: Config, landmarks, frozen: Frozen) -> None:
    counts = mean_effective_clusters(tiny_config.architecture, frozen, landmarks)
    assert counts["literal"] == pytest.approx(6.0, abs=0.05)
    assert 1.0 < counts["centered"] < 4.0


@pytest.mark.parametrize(
    ("kind", "prior_type"), [("equilibrium", DiagGaussian), ("mixture", GaussianMixture), ("standard", DiagGaussian)]
)
def test_condition_follows_the_config(tiny_config: Config, landmarks, kind: str, prior_type: type) -> None:
    single = SketchConfig(channels="single", samples_per_span=1)
    config = dataclasses.replace(tiny_config, prior=PriorConfig(kind=kind), sketch=single)
    frozen = init_frozen(jax.random.key(0), config, landmarks)
    condition = make_condition(config.architecture, None, frozen, jnp.asarray(landmarks[:3]))
    assert condition.sketch.shape == (3, 32, 32, 1)
    assert sketch_channels(config.architecture) == 1
    assert sketch_channels(tiny_config.architecture) == 15
    assert isinstance(condition.prior, prior_type)
    assert isinstance(condition.reference, DiagGaussian)
    np.testing.assert_allclose(condition.cluster_weights.sum(axis=1), 1.0, rtol=1e-5)


def test_equilibrium_prior_depends_on_the_face(tiny_config: Config, landmarks, frozen: Frozen) -> None:
    prior = make_condition(tiny_config.architecture, None, frozen, jnp.asarray(landmarks)).reference
    distances = np.linalg.norm((np.asarray(prior.mean) - np.asarray(prior.mean)[::-1]) / prior.stddev, axis=1)
    assert np.median(distances) > 3  # in units of the prior


@pytest.mark.parametrize("kind", ["equilibrium", "mixture", "standard"])
@pytest.mark.parametrize("frame", ["picture", "face"])
def test_abstract_frozen_has_the_shapes_of_the_frozen_part(
    tiny_config: Config, landmarks, kind: str, frame: str
) -> None:
    model = dataclasses.replace(tiny_config.model, frame=frame)
    config = dataclasses.replace(tiny_config, prior=PriorConfig(kind=kind), model=model)
    frozen = init_frozen(jax.random.key(0), config, landmarks)
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(lambda: frozen), abstract_frozen(config.architecture))
    condition = make_condition(config.architecture, None, frozen, jnp.asarray(landmarks[:1]))
    assert isinstance(condition.frame, FaceFrame if frame == "face" else PictureFrame)
