"""Training batches: a pure function of (seed, step) on any number of hosts; pairs and mirroring as documented."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import make_records

from ecvae_jax.config import DataConfig
from ecvae_jax.data import batches as pipeline
from ecvae_jax.data.batches import Faces, load_faces, training_batches
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.records import FaceRecord, write_records
from ecvae_jax.structure.scheme import get_scheme, mirror_landmarks

COUNT = 23
PLAIN = DataConfig(points=68, mirror=False, pairs=0.0)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    return load_faces(make_records(tmp_path_factory.mktemp("records") / "faces", count=COUNT), "train")


def take(faces: Faces, config: DataConfig, steps: int, batch_size: int = 8, seed: int = 5, size: int = 32, **kwargs):
    batches = training_batches(faces, config, size, batch_size, seed, **kwargs)
    return list(itertools.islice(batches, steps))


def joined(batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def same(left: list[dict[str, np.ndarray]], right: list[dict[str, np.ndarray]]) -> bool:
    return all(np.array_equal(a[key], b[key]) for a, b in zip(left, right, strict=True) for key in a)


def which(images: np.ndarray) -> np.ndarray:
    """Returns the index of each face, from its red channel."""
    return np.rint(images[..., 0].mean(axis=(1, 2)) / 8).astype(int)


def flipped(images: np.ndarray) -> np.ndarray:
    """Returns whether the bright half is on the right."""
    return images[:, :, -4:, 1].mean(axis=(1, 2)) > 100


def test_batches_have_the_documented_names_shapes_and_types(faces: Faces):
    (batch,) = take(faces, DataConfig(points=68), 1)
    assert set(batch) == {"source_image", "source_landmarks", "image", "landmarks"}
    for prefix in ("", "source_"):
        assert batch[f"{prefix}image"].shape == (8, 32, 32, 3)
        assert batch[f"{prefix}image"].dtype == np.uint8
        assert batch[f"{prefix}landmarks"].shape == (8, 68, 2)
        assert batch[f"{prefix}landmarks"].dtype == np.float32


def test_each_epoch_is_a_permutation_and_they_differ(faces: Faces):
    seen = which(joined(take(faces, PLAIN, 4 * COUNT))["image"])[: 32 * COUNT].reshape(32, COUNT)
    assert (np.sort(seen, axis=1) == np.arange(COUNT)).all()
    assert len({tuple(epoch) for epoch in seen}) == 32


def test_another_seed_is_another_order(faces: Faces):
    assert not same(take(faces, PLAIN, 3, seed=5), take(faces, PLAIN, 3, seed=6))


@pytest.mark.parametrize("start", [1, 2, 3, 10])
def test_starting_at_a_step_resumes_the_sequence(faces: Faces, start: int):
    config = DataConfig(points=68)
    assert same(take(faces, config, start + 4)[start:], take(faces, config, 4, start_step=start))


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_batch_of_one_host(faces: Faces, hosts: int):
    config = DataConfig(points=68, pairs=0.5)
    parts = [take(faces, config, 5, process_index=i, process_count=hosts) for i in range(hosts)]
    together = [joined([part[step] for part in parts]) for step in range(5)]
    assert same(together, take(faces, config, 5))


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("pairs", [0.0, 0.75])
def test_with_and_without_cache_the_batches_are_the_same(faces: Faces, size: int, pairs: float):
    cached, read = (DataConfig(points=68, pairs=pairs, cache=cache) for cache in ("host", "off"))
    assert same(take(faces, cached, 4, size=size), take(faces, read, 4, size=size))


def test_too_large_a_cache_is_not_filled(
    faces: Faces, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    expected = take(faces, PLAIN, 2)
    monkeypatch.setattr("ecvae_jax.data.batches.available_memory", lambda: 10_000.0)
    assert same(take(faces, PLAIN, 2), expected)
    assert "decoding them on demand" in caplog.text


@pytest.mark.parametrize("size", [16, 32])
def test_images_and_landmarks_belong_together(faces: Faces, size: int):
    batch = joined(take(faces, DataConfig(points=68, mirror=False, pairs=0.5), 6, size=size))
    for prefix in ("", "source_"):
        index = which(batch[f"{prefix}image"])
        np.testing.assert_array_equal(batch[f"{prefix}landmarks"], faces.landmarks[index])
        np.testing.assert_allclose(batch[f"{prefix}image"], faces.images(index, size), atol=1)


def test_pairs_are_other_views_of_the_same_group(faces: Faces):
    batch = joined(take(faces, DataConfig(points=68, mirror=False, pairs=1.0), 60))
    target, source = which(batch["image"]), which(batch["source_image"])
    assert (target // 3 == source // 3).all()
    assert (target != source).all()  # every group has at least two here
    partners = {(t, s) for t, s in zip(target.tolist(), source.tolist(), strict=True)}
    assert len(partners) == 7 * 6 + 2  # all ordered pairs: seven groups of three, one of two


def test_the_requested_fraction_is_paired(faces: Faces):
    batch = joined(take(faces, DataConfig(points=68, mirror=False, pairs=0.3), 100))
    paired = (which(batch["image"]) != which(batch["source_image"])).mean()
    assert abs(paired - 0.3) < 0.06
    alone = joined(take(faces, PLAIN, 5))
    np.testing.assert_array_equal(alone["image"], alone["source_image"])
    np.testing.assert_array_equal(alone["landmarks"], alone["source_landmarks"])


def test_a_group_of_one_is_its_own_pair(tmp_path: Path):
    single = load_faces(make_records(tmp_path / "faces", count=5, group_size=1), "train")
    batch = joined(take(single, DataConfig(points=68, pairs=1.0), 3))
    np.testing.assert_array_equal(batch["image"], batch["source_image"])


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_faces_than_a_batch(tmp_path: Path, count: int):
    few = load_faces(make_records(tmp_path / "faces", count=count), "train")
    seen = which(joined(take(few, PLAIN, 2))["image"])
    assert (np.sort(seen.reshape(-1, count), axis=1) == np.arange(count)).all()


@pytest.mark.parametrize("pairs", [0.0, 1.0])
def test_a_mirrored_example_is_mirrored_in_all_its_parts(faces: Faces, pairs: float):
    batch = joined(take(faces, DataConfig(points=68, pairs=pairs), 20))
    flips = flipped(batch["image"])
    assert 0.35 < flips.mean() < 0.65
    np.testing.assert_array_equal(flipped(batch["source_image"]), flips)
    scheme = get_scheme(68)
    for prefix in ("", "source_"):
        index = which(batch[f"{prefix}image"])
        stored = faces.landmarks[index]
        expected = np.where(flips[:, None, None], np.asarray(mirror_landmarks(stored, scheme)), stored)
        np.testing.assert_allclose(batch[f"{prefix}landmarks"], expected, atol=1e-6)
        pixels = faces.images(index)
        expected = np.where(flips[:, None, None, None], pixels[:, :, ::-1], pixels)
        np.testing.assert_allclose(batch[f"{prefix}image"], expected, atol=1)


def test_98_point_records_train_a_68_point_model_and_not_the_other_way(tmp_path: Path, faces: Faces):
    rich = load_faces(make_records(tmp_path / "faces", points=98), "train")
    (batch,) = take(rich, PLAIN, 1)
    np.testing.assert_array_equal(batch["landmarks"], rich.landmarks_as(68)[which(batch["image"])])
    with pytest.raises(DataError, match="68 landmarks"):
        take(faces, DataConfig(points=98), 1)


def test_a_batch_that_hosts_cannot_share_is_refused(faces: Faces):
    with pytest.raises(DataError, match="batch_size=8: must be a multiple of the number of hosts, 3"):
        take(faces, PLAIN, 1, process_count=3)


def test_pairing_and_mirroring_are_independent(faces: Faces):
    batch = joined(take(faces, DataConfig(points=68, pairs=0.5), 150))
    paired = which(batch["image"]) != which(batch["source_image"])
    flips = flipped(batch["image"])
    assert abs(paired[flips].mean() - paired[~flips].mean()) < 0.1


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="the system has no /proc/meminfo")
def test_memory_of_the_page_cache_counts_as_available():
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = 1024 * int(lines["MemAvailable"].split()[0])
    assert pipeline.available_memory() == pytest.approx(available, rel=0.2)


def test_joined_records_are_one_set(tiny_records: Path, tmp_path: Path) -> None:
    half = load_faces(tiny_records, "train")
    joined = load_faces(f"{tiny_records}+rendered", "train")
    rendered = load_faces("rendered", "train")
    assert len(joined) == len(half) + len(rendered)
    assert np.array_equal(
        joined.images([len(half) + 7, 3, len(half)]),
        np.concatenate([rendered.images([7]), half.images([3]), rendered.images([0])]),
    )
    assert joined.tags[len(half) + 7] == rendered.tags[7]
    assert set(joined.groups[: len(half)]).isdisjoint(joined.groups[len(half) :])
    assert len(set(joined.names)) == len(joined)
    assert joined.fingerprint not in (half.fingerprint, rendered.fingerprint)
    batch = next(training_batches(joined, DataConfig(cache="off"), 32, 8, seed=0))
    assert batch["image"].shape == (8, 32, 32, 3)


def test_joined_records_come_in_the_smaller_scheme(tiny_records: Path, tmp_path: Path) -> None:
    faces = load_faces(tiny_records, "train")
    records = [
        FaceRecord(*fields)
        for fields in zip(
            faces.encoded(range(4)),
            faces.landmarks_as(68),
            faces.identities,
            faces.groups,
            faces.names,
            faces.tags,
            strict=False,
        )
    ]
    facts = {**faces.metadata, "points": 68, "detector": "dlib-68 (some version)"}
    write_records(tmp_path / "small", {"train": records}, facts)
    joined = load_faces(f"{tiny_records}+{tmp_path / 'small'}", "train")
    assert joined.points == 68
    assert joined.landmarks.shape == (len(faces) + 4, 68, 2)
    assert joined.metadata["detector"] == "dlib-68 (some version)"
    write_records(tmp_path / "other", {"train": records}, {**facts, "margin": 2.0})
    with pytest.raises(DataError, match="must have the same margin"):
        load_faces(f"{tiny_records}+{tmp_path / 'other'}", "train")
