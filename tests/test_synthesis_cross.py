"""A grid of sources and targets is the pictures of its pairs, with each face encoded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.config import AdaptConfig
from ecvae_jax.data.faces import load_faces
from ecvae_jax.model.model import condition_of
from ecvae_jax.synthesis import cross
from ecvae_jax.synthesis.adapt import transfer_adapted
from ecvae_jax.synthesis.cross import transfer_cross


@pytest.fixture(scope="module")
def faces_and_model(tiny_workdir: Path):
    model = load_model(tiny_workdir)
    faces = load_faces(model.config.data.records, "test")
    return model, faces.images(range(3), 32), faces.landmarks[:3], faces.landmarks[10:15]


@pytest.mark.parametrize(("detail", "transport"), [(1.0, True), (0.0, False)])
def test_a_grid_is_the_pictures_of_its_pairs(faces_and_model, detail: float, transport: bool) -> None:
    model, images, landmarks, targets = faces_and_model
    adaptation = AdaptConfig(detail=detail)
    grid = transfer_cross(model, images, landmarks, targets, transport, adaptation)
    assert grid.shape == (3, 5, 32, 32, 3)
    repeated = np.repeat(images, 5, axis=0), np.repeat(landmarks, 5, axis=0), np.tile(targets, (3, 1, 1))
    pairs = transfer_adapted(model, *repeated, transport, adaptation).reshape(grid.shape)
    assert np.abs(grid.astype(int) - pairs).max() <= 1
    assert np.abs(grid[0].astype(int) - grid[1]).mean() > 1
    assert np.abs(grid[:, 0].astype(int) - grid[:, 1]).mean() > 0.1


def test_blocks_hold_the_pictures_in_their_places(faces_and_model, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, landmarks, targets = faces_and_model
    whole = transfer_cross(model, images, landmarks, targets)
    monkeypatch.setattr(cross, "_ROWS", 1)
    monkeypatch.setattr(cross, "BATCH", 4)  # blocks of 2 × 2, the last ones 1 × 2, 2 × 1 and 1 × 1
    assert np.abs(whole.astype(int) - transfer_cross(model, images, landmarks, targets)).max() <= 1


def test_one_picture_needs_one_decoder_and_one_condition(faces_and_model) -> None:
    """The first picture of a process waits for its programs: see docs/measurements/speed.md, first picture."""
    model, images, landmarks, targets = faces_and_model
    programs: list[Any] = [cross._decode, cross.compiled_condition]
    for program in programs:
        program.clear_cache()
    transfer_cross(model, images[:1], landmarks[:1], targets[:1])
    condition_of(model, targets[:1])  # its sketch stands beside the picture
    assert [program._cache_size() for program in programs] == [1, 1]


def test_each_source_is_encoded_once(faces_and_model, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, landmarks, targets = faces_and_model
    read, rows = cross._read, []
    monkeypatch.setattr(cross, "_read", lambda *inputs: (rows.append(len(inputs[-1])), read(*inputs))[1])
    transfer_cross(model, images, landmarks, targets)
    assert rows == [4]  # three, padded


def test_a_grid_without_targets_is_empty(faces_and_model) -> None:
    model, images, landmarks, targets = faces_and_model
    assert transfer_cross(model, images, landmarks, targets[:0]).shape == (3, 0, 32, 32, 3)
