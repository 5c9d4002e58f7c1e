"""Sets of tensorflow-datasets as a source of photos: a small set of CelebA's features, prepared by tfds itself."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.host_tf import load_tfds
from ecvae_jax.data.photos.photo import read_photo
from ecvae_jax.data.photos.sources import open_source
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.prepare import prepare

tfds = load_tfds()
POINTS = [f"{part}_{axis}" for part in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"]
COUNTS = {"train": 5, "validation": 3, "test": 4}


class TinyCelebA(tfds.core.GeneratorBasedBuilder):
    """CelebA's features; the gray level of each image is its number."""

    VERSION = tfds.core.Version("2.0.1")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(218, 178, 3), encoding_format="jpeg"),
                    "landmarks": tfds.features.FeaturesDict({name: np.int64 for name in POINTS}),
                    "attributes": tfds.features.FeaturesDict({"Smiling": np.bool_, "Young": np.bool_}),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(count) for split, count in COUNTS.items()}

    def _generate_examples(self, count):
        for number in range(count):
            stream = io.BytesIO()
            Image.new("RGB", (178, 218), (20 * number,) * 3).save(stream, "JPEG")
            yield (
                number,
                {
                    "image": io.BytesIO(stream.getvalue()),
                    "landmarks": {name: number for name in POINTS},
                    "attributes": {"Smiling": number % 2 == 0, "Young": True},
                },
            )


class TinyText(tfds.core.GeneratorBasedBuilder):
    """A set without images."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"text": "x"}


@pytest.fixture
def celeb_a(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = tfds.builder
    monkeypatch.setattr(tfds, "builder", lambda name: builder(name, data_dir=str(tmp_path / "tfds")))


def test_celeb_a_keeps_its_splits_landmarks_and_attributes(celeb_a: None):
    source = open_source("tfds:tiny_celeb_a")
    assert [photo.split for photo in source.photos] == [split for split, count in COUNTS.items() for _ in range(count)]
    assert source.label == "tfds:tiny_celeb_a/2.0.1"
    loaded = list(source.load(0))
    for photo, one in zip(source.photos, loaded, strict=True):
        number = int(photo.name.split("/")[1])
        pixels, _ = read_photo(one.content)
        assert pixels.shape == (218, 178, 3)
        assert abs(float(pixels.mean()) - 20 * number) < 2
        assert one.tags["landmarks"] == {name: number for name in POINTS}
        assert one.tags["attributes"] == {"Smiling": number % 2 == 0, "Young": True}
    for start in range(len(loaded) + 1):
        assert list(source.load(start)) == loaded[start:]


def test_its_splits_are_those_of_the_records_and_its_tags_are_kept(celeb_a: None, tmp_path: Path):
    from drawn_faces import face_landmarks, write_landmarks

    rows = {photo.name: face_landmarks(150) for photo in open_source("tfds:tiny_celeb_a").photos}
    write_landmarks(tmp_path / "rows.csv", rows)
    options = PrepareConfig(size=32, workers=1, landmarks=str(tmp_path / "rows.csv"))
    summary = prepare("tfds:tiny_celeb_a", tmp_path / "out", options)
    assert summary.splits == COUNTS
    from ecvae_jax.data.faces import load_faces

    faces = load_faces(tmp_path / "out", "test")
    assert [tags["landmarks"]["nose_x"] for tags in faces.tags] == [0, 1, 2, 3]


def test_one_split_can_be_requested(celeb_a: None):
    source = open_source("tfds:tiny_celeb_a:test")
    assert [photo.name for photo in source.photos] == [f"test/{n:07d}" for n in range(4)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tfds:no_such_set", "cannot provide 'no_such_set'"),
        ("tfds:tiny_celeb_a:dev", "no split 'dev'; must be one of"),
        ("tfds:tiny_text", "is an image"),
    ],
)
def test_an_unavailable_set_gives_one_line(celeb_a: None, name: str, message: str):
    with pytest.raises(DataError, match=message) as caught:
        open_source(name)
    assert "\n" not in str(caught.value)


def test_filters_of_multipie_do_not_fit(celeb_a: None):
    with pytest.raises(DataError, match="applies only to multipie:DIR"):
        open_source("tfds:tiny_celeb_a", PrepareConfig(camera="05_1"))
