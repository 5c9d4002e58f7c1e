"""What a preparation has done so far, on disk: so that one that was killed goes on where it was."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ecvae_jax.data.prepare.job import FaceOutcome
from ecvae_jax.data.prepare.work_folder import WorkFolder

AT_WORK = "at_work"
"""Name, in the journal's folder, of the file that says: the next photo is being worked on by the main process."""


class Journal:
    """Outcomes in the order of the photos: a line each in `outcomes.jsonl`, the JPEGs one after the other in `spool`.

    Both files only grow. What a kill left half-written at their ends is cut off when the journal is opened again, so it
    always holds the outcomes of the first n photos. A journal that was begun for other photos or options is thrown
    away.
    """

    def __init__(self, folder: Path, task: dict[str, Any]) -> None:
        """Opens the journal in `folder`, or begins one there.

        Args:
            folder: the hidden work folder of the preparation.
            task: everything that the outcomes depend on; JSON.

        Raises:
            DataError: another process is at work in the folder.
        """
        self._work = WorkFolder(folder, task, keep={"spool", "outcomes.jsonl", AT_WORK})
        self.folder = folder
        self._spool: BinaryIO = (folder / "spool").open("a+b")
        self._lines: BinaryIO = (folder / "outcomes.jsonl").open("a+b")
        self._places: list[tuple[int, int]] = []
        self._outcomes: list[FaceOutcome] = []
        self._read()

    def __len__(self) -> int:
        """Returns n, the number of photos that are done."""
        return len(self._outcomes)

    def add(self, outcome: FaceOutcome) -> None:
        """Appends the outcome of the next photo.

        Raises:
            OSError: the disk is full or gone; what was added before stays good.
        """
        offset, length = sum(self._places[-1]) if self._places else 0, len(outcome.image)
        try:
            self._spool.write(outcome.image)
            self._spool.flush()  # before the line that speaks of it
            self._lines.write(json.dumps(outcome_line(outcome)).encode() + b"\n")
            self._lines.flush()
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: cannot write into", str(self.folder)) from None
        self._remember(outcome, offset, length)

    @property
    def outcomes(self) -> Sequence[FaceOutcome]:
        """The outcomes of all photos that are done, without their JPEGs."""
        return self._outcomes

    def image(self, index: int) -> bytes:
        """Returns the JPEG of photo `index`."""
        offset, length = self._places[index]
        self._spool.seek(offset)
        return self._spool.read(length)

    def close(self, remove: bool) -> None:
        """Lets go of the folder, and removes it where it is no longer wanted."""
        for file in (self._spool, self._lines):
            with contextlib.suppress(OSError):  # a full disk says so once more
                file.close()
        self._work.close(remove)

    def _remember(self, outcome: FaceOutcome, offset: int, length: int) -> None:
        # The JPEGs stay on disk: a preparation may be larger than the memory.
        self._outcomes.append(dataclasses.replace(outcome, image=b""))
        self._places.append((offset, length))

    def _read(self) -> None:
        spooled = os.fstat(self._spool.fileno()).st_size
        self._lines.seek(0)
        good, offset = 0, 0
        for raw in self._lines:
            try:
                line = json.loads(raw) if raw.endswith(b"\n") else None
            except ValueError:
                line = None
            if line is None or offset + line["length"] > spooled:
                break
            self._remember(read_outcome_line(line), offset, line["length"])
            offset += line["length"]
            good += len(raw)
        self._lines.truncate(good)
        self._spool.truncate(offset)


def outcome_line(outcome: FaceOutcome) -> dict[str, Any]:
    """Returns what JSON keeps of an outcome: all but its JPEG, of which it keeps the length.

    The landmarks are their bytes: as numbers they would take a tenth of a millisecond, of two that a photo may take.
    """
    landmarks = outcome.landmarks
    return {
        "reason": outcome.reason, "notes": outcome.notes, "crop": outcome.crop, "tags": outcome.tags,
        "landmarks": None if landmarks is None else base64.b64encode(landmarks.astype("<f4").tobytes()).decode(),
        "length": len(outcome.image),
    }  # fmt: skip


def read_outcome_line(line: dict[str, Any]) -> FaceOutcome:
    """Returns the outcome that `outcome_line` kept, without its JPEG."""
    landmarks = None
    if line["landmarks"] is not None:
        landmarks = np.frombuffer(base64.b64decode(line["landmarks"]), "<f4").reshape(-1, 2).astype(np.float32)
    return FaceOutcome(line["reason"], b"", landmarks, line["crop"], tuple(line["notes"]), line["tags"])
