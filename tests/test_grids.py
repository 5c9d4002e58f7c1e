"""The grids of transfer and sample: the crop rule of the training faces, and the notes for the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecvae_jax.config import Config
from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.portraits import PortraitReader, Portraits
from ecvae_jax.synthesis import grids


def test_photos_are_cropped_as_the_training_faces_and_notes_are_kept(
    tiny_config: Config, tiny_workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces, calls = load_faces(tiny_config.data.records, "test"), []

    def photos(reader, specs):
        calls.append((reader.margin, reader.detector_name))
        images = faces.images(range(len(specs)), reader.image_size)
        notes = [f"{specs[0]}: 3 faces, the largest is taken"]
        return Portraits(images, faces.landmarks[: len(specs)], list(specs), notes)

    monkeypatch.setattr(PortraitReader, "read", photos)
    notes = grids.write_transfer_grid(tiny_workdir, ["a"], ["b", "c"], tmp_path / "grid.png", True, 1)
    assert calls == [(faces.metadata["margin"], "mediapipe-98")] * 2
    assert notes[:2] == ["a: 3 faces, the largest is taken", "b: 3 faces, the largest is taken"]
    assert notes[2].startswith("1 sources × 2 targets")
