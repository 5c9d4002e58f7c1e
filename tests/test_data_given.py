"""Given landmark files in the forms that tools write: read where it is safe, else refused; never ignored."""

from __future__ import annotations

import contextlib
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import draw_face, face_landmarks, write_landmarks
from hypothesis import given as forall
from hypothesis import strategies as st

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.given import GivenLandmarks, find_given_landmarks
from ecvae_jax.data.photos.landmark_files import match_names, read_pts, read_table
from ecvae_jax.data.photos.sources import open_source
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.prepare import prepare

NAMES = ["Jürg 1.png", "Zoë 1.png", "p0.png"]
FACE = face_landmarks(64)


def photos(folder: Path, names: list[str] = NAMES) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        draw_face(64).save(folder / name)
    return folder


def found(folder: Path, choice: str = "auto") -> GivenLandmarks:
    given = find_given_landmarks(open_source(str(folder)), choice)
    assert given is not None, "the files are ignored: prepare would detect"
    return given


def pts(points: str = "{x:.3f} {y:.3f}", head: str = "version: 1\nn_points: 68\n{\n", tail: str = "\n}\n") -> str:
    """Returns a .pts file, which counts pixels from 1."""
    return head + "\n".join(points.format(x=x + 0.5, y=y + 0.5) for x, y in FACE) + tail


def decimal_commas(text: str) -> str:
    head, brace, body = text.partition("{")
    return head + brace + body.replace(".", ",")


PTS = {
    "plain": pts(),
    "comma and space": pts("{x:.3f}, {y:.3f}"),
    "comma alone": pts("{x:.3f},{y:.3f}"),
    "decimal commas": decimal_commas(pts()),
    "tabs": pts("{x:.3f}\t{y:.3f}"),
    "comments": pts("{x:.3f} {y:.3f}  # a point").replace("{\n", "{\n# 300-W\n// made by hand\n", 1),
    "no braces": pts(head="version: 1\nn_points: 68\n", tail="\n"),
    "no header": pts(head="", tail="\n"),
    "Windows' line ends": pts().replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + pts(),
}


@pytest.mark.parametrize("kind", PTS)
@pytest.mark.parametrize("suffix", [".pts", ".PTS", ".png.pts"])
def test_a_pts_file_is_read_in_every_form(tmp_path: Path, kind: str, suffix: str) -> None:
    photos(tmp_path)
    for name in NAMES:
        (tmp_path / (name.removesuffix(".png") + suffix)).write_bytes(PTS[kind].encode())
    given = found(tmp_path)
    assert set(given.rows) == set(NAMES)
    assert len(given.files) == 3
    np.testing.assert_allclose(given.rows["p0.png"], FACE, atol=2e-3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (pts("{x:.0f},5,{y:.0f},5"), "is not a point; write x y"),
        (pts("{x:.3f} ? {y:.3f}"), "is not a point; write x y"),
        (pts(tail=""), "only one of its braces"),
        (pts(head="n_points: 67\n{\n"), "68 points, n_points states 67"),
        (pts("{x:.3f} nan"), "is not a point"),
        ("", "0 points"),
        (pts("7 {x:.3f} {y:.3f}"), "is not a point"),
    ],
)
def test_where_no_pts_file_is_readable_nothing_is_detected(tmp_path: Path, text: str, reason: str) -> None:
    photos(tmp_path)
    (tmp_path / "p0.pts").write_text(text)
    with pytest.raises(
        DataError, match=rf"none of its 1 \.pts files is readable; p0\.pts: .*{reason}.*--landmarks none"
    ):
        found(tmp_path)


def test_pts_files_of_no_photo_are_refused(tmp_path: Path) -> None:
    (photos(tmp_path) / "face_p0.pts").write_text(pts())
    with pytest.raises(DataError, match=r"\.pts files is named like a photo, such as 'face_p0\.pts'"):
        found(tmp_path)
    assert find_given_landmarks(open_source(str(tmp_path)), "none") is None


def test_pts_files_beside_the_photos_of_a_list_are_found(tmp_path: Path) -> None:
    photos(tmp_path / "in")
    (tmp_path / "in" / "p0.PTS").write_text(pts())
    (tmp_path / "few.txt").write_text("in/p0.png\n")
    given = find_given_landmarks(open_source(str(tmp_path / "few.txt")), "auto")
    assert given is not None
    assert set(given.rows) == {"in/p0.png"}


def table(folder: Path, change: Callable[[str], str], encoding: str = "utf-8", name: str = "landmarks68.csv") -> Path:
    rows = {name: FACE for name in NAMES}
    write_landmarks(folder / "plain.csv", rows)
    text = (folder / "plain.csv").read_text()
    (folder / "plain.csv").unlink()
    (folder / name).write_bytes(change(text).encode(encoding))
    return folder


TABLES = {
    "semicolons": (lambda text: text.replace(",", ";"), "utf-8"),
    "decimal commas": (lambda text: text.replace(",", ";").replace(".", ",").replace(",png", ".png"), "utf-8"),
    "tabs": (lambda text: text.replace(",", "\t"), "utf-8"),
    "byte order mark": (lambda text: text, "utf-8-sig"),
    "UTF-16": (lambda text: text.replace(",", "\t"), "utf-16"),
    "a spreadsheet's mark": (lambda text: "sep=;\n" + text.replace(",", ";"), "utf-8"),
    "upper case": (lambda text: text.splitlines()[0].upper() + text[text.index("\n") :], "utf-8"),
    "NFD names": (lambda text: unicodedata.normalize("NFD", text), "utf-8"),
    "a folder in front": (lambda text: text.replace("\n", "\nphotos/").removesuffix("photos/"), "utf-8"),
    "another machine's paths": (
        lambda text: text.replace("\n", "\nC:\\set\\").removesuffix("C:\\set\\"),
        "utf-8",
    ),
    "other case": (lambda text: text.replace("p0.png", "P0.PNG").replace("Z", "z").replace("J", "j"), "utf-8"),
    "no suffix": (lambda text: text.replace(".png", ""), "utf-8"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_read_in_every_form(tmp_path: Path, kind: str) -> None:
    given = found(table(photos(tmp_path), *TABLES[kind]))
    assert given.points == 68
    if kind != "other case":
        assert set(given.rows) == set(NAMES)
    np.testing.assert_allclose(given.rows["p0.png"], FACE, atol=0.006)


def test_photos_with_decomposed_names_find_their_rows(tmp_path: Path) -> None:
    """macOS stores file names decomposed."""
    names = [unicodedata.normalize("NFD", name) for name in NAMES]
    given = found(table(photos(tmp_path, names), str))
    assert set(given.rows) == set(names)


def test_a_table_beside_the_photos_folder_names_them(tmp_path: Path) -> None:
    photos(tmp_path, [f"set/images/{name}" for name in NAMES])
    given = found(table(tmp_path, str))
    assert set(given.rows) == {f"set/images/{name}" for name in NAMES}


def test_a_table_of_no_photo_is_refused_with_both_names(tmp_path: Path) -> None:
    table(photos(tmp_path), lambda text: text.replace(".png", "_x.png"))
    with pytest.raises(
        DataError, match=r"none of its 3 rows names a photo; its first is 'Jürg 1_x\.png', the first photo"
    ):
        found(tmp_path)


def test_of_two_tables_none_is_chosen(tmp_path: Path) -> None:
    photos(tmp_path, ["a/1.png", "b/1.png"])
    for folder in ("a", "b"):
        write_landmarks(tmp_path / folder / "landmarks68.csv", {"1.png": FACE})
    with pytest.raises(DataError, match=r"2 landmark tables, 'a/landmarks68\.csv' and 'b/landmarks68\.csv'; join them"):
        found(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("inside", ["", "set/"])
@pytest.mark.parametrize("files", ["csv", "pts"])
def test_landmarks_in_an_archive_are_used(tmp_path: Path, kind: str, inside: str, files: str) -> None:
    photos(tmp_path / "photos")
    if files == "csv":
        table(tmp_path / "photos", str, name="Landmarks68.CSV")
    else:
        for name in NAMES:
            (tmp_path / "photos" / name).with_suffix(".pts").write_text(pts())
    packed = tmp_path / f"photos.{kind}"
    members = sorted((tmp_path / "photos").iterdir(), reverse=True)
    if kind == "zip":
        with zipfile.ZipFile(packed, "w") as target:
            for file in members:
                target.write(file, inside + file.name)
    else:
        with tarfile.open(packed, "w:gz" if kind == "tar.gz" else "w") as target:
            for file in members:
                target.add(file, inside + file.name)
    given = found(packed)
    assert set(given.rows) == {inside + name for name in NAMES}
    summary = prepare(str(packed), tmp_path / "out", PrepareConfig(size=32, workers=1))
    assert summary.kept == 3
    assert summary.reasons == {"the landmarks that were used": 1 if files == "csv" else 3}


def test_of_two_members_of_one_name_the_last_counts_and_links_are_reported(tmp_path: Path) -> None:
    photos(tmp_path, ["old.png", "new.png"])
    draw_face(48).save(tmp_path / "new.png")
    with tarfile.open(tmp_path / "photos.tar", "w") as target:
        for name in ("old.png", "new.png"):
            target.add(tmp_path / name, "a.png")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"special{kind.decode()}.png")
            info.type, info.linkname = kind, "a.png"
            target.addfile(info)
    source = open_source(str(tmp_path / "photos.tar"))
    assert [photo.name for photo in source.photos] == ["a.png"]
    (loaded,) = source.load(0)
    assert loaded.content == (tmp_path / "new.png").read_bytes()
    assert [reason for _, reason in source.skipped] == [
        "hard link to a.png: not a photo of its own",
        "symbolic link to a.png: not followed",
        "a FIFO",
    ]


name_lists = st.lists(st.text("abZé/.1 ", min_size=1, max_size=8), unique=True, max_size=8)


@forall(name_lists, name_lists)
def test_no_photo_gets_two_rows_and_exact_names_come_first(rows: list[str], names: list[str]) -> None:
    matched = match_names(rows, names)
    assert set(matched) <= set(rows)
    assert set(matched.values()) <= set(names)
    assert len(set(matched.values())) == len(matched)
    assert all(matched[name] == name for name in set(rows) & set(names))


@forall(st.binary(max_size=300))
def test_any_bytes_give_landmarks_or_a_refusal(content: bytes) -> None:
    for read in (read_pts, read_table):
        with contextlib.suppress(DataError):
            read("file", content)
