"""The landmark tables: coverage, mirrors, and 98 points converted to 68."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from ecvae_jax.structure.scheme import SCHEMES, convert_landmarks, get_scheme, landmarks_98_to_68, mirror_landmarks

both = pytest.mark.parametrize("points", [98, 68])


def random_landmarks(points, faces=3, seed=0):
    return np.random.default_rng(seed).uniform(size=(faces, points, 2)).astype(np.float32)


@pytest.mark.parametrize(("points", "boundaries", "drawn"), [(98, 15, 96), (68, 13, 68)])
def test_boundaries_cover_every_landmark_but_the_pupils(points, boundaries, drawn):
    scheme = get_scheme(points)
    assert len(scheme.boundaries) == boundaries == len(set(scheme.names))
    assert {i for _, curve in scheme.boundaries for i in curve} == set(range(drawn))
    assert all(len(curve) == len(set(curve)) for _, curve in scheme.boundaries)


def test_boundaries_run_where_the_face_has_them():
    curves = dict(get_scheme(98).boundaries)
    assert curves["contour"] == tuple(range(33))
    assert curves["eye_left_lower"] == (60, 67, 66, 65, 64)
    assert curves["lip_lower_outer"] == (76, 87, 86, 85, 84, 83, 82)
    assert curves["brow_right_lower"] == (50, 49, 48, 47, 46)
    curves = dict(get_scheme(68).boundaries)
    assert curves["eye_right_lower"] == (42, 47, 46, 45)
    assert curves["lip_lower_outer"] == (48, 59, 58, 57, 56, 55, 54)
    # The first 13 mean the same in both schemes, in the same order.
    assert get_scheme(98).names[:13] == get_scheme(68).names


@both
def test_eyes_are_the_closed_lids(points):
    left, right = get_scheme(points).eyes
    assert (left, right) == (
        (tuple(range(60, 68)), tuple(range(68, 76))) if points == 98 else (tuple(range(36, 42)), tuple(range(42, 48)))
    )


@both
def test_mirror_is_a_permutation_that_undoes_itself_and_swaps_the_eyes(points):
    scheme = get_scheme(points)
    mirror = np.array(scheme.mirror)
    np.testing.assert_array_equal(np.sort(mirror), np.arange(points))
    np.testing.assert_array_equal(mirror[mirror], np.arange(points))
    left, right = scheme.eyes
    assert {scheme.mirror[i] for i in left} == set(right)
    assert points == 68 or scheme.mirror[96] == 97  # the pupils


@both
def test_mirror_takes_each_boundary_to_a_boundary_of_the_other_side(points):
    scheme = get_scheme(points)
    swap = {"left": "right", "right": "left"}
    for name in scheme.names:
        wanted = "_".join(swap.get(word, word) for word in name.split("_"))
        # Neighbors on a curve stay neighbors, so the mirrored curve is the same curve.
        mirrored = [scheme.mirror[i] for i in dict(scheme.boundaries)[name]]
        original = list(dict(scheme.boundaries)[wanted])
        assert mirrored in (original, original[::-1])


@both
def test_mirrored_landmarks_flip_x_and_come_back(points):
    scheme, landmarks = get_scheme(points), random_landmarks(points)
    mirrored = mirror_landmarks(landmarks, scheme)
    i = scheme.eyes[0][0]
    np.testing.assert_allclose(mirrored[:, i, 0], 1 - landmarks[:, scheme.mirror[i], 0])
    np.testing.assert_array_equal(mirrored[:, i, 1], landmarks[:, scheme.mirror[i], 1])
    np.testing.assert_allclose(mirror_landmarks(mirrored, scheme), landmarks, atol=1e-6)


def test_numpy_stays_numpy_and_jax_stays_jax():
    landmarks = random_landmarks(98)
    for function in (lambda x: mirror_landmarks(x, get_scheme(98)), landmarks_98_to_68):
        on_host, on_device = function(landmarks), function(jnp.asarray(landmarks))
        assert isinstance(on_host, np.ndarray)
        assert isinstance(on_device, jnp.ndarray)
        assert on_host.dtype == on_device.dtype == np.float32
        np.testing.assert_allclose(on_host, on_device, atol=1e-7)


def test_98_to_68_keeps_shared_points_and_blends_brows_and_lids():
    points = random_landmarks(98)[0].astype(np.float64)
    converted = landmarks_98_to_68(points)
    np.testing.assert_array_equal(converted[:17], points[:33:2])
    np.testing.assert_array_equal(converted[27:36], points[51:60])
    np.testing.assert_array_equal(converted[48:], points[76:96])
    np.testing.assert_array_equal(converted[[17, 26, 36, 39, 42, 45]], points[[33, 46, 60, 64, 68, 72]])
    brows = {18: (34, 41), 19: (35, 40), 20: (36, 39), 21: (37, 38)}
    brows |= {22: (42, 50), 23: (43, 49), 24: (44, 48), 25: (45, 47)}
    for target, (upper, lower) in brows.items():
        np.testing.assert_allclose(converted[target], [points[upper, 0], (points[upper, 1] + points[lower, 1]) / 2])
    lids = {37: (61, 62), 38: (63, 62), 40: (65, 66), 41: (67, 66)}
    lids |= {43: (69, 70), 44: (71, 70), 46: (73, 74), 47: (75, 74)}
    for target, (outer, middle) in lids.items():
        np.testing.assert_allclose(converted[target], points[outer] * 2 / 3 + points[middle] / 3, rtol=1e-14)


def test_98_to_68_follows_moves_and_stretches_and_the_mirror():
    landmarks = random_landmarks(98).astype(np.float64)
    stretch, move = np.array([1.7, 0.6]), np.array([-0.2, 0.4])
    wanted = landmarks_98_to_68(landmarks) * stretch + move
    np.testing.assert_allclose(landmarks_98_to_68(landmarks * stretch + move), wanted, atol=1e-14)
    mirrored_first = landmarks_98_to_68(mirror_landmarks(landmarks, SCHEMES[98]))
    np.testing.assert_allclose(mirrored_first, mirror_landmarks(landmarks_98_to_68(landmarks), SCHEMES[68]), atol=1e-14)


def test_convert_returns_equal_or_fewer_points():
    wide, narrow = random_landmarks(98), random_landmarks(68)
    assert convert_landmarks(wide, 98) is wide
    assert convert_landmarks(narrow, 68) is narrow
    np.testing.assert_array_equal(convert_landmarks(wide, 68), landmarks_98_to_68(wide))
    with pytest.raises(ValueError, match="68 points cannot become 98"):
        convert_landmarks(narrow, 98)


@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_inputs_are_named():
    with pytest.raises(ValueError, match=r"points=106.*68, 98"):
        get_scheme(106)
    with pytest.raises(ValueError, match=r"landmarks \(3, 68, 2\).*\(98, 2\)"):
        mirror_landmarks(random_landmarks(68), get_scheme(98))
    with pytest.raises(ValueError, match=r"landmarks \(98,\)"):
        landmarks_98_to_68(np.zeros(98))


@both
def test_schemes_are_constants_that_can_be_static_arguments(points):
    scheme = get_scheme(points)
    assert hash(scheme) == hash(get_scheme(points))
    with pytest.raises(AttributeError):
        scheme.points = 5  # pyright: ignore[reportAttributeAccessIssue]
