"""Faces for a model: records, photos, the model's own detector and margin, and the message of each bad input."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from drawn_faces import draw_face, face_landmarks
from PIL import Image

from ecvae_jax.config import Config, DataConfig, ModelConfig
from ecvae_jax.data import portraits
from ecvae_jax.data.detect.detector import DetectedFace
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.portraits import NoFaceError, PortraitReader, load_portraits

UPSIDE_DOWN = (116, 230, 299)
"""Rendered heads in which HOG finds a false face when they are upside down."""


class FakeDetector:
    """Finds a fixed number of faces, each the drawn face's landmarks scaled to the 40 px about (50, 50)."""

    name = "fake"

    def __init__(self, faces: int, points: int = 68) -> None:
        self.faces, self.points = faces, points

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        face = face_landmarks(100, points=self.points)
        face = 30 + 40 * (face - face.min(axis=0)) / np.ptp(face, axis=0)
        return [DetectedFace((30, 30, 70 - i, 70 - i), face, self.points) for i in range(self.faces)]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 120, 3)).astype(np.uint8)).save(path)
    return path


def use(monkeypatch: pytest.MonkeyPatch, detector: FakeDetector) -> list[str]:
    """Replaces all detectors; returns the list of the names that will be loaded."""
    loaded: list[str] = []
    monkeypatch.setattr(portraits, "load_detector", lambda name, video: (loaded.append(name), detector)[1])
    return loaded


def read(*specs: object, points: int = 68) -> portraits.Portraits:
    return PortraitReader(32, points).read([str(spec) for spec in specs])


def test_faces_of_records_in_the_order_given(tiny_records: Path) -> None:
    found = read(f"{tiny_records}:test:3,0", f"{tiny_records}:train:5-6", points=98)
    test, train = load_faces(tiny_records, "test"), load_faces(tiny_records, "train")
    assert found.names == [test.names[3], test.names[0], train.names[5], train.names[6]]
    assert np.array_equal(found.images[1], test.image(0, 32))
    assert np.array_equal(found.landmarks[2], train.landmarks[5])
    assert read(f"{tiny_records}:test:0").landmarks.shape == (1, 68, 2)


def test_photo_is_cropped_about_its_landmarks(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeDetector(1))
    found = PortraitReader(60, 68, margin=1.5).read([photo])
    # The face is 40 px wide about (50, 50): the crop is the 60 px from 20 on, pixel for pixel.
    assert np.abs(found.images[0].astype(int) - np.asarray(Image.open(photo))[20:80, 20:80]).max() <= 1
    low, high = found.landmarks[0].min(axis=0), found.landmarks[0].max(axis=0)
    np.testing.assert_allclose((low + high) / 2, [0.5, 0.5], atol=1e-5)
    np.testing.assert_allclose(np.ptp(found.landmarks[0], axis=0), [2 / 3, 2 / 3], atol=1e-3)
    assert found.notes == []


def test_the_model_determines_size_points_margin_and_detector(
    photo: Path, tiny_records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = use(monkeypatch, FakeDetector(1, points=98))
    config = Config(data=DataConfig(points=68), model=ModelConfig(image_size=64))
    model = SimpleNamespace(config=config, records={"margin": 1.5, "detector": "mediapipe-98 (some version)"})
    found = load_portraits(model, [photo, f"{tiny_records}:test:1", photo])
    assert loaded == ["mediapipe-98"]  # once for two photos
    assert found.images.shape == (3, 64, 64, 3)
    assert found.images.dtype == np.uint8
    assert found.landmarks.shape == (3, 68, 2)
    assert found.landmarks.dtype == np.float32
    explicit = PortraitReader(64, 68, 1.5, "mediapipe-98").read([photo])
    np.testing.assert_array_equal(found.images[0], explicit.images[0])
    np.testing.assert_array_equal(found.landmarks[2], explicit.landmarks[0])
    unknown = PortraitReader.of_model(SimpleNamespace(config=config, records={}))
    assert (unknown.margin, unknown.detector_name) == (portraits.DEFAULT_MARGIN, "dlib-68")


def test_portraits_unpack_index_and_slice_to_portraits(tiny_records: Path) -> None:
    found = read(f"{tiny_records}:test:0-3")
    assert len(found) == 4
    first, *_, last = found
    assert first.images.shape == (1, 32, 32, 3)
    assert last.names == found.names[3:]
    np.testing.assert_array_equal(last.images, found.images[3:])
    np.testing.assert_array_equal(found[-1].landmarks, last.landmarks)
    assert found[1:3].names == found.names[1:3]
    with pytest.raises(IndexError):
        found[4]


def test_of_several_faces_the_largest_is_used_and_noted(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeDetector(3))
    assert read(photo).notes == [f"{photo}: 3 faces, using the largest"]


def test_every_bad_input_has_its_line(
    photo: Path, tiny_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, FakeDetector(0))
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    cases = {
        str(photo): "fake found no face",
        str(tmp_path / "missing.jpg"): "no such photo",
        str(text): "not an image",
        f"{tiny_records}:test:48": "out of range; the split has faces 0 to 47",
        f"{tiny_records}:validation:0": "has only",
        f"{tiny_records}:test:5-3": "must ascend, as 3-5",
        f"{tmp_path}/none:test:0": "no such folder",
    }
    for spec, words in cases.items():
        with pytest.raises(DataError, match=words) as caught:
            read(spec)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no face is given"):
        read()


def test_a_detector_of_68_points_does_not_serve_a_model_of_98(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeDetector(1))
    with pytest.raises(DataError, match=r"finds 68 landmarks, but the model was trained on 98; train one with"):
        read(photo, points=98)


class DrawnDetector:
    """Finds the drawn face, turned about the center of the photo of 160 px and moved."""

    name, points = "drawn", 68

    def __init__(self, degrees: float = 0.0, move: float = 0.0) -> None:
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turned = (face_landmarks(160) - 80) @ np.array([[cos, sin], [-sin, cos]]) + 80 + [move, 0]
        self.face = DetectedFace((0, 0, 160, 160), turned.astype(np.float32), 68)

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        return [self.face]


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    draw_face(160).save(tmp_path / "drawn.png")
    return tmp_path / "drawn.png"


def test_a_face_that_prepare_would_note_or_refuse_is_noted_or_refused_here(
    drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, DrawnDetector(move=60.0))  # type: ignore[arg-type]
    (note,) = read(drawn).notes
    assert re.fullmatch(rf"{drawn}: \d+% of the crop is beyond the photo and is its reflection", note)
    use(monkeypatch, DrawnDetector(90.0))  # type: ignore[arg-type]
    assert any("the face lies sideways: its roll is 90°" in note for note in read(drawn).notes)
    use(monkeypatch, DrawnDetector(180.0))  # type: ignore[arg-type]
    with pytest.raises(NoFaceError, match=r"face upside down: its roll is -?180°; turn the photo"):
        read(drawn)
    use(monkeypatch, DrawnDetector(move=120.0))  # type: ignore[arg-type]
    with pytest.raises(NoFaceError, match="landmarks outside"):
        read(drawn)


def test_mediapipe_tells_an_upside_down_face(tmp_path: Path) -> None:
    """Of 20 rendered heads turned by 180°, BlazeFace and the mesh see a false upright face in 15; the first is one."""
    pytest.importorskip("ai_edge_litert", reason="needs extra mediapipe")
    head = Image.fromarray(load_faces("rendered", "test").image(0)).resize((256, 256))
    head.save(tmp_path / "upright.png")
    head.rotate(180).save(tmp_path / "down.png")
    reader = PortraitReader(32, 98, detector_name="mediapipe-98")
    assert len(reader.read([tmp_path / "upright.png"])) == 1
    with pytest.raises(NoFaceError, match="face upside down"):
        reader.read([tmp_path / "down.png"])


@pytest.mark.parametrize("kind", ["upright", "upside down"])
def test_dlib_finds_no_face_in_an_upside_down_photo(tmp_path: Path, kind: str) -> None:
    """Of 80 rendered heads turned by 180°, HOG finds a weak false face in 11; these are three of them."""
    pytest.importorskip("dlib", reason="needs extra dlib")
    for index in UPSIDE_DOWN:
        head = Image.fromarray(load_faces("rendered", "test").image(index)).resize((256, 256))
        head.rotate(180 if kind == "upside down" else 0).save(tmp_path / "photo.png")
        if kind == "upright":
            assert len(read(tmp_path / "photo.png")) == 1
        else:
            with pytest.raises(NoFaceError, match="found no face"):
                read(tmp_path / "photo.png")


def test_a_photo_of_108_megapixels_is_read_and_a_larger_one_names_no_option_of_prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, FakeDetector(1))
    Image.new("L", (12000, 9000)).save(tmp_path / "phone.png")
    assert len(read(tmp_path / "phone.png")) == 1
    Image.new("1", (20000, 16000)).save(tmp_path / "scan.png")
    with pytest.raises(DataError, match=r"320 megapixels, at most 250; give a smaller copy$"):
        read(tmp_path / "scan.png")
