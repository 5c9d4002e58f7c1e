"""Landmark files that cannot be used: refused with the reason, never replaced by a detector or read as another face."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import draw_face, face_landmarks, write_landmarks

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.given import find_given_landmarks
from ecvae_jax.data.photos.landmark_files import read_pts, read_table
from ecvae_jax.data.photos.sources import open_source

FACE = face_landmarks(64)
LINES = "\n".join(f"{x:.3f} {y:.3f}" for x, y in FACE)
WFLW = " ".join(["10.5"] * 200 + ["0"] * 6 + ["a.png"])
TABLE = ",".join(["file", *(f"{axis}{i}" for i in range(68) for axis in "xy")])
UNREAD = {
    "landmarks68.tsv": "image\tx0\ty0",
    "landmarks.json": "{}",
    "Landmarks.txt": "",
    "landmarks68 (1).csv": "image,x0,y0",
    "landmarks68.csv.gz": gzip.compress(b"image"),
    "a.pts.gz": gzip.compress(b"version: 1"),
    "a.mat": b"MATLAB 5.0 MAT-file",
    "a.txt": LINES,
    "a.json": json.dumps(FACE.tolist()),
    "a.npy": b"\x93NUMPY\x01\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (68, 2), }",
    "points.csv": TABLE,
    "points_utf16.csv": TABLE.encode("utf-16"),
    "annotations/train.txt": WFLW,
    "faces.json": json.dumps({"0": {"face_landmarks": []}}),
}


def source(folder: Path, names: tuple[str, ...] = ("a.png",)) -> Path:
    for name in names:
        draw_face(64).save(folder / name)
    return folder


@pytest.mark.parametrize("name", UNREAD)
def test_landmarks_under_a_name_that_is_not_read_are_refused(tmp_path: Path, name: str) -> None:
    content = UNREAD[name]
    file = source(tmp_path) / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=r"not read.*--landmarks none to detect") as refusal:
        find_given_landmarks(open_source(str(tmp_path)), "auto")
    assert repr(name) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert find_given_landmarks(open_source(str(tmp_path)), "none") is None


def test_other_files_beside_the_photos_do_not_stop_a_detection(tmp_path: Path) -> None:
    others = {
        "a.txt": "a photo of a person\n",
        "a.json": json.dumps({"taken": "2026-01-01", "gps": [12.5, 55.25]}),
        "a.png.json": json.dumps({"title": "a.png"}),
        "list_attr_celeba.txt": "2\nYoung Male\n" + "\n".join(f"{i:06d}.jpg -1 1" for i in range(50)),
        "labels.csv": "file,age\na.png,30\n",
        "README": "Landscapes, land marks\n",
        "embedding.npy": b"\x93NUMPY\x01\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (512,), }".decode(
            "latin-1"
        ),
    }
    for name, text in others.items():
        (source(tmp_path) / name).write_text(text)
    os.mkfifo(tmp_path / "b.txt")
    assert find_given_landmarks(open_source(str(tmp_path)), "auto") is None


def test_a_folder_in_place_of_the_table_is_refused(tmp_path: Path) -> None:
    (source(tmp_path) / "landmarks68.csv").mkdir()
    with pytest.raises(DataError, match="named like landmarks"):
        find_given_landmarks(open_source(str(tmp_path)), "auto")


def test_a_pts_file_of_several_photos_marks_none_of_them(tmp_path: Path) -> None:
    source(tmp_path, ("a.png", "a.jpg"))
    (tmp_path / "a.pts").write_text(LINES)
    with pytest.raises(DataError, match=r"'a\.pts' is named like 2 photos"):
        find_given_landmarks(open_source(str(tmp_path)), "auto")
    source(tmp_path, ("b.png",))
    (tmp_path / "b.pts").write_text(LINES)
    given = find_given_landmarks(open_source(str(tmp_path)), "auto")
    assert given is not None
    assert set(given.rows) == {"b.png"}
    (tmp_path / "a.jpg.pts").write_text(LINES)  # the whole name of one
    given = find_given_landmarks(open_source(str(tmp_path)), "auto")
    assert given is not None
    assert set(given.rows) == {"a.jpg", "a.png", "b.png"}


def test_two_pts_files_of_one_photo_are_refused(tmp_path: Path) -> None:
    for name in ("a.pts", "a.PTS"):
        (source(tmp_path) / name).write_text(LINES)
    with pytest.raises(DataError, match=r"'a\.PTS' and 'a\.pts' are of one photo; keep one"):
        find_given_landmarks(open_source(str(tmp_path)), "auto")


def test_a_pts_file_of_two_faces_is_refused() -> None:
    with pytest.raises(DataError, match="2 faces in braces; keep one"):
        read_pts("a.pts", f"{{\n{LINES}\n}}\n{{\n{LINES}\n}}\n".encode())


def test_an_underscore_is_no_part_of_a_number(tmp_path: Path) -> None:
    write_landmarks(tmp_path / "landmarks68.csv", {"a.png": FACE})
    text = (tmp_path / "landmarks68.csv").read_text()
    number = f"{FACE[0, 0]:.2f}"
    _, rows = read_table("t", text.replace(f",{number},", ",1_0,", 1).encode())
    assert np.isnan(rows["a.png"][0, 0])
    with pytest.raises(DataError, match="is not a point"):
        read_pts("a.pts", LINES.replace(" ", " 1_0 ").encode())


@pytest.mark.parametrize("name", ["landmarks.csv", "a.pts"])
def test_a_huge_landmark_file_is_not_read(tmp_path: Path, name: str) -> None:
    with (source(tmp_path) / name).open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="1,099,512 MB: at most 512 MB are read"):
        find_given_landmarks(open_source(str(tmp_path)), "auto")
    with pytest.raises(DataError, match="at most 512 MB are read"):
        find_given_landmarks(open_source(str(tmp_path)), str(tmp_path / name))


def test_a_huge_list_of_photos_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "photos.txt").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="at most 512 MB are read"):
        open_source(str(tmp_path / "photos.txt"))
