"""A preparation by processes of this machine: outcomes in a journal, records from there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ecvae_jax.data.photos.given import GivenLandmarks
from ecvae_jax.data.photos.sources import Source
from ecvae_jax.data.prepare.job import FaceJob, FaceOutcome
from ecvae_jax.data.prepare.journal import AT_WORK, Journal
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.pool import work_on
from ecvae_jax.data.prepare.report import Kept
from ecvae_jax.progress import track


class ByProcesses:
    """The work on the photos of one preparation."""

    def __init__(self, folder: Path, task: dict[str, Any], options: PrepareConfig) -> None:
        """Opens the journal in `folder`, as `Journal` does.

        Raises:
            DataError: another process is at work in the folder.
        """
        self._journal, self._options = Journal(folder, task), options

    def __len__(self) -> int:
        """Returns the number of photos that are done."""
        return len(self._journal)

    def find_faces(self, files: Source, given: GivenLandmarks | None) -> None:
        """Brings the journal to the last photo."""
        done = len(self._journal)
        rest = files.photos[done:]
        if not rest:  # all were done before; a detector would be loaded for nothing
            return
        jobs = (
            FaceJob(loaded.content, given.rows.get(photo.name) if given else None, loaded.tags)
            for photo, loaded in zip(rest, files.load(done), strict=True)
        )
        outcomes = work_on(jobs, len(rest), self._options, given is None, self._journal.folder / AT_WORK)
        for outcome in track(outcomes, len(rest), "photos"):
            self._journal.add(outcome)

    @property
    def outcomes(self) -> Iterable[FaceOutcome]:
        """The outcomes of all photos in their order, without their JPEGs."""
        return self._journal.outcomes

    def write(self, out: Path, splits: Mapping[str, Sequence[Kept]], metadata: dict[str, Any]) -> None:
        """Writes the records folder."""
        # tensorflow-datasets: late, workers skip it; and not beside other work, since while it is imported it replaces
        # Python's import for all threads by one that refuses relative imports.
        from ecvae_jax.data.records import FaceRecord, write_records

        def records(faces: Sequence[Kept]) -> Iterator[FaceRecord]:
            for face in faces:
                assert face.outcome.landmarks is not None
                yield FaceRecord(self._journal.image(face.index), face.outcome.landmarks, **face.fields)

        write_records(out, {split: records(faces) for split, faces in splits.items()}, metadata)

    def close(self, remove: bool) -> None:
        """Lets go of the work folder, and removes it where it is no longer wanted."""
        self._journal.close(remove)
