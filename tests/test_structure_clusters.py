"""k-means over aligned faces, the weights c_k and their invariances, and refused inputs."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.processes import run_python

from ecvae_jax.prior import effective_clusters
from ecvae_jax.structure.align import align_landmarks
from ecvae_jax.structure.clusters import Clusters, cluster_weights, fit_clusters
from ecvae_jax.structure.scheme import get_scheme

stable = settings(deadline=None, derandomize=True, max_examples=30)
SCHEME = get_scheme(68)
TEMPLATE = np.random.default_rng(0).uniform(0.2, 0.8, size=(68, 2))
both_modes = pytest.mark.parametrize("mode", ["literal", "centered"])


def faces(count, spread=0.03, seed=1):
    """Returns realistic faces: variations of one template, so all similar."""
    rng = np.random.default_rng(seed)
    ways = np.random.default_rng(7).normal(size=(6, 68, 2))
    return (TEMPLATE + spread * np.einsum("nw,wpx->npx", rng.normal(size=(count, 6)), ways)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    """Eight clusters of 200 faces."""
    return fit_clusters(faces(200), SCHEME, 8, False, 0)


def weights_of(landmarks, clusters, mode="centered", temperature=0.2, remove_roll=False):
    return np.asarray(cluster_weights(landmarks, clusters, SCHEME, mode, temperature, remove_roll))


# Fitting


def test_planted_clusters_are_found():
    rng = np.random.default_rng(3)
    planted = faces(4, spread=0.1, seed=9)
    landmarks = np.repeat(planted, 20, axis=0) + rng.normal(size=(80, 68, 2)).astype(np.float32) * 1e-3
    found = fit_clusters(landmarks, SCHEME, 4, False, 0)
    wanted = np.asarray(align_landmarks(planted, SCHEME, False))
    distance = np.abs(np.asarray(found.centers)[:, None] - wanted[None]).max(axis=(2, 3))
    assert sorted(distance.argmin(axis=1)) == [0, 1, 2, 3]
    assert distance.min(axis=1).max() < 0.01
    np.testing.assert_allclose(found.mean_shape, wanted.mean(axis=0), atol=0.01)


def test_fit_does_not_depend_on_the_number_of_threads():
    """Hosts have other numbers of cores; unlimited, the threads' sums move the centers by up to 7e-7."""
    code = (
        "import numpy as np, sys\n"
        "from ecvae_jax.structure.clusters import fit_clusters\n"
        "from ecvae_jax.structure.scheme import get_scheme\n"
        "faces = np.random.default_rng(0).normal(size=(3000, 68, 2)).astype(np.float32)\n"
        "print(fit_clusters(faces, get_scheme(68), 8, False, 0).centers.tobytes().hex())"
    )
    few, many = (run_python(code, OMP_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads).stdout for threads in "14")
    assert len(few) > 1000
    assert few == many


def test_fit_is_a_function_of_faces_and_seed(fitted):
    again = fit_clusters(faces(200), SCHEME, 8, False, 0)
    for ours, theirs in zip(fitted, again, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)
    assert not np.allclose(fitted.centers, fit_clusters(faces(200), SCHEME, 8, False, 1).centers, atol=1e-4)


def test_fit_is_invariant_to_position_and_size_nor_roll_if_removed(fitted):
    moved = fit_clusters(faces(200) * 0.5 + 3, SCHEME, 8, False, 0)
    np.testing.assert_allclose(moved.mean_shape, fitted.mean_shape, atol=1e-4)
    turned = faces(200) @ np.array([[0.8, 0.6], [-0.6, 0.8]], np.float32)
    rolled, upright = (fit_clusters(x, SCHEME, 8, True, 0) for x in (turned, faces(200)))
    np.testing.assert_allclose(rolled.mean_shape, upright.mean_shape, atol=1e-4)


def test_more_than_20000_faces_are_sampled():
    few = faces(3)
    many = np.concatenate([np.repeat(few, 6_700, axis=0), faces(1, seed=5)])
    found = fit_clusters(many, SCHEME, 3, False, 0)
    wanted = np.asarray(align_landmarks(few, SCHEME, False))
    assert np.abs(np.asarray(found.centers)[:, None] - wanted).max(axis=(2, 3)).min(axis=1).max() < 0.01


def test_unusable_landmarks_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"clusters\.count=9: must be between 1 and .* distinct faces, 8"):
        fit_clusters(faces(8), SCHEME, 9, False, 0)
    with pytest.raises(ValueError, match=r"clusters\.count=2: .* distinct faces, 1"):
        fit_clusters(np.repeat(faces(1), 5, axis=0), SCHEME, 2, False, 0)
    with pytest.raises(ValueError, match=r"count=0"):
        fit_clusters(faces(8), SCHEME, 0, False, 0)
    with pytest.raises(ValueError, match=r"landmarks \(8, 68, 2\)"):
        fit_clusters(faces(8), get_scheme(98), 2, False, 0)
    broken = faces(8)
    broken[[2, 5], 3, 1] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"of 2 faces, the first at index 2, are not finite"):
        fit_clusters(broken, SCHEME, 2, False, 0)


def test_only_fitting_imports_scikit_learn():
    code = "import sys, ecvae_jax.structure.clusters; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Weights


@both_modes
def test_weights_are_weights(fitted, mode):
    weights = weights_of(faces(50, seed=2), fitted, mode)
    assert weights.shape == (50, 8)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


def test_weights_match_their_definition(fitted):
    landmarks = faces(10, seed=2)
    shapes = np.asarray(align_landmarks(landmarks, SCHEME, False), np.float64)

    def cosines(shapes, centers):
        shapes, centers = shapes.reshape(len(shapes), -1), centers.reshape(len(centers), -1)
        return shapes @ centers.T / np.linalg.norm(shapes, axis=1)[:, None] / np.linalg.norm(centers, axis=1)

    literal = cosines(shapes, fitted.centers)
    wanted = literal / literal.sum(1, keepdims=True)
    np.testing.assert_allclose(weights_of(landmarks, fitted, "literal"), wanted, rtol=1e-5)
    centered = np.maximum(cosines(shapes - fitted.mean_shape, fitted.centers - fitted.mean_shape), 0) ** (1 / 0.3)
    wanted = centered / centered.sum(1, keepdims=True)
    np.testing.assert_allclose(weights_of(landmarks, fitted, "centered", 0.3), wanted, rtol=2e-4, atol=1e-6)


def test_literal_weights_hardly_depend_on_the_face_and_centered_ones_do(fitted):
    landmarks = faces(50, seed=2)
    counted = {
        name: float(effective_clusters(jnp.asarray(weights_of(landmarks, fitted, mode, temperature))).mean())
        for name, mode, temperature in (("literal", "literal", 1), ("soft", "centered", 1), ("sharp", "centered", 0.2))
    }
    assert counted["literal"] > 7.9
    assert counted["soft"] < 6
    assert counted["sharp"] < counted["soft"] - 0.5
    spread = {mode: weights_of(landmarks, fitted, mode).std(axis=0).mean() for mode in ("literal", "centered")}
    assert spread["centered"] > 20 * spread["literal"]


def test_a_center_weighs_most_in_its_own_face_and_alone_at_low_temperature(fitted):
    own = weights_of(fitted.centers, fitted)
    np.testing.assert_array_equal(own.argmax(axis=1), np.arange(8))
    np.testing.assert_allclose(weights_of(fitted.centers, fitted, temperature=1e-4), np.eye(8), atol=1e-6)


@both_modes
@stable
@given(order=st.permutations(range(8)))
def test_weights_follow_a_permutation_of_the_clusters(fitted, mode, order):
    order = np.array(order)
    landmarks = faces(5, seed=4)
    permuted = weights_of(landmarks, fitted._replace(centers=fitted.centers[order]), mode)
    np.testing.assert_allclose(permuted, weights_of(landmarks, fitted, mode)[:, order], rtol=1e-4, atol=1e-6)


@both_modes
@stable
@given(scale=st.floats(0.1, 10), move=st.floats(-2, 2))
def test_weights_are_invariant_to_position_and_size(fitted, mode, scale, move):
    landmarks = faces(5, seed=4)
    moved = (landmarks * scale + move).astype(np.float32)
    np.testing.assert_allclose(weights_of(moved, fitted, mode), weights_of(landmarks, fitted, mode), atol=2e-3)


@both_modes
def test_weights_depend_on_roll_unless_it_is_removed(fitted, mode):
    landmarks = faces(5, seed=4)
    turned = landmarks @ np.array([[0.8, 0.6], [-0.6, 0.8]], np.float32)
    upright = fit_clusters(faces(200), SCHEME, 8, True, 0)
    same = [weights_of(x, upright, mode, remove_roll=True) for x in (landmarks, turned)]
    np.testing.assert_allclose(*same, atol=1e-3)
    seen = [weights_of(x, fitted, mode) for x in (landmarks, turned)]
    assert np.abs(seen[0] - seen[1]).max() > 1e-3


@both_modes
def test_a_face_like_no_center_gets_equal_weights_and_finite_gradients(mode):
    shape = np.asarray(align_landmarks(faces(1), SCHEME, False))
    mean_shape = np.zeros((68, 2), np.float32)
    clusters = Clusters(-np.repeat(shape, 3, axis=0), mean_shape)
    np.testing.assert_allclose(weights_of(faces(1), clusters, mode), 1 / 3, rtol=1e-6)
    at_the_mean = clusters._replace(mean_shape=shape[0])
    np.testing.assert_allclose(weights_of(shape, at_the_mean, "centered"), 1 / 3, rtol=1e-6)
    first_weight = jax.grad(lambda x, c: jnp.sum(cluster_weights(x, c, SCHEME, mode, 2.0, True)[:, 0]))
    a_center_at_the_mean = clusters._replace(centers=np.stack([shape[0], mean_shape, mean_shape]))
    for c in (clusters, at_the_mean, a_center_at_the_mean):
        assert np.isfinite(first_weight(jnp.asarray(shape), c)).all()


@both_modes
def test_gradients_reach_the_landmarks(fitted, mode):
    landmarks = jnp.asarray(faces(5, seed=4))
    slope_of = jax.grad(lambda x, t: jnp.sum(cluster_weights(x, fitted, SCHEME, mode, t, False) ** 2))
    for temperature in (0.05, 0.2, 3.0):
        slope = slope_of(landmarks, temperature)
        assert np.isfinite(slope).all()
        assert np.abs(slope).max() > 0


@both_modes
def test_one_cluster_takes_all(mode):
    clusters = fit_clusters(faces(20), SCHEME, 1, False, 0)
    np.testing.assert_array_equal(weights_of(faces(5, seed=2), clusters, mode), 1)


def test_a_broken_landmark_is_not_hidden_and_wrong_inputs_are_named(fitted):
    landmarks = faces(2)
    landmarks[0, 5, 0] = np.nan
    weights = weights_of(landmarks, fitted)
    assert np.isnan(weights[0]).all()
    assert np.isfinite(weights[1]).all()
    with pytest.raises(ValueError, match=r"clusters mode='soft'.*'centered' or 'literal'"):
        weights_of(faces(2), fitted, "soft")
    with pytest.raises(ValueError, match=r"landmarks \(2, 98, 2\)"):
        weights_of(np.zeros((2, 98, 2), np.float32), fitted)
