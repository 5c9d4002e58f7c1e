"""A photo that kills the process reading it is rejected; the other photos become records."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from deadly_photos import deadly_start, stillborn
from drawn_faces import make_photos
from test_data_beam import needs_beam
from test_data_lots import KILL, digest

from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.prepare import pool as workers
from ecvae_jax.data.prepare.job import FaceJob
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.prepare import prepare


def reasons(out: Path) -> dict[str, str]:
    with (out / "report.csv").open(newline="") as stream:
        return {row["file"]: row["reason"] for row in csv.DictReader(stream) if row["status"] == "rejected"}


EXPECTED = {
    "PersonB_0001.png": "the process reading it died (signal 11)",
    "PersonB_0002.png": "the process reading it died (signal 9)",
    "PersonD_0001.png": "the process reading it died (exit code 3)",
    "PersonD_0002.png": "the process reading it died (exit code 3)",
}


@pytest.mark.parametrize("processes", [2, 3])
def test_photos_that_kill_are_rejected_and_the_others_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, capfd: pytest.CaptureFixture[str]
):
    make_photos(tmp_path / "photos", people=40)
    monkeypatch.setattr(workers, "_start_worker", deadly_start)
    options = PrepareConfig(size=32, workers=processes)
    summary = prepare(str(tmp_path / "photos"), tmp_path / "out", options)
    assert {name: reason for name, reason in reasons(tmp_path / "out").items() if "died" in reason} == EXPECTED
    assert summary.kept + summary.rejected + summary.skipped == summary.found == 81
    assert summary.reasons["the process reading it died (exit code 3)"] == 2
    assert "a worker process died: its possible causes are retried one by one" in capfd.readouterr().err
    monkeypatch.undo()
    for name in EXPECTED:
        (tmp_path / "photos" / name).unlink()
    prepare(str(tmp_path / "photos"), tmp_path / "without", options)
    deadly, without = load_faces(tmp_path / "out", "train"), load_faces(tmp_path / "without", "train")
    assert deadly.fingerprint == without.fingerprint
    assert deadly.encoded(range(len(deadly))) == without.encoded(range(len(without)))


def command(tmp_path: Path, processes: int, more: str = "", *options: str) -> list[str]:
    words = ["prepare", str(tmp_path / "photos"), str(tmp_path / "out"), "--size", "32", "--workers", str(processes)]
    words += options
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import deadly_photos as deadly\n"
        "deadly.photo_module.Image.open = deadly.deadly_open\n"
        f"deadly.workers._start_worker = deadly.deadly_start\n{more}"
        f"from ecvae_jax.cli.main import main\nsys.exit(main({words!r}))"
    )
    return [sys.executable, "-c", code]


@pytest.mark.slow
@needs_beam
def test_a_photo_that_kills_does_not_reach_the_workers_of_beam(tmp_path: Path):
    make_photos(tmp_path / "photos", people=4)
    subprocess.run(command(tmp_path, 1, "", "--beam-runner", "DirectRunner"), check=True, capture_output=True)
    assert reasons(tmp_path / "out") == EXPECTED


@pytest.mark.slow
def test_where_there_is_one_process_it_dies_once_and_the_next_call_rejects_what_kills(tmp_path: Path):
    make_photos(tmp_path / "photos", people=4)
    died = subprocess.run(command(tmp_path, 1), check=False, capture_output=True)
    assert died.returncode == -signal.SIGSEGV
    subprocess.run(command(tmp_path, 1), check=True, capture_output=True)
    assert reasons(tmp_path / "out") == EXPECTED
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "out"}


def test_the_bytes_are_the_same_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_photos(tmp_path / "photos", people=10)
    monkeypatch.setattr(workers, "_start_worker", deadly_start)
    prepare(str(tmp_path / "photos"), tmp_path / "whole", PrepareConfig(size=32, workers=2))
    killed = subprocess.run(command(tmp_path, 2, KILL), check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    lots_of_two = "from ecvae_jax.data.prepare import lots\nlots.PHOTOS = 2\n"
    shown = subprocess.run(command(tmp_path, 2, lots_of_two), check=True, capture_output=True, text=True)
    assert "resuming after 6 photos" in shown.stderr
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_a_process_that_dies_before_any_photo_rejects_no_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_photos(tmp_path / "photos")
    monkeypatch.setattr(workers, "_start_worker", stillborn)
    with pytest.raises(workers.WorkerDiedError, match=r"died while it started \(signal 9\): free memory"):
        prepare(str(tmp_path / "photos"), tmp_path / "out", PrepareConfig(size=32, workers=2))


def test_the_contents_in_memory_are_bounded_by_their_bytes():
    """Members of an archive are in memory while they wait for a worker: their bytes count, not their number."""
    size, count = 48 * 2**20, 16
    pulled, most = 0, 0

    def jobs():
        nonlocal pulled
        for _ in range(count):
            pulled += 1
            yield FaceJob(bytes(size))

    outcomes = workers.find_faces(jobs(), count, PrepareConfig(size=32, workers=2), False)
    for taken, outcome in enumerate(outcomes):
        most = max(most, pulled - taken)
        assert outcome.reason == "not an image: unknown format"
    assert taken == count - 1
    assert most * size <= 256 * 2**20 + size


def test_pixels_count_as_contents_and_small_photos_go_in_chunks():
    pixels = np.zeros((4096, 4096, 3), np.uint8)  # 48 MB
    jobs = [FaceJob(pixels), *[FaceJob(Path("gone.png"))] * 20, FaceJob(b"x"), FaceJob(pixels), FaceJob(b"x")]
    chunks = list(workers._chunks(iter(jobs)))
    assert [job for chunk in chunks for job in chunk] == jobs
    assert [len(chunk) for chunk in chunks] == [1, 8, 8, 6, 1]
