"""What became of every file of a source: report.csv, and the summary that adds up."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

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
