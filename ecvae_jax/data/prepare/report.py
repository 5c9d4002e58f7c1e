"""The outcome of every file of a source: its row in report.csv, its split, and the summary."""

from __future__ import annotations

import csv
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from ecvae_jax.data.photos.face_check import fills_upper_left_quarter
from ecvae_jax.data.photos.given import GivenLandmarks
from ecvae_jax.data.photos.identity import SPLITS, assign_splits
from ecvae_jax.data.photos.sources import Photo, Source
from ecvae_jax.data.prepare.job import FaceOutcome
from ecvae_jax.data.prepare.options import PrepareConfig

_FEWEST = 3
"""Photos from which on landmarks in the same quarter are no chance."""

COLUMNS = ("file", "status", "split", "identity", "reason", "notes")


@dataclass(frozen=True)
class ReportRow:
    """One file of the source.

    Attributes:
        file: its path below the source's folder.
        status: "kept"; "rejected": a photo without a usable face; "skipped": not a photo.
        split, identity: of a kept photo; else empty.
        reason: why it is not kept: a category, then `: ` and any details; empty for a kept photo.
        notes: what was done to it, and what the user should know.
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

    `splits` counts faces, `identities` people with a kept photo, `reasons` files by category. `facts` are lines on what
    was assumed, and what the user should know. The `seconds` include writing.
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
        lines = list(self.facts)
        lines.append(
            f"{self.found} files found: {self.kept} kept, {self.rejected} rejected, {self.skipped} skipped (report.csv)"
        )
        lines += [f"  {number} × {reason}" for reason, number in self.reasons.items()]
        parts = ", ".join(f"{split} {number}" for split, number in self.splits.items())
        lines.append(f"{self.identities} identities; faces: {parts}")
        lines.append(f"{self.images_per_second:.1f} images/s ({self.seconds:.1f} s)")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields for JSON."""
        return {**asdict(self), "out": str(self.out)}


def write_report(path: Path, rows: Iterable[ReportRow]) -> None:
    """Writes report.csv: one line per file, sorted by name."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in sorted(rows, key=lambda row: row.file):
            writer.writerow([getattr(row, column) for column in COLUMNS])


def count_reasons(rows: Iterable[ReportRow]) -> dict[str, int]:
    """Returns the number of files for each category of reason, the most frequent first."""
    counts = Counter(row.reason.split(":")[0] for row in rows if row.reason)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


class KeptFace(NamedTuple):
    """A face that becomes a record; its JPEG stays on disk."""

    photo: Photo
    """Where it comes from."""
    place: int
    """Of the photo among all photos."""
    outcome: FaceOutcome
    """Without the JPEG."""
    length: int
    """Bytes of the JPEG."""

    @property
    def fields(self) -> dict[str, Any]:
        """All of its `FaceRecord` but image and landmarks."""
        photo, outcome = self.photo, self.outcome
        tags = {**photo.tags, **outcome.tags, "crop": outcome.crop}
        return {"identity": photo.identity, "group": photo.group, "name": photo.name, "tags": tags}


def sort_photos(
    files: Source, given: GivenLandmarks | None, outcomes: Iterable[tuple[FaceOutcome, int]], options: PrepareConfig
) -> tuple[list[ReportRow], dict[str, list[KeptFace]]]:
    """Returns a row for every file of the source, and the kept faces of each split that has any.

    `outcomes` has one per photo, each with the bytes of its JPEG.
    """
    found = list(zip(files.photos, _without_half_size(list(outcomes)) if given else outcomes, strict=True))
    kept = [photo for photo, (outcome, _) in found if outcome.landmarks is not None]
    splits = assign_splits((photo.identity for photo in kept), options.validation, options.test)
    splits |= {photo.identity: photo.split for photo in kept if photo.split}
    tables = given.files if given else frozenset()
    rows = [
        ReportRow(name, "skipped", reason="the landmarks that were used" if name in tables else reason)
        for name, reason in files.skipped
    ]
    faces: dict[str, list[KeptFace]] = {split: [] for split in SPLITS}
    for place, (photo, (outcome, length)) in enumerate(found):
        notes = "; ".join(outcome.notes)
        if outcome.landmarks is None:
            rows.append(ReportRow(photo.name, "rejected", reason=outcome.reason, notes=notes))
            continue
        split = splits[photo.identity]
        rows.append(ReportRow(photo.name, "kept", split, photo.identity, notes=notes))
        faces[split].append(KeptFace(photo, place, outcome, length))
    return rows, {split: members for split, members in faces.items() if members}


def _without_half_size(outcomes: list[tuple[FaceOutcome, int]]) -> list[tuple[FaceOutcome, int]]:
    """Returns the outcomes, with a note or a refusal for given landmarks in the upper left quarter of their photos.

    One face may be there. Where nearly all are, the landmarks were measured on smaller copies.
    """
    kept = [outcome for outcome, _ in outcomes if outcome.landmarks is not None]
    quarter = {
        id(outcome)
        for outcome in kept
        if outcome.landmarks is not None and fills_upper_left_quarter(outcome.crop, outcome.landmarks)
    }
    if not quarter:
        return outcomes
    refused = len(kept) >= _FEWEST and len(quarter) > 0.9 * len(kept)
    where = "upper left quarter of the photo: were they measured on a smaller copy?"

    def judged(outcome: FaceOutcome) -> FaceOutcome:
        if id(outcome) not in quarter:
            return outcome
        if refused:
            reason = "landmarks of another size: in nearly all photos they lie in the upper left quarter; scale them"
            return FaceOutcome(reason=reason, notes=outcome.notes)
        return replace(outcome, notes=(*outcome.notes, f"all landmarks lie in the {where}"))

    return [(judged(outcome), length) for outcome, length in outcomes]


def no_face(source: str, rows: Sequence[ReportRow]) -> str:
    """Returns the error line for a source without any face."""
    reasons = list(count_reasons(row for row in rows if row.status == "rejected").items())[:3]
    why = ", ".join(f"{number} × {reason}" for reason, number in reasons)
    return f"source {source!r}: none of its {len(rows)} files gave a face ({why}); nothing was written"


def summarize(
    out: Path,
    rows: Sequence[ReportRow],
    faces: Mapping[str, Sequence[KeptFace]],
    facts: Iterable[str],
    seconds: float,
    photos: int,
) -> PrepareSummary:
    """Returns the summary of a preparation that worked on `photos` photos in `seconds`."""
    status = Counter(row.status for row in rows)
    return PrepareSummary(
        out,
        len(rows),
        *(status[name] for name in ("kept", "rejected", "skipped")),
        splits={split: len(members) for split, members in faces.items()},
        identities=len({row.identity for row in rows if row.identity}),
        reasons=count_reasons(rows),
        facts=tuple(facts),
        seconds=seconds,
        images_per_second=photos / seconds,
    )


def advice(
    faces: Mapping[str, Sequence[KeptFace]], files: Source, given: GivenLandmarks | None, options: PrepareConfig
) -> list[str]:
    """Returns what the user should know of the kept photos, one line a fact."""
    lines = []
    sides = [face.outcome.crop["side"] for members in faces.values() for face in members]
    small = sum(side < options.size for side in sides)
    if small > len(sides) / 2:
        lines.append(
            f"{small} of {len(sides)} crops were smaller than {options.size} px and were enlarged "
            f"(median {statistics.median(sides):.0f} px): a smaller --size would lose nothing"
        )
    if given:
        unused = len(set(given.rows) - {photo.name for photo in files.photos})
        if unused:
            lines.append(f"{unused} rows of {given.label} name no photo of the source")
    return lines
