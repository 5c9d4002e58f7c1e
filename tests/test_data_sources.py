"""Files of a source, identities, given landmarks and splits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import draw_face, face_landmarks, write_landmarks
from hypothesis import given
from hypothesis import strategies as st

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.given import find_given_landmarks, read_given_landmarks
from ecvae_jax.data.photos.identity import assign_splits, choose_identity_rule, identity_of
from ecvae_jax.data.photos.sources import open_source
from ecvae_jax.data.photos.sources.multipie import multipie_tags
from ecvae_jax.data.prepare.options import PrepareConfig

LONDON = [f"{mood}/{number:03d}.jpg" for mood in ("neutral", "smiling") for number in (1, 2, 4, 9, 11)]
LFW = ["Aaron_Peirsol_0001.jpg", "Aaron_Peirsol_0003.jpg", "AJ_Lamas_0001.jpg", "Abdel_Al-Hakim_0001.jpg"]


def touch(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        ("stem", LONDON),
        ("prefix", LFW),
        ("prefix", [f"{name.rsplit('_', 1)[0]}/{name}" for name in LFW]),
        ("folder", [f"{who}/{shot}.jpg" for who in ("anna", "ben") for shot in (1, 2, 3)]),  # numbered photos
        ("folder", [f"{who}/{what}.jpg" for who in ("anna", "ben", "eva") for what in ("smile", "sad")]),
        ("none", [f"{number:06d}.jpg" for number in range(20)]),
        ("none", [f"img/{number:06d}.jpg" for number in range(20)]),
        ("none", [f"IMG_{number:04d}.jpg" for number in range(20)]),
        ("none", [f"{camera}_{number:04d}.jpg" for camera in ("IMG", "DSC") for number in range(20)]),
        ("none", ["a/me.jpg", "b/you.jpg", "c/she.jpg"]),
        ("none", ["me.jpg", "you.jpg"]),
        ("none", ["one.jpg"]),
    ],
)
def test_the_rule_that_the_paths_suggest(rule: str, names: list[str]):
    assert choose_identity_rule(names)[0] == rule


@pytest.mark.parametrize(
    ("name", "rule", "who"),
    [
        ("a/b/Jean-Luc_Godard_0012.jpg", "prefix", "Jean-Luc_Godard"),
        ("Ann 3.png", "prefix", "Ann"),
        ("李-04.png", "prefix", "李"),
        ("000012.jpg", "prefix", "000012"),
        ("noname.jpg", "prefix", "noname"),
        ("a/b/1.jpg", "folder", "a/b"),
        ("1.jpg", "folder", "1"),
        ("smiling/004.jpg", "stem", "004"),
        ("a/1.jpg", "none", "a/1.jpg"),
    ],
)
def test_identity_by_rule(name: str, rule: str, who: str):
    assert identity_of(name, rule) == who


def test_a_folder_is_searched_to_any_depth_in_the_order_of_names(tmp_path: Path):
    touch(tmp_path, ["b/deep/er/1.JPG", "b/2.png", "a.jpeg", "note.txt", "b/.hidden", "Zoë.webp"])
    source = open_source(str(tmp_path))
    assert [photo.name for photo in source.photos] == ["Zoë.webp", "a.jpeg", "b/2.png", "b/deep/er/1.JPG"]
    assert source.skipped == [("b/.hidden", "not a photo suffix: none"), ("note.txt", "not a photo suffix: .txt")]
    assert str(tmp_path) not in source.label


def test_the_chosen_rule_is_reported_and_can_be_set(tmp_path: Path):
    touch(tmp_path, LONDON)
    source = open_source(str(tmp_path))
    assert "5 by the rule 'stem' (5 of 5 file names occur in several folders)" in source.facts[0]
    assert {photo.group for photo in source.photos} == {"001", "002", "004", "009", "011"}
    by_folder = open_source(str(tmp_path), PrepareConfig(identity="folder"))
    assert {photo.identity for photo in by_folder.photos} == {"neutral", "smiling"}


def test_links_to_folders_are_not_entered(tmp_path: Path):
    touch(tmp_path, ["a/1.jpg"])
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    source = open_source(str(tmp_path))
    assert [photo.name for photo in source.photos] == ["a/1.jpg"]
    assert source.skipped == [("a/loop/", "link to a folder: not entered")]


def test_multipie_names_become_tags(tmp_path: Path):
    good = "session02/multiview/007/03/05_0/007_02_03_050_18.png"
    bad = "session02/multiview/007/03/05_0/readme.png"
    touch(tmp_path, [good, bad])
    source = open_source(f"multipie:{tmp_path}")
    (photo,) = source.photos
    assert photo.identity == "007"
    assert photo.group == "007/02/18"
    assert photo.name == good
    assert photo.tags == {
        "subject": "007",
        "session": "02",
        "recording": "03",
        "camera": "05_0",
        "illumination": "18",
        "yaw": 15,
        "expression": "squint",
        "flash": "18",
    }
    assert source.skipped[0][0] == bad
    assert "not a MultiPIE name" in source.skipped[0][1]


PIE = [
    f"session01/multiview/{subject}/{recording}/{camera}/{subject}_01_{recording}_{camera.replace('_', '')}_{light}.png"
    for subject in ("001", "002")
    for recording in ("01", "02")
    for camera in ("05_1", "14_0", "08_1")
    for light in ("00", "07")
]


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({}, 24),
        ({"camera": "05_1"}, 8),
        ({"camera": "05_1, 14_0"}, 16),
        ({"camera": "05_1", "illumination": "07"}, 4),
        ({"subject": "002", "recording": "02", "session": "01"}, 6),
    ],
)
def test_multipie_filters_exclude_and_report(tmp_path: Path, filters: dict[str, str], left: int):
    touch(tmp_path, PIE)
    source = open_source(f"multipie:{tmp_path}", PrepareConfig(**filters))
    assert len(source.photos) == left
    assert len(source.photos) + len(source.skipped) == len(PIE)
    assert all(reason.startswith("excluded by --") for _, reason in source.skipped)
    for name, values in filters.items():
        assert {photo.tags[name] for photo in source.photos} == {value.strip() for value in values.split(",")}


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"camera": "99_9"}, "camera='99_9': no photo has it; must be among 05_1, 08_1, 14_0"),
        ({"camera": "05_1,"}, "camera='05_1,': give one value"),
    ],
)
def test_a_filter_for_a_missing_value_is_refused(tmp_path: Path, filters: dict[str, str], message: str):
    touch(tmp_path, PIE)
    with pytest.raises(DataError, match=message):
        open_source(f"multipie:{tmp_path}", PrepareConfig(**filters))
    with pytest.raises(DataError, match="applies only to multipie:DIR"):
        open_source(str(tmp_path), PrepareConfig(**filters))


def test_tags_of_multipie_names(tmp_path: Path):
    assert multipie_tags("001_01_02_051_07") == {
        "subject": "001",
        "session": "01",
        "recording": "02",
        "illumination": "07",
        "camera": "05_1",
        "yaw": 0,
        "expression": "smile",
        "flash": "07",
    }
    above = multipie_tags("250_04_02_191_00")
    assert above is not None
    assert (above["yaw"], above["pitch"], above["expression"], above["flash"]) == (45, "above", "scream", "none")
    assert multipie_tags("portrait") is None


def test_a_list_names_photos_in_its_own_order(tmp_path: Path):
    touch(tmp_path, ["in/Bea_1.png", "in/Bea_2.png", "in/Abe_1.png"])
    (tmp_path / "few.txt").write_text("# mine\nin/Bea_2.png\n\n./in/Abe_1.png\nin\\Bea_1.png\ngone.png\n")
    source = open_source(str(tmp_path / "few.txt"), PrepareConfig(identity="prefix"))
    assert [photo.name for photo in source.photos] == ["in/Bea_2.png", "in/Abe_1.png", "in/Bea_1.png", "gone.png"]
    assert [photo.identity for photo in source.photos] == ["Bea", "Abe", "Bea", "gone"]
    assert [loaded.content for loaded in source.load(2)] == [tmp_path / "in/Bea_1.png", tmp_path / "gone.png"]


def test_a_list_of_absolute_paths_leaves_no_path_of_the_machine_in_the_records(tmp_path: Path):
    names = ["ann/1.png", "ann/2.png", "ben/1.png"]
    touch(tmp_path / "all" / "photos", names)
    paths = [str(tmp_path / "all" / "photos" / name) for name in names]
    (tmp_path / "list.txt").write_text("\n".join([*paths[:2], "all/photos/ben/1.png"]))
    source = open_source(str(tmp_path / "list.txt"))
    assert [photo.name for photo in source.photos] == names
    assert source.root == tmp_path / "all" / "photos"
    assert [str(loaded.content) for loaded in source.load(0)] == paths
    write_landmarks(tmp_path / "l.csv", {paths[0]: face_landmarks(64), names[1]: face_landmarks(64)})
    given = find_given_landmarks(source, str(tmp_path / "l.csv"))
    assert given is not None
    assert set(given.rows) == set(names[:2])
    (tmp_path / "list.txt").write_text("\n".join([paths[0], "all/photos/ann/1.png"]))
    with pytest.raises(DataError, match="names a photo twice, by an absolute and a relative path; keep one"):
        open_source(str(tmp_path / "list.txt"))


@pytest.mark.parametrize(("text", "message"), [("# nothing\n", "names no photo"), ("a\nb\na\n", "line 3: 'a'")])
def test_an_unusable_list_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "few.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path / "few.txt"))


def write_pts(file: Path, landmarks: np.ndarray) -> None:
    points = "\n".join(f"{x + 0.5:.3f} {y + 0.5:.3f}" for x, y in landmarks)
    file.write_text(f"version: 1\nn_points: {len(landmarks)}\n{{\n{points}\n}}\n")


def test_pts_files_beside_the_photos_are_landmarks(tmp_path: Path):
    touch(tmp_path, ["a/1.jpg", "a/2.jpg", "3.png"])
    write_pts(tmp_path / "a/1.pts", face_landmarks(100))
    write_pts(tmp_path / "3.pts", face_landmarks(50))
    (tmp_path / "a/2.pts").write_text("version: 1\n{ 1 2 3")
    given = find_given_landmarks(open_source(str(tmp_path)), "auto")
    assert given is not None
    assert (given.label, given.points) == ("3 .pts files", 68)
    assert given.files == {"a/1.pts", "a/2.pts", "3.pts"}
    np.testing.assert_allclose(given.rows["3.png"], face_landmarks(50), atol=1e-3)
    assert np.isnan(given.rows["a/2.jpg"]).all()
    write_pts(tmp_path / "a/2.pts", face_landmarks(100, points=98))
    with pytest.raises(DataError, match=r"\[68, 98\] points; all must have"):
        find_given_landmarks(open_source(str(tmp_path)), "auto")


def test_a_wflw_list_gives_the_largest_face_of_each_photo(tmp_path: Path):
    touch(tmp_path, ["8--Election/a b.jpg"])
    lines = []
    for scale, side in ((50, 10), (100, 90), (70, 20)):
        numbers = [*face_landmarks(scale, points=98).reshape(-1), 0, 0, side, side, 0, 0, 1, 0, 0, 0]
        lines.append(" ".join(f"{value:.4f}" for value in numbers) + " 8--Election/a b.jpg")
    file = tmp_path / "list_98pt.txt"
    file.write_text("\n".join(lines))
    given = find_given_landmarks(open_source(str(tmp_path)), str(file))
    assert given is not None
    assert given.points == 98
    np.testing.assert_allclose(given.rows["8--Election/a b.jpg"], face_landmarks(100, points=98), atol=1e-3)
    for text in ("1 2 3 a.jpg", lines[0].replace("0.0000", "x", 1), ""):
        file.write_text(text)
        with pytest.raises(DataError, match=r"line 1: must have WFLW's|the list is empty"):
            find_given_landmarks(open_source(str(tmp_path)), str(file))


@pytest.mark.parametrize("prefix", ["", "multipie:"])
def test_a_source_without_photos_is_refused(tmp_path: Path, prefix: str):
    with pytest.raises(DataError, match="no such folder"):
        open_source(f"{prefix}{tmp_path / 'gone'}")
    with pytest.raises(DataError, match="no photo among its 0 files"):
        open_source(f"{prefix}{tmp_path}")
    touch(tmp_path, ["a.txt"])
    touch(tmp_path, ["a.doc"])
    with pytest.raises(DataError, match="unknown kind of file"):
        open_source(f"{prefix}{tmp_path / 'a.doc'}")


def test_multipie_without_one_multipie_name_is_refused(tmp_path: Path):
    touch(tmp_path, LFW)
    with pytest.raises(DataError, match="no file has a MultiPIE name"):
        open_source(f"multipie:{tmp_path}")


@pytest.mark.parametrize("points", [68, 98])
def test_landmarks_are_read_by_column_name(tmp_path: Path, points: int):
    rows = {"a/1.jpg": face_landmarks(100, points=points), "b.jpg": face_landmarks(50, points=points)}
    write_landmarks(tmp_path / f"landmarks{points}.csv", rows)
    touch(tmp_path, ["b.jpg"])
    found = find_given_landmarks(open_source(str(tmp_path)), "auto")
    assert found is not None
    assert found.files == {f"landmarks{points}.csv"}
    assert found.points == points
    assert set(found.rows) == set(rows)
    np.testing.assert_allclose(found.rows["b.jpg"], rows["b.jpg"], atol=0.006)
    assert find_given_landmarks(open_source(str(tmp_path)), "none") is None


def test_no_csv_means_no_given_landmarks(tmp_path: Path):
    touch(tmp_path, ["b.jpg"])
    source = open_source(str(tmp_path))
    assert find_given_landmarks(source, "auto") is None
    with pytest.raises(DataError, match="no such file"):
        find_given_landmarks(source, str(tmp_path / "gone.csv"))


def test_a_cell_that_is_not_a_number_affects_only_its_row(tmp_path: Path):
    file = tmp_path / "landmarks68.csv"
    write_landmarks(file, {"a.jpg": face_landmarks(), "b.jpg": face_landmarks()})
    lines = file.read_text().splitlines()
    cells = lines[1].split(",")
    cells[9] = "?"
    file.write_text("\n".join([lines[0], ",".join(cells), lines[2]]))
    rows = read_given_landmarks(file).rows
    assert np.isnan(rows["a.jpg"]).sum() == 1
    assert np.isfinite(rows["b.jpg"]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("image,", "file,", 1), "no column `image`"),
        (lambda text: text.replace(",x3,", ",u3,", 1), "67 columns"),
        (lambda text: text.replace(",y3,", ",v3,", 1), "column 'y3' is missing"),
        (lambda text: text + text.splitlines()[1] + "\n", "line 3: image 'a.jpg' has a second row"),
        (lambda text: text + "a,b\n", "line 3: 2 cells, the header has 138"),
        (lambda text: "", "no column `image`"),
    ],
)
def test_an_unusable_table_is_refused_with_its_line(tmp_path: Path, change, message: str):
    file = tmp_path / "landmarks.csv"
    write_landmarks(file, {"a.jpg": face_landmarks()})
    file.write_text(change(file.read_text()))
    with pytest.raises(DataError, match=message):
        read_given_landmarks(file)


@given(st.sets(st.text(max_size=8), min_size=1, max_size=40), st.floats(0, 0.45), st.floats(0, 0.45))
def test_each_person_has_one_split_and_train_is_not_empty(people: set[str], validation: float, test: float):
    splits = assign_splits(people, validation, test)
    assert set(splits) == people
    assert "train" in splits.values()
    if len(people) >= 3:
        wanted = {"train"} | ({"validation"} if validation else set()) | ({"test"} if test else set())
        assert set(splits.values()) == wanted
    assert splits == assign_splits(sorted(people), validation, test)


def test_a_person_keeps_the_split_when_others_are_added():
    some, more = [f"p{i}" for i in range(200)], [f"p{i}" for i in range(1000)]
    few, many = assign_splits(some, 0.1, 0.1), assign_splits(more, 0.1, 0.1)
    assert all(few[name] == many[name] for name in some)
    sizes = [list(many.values()).count(split) for split in ("train", "validation", "test")]
    assert abs(sizes[1] - 100) < 30
    assert abs(sizes[2] - 100) < 30


def test_folders_may_be_nested_deeper_than_python_calls(tmp_path: Path):
    depth = 1500
    assert depth > sys.getrecursionlimit()
    draw_face(16).save(tmp_path / "a.png")
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    with open(os.open("b.png", os.O_WRONLY | os.O_CREAT, dir_fd=folder), "wb") as file:
        file.write((tmp_path / "a.png").read_bytes())
    os.close(folder)
    try:
        source = open_source(str(tmp_path))
        assert [photo.name for photo in source.photos] == ["a.png", "d/" * depth + "b.png"]
        assert len(list(source.load(0))) == 2
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # pytest's own removal calls itself


def test_a_folder_too_deep_for_the_system_has_its_line(tmp_path: Path):
    draw_face(16).save(tmp_path / "a.png")
    folder, name = os.open(tmp_path, os.O_RDONLY), "d" * 200
    for _ in range(25):  # 5,000 letters: more than Linux's PATH_MAX
        os.mkdir(name, dir_fd=folder)
        below = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    source = open_source(str(tmp_path))
    assert [photo.name for photo in source.photos] == ["a.png"]
    ((skipped, reason),) = source.skipped
    assert skipped.startswith(name + "/")
    assert reason == "unreadable folder: File name too long"
