"""Lots of photos on disk: what the command and Beam's workers hand each other. No import of Beam.

The files of a lot: `.jobs` says what to do with its photos. `.faces`, which a worker writes, has the outcomes in its
first line, and the JPEGs behind it. `.SPLIT.kept` says which of them become which records.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from ecvae_jax.data.photos.photo import BadPhotoError
from ecvae_jax.data.prepare.job import FaceJob, FaceOutcome
from ecvae_jax.data.prepare.journal import outcome_line, read_outcome_line
from ecvae_jax.data.prepare.work_folder import WorkFolder
from ecvae_jax.data.records import FaceRecord

PHOTOS = 32
"""Photos of a lot: what is lost when its worker dies."""


class Lots:
    """The lots of a preparation as the command sees them. What is done stays done, whoever was killed."""

    def __init__(self, folder: Path, task: dict[str, Any], count: int, seen: Callable[[Path], str]) -> None:
        """Opens the lots in `folder`, or begins them there.

        Args:
            folder: the hidden work folder of the preparation.
            task: everything that the outcomes depend on; JSON.
            count: number of photos.
            seen: where the workers find a path of this machine.

        Raises:
            DataError: the workers cannot see the folder, or another process is at work in it.
        """
        self._lots = folder / "lots"
        self.seen_folder = seen(self._lots)
        """The lots' folder as the workers see it."""
        self._work = WorkFolder(folder, task, keep={"lots"})
        self._lots.mkdir(exist_ok=True)
        self._sizes = [min(PHOTOS, count - start) for start in range(0, count, PHOTOS)]

    def __len__(self) -> int:
        """Returns the number of photos that are done."""
        return sum(self._sizes) - sum(self._sizes[number] for number in self.missing())

    def missing(self) -> list[int]:
        """Returns the numbers of the lots that are not done yet."""
        return [number for number in range(len(self._sizes)) if not self._file(number, "faces").exists()]

    def photos(self, number: int) -> range:
        """Returns the places, among all photos, of those of a lot."""
        return range(number * PHOTOS, number * PHOTOS + self._sizes[number])

    def give(self, number: int, jobs: Sequence[tuple[str, np.ndarray | None]]) -> None:
        """Writes what a worker shall do: where it finds each photo, and its landmarks (pixels) where they are given."""
        lines = [{"path": path, "landmarks": None if given is None else given.tolist()} for path, given in jobs]
        self._file(number, "jobs").write_text(json.dumps(lines))

    @property
    def outcomes(self) -> Iterator[FaceOutcome]:
        """The outcomes of all photos in their order, without their JPEGs; all lots must be done."""
        for number in range(len(self._sizes)):
            with self._file(number, "faces").open("rb") as stream:
                yield from map(read_outcome_line, json.loads(stream.readline()))

    def keep(self, split: str, number: int, faces: Sequence[tuple[int, int, dict[str, Any]]]) -> None:
        """Writes which photos of a lot go into a split.

        Args:
            split: "train", "validation" or "test".
            number: of the lot.
            faces: the place in the split, the place in the lot, and all of `FaceRecord` but image and landmarks.
        """
        self._file(number, f"{split}.kept").write_text(json.dumps(faces))

    def close(self, remove: bool) -> None:
        """Lets go of the folder, and removes it where it is no longer wanted."""
        self._work.close(remove)

    def _file(self, number: int, suffix: str) -> Path:
        return self._lots / _name(number, suffix)


def is_done(folder: str, number: int) -> bool:
    """Returns whether a lot has its outcomes; `folder` as a worker sees it, the same for all that follow."""
    return (epath.Path(folder) / _name(number, "faces")).exists()


def take(folder: str, number: int) -> Iterator[FaceJob]:
    """Yields the jobs of a lot."""
    for line in json.loads((epath.Path(folder) / _name(number, "jobs")).read_text()):
        landmarks = None if line["landmarks"] is None else np.asarray(line["landmarks"], np.float32)
        yield FaceJob(_content(line["path"]), landmarks)


def put(folder: str, number: int, outcomes: Sequence[FaceOutcome]) -> None:
    """Writes the outcomes of a lot; they appear whole. Two workers may do the same lot: they write the same."""
    header = json.dumps([outcome_line(outcome) for outcome in outcomes]).encode()
    aside = epath.Path(folder) / f".{number}.{uuid.uuid4().hex}"
    aside.write_bytes(b"\n".join([header, b"".join(outcome.image for outcome in outcomes)]))
    aside.replace(epath.Path(folder) / _name(number, "faces"))


def read_faces(folder: str, number: int, split: str) -> Iterator[tuple[int, FaceRecord]]:
    """Yields what of a lot goes into a split: the place there, and the record."""
    kept = json.loads((epath.Path(folder) / _name(number, f"{split}.kept")).read_text())
    with (epath.Path(folder) / _name(number, "faces")).open("rb") as stream:
        lines = json.loads(stream.readline())
        starts = list(accumulate((line["length"] for line in lines), initial=stream.tell()))
        for key, row, fields in kept:
            stream.seek(starts[row])
            outcome = read_outcome_line(lines[row])
            assert outcome.landmarks is not None
            yield key, FaceRecord(image=stream.read(lines[row]["length"]), landmarks=outcome.landmarks, **fields)


def _content(path: str) -> Path | bytes | BadPhotoError:
    if "://" not in path:
        return Path(path)
    try:
        return epath.Path(path).read_bytes()
    except Exception as error:  # every kind of store has its own
        return BadPhotoError(f"unreadable: {' '.join(str(error).split())[:200]}")


def _name(number: int, suffix: str) -> str:
    return f"{number:06d}.{suffix}"
