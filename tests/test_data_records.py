"""The records folder: written completely or not at all, and read by index here and by tensorflow-datasets."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import make_records
from PIL import Image

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import load_faces, record_splits
from ecvae_jax.data.records import FaceRecord, encode_record, plan_shards, write_records

METADATA = {"points": 68, "image_size": 16, "source": "drawn", "detector": "none", "margin": 1.5}


def jpeg(value: int = 100) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (value, value, value)).save(stream, "JPEG")
    return stream.getvalue()


def record(name: str, value: int = 100) -> FaceRecord:
    landmarks = np.full((68, 2), 0.25, np.float32)
    return FaceRecord(jpeg(value), landmarks, "Zoë", "Zoë/1", name, {"pose": [1, 2], "light": "ü"})


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_records(tmp_path_factory.mktemp("records") / "faces")


def test_what_was_written_is_read(tmp_path: Path):
    write_records(tmp_path / "out", {"train": [record("a"), record("b", 30)]}, METADATA)
    faces = load_faces(tmp_path / "out", "train")
    assert len(faces) == 2
    assert faces.names == ["a", "b"]
    assert faces.identities == ["Zoë"] * 2
    assert faces.groups[1] == "Zoë/1"
    assert faces.tags[0] == {"pose": [1, 2], "light": "ü"}
    assert faces.points == 68
    assert faces.image_size == 16
    assert faces.metadata["source"] == "drawn"
    assert faces.landmarks.dtype == np.float32
    assert (faces.landmarks == 0.25).all()
    assert faces.encoded([1, 0]) == [jpeg(30), jpeg(100)]  # byte for byte, not encoded again
    assert record_splits(tmp_path / "out") == {"train": 2}


def test_images_come_by_index_at_any_size(records: Path):
    faces = load_faces(records, "train")
    for size in (None, 16, 32, 50):
        images = faces.images([20, 3, 3, 7], size)
        assert images.shape == (4, size or 32, size or 32, 3)
        assert images.dtype == np.uint8
        np.testing.assert_allclose(images[..., 0].mean(axis=(1, 2)), [160, 24, 24, 56], atol=2)
    np.testing.assert_array_equal(faces.image(7, 16), faces.images([7], 16)[0])
    means = faces.image(7).reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(faces.image(7, 16), means, atol=1.01)
    assert faces.images([]).shape == (0, 32, 32, 3)


def test_another_program_reads_it_with_tensorflow_datasets_alone(records: Path, tmp_path: Path):
    program = """
import sys
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory(sys.argv[1])
train = builder.as_data_source(split="train")
print(len(train), train[5]["image"].shape, train[5]["landmarks"].shape, train[5]["name"].decode(),
      builder.info.metadata["points"], "ecvae_jax" in sys.modules)
"""
    environment = {**os.environ, "HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program, str(records)], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "23 (32, 32, 3) (68, 2) face 5 68 False"
    assert not (tmp_path / "tensorflow_datasets").exists()


def test_the_same_records_give_the_same_bytes(tmp_path: Path):
    assert digest(make_records(tmp_path / "a" / "faces")) == digest(make_records(tmp_path / "b" / "faces"))


def test_features_are_in_sorted_order():
    """By default their order is a hash that differs between processes, and so do the bytes."""
    encoded = encode_record(record("a"))
    places = [encoded.index(name) for name in (b"group", b"identity", b"image", b"landmarks", b"name", b"tags")]
    assert places == sorted(places)


def test_a_small_set_has_one_file_and_a_large_one_files_of_64_mib_or_more():
    assert plan_shards("train", 0, 0) == {}
    assert plan_shards("train", 1000, 2**26) == {"ecvae_faces-train.array_record-00000-of-00001": range(1000)}
    plan = plan_shards("test", 1001, 300 * 2**20)
    assert list(plan) == [f"ecvae_faces-test.array_record-{i:05d}-of-00004" for i in range(4)]
    assert [place for places in plan.values() for place in places] == list(range(1001))
    assert max(map(len, plan.values())) - min(map(len, plan.values())) <= 1
    assert len(plan_shards("train", 3, 100, shards=4)) == 3


def test_nothing_is_left_in_the_folder_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    make_records(tmp_path / "faces")
    assert list(temporary.iterdir()) == []


def test_nothing_is_left_of_a_failed_writing(tmp_path: Path):
    def failing() -> Iterator[FaceRecord]:
        yield record("a")
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk is full"):
        write_records(tmp_path / "out", {"train": failing()}, METADATA)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused(tmp_path: Path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="out exists"):
        write_records(tmp_path / "out", {"train": [record("a")]}, METADATA)


def test_wrong_metadata_and_splits_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"metadata lacks \['margin'\]"):
        write_records(tmp_path / "out", {"train": [record("a")]}, {k: v for k, v in METADATA.items() if k != "margin"})
    with pytest.raises(DataError, match="split 'dev'"):
        write_records(tmp_path / "out", {"dev": [record("a")]}, METADATA)


@pytest.mark.parametrize("damage", ["missing", "empty", "bad json", "no metadata", "cut shard", "lost shard", "points"])
def test_what_is_no_records_folder_is_refused_in_one_line(tmp_path: Path, damage: str):
    folder = tmp_path / "faces"
    if damage != "missing":
        folder.mkdir()
    if damage == "bad json":
        (folder / "dataset_info.json").write_text("{")
    if damage == "no metadata":
        make_records(tmp_path / "made")
        (tmp_path / "made").rename(folder / "made")
        folder = folder / "made"
        (folder / "metadata.json").unlink()
    if damage.endswith("shard"):
        make_records(folder / "made")
        folder = folder / "made"
        (shard,) = folder.glob("*train.array_record*")
        shard.write_bytes(shard.read_bytes()[:100]) if damage == "cut shard" else shard.unlink()
    if damage == "points":
        make_records(folder / "made")
        folder = folder / "made"
        metadata = json.loads((folder / "metadata.json").read_text())
        (folder / "metadata.json").write_text(json.dumps({**metadata, "points": metadata["points"] - 1}))
    with pytest.raises(DataError) as caught:
        load_faces(folder, "train")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "prepare" in str(caught.value)


def test_an_unknown_split_is_refused(records: Path):
    with pytest.raises(DataError, match=r"split 'validation': .* has only \['test', 'train'\]"):
        load_faces(records, "validation")


def test_landmarks_are_converted_from_98_to_68_and_not_back(tmp_path: Path, records: Path):
    faces = load_faces(make_records(tmp_path / "faces", points=98), "train")
    assert faces.landmarks_as(98) is faces.landmarks
    assert faces.landmarks_as(68).shape == (23, 68, 2)
    with pytest.raises(DataError, match="has 68 landmarks per face, but the model needs 98"):
        load_faces(records, "train").landmarks_as(98)


def test_metadata_is_plain_json(records: Path):
    assert json.loads((records / "metadata.json").read_text())["points"] == 68


def test_the_fingerprint_differs_between_sets_of_faces(tmp_path: Path, records: Path):
    first = load_faces(records, "train").fingerprint
    assert first == load_faces(make_records(tmp_path / "again"), "train").fingerprint
    assert first != load_faces(records, "test").fingerprint
    assert first != load_faces(make_records(tmp_path / "fewer", count=10), "train").fingerprint
