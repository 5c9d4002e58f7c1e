"""The contact sheet of a preparation, and small drawings as text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_faces import make_photos, make_records
from PIL import Image

from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.prepare import prepare
from ecvae_jax.data.prepare.preview import braille, sketch, write_preview


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 2), (4, 1, 8), (6, 2, 8), (99, 3, 8)])
def test_a_contact_sheet_shows_as_many_faces_as_asked(tmp_path: Path, count: int, rows: int, columns: int):
    records = make_records(tmp_path / "faces", count=10)
    write_preview(records, count, tmp_path / "sheet.png")
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert picture.shape == (rows * 194 + 2, columns * 194 + 2, 3)


def test_landmarks_and_sketch_are_drawn_where_they_are(tmp_path: Path):
    make_photos(tmp_path / "photos", people=3)
    prepare(str(tmp_path / "photos"), tmp_path / "out", PrepareConfig(size=64, workers=1, preview=3))
    picture = np.asarray(Image.open(tmp_path / "out" / "preview.png")).astype(int)
    face, drawn = picture[2:194, 2:194], picture[2:194, 196:388]
    cyan = (face[..., 0] < 80) & (face[..., 1] > 180) & (face[..., 2] > 180)
    dark = drawn.mean(axis=-1) < 128
    assert cyan.sum() > 60
    assert dark.sum() > 60
    rows, columns = np.nonzero(cyan)
    near = [dark[max(r - 4, 0) : r + 5, max(c - 4, 0) : c + 5].any() for r, c in zip(rows, columns, strict=True)]
    assert np.mean(near) > 0.95  # every landmark is on a line of the sketch


def test_the_preview_changes_no_record(tmp_path: Path):
    make_photos(tmp_path / "photos", people=3)
    for name, preview in (("with", 2), ("without", 0)):
        prepare(str(tmp_path / "photos"), tmp_path / name, PrepareConfig(size=32, workers=1, preview=preview))
    files = {path.name for path in (tmp_path / "without").iterdir()}
    assert {path.name for path in (tmp_path / "with").iterdir()} == files | {"preview.png"}
    assert all((tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes() for name in files)


def test_braille_puts_each_dot_into_its_place():
    maps = np.zeros((3, 8, 8))
    maps[0, 0, 0] = maps[1, 7, 7] = 1.0  # top left and bottom right
    maps[2] = 1.0
    lines = braille(maps, 2)
    assert lines[0][0] == "\u2801"
    assert lines[1][-1] == "\u2880"
    assert lines[2] == lines[3] == "\u28ff" * 4
    assert sum(character not in "\u2800 " for line in lines[:2] for character in line) == 2


def test_sketches_have_one_map(tmp_path: Path):
    landmarks = np.random.default_rng(0).uniform(0.2, 0.8, (2, 98, 2)).astype(np.float32)
    drawn = sketch(landmarks, 32)
    assert drawn.shape == (2, 32, 32, 1)
    assert drawn.max() > 0.9
