"""A preparation by Apache Beam: outcomes in lots, which its workers fill, and records from there."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.given import GivenLandmarks
from ecvae_jax.data.photos.sources import Source
from ecvae_jax.data.prepare.job import FaceOutcome
from ecvae_jax.data.prepare.lots import PHOTOS, Lots
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.pipelines import BeamRunner
from ecvae_jax.data.prepare.report import Kept


class ByBeam:
    """The work on the photos of one preparation."""

    def __init__(self, folder: Path, task: dict[str, Any], options: PrepareConfig, photos: int) -> None:
        """Opens the lots in `folder`, as `Lots` does.

        Raises:
            DataError: the runner or its options are unknown, the workers cannot see the folder, or another process is
                at work in it.
        """
        self._runner = BeamRunner(options)
        self._seen = options.seen_by_workers
        self._lots = Lots(folder, task, photos, self._seen)

    def __len__(self) -> int:
        """Returns the number of photos that are done."""
        return len(self._lots)

    def find_faces(self, files: Source, given: GivenLandmarks | None) -> None:
        """Has every lot done that is not.

        Raises:
            DataError: the photos of the source are no files.
        """
        missing = self._lots.missing()
        if not missing:
            return
        contents, wanted = files.load(0), set(missing)
        for number, start in enumerate(range(0, len(files.photos), PHOTOS)):
            photos = files.photos[start : start + PHOTOS]
            loaded = list(islice(contents, len(photos)))
            paths = [item.content for item in loaded if isinstance(item.content, Path)]
            if len(paths) < len(photos):
                raise DataError(
                    f"source {files.label!r}: Beam's workers open photos by their paths, and here they are no files; "
                    "unpack it into a folder, or leave --beam-runner out"
                )
            if number in wanted:
                landmarks = [given.rows.get(photo.name) if given else None for photo in photos]
                self._lots.give(number, list(zip(map(self._seen, paths), landmarks, strict=True)))
        rest = len(files.photos) - len(self)
        print(f"{rest} photos go to Beam, in {len(missing)} lots of up to {PHOTOS}", file=sys.stderr)
        self._runner.find_faces(self._lots.seen_folder, missing, detect=given is None)

    @property
    def outcomes(self) -> Iterable[FaceOutcome]:
        """The outcomes of all photos in their order, without their JPEGs."""
        return self._lots.outcomes

    def write(self, out: Path, splits: Mapping[str, Sequence[Kept]], metadata: dict[str, Any]) -> None:
        """Has the records folder written."""
        numbers: dict[str, list[int]] = {}
        for split, faces in splits.items():
            by_lot: dict[int, list[tuple[int, int, dict[str, Any]]]] = defaultdict(list)
            for key, face in enumerate(faces):
                by_lot[face.index // PHOTOS].append((key, face.index % PHOTOS, face.fields))
            for number, entries in by_lot.items():
                self._lots.keep(split, number, entries)
            numbers[split] = list(by_lot)
        self._runner.write_records(out, self._lots.seen_folder, numbers, metadata, self._seen)

    def close(self, remove: bool) -> None:
        """Lets go of the work folder, and removes it where it is no longer wanted."""
        self._lots.close(remove)
