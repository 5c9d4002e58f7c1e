"""What became of every file of a source: report.csv, and the summary that adds up."""

from __future__ import annotations

import csv
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ecvae_jax.data.photos.given import GivenLandmarks
from ecvae_jax.data.photos.sources import Photo, Source
from ecvae_jax.data.prepare.job import FaceOutcome
from ecvae_jax.data.prepare.options import PrepareConfig

COLUMNS = ("file", "status", "split", "identity", "reason", "notes")


@dataclass(frozen=True)
class ReportRow:
    """One file of the source.

    Attributes:
        file: its path below the source's folder.
        status: "kept"; "rejected": a photo without a usable face; "skipped": not taken for a photo.
        split, identity: of a kept one.
        reason: why it was not kept: a category, then `: ` and details where there are any.
        notes: what was done to it or should be known.
    """

    file: str
    status: str
    split: str = ""
    identity: str = ""
    reason: str = ""
    notes: str = ""


@dataclass(frozen=True)
class PrepareSummary:
    """What a preparation did. kept + rejected + skipped = found.

    Attributes:
        out: the records folder.
        found, kept, rejected, skipped: numbers of files.
        splits: faces in each split.
        identities: people among the kept.
        reasons: number of files for each category of reason.
        facts: what was assumed, and what the user should know.
        seconds: time spent on the photos, writing included.
        images_per_second: photos a second over that time.
    """

    out: Path
    found: int
    kept: int
    rejected: int
    skipped: int
    splits: dict[str, int]
    identities: int
    reasons: dict[str, int] = field(default_factory=dict)
    facts: tuple[str, ...] = ()
    seconds: float = 0.0
    images_per_second: float = 0.0

    def __str__(self) -> str:
        """Returns `lines()` as one text."""
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """Returns the summary for a person to read."""
        lines = list(self.facts)
        lines.append(
            f"{self.found} files found: {self.kept} kept, {self.rejected} rejected, {self.skipped} skipped (report.csv)"
        )
        lines += [f"  {number} × {reason}" for reason, number in self.reasons.items()]
        parts = ", ".join(f"{split} {number}" for split, number in self.splits.items())
        lines.append(f"{self.identities} identities; faces: {parts}")
        lines.append(f"{self.images_per_second:.1f} images/s ({self.seconds:.1f} s)")
        return lines


def write_report(path: Path, rows: Iterable[ReportRow]) -> None:
    """Writes report.csv: one line a file, in the order of the names."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in sorted(rows, key=lambda row: row.file):
            writer.writerow([getattr(row, column) for column in COLUMNS])


def count_reasons(rows: Iterable[ReportRow]) -> dict[str, int]:
    """Returns how many files were not kept for each category of reason, the most frequent first."""
    counts = Counter(row.reason.split(":")[0] for row in rows if row.reason)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


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
