"""Faces named on a command line: records, photos, and every way to name them wrongly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecvae_jax.data import portraits
from ecvae_jax.data.batches import load_faces
from ecvae_jax.data.detect.detector import DetectedFace
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.portraits import load_portraits


class FakeDetector:
    """Finds as many faces as it was told, each a ring of landmarks."""

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


def use(monkeypatch: pytest.MonkeyPatch, detector: FakeDetector) -> None:
    monkeypatch.setattr(portraits, "load_detector", lambda name: detector)


def test_faces_of_records_in_the_order_given(tiny_records: Path) -> None:
    found = load_portraits([f"{tiny_records}:test:3,0", f"{tiny_records}:train:5-6"], 32, 98)
    test, train = load_faces(tiny_records, "test"), load_faces(tiny_records, "train")
    assert found.names == [test.names[3], test.names[0], train.names[5], train.names[6]]
    assert np.array_equal(found.images[1], test.image(0, 32))
    assert np.array_equal(found.landmarks[2], train.landmarks[5])
    assert load_portraits([f"{tiny_records}:test:0"], 32, 68).landmarks.shape == (1, 68, 2)


def test_photo_is_cropped_about_its_landmarks(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeDetector(1))
    found = load_portraits([str(photo)], 60, 68, margin=1.5)
    # The ring is 40 px wide about (50, 50): the crop is 60 px from 20 on, pixel for pixel.
    assert np.abs(found.images[0].astype(int) - np.asarray(Image.open(photo))[20:80, 20:80]).max() <= 1
    np.testing.assert_allclose(found.landmarks[0].mean(axis=0), [0.5, 0.5], atol=1e-5)
    np.testing.assert_allclose(np.ptp(found.landmarks[0], axis=0), [2 / 3, 2 / 3], atol=1e-3)
    assert found.notes == []


def test_of_several_faces_the_largest_is_taken_and_said(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeDetector(3))
    assert load_portraits([str(photo)], 32, 68).notes == [f"{photo}: 3 faces, the largest is taken"]


def test_every_bad_input_has_its_line(
    photo: Path, tiny_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, FakeDetector(0))
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    cases = {
        str(photo): "no face found by fake",
        str(tmp_path / "missing.jpg"): "no such photo",
        str(text): "not an image",
        f"{tiny_records}:test:48": "it has faces 0 to 47",
        f"{tiny_records}:validation:0": "has only",
        f"{tiny_records}:test:5-3": "must go upwards, as 3-5",
        f"{tmp_path}/none:test:0": "no such folder",
    }
    for spec, words in cases.items():
        with pytest.raises(DataError, match=words) as caught:
            load_portraits([spec], 32, 68)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no face is given"):
        load_portraits([], 32, 68)


def test_68_points_do_not_serve_a_model_of_98(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeDetector(1))
    with pytest.raises(DataError, match=r"finds 68 landmarks and the model was trained on 98; train one with"):
        load_portraits([str(photo)], 32, 98)
