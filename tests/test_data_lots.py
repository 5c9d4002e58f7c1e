"""A preparation that was killed resumes, and gives the bytes of an uninterrupted one."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import draw_face, face_landmarks, make_photos, write_landmarks
from PIL import Image

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.photo import BadPhotoError
from ecvae_jax.data.prepare import lots as lots_module
from ecvae_jax.data.prepare import pool
from ecvae_jax.data.prepare import prepare as prepare_module
from ecvae_jax.data.prepare.job import FaceOutcome, FaceWorker
from ecvae_jax.data.prepare.lots import (
    PHOTOS,
    Lots,
    has_outcomes,
    put_jobs,
    put_outcomes,
    put_shard,
    read_jobs,
    read_records,
    read_shard,
)
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.prepare import prepare

FAST = PrepareConfig(size=32, workers=1)
FIELDS = {"identity": "Ann", "group": "Ann/1", "name": "x", "tags": {"pose": 1}}


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def outcome(number: int) -> FaceOutcome:
    if number % 3 == 2:
        return FaceOutcome(reason="no face found", notes=("turned",))
    landmarks = np.random.default_rng(number).uniform(-0.1, 1.1, (68, 2)).astype(np.float32)
    return FaceOutcome("", bytes([number]) * (number + 1), landmarks, {"x0": 0.25}, ("a", "b"), {"yaw": number})


def same(first: FaceOutcome, second: FaceOutcome) -> bool:
    """Whether two outcomes differ in nothing but their JPEGs."""
    if first.landmarks is None or second.landmarks is None:
        return first.landmarks is second.landmarks and first == second
    fields = ("reason", "crop", "notes", "tags")
    return np.array_equal(first.landmarks, second.landmarks) and all(
        getattr(first, name) == getattr(second, name) for name in fields
    )


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the photos that are worked on, in lots of two photos."""
    seen: list[str] = []

    class Counting(FaceWorker):
        def __call__(self, job):
            assert isinstance(job.content, Path)
            seen.append(job.content.name)
            return super().__call__(job)

    monkeypatch.setattr(lots_module, "PHOTOS", 2)
    monkeypatch.setattr(pool, "FaceWorker", Counting)
    return seen


def test_outcomes_and_records_survive_a_restart(tmp_path: Path):
    lots = Lots(tmp_path / "work", {"a": 1}, PHOTOS + 3)
    assert lots.missing() == [0, 1]
    assert [lots.size(number) for number in (0, 1)] == [PHOTOS, 3]
    put_outcomes(lots.folder, 1, [outcome(photo) for photo in range(PHOTOS, PHOTOS + 3)])
    assert (len(lots), lots.missing()) == (3, [0])
    lots.close(remove=False)
    lots = Lots(tmp_path / "work", {"a": 1}, PHOTOS + 3)
    assert lots.missing() == [0]
    put_outcomes(lots.folder, 0, [outcome(photo) for photo in range(PHOTOS)])
    assert len(lots) == PHOTOS + 3
    found = list(lots.outcomes())
    assert len(found) == PHOTOS + 3
    for photo, (stored, length) in enumerate(found):
        assert same(stored, outcome(photo))
        assert length == len(outcome(photo).image)
    photos = [1, 3, PHOTOS + 2, PHOTOS + 1]
    photos = [photo for photo in photos if outcome(photo).image]
    places = [(*lots.locate(photo), {**FIELDS, "name": str(photo)}) for photo in photos]
    put_shard(lots.folder, "train-0", places)
    assert read_shard(str(lots.folder), "train-0") == places
    for photo, record in zip(photos, read_records(lots.folder, places), strict=True):
        assert (record.name, record.identity, record.tags) == (str(photo), "Ann", {"pose": 1})
        assert record.image == outcome(photo).image
        np.testing.assert_array_equal(record.landmarks, outcome(photo).landmarks)
    lots.close(remove=True)
    assert not (tmp_path / "work").exists()


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path):
    lots = Lots(tmp_path / "work", {}, 2 * PHOTOS)
    put_outcomes(lots.folder, 0, [outcome(photo) for photo in range(PHOTOS)])
    lots.close(remove=False)
    before = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    (lots.folder / ".1.0123abcd").write_bytes(b"half")
    (tmp_path / "work" / "records").mkdir()
    (tmp_path / "work" / "records" / "shard").touch()
    lots = Lots(tmp_path / "work", {}, 2 * PHOTOS)
    assert lots.missing() == [1]
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == before
    lots.close(remove=True)


def test_a_lot_appears_complete_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lots = Lots(tmp_path / "work", {}, 1)

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(lots_module.epath.Path(tmp_path)), "replace", fail)
    with pytest.raises(OSError, match=r"No space left on device: cannot write into.*lots"):
        put_outcomes(lots.folder, 0, [outcome(0)])
    assert list(lots.folder.iterdir()) == []
    lots.close(remove=True)


def test_the_lots_of_another_task_are_removed(tmp_path: Path):
    lots = Lots(tmp_path / "work", {"size": 32}, 1)
    put_outcomes(lots.folder, 0, [outcome(0)])
    lots.close(remove=False)
    lots = Lots(tmp_path / "work", {"size": 64}, 1)
    assert len(lots) == 0
    lots.close(remove=True)


def test_two_preparations_do_not_share_a_folder(tmp_path: Path):
    lots = Lots(tmp_path / "work", {}, 1)
    with pytest.raises(DataError, match="another preparation is at work there"):
        Lots(tmp_path / "work", {}, 1)
    lots.close(remove=False)
    Lots(tmp_path / "work", {}, 1).close(remove=True)


def test_jobs_reach_a_worker(tmp_path: Path):
    landmarks = face_landmarks(64)
    put_jobs(tmp_path, 1, [("/a.png", landmarks), ("/b.png", None)])
    first, second = read_jobs(str(tmp_path), 1)
    assert [first.content, second.content] == [Path("/a.png"), Path("/b.png")]
    np.testing.assert_array_equal(first.landmarks, landmarks)
    assert second.landmarks is None
    assert not has_outcomes(str(tmp_path), 1)


def test_a_photo_that_a_store_does_not_give_is_a_bad_photo(tmp_path: Path):
    put_jobs(tmp_path, 0, [("nowhere://faces/a.png", None)])
    (job,) = read_jobs(str(tmp_path), 0)
    assert isinstance(job.content, BadPhotoError)
    assert str(job.content).startswith("unreadable: ")


def test_a_file_in_a_bucket_is_read_as_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    draw_face(64).save(tmp_path / "a.png")
    monkeypatch.setattr(lots_module.epath, "Path", lambda name: Path(str(name).replace("gs://faces", str(tmp_path))))
    put_jobs(tmp_path, 0, [("gs://faces/a.png", None)])
    (job,) = read_jobs(str(tmp_path), 0)
    assert job.content == (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize("stop_after", [1, 3, 6])
def test_an_interrupted_preparation_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[str], stop_after: int
):
    make_photos(tmp_path / "photos")
    prepare(str(tmp_path / "photos"), tmp_path / "whole", FAST)
    counted.clear()

    def interrupted(folder, number, outcomes):
        put_outcomes(folder, number, outcomes)
        if number + 1 == stop_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, "put_outcomes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    monkeypatch.setattr(prepare_module, "put_outcomes", put_outcomes)
    prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    assert len(counted) == len(set(counted)) == 12  # no photo twice
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    assert not (tmp_path / ".out.partial").exists()


def test_lots_missing_in_the_middle_are_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[str]):
    """As after Beam's workers, which finish lots in any order."""
    make_photos(tmp_path / "photos")
    prepare(str(tmp_path / "photos"), tmp_path / "whole", FAST)

    def fail(*args: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "write_report", fail)
        with pytest.raises(OSError, match="full"):
            prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    for number in (1, 4):
        (tmp_path / ".out.partial" / "lots" / f"{number:06d}.faces").unlink()
    names = sorted(path.name for path in (tmp_path / "photos").glob("*.png"))
    counted.clear()
    prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    assert counted == [*names[2:4], *names[8:10]]
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


@pytest.mark.parametrize(
    "change",
    [
        lambda photos: (photos / "ann_0000.png").unlink(missing_ok=True) or next(photos.glob("*.png")).unlink(),
        lambda photos: os.utime(next(photos.glob("*.png")), (1, 1)),
        lambda photos: write_landmarks(photos / "landmarks68.csv", {"PersonA_0001.png": face_landmarks(64, 1.0)}),
    ],
)
def test_other_photos_or_landmarks_start_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[str], change: Callable[[Path], None]
):
    make_photos(tmp_path / "photos")

    def fail(*args: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(prepare_module, "write_report", fail)
    with pytest.raises(OSError, match="full"):
        prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    change(tmp_path / "photos")
    counted.clear()
    with pytest.raises(OSError, match="full"):
        prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    assert len(counted) == len(list((tmp_path / "photos").glob("*.png")))


def command(tmp_path: Path, *options: str) -> list[str]:
    words = ["prepare", str(tmp_path / "photos"), str(tmp_path / "out"), "--size", "32", "--workers", "1", *options]
    code = f"import sys; from ecvae_jax.cli.main import main; sys.exit(main({words!r}))"
    return [sys.executable, "-c", code]


KILL = """
import os, signal
from ecvae_jax.data.prepare import lots, prepare
lots.PHOTOS, put = 2, lots.put_outcomes
def dying(folder, number, outcomes):
    put(folder, number, outcomes)
    if number == 2: os.kill(os.getpid(), signal.SIGKILL)
prepare.put_outcomes = dying
"""
"""Kills the process after its third lot of two photos, the sixth photo."""


def test_a_killed_preparation_gives_the_same_bytes(tmp_path: Path):
    """SIGKILL leaves no time to clean up."""
    make_photos(tmp_path / "photos")
    prepare(str(tmp_path / "photos"), tmp_path / "whole", FAST)
    python, option, code = command(tmp_path)
    assert subprocess.run([python, option, KILL + code], check=False).returncode == -signal.SIGKILL
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "whole", ".out.partial"}
    resumed = "from ecvae_jax.data.prepare import lots; lots.PHOTOS = 2; " + code
    shown = subprocess.run([python, option, resumed], check=True, capture_output=True, text=True)
    assert "resuming after 6 photos" in shown.stderr
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path):
    """The system refuses files larger than 5 kB, as a full disk would; only the lot of two noisy photos is larger."""
    rows = make_photos(tmp_path / "photos", size=128)
    for name in sorted(rows)[-2:]:
        noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((32, 32), 0).resize((128, 128), 0).save(tmp_path / "photos" / name)
    prepare(str(tmp_path / "photos"), tmp_path / "whole", FAST)
    python, option, code = command(tmp_path)
    code = "from ecvae_jax.data.prepare import lots; lots.PHOTOS = 2; " + code
    limited = ["bash", "-c", 'ulimit -S -f 5; exec "$@"', "bash", python, option, code]
    shown = subprocess.run(limited, check=False, capture_output=True, text=True)
    assert shown.returncode == 1
    last = shown.stderr.strip().splitlines()[-1]
    assert last.startswith("ecvae: error: ")
    assert "cannot write into" in last
    assert ".out.partial" in last
    assert "10 photos are done and kept in" in shown.stderr
    assert not (tmp_path / "out").exists()
    shown = subprocess.run([python, option, code], check=True, capture_output=True, text=True)
    assert "resuming after 10 photos" in shown.stderr
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_a_disk_that_is_full_while_records_are_written_is_one_line(tmp_path: Path):
    make_photos(tmp_path / "photos", size=128)
    python, option, code = command(tmp_path)
    code = "from ecvae_jax.data.prepare import lots; lots.PHOTOS = 2; " + code
    limited = ["bash", "-c", 'ulimit -S -f 8; exec "$@"', "bash", python, option, code]
    shown = subprocess.run(limited, check=False, capture_output=True, text=True)
    assert shown.returncode == 1
    assert "cannot write into" in shown.stderr.strip().splitlines()[-1]
    assert "12 photos are done and kept in" in shown.stderr
    assert not (tmp_path / "out").exists()
