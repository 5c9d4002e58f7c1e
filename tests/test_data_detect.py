"""dlib's detector on drawn faces, and the messages if it is not installed."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from drawn_faces import draw_face
from PIL import Image

from ecvae_jax.data.detect import load_detector
from ecvae_jax.data.detect.detector import Detector
from ecvae_jax.data.errors import DataError, MissingExtraError
from ecvae_jax.data.faces import load_faces


@pytest.fixture(scope="module")
def dlib_68() -> Detector:
    pytest.importorskip("dlib")
    if importlib.util.find_spec("face_recognition_models") is None:
        pytest.skip("face_recognition_models is not installed")
    return load_detector("dlib-68")


@pytest.mark.parametrize("size", [100, 150, 300, 700, 1500])
def test_a_face_is_found_at_every_size_and_its_landmarks_scale_with_it(dlib_68: Detector, size: int):
    faces = dlib_68.detect(np.asarray(draw_face(size)))
    assert len(faces) == 1
    landmarks = faces[0].landmarks / size
    assert landmarks.shape == (68, 2)
    assert landmarks.dtype == np.float32
    eyes = landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)
    np.testing.assert_allclose(eyes[0], (0.39, 0.46), atol=0.03)
    np.testing.assert_allclose(eyes[1], (0.61, 0.46), atol=0.03)
    np.testing.assert_allclose(landmarks[48:68].mean(axis=0), (0.50, 0.72), atol=0.05)


def test_landmarks_follow_the_face(dlib_68: Detector):
    still = dlib_68.detect(np.asarray(draw_face(300)))[0].landmarks
    moved = dlib_68.detect(np.asarray(draw_face(300, shift=10)))[0].landmarks
    np.testing.assert_allclose((moved - still).mean(axis=0), (30, 0), atol=4)


def test_for_videos_a_face_at_rest_is_read_alike_in_every_frame(dlib_68: Detector):
    """A noisy camera before a still head: the landmarks of one reading tremble at least twice as much."""
    photo, noise = np.asarray(load_faces("rendered", "test").image(0, 256), np.float32), np.random.default_rng(0)
    frames = [(photo + noise.normal(0, 4, photo.shape)).clip(0, 255).astype(np.uint8) for _ in range(12)]
    once, steady = (
        np.stack([detector.detect(frame)[0].landmarks for frame in frames])
        for detector in (dlib_68, load_detector("dlib-68", video=True))
    )
    assert steady.std(axis=0).mean() < 0.5 * once.std(axis=0).mean()
    np.testing.assert_allclose(steady.mean(axis=(0, 1)), once.mean(axis=(0, 1)), atol=1)


def test_the_largest_face_comes_first(dlib_68: Detector):
    photo = Image.new("RGB", (480, 320), (120, 140, 160))
    photo.paste(draw_face(170), (0, 0))
    photo.paste(draw_face(300), (175, 10))
    faces = dlib_68.detect(np.asarray(photo))
    assert len(faces) == 2
    assert faces[0].area > faces[1].area
    assert faces[0].landmarks[:, 0].mean() > 240


def test_a_small_face_in_a_large_photo_is_found_at_a_later_try(dlib_68: Detector):
    photo = Image.new("RGB", (1200, 1200), (120, 140, 160))
    photo.paste(draw_face(200), (900, 100))
    faces = dlib_68.detect(np.asarray(photo))
    assert len(faces) == 1
    np.testing.assert_allclose(faces[0].landmarks.mean(axis=0), (1000, 220), atol=15)


@pytest.mark.parametrize("shape", [(64, 64), (1, 1), (1, 500), (300, 200)])
def test_no_face_is_an_empty_list(dlib_68: Detector, shape: tuple[int, int]):
    assert dlib_68.detect(np.full((*shape, 3), 128, np.uint8)) == []


def test_the_name_has_the_version(dlib_68: Detector):
    import dlib

    assert dlib_68.name.startswith("dlib-68")
    assert dlib.__version__ in dlib_68.name
    assert dlib_68.points == 68


def test_without_dlib_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ecvae-jax\[dlib\]'"):
        load_detector("dlib-68")


def test_without_the_model_file_the_message_names_its_package(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("dlib")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="face_recognition_models"):
        load_detector("dlib-68")


def test_an_unknown_detector_is_refused():
    with pytest.raises(DataError, match="detector='yolo'"):
        load_detector("yolo")


@pytest.mark.parametrize("size", [100, 300, 900])
def test_in_a_known_box_nearly_the_same_landmarks_are_found(dlib_68: Detector, size: int):
    """The faster path rounds differently, so the bits differ."""
    photo = np.asarray(draw_face(size))
    (face,) = dlib_68.detect(photo)
    measured = dlib_68.measure(photo, face.box)
    assert measured is not None
    assert measured.box == face.box
    eyes = np.linalg.norm(face.landmarks[36] - face.landmarks[45])
    errors = np.linalg.norm(measured.landmarks - face.landmarks, axis=1) / eyes
    assert np.median(errors) < 0.03
    assert errors.max() < 0.15


def test_a_known_box_may_reach_to_the_edge_of_the_photo(dlib_68: Detector):
    photo = np.asarray(draw_face(200).crop((36, 50, 164, 178)))
    measured = dlib_68.measure(photo, (0.0, 0.0, 128.0, 128.0))
    assert measured is not None
    assert 0.3 * 128 < measured.landmarks[36:48, 1].mean() < 0.5 * 128
