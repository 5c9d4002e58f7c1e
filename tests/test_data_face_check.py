"""The judgment of landmarks: those of another frame, order or scale are refused, and every real pose is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_faces import draw_face, face_landmarks, write_landmarks
from hypothesis import given
from hypothesis import strategies as st
from test_data_prepare import FAST, report

from ecvae_jax.data.errors import BadPhotoError, DataError
from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.photos import face_shapes
from ecvae_jax.data.photos.face_check import _PARTS, check_face
from ecvae_jax.data.photos.face_shapes import fit_shapes, shape_error
from ecvae_jax.data.prepare.prepare import prepare
from ecvae_jax.structure.scheme import get_scheme

SIDE = 160
POINTS = [68, 98]
SCHEMES = {points: get_scheme(points) for points in POINTS}


def mirror(points: int) -> list[int]:
    return list(SCHEMES[points].mirror)


def unmarked(landmarks: np.ndarray, count: int, value: float) -> np.ndarray:
    return np.where(np.arange(len(landmarks))[:, None] < count, value, landmarks).astype(np.float32)


def exchanged(landmarks: np.ndarray, first: str, second: str) -> np.ndarray:
    parts = _PARTS[len(landmarks)]
    changed = landmarks.copy()
    changed[list(getattr(parts, first))] = landmarks[list(getattr(parts, second))]
    changed[list(getattr(parts, second))] = landmarks[list(getattr(parts, first))]
    return changed


WRONG = {
    "x and y swapped": (lambda face: face[:, ::-1], "mirrored"),
    "y upwards": (lambda face: np.stack([face[:, 0], SIDE - face[:, 1]], axis=1), "mirrored"),
    "left and right exchanged": (lambda face: face[mirror(len(face))], "mirrored"),
    "a mirrored photo's": (lambda face: np.stack([SIDE - face[:, 0], face[:, 1]], axis=1), "mirrored"),
    "upside down": (lambda face: SIDE - face, "face upside down"),
    "contour not visible": (lambda face: unmarked(face, 17, -1), "landmarks not marked: 17 of"),
    "one at zero": (lambda face: unmarked(face, 1, 0), "landmarks not marked: 1 of"),
    "not visible in .pts": (lambda face: unmarked(face, 9, -1.5), "landmarks not marked: 9 of"),
    "points in another order": (lambda face: np.roll(face, 20, axis=0), "landmarks are no face"),
    "off by one place": (lambda face: np.roll(face, 1, axis=0), "from any face"),
    "eyes exchanged": (lambda face: exchanged(face, "left_eye", "right_eye"), "from any face"),
    "scattered": (lambda face: face + np.random.default_rng(0).normal(0, 0.1 * SIDE, face.shape), "from any face"),
    "half a list": (lambda face: face[np.arange(len(face)) // 2], "landmarks are no face"),
    "beside the photo": (lambda face: face + 400, "landmarks outside"),
    "infinite": (lambda face: face * np.inf, "landmarks are not all numbers"),
}


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("kind", WRONG)
def test_landmarks_that_are_no_face_are_refused(kind: str, points: int) -> None:
    change, reason = WRONG[kind]
    face = face_landmarks(SIDE, points=points)
    check_face(face, SIDE, SIDE, 1.7)
    with pytest.raises(BadPhotoError, match=reason):
        check_face(np.ascontiguousarray(change(face), np.float32), SIDE, SIDE, 1.7)


@pytest.mark.parametrize("points", POINTS)
def test_the_stored_shapes_are_those_of_the_embedded_heads(points: int) -> None:
    heads = np.asarray(load_faces("rendered", "train").landmarks_as(points), np.float64)
    directions = fit_shapes(heads)
    stored = face_shapes._directions()[points]
    np.testing.assert_allclose(stored.T @ stored, directions.T @ directions, atol=3e-4)
    assert max(map(shape_error, heads[::7])) < 0.1
    turned = heads[0] @ np.array([[0.6, -0.8], [0.8, 0.6]]) * 300 + 50
    assert shape_error(turned) == pytest.approx(shape_error(heads[0]), abs=1e-3)


@pytest.mark.parametrize("points", POINTS)
def test_the_indices_are_those_of_the_schemes(points: int) -> None:
    parts, scheme = _PARTS[points], SCHEMES[points]
    curves = dict(scheme.boundaries)
    assert tuple(parts.contour) == curves["contour"]
    assert tuple(parts.nose_base) == curves["nose_base"]
    assert {*parts.brows} == {i for name, curve in curves.items() if name.startswith("brow") for i in curve}
    assert {*parts.mouth} == {*curves["lip_upper_outer"], *curves["lip_lower_outer"]}
    assert (tuple(parts.left_eye), tuple(parts.right_eye)) == scheme.eyes
    assert sorted(scheme.mirror[i] for i in parts.left) == sorted(parts.right)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("points", POINTS)
def test_every_rendered_head_is_a_face(split: str, points: int) -> None:
    """Yaw to 45°, pitch to 20°, expressions; turned by any roll to 90°, too."""
    landmarks = load_faces("rendered", split).landmarks_as(points)[::7] * 200
    for number, face in enumerate(landmarks):
        angle = np.radians(45.0 * (number % 3 - 1))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        check_face(((face - 100) @ turn + 200).astype(np.float32), 400, 400, 1.7)


@given(st.floats(-49, 49), st.floats(0.3, 30), st.floats(0, 500), st.floats(0, 500), st.sampled_from(POINTS))
def test_position_size_and_roll_change_nothing(
    degrees: float, scale: float, right: float, below: float, points: int
) -> None:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    face = (face_landmarks(SIDE, points=points) @ turn + 200) * scale + [right, below]
    _, notes = check_face(face.astype(np.float32), 20_000, 20_000, 1.7)
    assert notes == []


def photos_with(folder: Path, rows: dict[str, np.ndarray], size: int = SIDE, orientation: int = 1) -> Path:
    folder.mkdir()
    for name in rows:
        picture = draw_face(size)
        exif = picture.getexif()
        exif[274] = orientation
        if orientation == 6:  # stored so that 90° clockwise is upright
            picture = picture.rotate(90)
        picture.save(folder / name, exif=exif)
    write_landmarks(folder / "landmarks68.csv", rows)
    return folder


def test_landmarks_of_the_stored_frame_of_a_turned_photo_are_refused(tmp_path: Path) -> None:
    face = face_landmarks(SIDE)
    stored = np.stack([face[:, 1], SIDE - face[:, 0]], axis=1)
    photos = photos_with(tmp_path / "photos", {"stored.png": stored, "upright.png": face}, orientation=6)
    prepare(str(photos), tmp_path / "out", FAST)
    rows = report(tmp_path / "out")
    assert rows["stored.png"]["reason"].startswith("landmarks of another frame: they lie at ")
    assert "measure them in the upright photo" in rows["stored.png"]["reason"]
    assert (rows["upright.png"]["status"], rows["upright.png"]["notes"].split("; ")[0]) == (
        "kept",
        "rotated upright (EXIF)",
    )


def test_landmarks_of_half_the_size_are_refused_where_all_photos_have_them(tmp_path: Path) -> None:
    half = {f"{number}.png": face_landmarks(SIDE) / 2 for number in range(4)}
    with pytest.raises(DataError, match="4 × landmarks of another size"):
        prepare(str(photos_with(tmp_path / "photos", half)), tmp_path / "out", FAST)
    mixed = half | {f"{number}.png": face_landmarks(SIDE) for number in range(2)}
    assert prepare(str(photos_with(tmp_path / "mixed", mixed)), tmp_path / "out", FAST).kept == 4
    rows = report(tmp_path / "out")
    assert "upper left quarter" in rows["3.png"]["notes"]
    assert "upper left quarter" not in rows["0.png"]["notes"]


def test_a_face_cut_by_the_photos_edge_is_kept_with_a_note(tmp_path: Path) -> None:
    cut = {"cut.png": np.add(face_landmarks(SIDE), [55, 0])}
    prepare(str(photos_with(tmp_path / "photos", cut)), tmp_path / "out", FAST)
    assert "of the crop is beyond the photo and is its reflection" in report(tmp_path / "out")["cut.png"]["notes"]
