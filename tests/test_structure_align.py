"""Alignment: what it removes, what it keeps, and that it never divides by zero."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecvae_jax.structure.align import align_landmarks
from ecvae_jax.structure.scheme import get_scheme, mirror_landmarks

stable = settings(deadline=None, derandomize=True, max_examples=40)
seeds = st.integers(0, 2**31)
SCHEME = get_scheme(98)


def face(seed=0, faces=2):
    """Returns random landmarks with the eyes about level, like a head with little roll."""
    landmarks = np.random.default_rng(seed).uniform(0.2, 0.8, size=(faces, 98, 2))
    left, right = (list(eye) for eye in SCHEME.eyes)
    landmarks[:, left, 0] -= 0.5
    landmarks[:, right, 0] += 0.5
    return landmarks.astype(np.float32)


def turned(landmarks, angle):
    """Returns the landmarks rotated about the origin."""
    cos, sin = np.cos(angle), np.sin(angle)
    return (landmarks @ np.array([[cos, sin], [-sin, cos]])).astype(np.float32)


@pytest.mark.parametrize("remove_roll", [False, True])
def test_centroid_is_zero_and_size_is_one(remove_roll):
    aligned = np.asarray(align_landmarks(face(), SCHEME, remove_roll))
    np.testing.assert_allclose(aligned.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(np.sqrt((aligned**2).sum(axis=-1).mean(axis=-1)), 1, rtol=1e-6)


@stable
@given(seeds, st.floats(0.05, 20), st.tuples(st.floats(-3, 3), st.floats(-3, 3)), st.booleans())
def test_position_and_size_are_removed(seed, scale, move, remove_roll):
    landmarks = face(seed)
    moved = (landmarks * scale + np.array(move)).astype(np.float32)
    ours, theirs = (align_landmarks(x, SCHEME, remove_roll) for x in (landmarks, moved))
    # Moving a small face far loses digits of the input.
    np.testing.assert_allclose(ours, theirs, atol=1e-5 + 1e-6 * max(map(abs, move)) / scale)


@stable
@given(seeds, st.floats(-3, 3))
def test_roll_is_removed_only_if_requested(seed, angle):
    landmarks = face(seed)
    rolled = turned(landmarks, angle)
    upright = align_landmarks(landmarks, SCHEME, True)
    np.testing.assert_allclose(align_landmarks(rolled, SCHEME, True), upright, atol=1e-5)
    kept = align_landmarks(rolled, SCHEME, False)
    np.testing.assert_allclose(kept, turned(np.asarray(align_landmarks(landmarks, SCHEME, False)), angle), atol=1e-5)


def test_without_roll_the_line_between_the_eyes_is_level_and_points_right():
    aligned = np.asarray(align_landmarks(turned(face(), 0.7), SCHEME, True))
    left, right = (aligned[:, list(eye)].mean(axis=1) for eye in SCHEME.eyes)
    np.testing.assert_allclose(left[:, 1], right[:, 1], atol=1e-6)
    assert (right[:, 0] > left[:, 0]).all()


@pytest.mark.parametrize("remove_roll", [False, True])
def test_the_mirror_of_an_aligned_face_is_the_aligned_mirror(remove_roll):
    landmarks = face(4)
    aligned = np.asarray(align_landmarks(landmarks, SCHEME, remove_roll))
    mirrored = align_landmarks(mirror_landmarks(landmarks, SCHEME), SCHEME, remove_roll)
    np.testing.assert_allclose(mirrored, aligned[:, list(SCHEME.mirror)] * [-1, 1], atol=1e-5)


@pytest.mark.parametrize("remove_roll", [False, True])
def test_coincident_points_give_zeros_and_a_finite_gradient(remove_roll):
    point = jnp.full((1, 98, 2), 0.3)
    assert not np.asarray(align_landmarks(point, SCHEME, remove_roll)).any()
    eyes_only = jnp.asarray(face())[:1].at[:, 60:76].set(0.5)
    for landmarks in (point, eyes_only):
        slope = jax.grad(lambda x: jnp.sum(align_landmarks(x, SCHEME, remove_roll) ** 3))(landmarks)
        assert np.isfinite(slope).all()


def test_a_face_without_an_eye_line_keeps_its_roll():
    eyes_together = face()
    eyes_together[:, 60:76] = 0.5
    kept = align_landmarks(eyes_together, SCHEME, False)
    np.testing.assert_allclose(align_landmarks(eyes_together, SCHEME, True), kept, atol=1e-6)


def test_float_type_and_leading_axes_are_kept():
    assert align_landmarks(face(), SCHEME, False).dtype == jnp.float32
    with jax.enable_x64(True):
        assert align_landmarks(face().astype(np.float64), SCHEME, True).dtype == jnp.float64
    stacked = face(0, 6).reshape(2, 3, 98, 2)
    np.testing.assert_allclose(
        align_landmarks(stacked, SCHEME, True).reshape(6, 98, 2), align_landmarks(face(0, 6), SCHEME, True), atol=1e-6
    )
    alone = align_landmarks(face()[0], SCHEME, True)
    np.testing.assert_allclose(alone, align_landmarks(face(), SCHEME, True)[0], atol=1e-6)


def test_a_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"landmarks \(2, 98, 2\).*\(68, 2\)"):
        align_landmarks(face(), get_scheme(68), False)
