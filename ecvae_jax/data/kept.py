"""Which photos of a preparation gave a face, and what the report and the user are told of the others."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

from ecvae_jax.data.face_job import FaceOutcome
from ecvae_jax.data.given import GivenLandmarks
from ecvae_jax.data.options import PrepareConfig
from ecvae_jax.data.report import ReportRow, count_reasons
from ecvae_jax.data.sources import Photo, Source


class Kept(NamedTuple):
    """A face whose JPEG waits on disk, where it has the number `index` among all photos."""

    photo: Photo
    index: int
    outcome: FaceOutcome

    @property
    def fields(self) -> dict[str, Any]:
        """All of its `builders.FaceRecord` but image and landmarks."""
        photo, outcome = self.photo, self.outcome
        return {
            "identity": photo.identity, "group": photo.group, "name": photo.name,
            "tags": {**photo.tags, **outcome.tags, "crop": outcome.crop},
        }  # fmt: skip


def sort_out(
    files: Source, given: GivenLandmarks | None, outcomes: Iterable[FaceOutcome]
) -> tuple[list[ReportRow], list[Kept]]:
    """Returns a row for every file of the source, and the photos that gave a face; `outcomes`: one a photo."""
    tables = given.files if given else frozenset()
    rows = [
        ReportRow(name, "skipped", reason="the landmarks that were used" if name in tables else reason)
        for name, reason in files.skipped
    ]
    kept: list[Kept] = []
    for index, (photo, outcome) in enumerate(zip(files.photos, outcomes, strict=True)):
        notes = "; ".join(outcome.notes)
        if outcome.landmarks is None:
            rows.append(ReportRow(photo.name, "rejected", reason=outcome.reason, notes=notes))
            continue
        kept.append(Kept(photo, index, outcome))
        rows.append(ReportRow(photo.name, "kept", identity=photo.identity, notes=notes))
    return rows, kept


def placed(row: ReportRow, splits: dict[str, str]) -> ReportRow:
    """Returns the row of a kept photo with its split; others as they are."""
    return ReportRow(row.file, row.status, splits[row.identity], row.identity, "", row.notes) if row.identity else row


def no_face(source: str, rows: list[ReportRow]) -> str:
    """Returns the line for a source without any face."""
    reasons = list(count_reasons(row for row in rows if row.status == "rejected").items())[:3]
    why = ", ".join(f"{number} × {reason}" for reason, number in reasons)
    return f"source {source!r}: none of its {len(rows)} files gave a face ({why}); nothing was written"


def advice(kept: list[Kept], files: Source, given: GivenLandmarks | None, options: PrepareConfig) -> list[str]:
    """Returns what the user should know of the photos that were kept."""
    lines = []
    sides = [face.outcome.crop["side"] for face in kept]
    small = sum(side < options.size for side in sides)
    if small > len(kept) / 2:
        lines.append(
            f"{small} of {len(kept)} crops were smaller than {options.size} px and were enlarged "
            f"(median {statistics.median(sides):.0f} px): a smaller --size would lose nothing"
        )
    if given:
        unused = len(set(given.rows) - {photo.name for photo in files.photos})
        if unused:
            lines.append(f"{unused} rows of {given.label} name no photo of the source")
    return lines
