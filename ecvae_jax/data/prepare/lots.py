"""The outcomes of a preparation so far, on disk in lots of 32 photos. No import of Beam.

Files of a lot: `NUMBER.faces` holds the outcomes as one line of JSON, then their JPEGs; it appears complete or not at
all. `NUMBER.jobs` lists the photos for a Beam worker. `NAME.shard` lists the faces of one file of the records for a
Beam worker.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.given import GivenLandmarks
from ecvae_jax.data.photos.photo import BadPhotoError
from ecvae_jax.data.photos.sources import Source
from ecvae_jax.data.prepare.job import FaceJob, FaceOutcome
from ecvae_jax.data.records import FaceRecord
from ecvae_jax.files import irregular, write_text
from ecvae_jax.folders import MARK, claim_folder, clear_folder

PHOTOS = 32
"""Photos in a lot. A kill loses the work on at most 31 finished photos per running lot."""
AT_WORK = "at_work"
"""File in the work folder that exists while the main process itself reads photos."""

_FORMAT = 3

Place = tuple[int, int, dict[str, Any]]
"""A face of a shard: its lot, its place in the lot, and all of its `FaceRecord` but image and landmarks."""


class Lots:
    """The work folder of a preparation: locked by one process, and for one task.

    Attributes:
        work: the hidden work folder.
        folder: the lots in it.
    """

    def __init__(self, work: Path, task: dict[str, Any], count: int) -> None:
        """Opens the work folder. Keeps the lots of an earlier process if that had the same task; removes all else.

        The outcomes depend on the task only; it is JSON.

        Raises:
            DataError: another process holds the lock of the folder.
            UnsafePathError: `work` is a link, or a folder that is not ours; nothing in it changes.
        """
        self.work, self.folder = work, work / "lots"
        self._lock = claim_folder(work)
        if self._lock is None:
            raise DataError(f"{work}: another preparation is at work there; wait for it, or stop it")
        self._sizes = [min(PHOTOS, count - start) for start in range(0, count, PHOTOS)]
        wanted, stored = json.dumps({"format": _FORMAT, **task}, sort_keys=True), work / "task.json"
        same = os.path.lexists(stored) and not irregular(stored) and stored.read_text() == wanted
        clear_folder(work, {MARK, "task.json", "lots", AT_WORK} if same else {MARK})
        if not same:
            write_text(stored, wanted)
        self.folder.mkdir(exist_ok=True)
        clear_folder(self.folder, {_name(number) for number in range(len(self._sizes))})

    def __len__(self) -> int:
        """Returns the number of photos with an outcome."""
        return sum(self._sizes) - sum(self.size(number) for number in self.missing())

    def size(self, number: int) -> int:
        """Returns the number of photos of a lot."""
        return self._sizes[number]

    def locate(self, photo: int) -> tuple[int, int]:
        """Returns the lot of a photo and its place in the lot; `photo` is its place among all photos."""
        return divmod(photo, PHOTOS)

    def missing(self) -> list[int]:
        """Returns the numbers of the lots without outcomes."""
        return [number for number in range(len(self._sizes)) if not (self.folder / _name(number)).exists()]

    def missing_jobs(self, files: Source, given: GivenLandmarks | None) -> Iterator[tuple[int, FaceJob]]:
        """Yields the lot and the job of every photo without an outcome, in their order."""
        missing, rows = set(self.missing()), given.rows if given else {}
        start = PHOTOS * min(missing, default=len(self._sizes))
        photos = files.photos[start:]
        for place, (photo, loaded) in enumerate(zip(photos, files.load(start), strict=True), start):
            if place // PHOTOS in missing:
                yield place // PHOTOS, FaceJob(loaded.content, rows.get(photo.name), loaded.tags)

    def outcomes(self) -> Iterator[tuple[FaceOutcome, int]]:
        """Yields each photo's outcome without its JPEG, and the JPEG's bytes, in order; no lot may be missing."""
        for number in range(len(self._sizes)):
            with (self.folder / _name(number)).open("rb") as stream:
                for line in json.loads(stream.readline()):
                    yield _from_line(line), line["length"]

    def close(self, remove: bool) -> None:
        """Unlocks the work folder, and removes it if asked."""
        if remove:
            shutil.rmtree(self.work, ignore_errors=True)
        if self._lock:
            self._lock.close()


def put_outcomes(folder: str | Path, number: int, outcomes: Sequence[FaceOutcome]) -> None:
    """Writes the outcomes of a lot atomically. Two workers may do the same lot: both write the same bytes.

    `folder` is that of the lots as this process sees it; the same below.

    Raises:
        OSError: the disk is full or gone; earlier lots stay valid.
    """
    header = json.dumps([_to_line(outcome) for outcome in outcomes]).encode()
    aside = epath.Path(folder) / f".{number}.{uuid.uuid4().hex}"
    try:
        aside.write_bytes(b"\n".join([header, b"".join(outcome.image for outcome in outcomes)]))
        aside.replace(epath.Path(folder) / _name(number))
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OSError(error.errno, f"{error.strerror}: cannot write into", str(folder)) from None


def has_outcomes(folder: str, number: int) -> bool:
    """Returns whether a lot has its outcomes."""
    return (epath.Path(folder) / _name(number)).exists()


def put_jobs(folder: Path, number: int, jobs: Iterable[tuple[str, np.ndarray | None]]) -> None:
    """Writes where a worker finds each photo of a lot, and the photo's landmarks in pixels where they are given."""
    lines = [{"path": path, "landmarks": None if given is None else given.tolist()} for path, given in jobs]
    (folder / f"{number:06d}.jobs").write_text(json.dumps(lines))


def read_jobs(folder: str, number: int) -> Iterator[FaceJob]:
    """Yields the jobs that `put_jobs` wrote."""
    for line in json.loads((epath.Path(folder) / f"{number:06d}.jobs").read_text()):
        landmarks = None if line["landmarks"] is None else np.asarray(line["landmarks"], np.float32)
        yield FaceJob(_content(line["path"]), landmarks)


def put_shard(folder: Path, name: str, places: Iterable[Place]) -> None:
    """Writes which faces go into the file `name` of the records."""
    (folder / f"{name}.shard").write_text(json.dumps(list(places)))


def read_shard(folder: str, name: str) -> list[Place]:
    """Returns the faces that `put_shard` wrote."""
    return [tuple(place) for place in json.loads((epath.Path(folder) / f"{name}.shard").read_text())]


def read_records(folder: str | Path, places: Iterable[Place]) -> Iterator[FaceRecord]:
    """Yields the records of faces, their JPEGs read from the lots."""
    for number, group in groupby(places, lambda place: place[0]):
        with (epath.Path(folder) / _name(number)).open("rb") as stream:
            lines = json.loads(stream.readline())
            starts = list(accumulate((line["length"] for line in lines), initial=stream.tell()))
            for _, row, fields in group:
                stream.seek(starts[row])
                outcome = _from_line(lines[row])
                assert outcome.landmarks is not None
                yield FaceRecord(image=stream.read(lines[row]["length"]), landmarks=outcome.landmarks, **fields)


def _to_line(outcome: FaceOutcome) -> dict[str, Any]:
    # Landmarks as base64: as JSON numbers they take 0.1 ms, and a whole photo may take 2 ms.
    landmarks = outcome.landmarks
    return {
        "reason": outcome.reason,
        "notes": outcome.notes,
        "crop": outcome.crop,
        "tags": outcome.tags,
        "landmarks": None if landmarks is None else base64.b64encode(landmarks.astype("<f4").tobytes()).decode(),
        "length": len(outcome.image),
    }


def _from_line(line: dict[str, Any]) -> FaceOutcome:
    landmarks = None
    if line["landmarks"] is not None:
        landmarks = np.frombuffer(base64.b64decode(line["landmarks"]), "<f4").reshape(-1, 2).astype(np.float32)
    return FaceOutcome(line["reason"], b"", landmarks, line["crop"], tuple(line["notes"]), line["tags"])


def _content(path: str) -> Path | bytes | BadPhotoError:
    if "://" not in path:
        return Path(path)
    try:
        return epath.Path(path).read_bytes()
    except Exception as error:  # each kind of store raises its own
        return BadPhotoError(f"unreadable: {' '.join(str(error).split())[:200]}")


def _name(number: int) -> str:
    return f"{number:06d}.faces"
