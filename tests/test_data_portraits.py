"""Faces for a model: records, photos, the model's own detector and margin, and the message of each bad input."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ecvae_jax.config import Config, DataConfig, ModelConfig
from ecvae_jax.data import portraits
from ecvae_jax.data.detect.detector import DetectedFace
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.portraits import PortraitReader, load_portraits


class FakeDetector:
    """Finds a fixed number of faces, each a ring of landmarks."""

    name = "fake"

    def __init__(self, faces: int, points: int = 68) -> None:
        self.faces, self.points = faces, points

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        angle = np.linspace(0, 2 * np.pi, self.points, endpoint=False)
        ring = 50 + 20 * np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        return [DetectedFace((30, 30, 70 - i, 70 - i), ring, self.points) for i in range(self.faces)]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 120, 3)).astype(np.uint8)).save(path)
    return path


def use(monkeypatch: pytest.MonkeyPatch, detector: FakeDetector) -> list[str]:
    """Replaces all detectors; returns the list of the names that will be loaded."""
    loaded: list[str] = []
    monkeypatch.setattr(portraits, "load_detector", lambda name: (loaded.append(name), detector)[1])
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
    # The ring is 40 px wide about (50, 50): the crop is the 60 px from 20 on, pixel for pixel.
    assert np.abs(found.images[0].astype(int) - np.asarray(Image.open(photo))[20:80, 20:80]).max() <= 1
    np.testing.assert_allclose(found.landmarks[0].mean(axis=0), [0.5, 0.5], atol=1e-5)
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
