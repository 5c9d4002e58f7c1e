"""A preparation that was killed goes on where it was, and gives the bytes of one that was not."""

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
from drawn_faces import face_landmarks, make_photos, write_landmarks

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.prepare import pool as workers
from ecvae_jax.data.prepare import prepare as prepare_module
from ecvae_jax.data.prepare.job import FaceOutcome, FaceWorker
from ecvae_jax.data.prepare.journal import Journal
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.prepare import prepare

FAST = PrepareConfig(size=32, workers=1)


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def outcome(number: int) -> FaceOutcome:
    if number % 3 == 2:
        return FaceOutcome(reason="no face found", notes=("turned",))
    landmarks = np.random.default_rng(number).uniform(-0.1, 1.1, (68, 2)).astype(np.float32)
    return FaceOutcome("", bytes([number]) * (number + 1), landmarks, {"x0": 0.25}, ("a", "b"), {"yaw": number})


def same(first: FaceOutcome, second: FaceOutcome) -> bool:
    if first.landmarks is None or second.landmarks is None:
        return first.landmarks is second.landmarks and first == second
    fields = ("reason", "crop", "notes", "tags")
    return np.array_equal(first.landmarks, second.landmarks) and all(
        getattr(first, name) == getattr(second, name) for name in fields
    )


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The photos that are worked on."""
    seen: list[str] = []

    class Counting(FaceWorker):
        def __call__(self, job):
            seen.append(job.content.name)
            return super().__call__(job)

    monkeypatch.setattr(workers, "FaceWorker", Counting)
    return seen


def test_what_was_added_is_there_when_it_is_opened_again(tmp_path: Path):
    journal = Journal(tmp_path / "work", {"a": 1})
    for number in range(7):
        journal.add(outcome(number))
    journal.close(remove=False)
    again = Journal(tmp_path / "work", {"a": 1})
    assert len(again) == 7
    for number in range(7):
        assert same(again.outcomes[number], outcome(number))
        assert again.image(number) == outcome(number).image
    again.add(outcome(7))
    assert again.image(7) == outcome(7).image
    again.close(remove=True)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("file", ["outcomes.jsonl", "spool"])
def test_whatever_a_kill_cut_off_the_rest_is_good(tmp_path: Path, file: str):
    journal = Journal(tmp_path / "whole", {})
    for number in range(4):
        journal.add(outcome(number))
    journal.close(remove=False)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    for length in {*range(0, len(whole[file]), len(whole[file]) // 50 + 1), len(whole[file]) - 1}:
        (tmp_path / "cut").mkdir(exist_ok=True)
        for name, data in whole.items():
            (tmp_path / "cut" / name).write_bytes(data[:length] if name == file else data)
        journal = Journal(tmp_path / "cut", {})
        assert len(journal) < 4
        for number in range(len(journal), 4):
            journal.add(outcome(number))
        assert [journal.image(number) for number in range(4)] == [outcome(number).image for number in range(4)]
        journal.close(remove=False)
        assert {path.name: path.read_bytes() for path in (tmp_path / "cut").iterdir()} == whole


def test_the_journal_of_another_task_is_thrown_away(tmp_path: Path):
    journal = Journal(tmp_path / "work", {"size": 32})
    journal.add(outcome(0))
    journal.close(remove=False)
    journal = Journal(tmp_path / "work", {"size": 64})
    assert len(journal) == 0
    journal.close(remove=True)


def test_two_preparations_do_not_share_a_folder(tmp_path: Path):
    journal = Journal(tmp_path / "work", {})
    with pytest.raises(DataError, match="another preparation is at work there"):
        Journal(tmp_path / "work", {})
    journal.close(remove=True)


@pytest.mark.parametrize("stop_after", [1, 5, 11])
def test_an_interrupted_preparation_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[str], stop_after: int
):
    make_photos(tmp_path / "photos")
    prepare(str(tmp_path / "photos"), tmp_path / "whole", FAST)
    counted.clear()
    add = Journal.add

    def interrupted(self, outcome):
        add(self, outcome)
        if len(self) == stop_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    monkeypatch.setattr(Journal, "add", add)
    prepare(str(tmp_path / "photos"), tmp_path / "out", FAST)
    assert len(counted) == len(set(counted)) == 12  # no photo twice
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    assert not (tmp_path / ".out.partial").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda photos: (photos / "ann_0000.png").unlink(missing_ok=True) or next(photos.glob("*.png")).unlink(),
        lambda photos: os.utime(next(photos.glob("*.png")), (1, 1)),
        lambda photos: write_landmarks(photos / "landmarks68.csv", {"PersonA_0001.png": face_landmarks(64, 1.0)}),
    ],
)
def test_other_photos_or_landmarks_begin_anew(
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
    code = f"import sys; from ecvae_jax.cli import main; sys.exit(main({words!r}))"
    return [sys.executable, "-c", code]


def test_a_killed_preparation_gives_the_same_bytes(tmp_path: Path):
    """SIGKILL after the fifth photo: nobody had time to tidy up."""
    make_photos(tmp_path / "photos")
    prepare(str(tmp_path / "photos"), tmp_path / "whole", FAST)
    kill = (
        "import os, signal; from ecvae_jax.data import journal; add = journal.Journal.add\n"
        "def dying(self, outcome):\n    add(self, outcome)\n"
        "    if len(self) == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "journal.Journal.add = dying\n"
    )
    python, option, code = command(tmp_path)
    assert subprocess.run([python, option, kill + code], check=False).returncode == -signal.SIGKILL
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "whole", ".out.partial"}
    shown = subprocess.run(command(tmp_path), check=True, capture_output=True, text=True)
    assert "going on after 5 photos" in shown.stderr
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_a_disk_that_is_full_is_one_line_and_loses_nothing(tmp_path: Path):
    """The system refuses to let any file grow beyond 4 kB, as a full disk would."""
    make_photos(tmp_path / "photos", size=128)
    prepare(str(tmp_path / "photos"), tmp_path / "whole", FAST)
    limited = ["bash", "-c", 'ulimit -S -f 4; exec "$@"', "bash", *command(tmp_path)]
    shown = subprocess.run(limited, check=False, capture_output=True, text=True)
    assert shown.returncode == 1
    last = shown.stderr.strip().splitlines()[-1]
    assert last.startswith("ecvae: error: ")
    assert "cannot write into" in last
    assert ".out.partial" in last
    assert "photos are done and kept in" in shown.stderr
    assert not (tmp_path / "out").exists()
    subprocess.run(command(tmp_path), check=True, capture_output=True)
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
