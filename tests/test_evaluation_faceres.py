"""The second face embedder and LPIPS in evaluations: files, crops, and what a missing one reports."""

import sys
from pathlib import Path

import numpy as np
import pytest

from ecvae_jax.data.errors import DataError, MissingExtraError
from ecvae_jax.evaluation.faceres import FaceRes, cut_face, read_weights
from ecvae_jax.evaluation.metrics import METRICS, Drawn, pair_values
from ecvae_jax.evaluation.scoring import load_measures

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def test_without_the_package_it_is_not_measured_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"npm install --ignore-scripts @vladmandic/human@3.3.6"):
        FaceRes()
    measures, notes = load_measures("all")
    assert measures.second is None
    assert sum("identity by a second network is not measured: it needs `npm install" in note for note in notes) == 1


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name in ("faceres.json", "faceres.bin"):
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(DataError, match=r"faceres.json: sha256 .*, must be 5b83d49c"):
        read_weights(tmp_path)


def test_the_crop_follows_the_landmarks_and_is_black_outside() -> None:
    image = np.full((64, 64, 3), 200, np.uint8)
    inside = np.random.default_rng(1).uniform(0.4, 0.6, (68, 2))
    assert (cut_face(image, inside) == 200).all()
    assert (cut_face(image, inside + 0.45)[-40:, -40:] == 0).all()
    assert cut_face(image, inside).shape == (224, 224, 3)


def test_rows_of_the_table_are_computed_only_from_what_was_measured() -> None:
    needs = {metric.key: metric.needs for metric in METRICS}
    assert needs["lpips"] == "lpips"
    assert needs["identity_faceres"] == "faceres"
    assert not {"lpips", "identity_faceres", "identity"} & set(pair_values(Drawn(IMAGES, IMAGES)))
    vectors = np.eye(3), np.eye(3)[[0, 1, 0]]
    values = pair_values(Drawn(IMAGES, IMAGES, lpips=lambda a, b: np.arange(3.0), vectors=vectors))
    np.testing.assert_array_equal(values["lpips"], [0, 1, 2])
    np.testing.assert_allclose(values["identity_faceres"], [0, 0, 2**0.5])


def test_the_network_tells_images_apart_by_vectors_of_unit_length() -> None:
    try:
        network = FaceRes()
    except MissingExtraError as error:
        pytest.skip(str(error))
    landmarks = np.random.default_rng(1).uniform(0.3, 0.7, (3, 68, 2))
    vectors = network.describe(IMAGES, landmarks)
    assert vectors.shape == (3, 1024)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)
    np.testing.assert_allclose(network.describe(IMAGES[:1], landmarks[:1]), vectors[:1], atol=1e-5)
