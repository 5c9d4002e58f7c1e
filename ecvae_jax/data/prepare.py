"""From a source of photos to a records folder with its report.csv: what `ecvae prepare` calls."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ecvae_jax import __version__
from ecvae_jax.data.detect import load_detector
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.face_job import FaceJob, FaceOutcome
from ecvae_jax.data.given import GivenLandmarks, find_given_landmarks
from ecvae_jax.data.journal import Journal
from ecvae_jax.data.options import PrepareConfig
from ecvae_jax.data.progress import shown
from ecvae_jax.data.report import PrepareSummary, ReportRow, count_reasons, write_report
from ecvae_jax.data.sources import Photo, Source, open_source
from ecvae_jax.data.splits import assign_splits
from ecvae_jax.data.workers import work_on

REPORT = "report.csv"
PREVIEW = "preview.png"


class _Kept(NamedTuple):
    """A face whose JPEG waits in the journal, where it has the number `index`."""

    photo: Photo
    index: int
    outcome: FaceOutcome


def prepare(source: str, out: Path, options: PrepareConfig | None = None) -> PrepareSummary:
    """Writes a records folder from a source of photos and returns what became of them.

    Everything is written into a hidden folder beside `out`, from which the records are moved when they are complete.
    Where the work is broken off, by whatever it may be, that folder stays, and the same call goes on from there. The
    same source and options give the same bytes, however many processes work and however often it was broken off.

    Args:
        source: a folder, a list, an archive, `multipie:DIR`, `tfds:NAME` or `video:FILE` (see `sources.open_source`).
        out: folder to make.
        options: how; none: the defaults.

    Raises:
        DataError: the source, an option or the given landmarks cannot be used, `out` exists, or no photo has a face.
        MissingExtraError: the detector is not installed.
    """
    options = options or PrepareConfig()
    files = open_source(source, options)
    _check_out(out, files, options)
    given = find_given_landmarks(files, options.landmarks)
    if given:
        detector, points = f"given ({given.label})", given.points
    else:
        loaded = load_detector(options.detector)
        detector, points = loaded.name, loaded.points
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.parent / f".{out.name}.partial"
    start = time.perf_counter()
    with _journal(work, _task(files, given, options, detector)) as journal:
        before = len(journal)
        _make_faces(files, given, options, journal)
        rows, kept = _sorted_out(files, given, journal)
        if not kept:
            raise DataError(_no_face(source, rows))
        splits = assign_splits((face.photo.identity for face in kept), options.validation, options.test)
        splits |= {face.photo.identity: face.photo.split for face in kept if face.photo.split}
        metadata = {
            "points": points, "image_size": options.size, "source": files.label, "detector": detector,
            "margin": options.margin, "quality": options.quality,
        }  # fmt: skip
        counts = _write(work / "records", kept, splits, metadata, journal)
        rows = [_placed(row, splits) for row in rows]
        write_report(work / "records" / REPORT, rows)
        if options.preview:
            from ecvae_jax.data.preview import write_preview  # JAX: late, workers skip it

            write_preview(work / "records", options.preview, work / "records" / PREVIEW)
        _publish(work / "records", out)
    seconds = time.perf_counter() - start
    status = [row.status for row in rows]
    return PrepareSummary(
        out=out, found=len(rows), kept=len(kept), rejected=status.count("rejected"), skipped=status.count("skipped"),
        splits=counts, identities=len(splits), reasons=count_reasons(rows),
        facts=(*files.facts, f"landmarks: {points} points, {detector}", *_advice(kept, files, given, options)),
        seconds=seconds, images_per_second=(len(files.photos) - before) / seconds,
    )  # fmt: skip


@contextlib.contextmanager
def _journal(work: Path, task: dict[str, Any]) -> Iterator[Journal]:
    """The journal of the preparation: removed when it is done or can never be, kept where it can be gone on with."""
    journal = Journal(work, task)
    if len(journal):
        print(f"{work}: going on after {len(journal)} photos", file=sys.stderr)
    try:
        yield journal
    except DataError:
        journal.close(remove=True)
        raise
    except BaseException:
        if len(journal):
            print(f"{len(journal)} photos are done and kept in {work}: the same command goes on there", file=sys.stderr)
        journal.close(remove=not len(journal))
        raise
    journal.close(remove=True)


def _task(files: Source, given: GivenLandmarks | None, options: PrepareConfig, detector: str) -> dict[str, Any]:
    """Everything that the outcomes depend on, for the journal to compare."""
    settings = dataclasses.asdict(options)
    for free in ("workers", "overwrite", "preview", "validation", "test", "landmarks", "identity"):
        del settings[free]
    digest = hashlib.sha256()
    for photo in files.photos:
        digest.update(f"{photo.name}\0{photo.stamp}\n".encode())
    if given:
        for name, landmarks in given.rows.items():
            digest.update(name.encode() + landmarks.tobytes())
    return {"version": __version__, "photos": digest.hexdigest(), "detector": detector, **settings}


def _check_out(out: Path, files: Source, options: PrepareConfig) -> None:
    if files.root is not None and files.searched and out.resolve().is_relative_to(files.root.resolve()):
        raise DataError(f"{out} lies inside the source {files.root}: give a folder outside it")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not options.overwrite:
        raise DataError(f"{out} exists: give another folder, or --overwrite to replace earlier records")
    if not (out / "dataset_info.json").is_file():
        raise DataError(f"{out} exists and is no records folder: --overwrite replaces only those; give another folder")


def _make_faces(files: Source, given: GivenLandmarks | None, options: PrepareConfig, journal: Journal) -> None:
    """Brings the journal to the last photo."""
    rest = files.photos[len(journal) :]
    if not rest:  # all were done before; a detector would be loaded for nothing
        return
    jobs = (
        FaceJob(loaded.content, given.rows.get(photo.name) if given else None, loaded.tags)
        for photo, loaded in zip(rest, files.load(len(journal)), strict=True)
    )
    for outcome in shown(work_on(jobs, len(rest), options, detect=given is None), len(rest), "photos"):
        journal.add(outcome)


def _sorted_out(
    files: Source, given: GivenLandmarks | None, journal: Journal
) -> tuple[list[ReportRow], list[_Kept]]:
    tables = given.files if given else frozenset()
    rows = [
        ReportRow(name, "skipped", reason="the landmarks that were used" if name in tables else reason)
        for name, reason in files.skipped
    ]
    kept: list[_Kept] = []
    for index, (photo, outcome) in enumerate(zip(files.photos, journal.outcomes, strict=True)):
        notes = "; ".join(outcome.notes)
        if outcome.landmarks is None:
            rows.append(ReportRow(photo.name, "rejected", reason=outcome.reason, notes=notes))
            continue
        kept.append(_Kept(photo, index, outcome))
        rows.append(ReportRow(photo.name, "kept", identity=photo.identity, notes=notes))
    return rows, kept


def _write(
    folder: Path, kept: list[_Kept], splits: dict[str, str], metadata: dict[str, Any], journal: Journal
) -> dict[str, int]:
    from ecvae_jax.data.builders import SPLITS, FaceRecord, write_records  # tensorflow-datasets: late, workers skip it

    def records(faces: Iterable[_Kept]) -> Iterator[FaceRecord]:
        for face in faces:
            photo, outcome = face.photo, face.outcome
            assert outcome.landmarks is not None
            yield FaceRecord(
                journal.image(face.index), outcome.landmarks, photo.identity, photo.group, photo.name,
                {**photo.tags, **outcome.tags, "crop": outcome.crop},
            )  # fmt: skip

    by_split = {split: [face for face in kept if splits[face.photo.identity] == split] for split in SPLITS}
    by_split = {split: faces for split, faces in by_split.items() if faces}
    write_records(folder, {split: records(faces) for split, faces in by_split.items()}, metadata)
    return {split: len(faces) for split, faces in by_split.items()}


def _placed(row: ReportRow, splits: dict[str, str]) -> ReportRow:
    return ReportRow(row.file, row.status, splits[row.identity], row.identity, "", row.notes) if row.identity else row


def _publish(records: Path, out: Path) -> None:
    """Renames `records` to `out`; earlier records there are moved aside first and removed last."""
    aside = records.with_name("replaced")
    if out.exists():
        out.rename(aside)
    try:
        records.rename(out)
    except OSError:
        if aside.exists():
            aside.rename(out)
        raise


def _no_face(source: str, rows: list[ReportRow]) -> str:
    reasons = list(count_reasons(row for row in rows if row.status == "rejected").items())[:3]
    why = ", ".join(f"{number} × {reason}" for reason, number in reasons)
    return f"source {source!r}: none of its {len(rows)} files gave a face ({why}); nothing was written"


def _advice(kept: list[_Kept], files: Source, given: GivenLandmarks | None, options: PrepareConfig) -> list[str]:
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
