"""From a source of photos to a records folder with its report.csv: what `ecvae prepare` calls."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Float

from ecvae_jax.data.detect import load_detector
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.face_job import FaceJob, FaceOutcome, FaceWorker
from ecvae_jax.data.given import GivenLandmarks, find_given_landmarks
from ecvae_jax.data.options import PrepareConfig
from ecvae_jax.data.progress import shown
from ecvae_jax.data.report import PrepareSummary, ReportRow, count_reasons, write_report
from ecvae_jax.data.sources import Photo, Source, open_source
from ecvae_jax.data.splits import assign_splits

REPORT = "report.csv"


class _Kept(NamedTuple):
    """A face whose JPEG waits in the spool file."""

    photo: Photo
    offset: int
    length: int
    landmarks: Float[np.ndarray, "p 2"]
    crop: dict


def prepare(source: str, out: Path, options: PrepareConfig | None = None) -> PrepareSummary:
    """Writes a records folder from a source of photos and returns what became of them.

    Everything is written into a hidden folder beside `out`, which is renamed when it is complete. The same source and
    options give the same bytes, however many processes work.

    Args:
        source: a folder of photos, or `multipie:DIR`.
        out: folder to make.
        options: how; none: the defaults.

    Raises:
        DataError: the source, an option or the given landmarks cannot be used, `out` exists, or no photo has a face.
        MissingExtraError: the detector is not installed.
    """
    options = options or PrepareConfig()
    files = open_source(source, options.identity)
    _check_out(out, files, options)
    given = find_given_landmarks(files.root, options.landmarks)
    if given:
        detector, points = f"given ({given.file.name})", given.points
    else:
        loaded = load_detector(options.detector)
        detector, points = loaded.name, loaded.points
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    start = time.perf_counter()
    try:
        with (work / "spool").open("w+b") as spool:
            rows, kept = _make_faces(files, given, options, spool)
            if not kept:
                raise DataError(_no_face(source, rows))
            splits = assign_splits((face.photo.identity for face in kept), options.validation, options.test)
            metadata = {
                "points": points, "image_size": options.size, "source": files.label, "detector": detector,
                "margin": options.margin, "quality": options.quality,
            }  # fmt: skip
            counts = _write(work / "records", kept, splits, metadata, spool)
        rows = [_placed(row, splits) for row in rows]
        write_report(work / "records" / REPORT, rows)
        _publish(work / "records", out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    seconds = time.perf_counter() - start
    status = [row.status for row in rows]
    return PrepareSummary(
        out=out, found=len(rows), kept=len(kept), rejected=status.count("rejected"), skipped=status.count("skipped"),
        splits=counts, identities=len(splits), reasons=count_reasons(rows),
        facts=(*files.facts, f"landmarks: {points} points, {detector}", *_advice(kept, files, given, options)),
        seconds=seconds, images_per_second=len(files.photos) / seconds,
    )  # fmt: skip


def _check_out(out: Path, files: Source, options: PrepareConfig) -> None:
    if out.resolve().is_relative_to(files.root.resolve()):
        raise DataError(f"{out} lies inside the source {files.root}: give a folder outside it")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not options.overwrite:
        raise DataError(f"{out} exists: give another folder, or --overwrite to replace earlier records")
    if not (out / "dataset_info.json").is_file():
        raise DataError(f"{out} exists and is no records folder: --overwrite replaces only those; give another folder")


def _make_faces(
    files: Source, given: GivenLandmarks | None, options: PrepareConfig, spool: BinaryIO
) -> tuple[list[ReportRow], list[_Kept]]:
    jobs = [FaceJob(photo.path, given.rows.get(photo.name) if given else None) for photo in files.photos]
    table = str(given.file.relative_to(files.root)) if given and given.file.is_relative_to(files.root) else ""
    rows = [
        ReportRow(name, "skipped", reason="the landmarks that were used" if name == table else reason)
        for name, reason in files.skipped
    ]
    kept: list[_Kept] = []
    outcomes = shown(_outcomes(jobs, options, detect=given is None), len(jobs), "photos")
    for photo, outcome in zip(files.photos, outcomes, strict=True):
        notes = "; ".join(outcome.notes)
        if outcome.landmarks is None:
            rows.append(ReportRow(photo.name, "rejected", reason=outcome.reason, notes=notes))
            continue
        kept.append(_Kept(photo, spool.tell(), len(outcome.image), outcome.landmarks, outcome.crop))
        spool.write(outcome.image)
        rows.append(ReportRow(photo.name, "kept", identity=photo.identity, notes=notes))
    return rows, kept


_worker: FaceWorker | None = None


def _start_worker(options: PrepareConfig, detect: bool) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which then stops the workers
    _worker = FaceWorker(options, detect)


def _work(job: FaceJob) -> FaceOutcome:
    assert _worker is not None
    return _worker(job)


def _outcomes(jobs: list[FaceJob], options: PrepareConfig, detect: bool) -> Iterator[FaceOutcome]:
    """Outcomes in the order of the jobs."""
    processes = min(options.processes, -(-len(jobs) // 8))  # starting one does not pay for fewer photos
    if processes <= 1:
        yield from map(FaceWorker(options, detect), jobs)
        return
    # "spawn": a fork would copy the threads' locks of whatever the program has loaded (TensorFlow, JAX)
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _start_worker, (options, detect))
    try:
        yield from pool.map(_work, jobs, chunksize=8)
    except BrokenProcessPool:
        raise DataError(
            "a worker process died (out of memory, or a photo that crashes the detector): "
            "try --workers 1, or a smaller --max-megapixels"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _write(folder: Path, kept: list[_Kept], splits: dict[str, str], metadata: dict, spool: BinaryIO) -> dict[str, int]:
    from ecvae_jax.data.builders import SPLITS, FaceRecord, write_records  # tensorflow-datasets: late, workers skip it

    def records(faces: Iterable[_Kept]) -> Iterator[FaceRecord]:
        for face in faces:
            spool.seek(face.offset)
            photo = face.photo
            yield FaceRecord(
                spool.read(face.length), face.landmarks, photo.identity, photo.group, photo.name,
                {**photo.tags, "crop": face.crop},
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
    sides = [face.crop["side"] for face in kept]
    small = sum(side < options.size for side in sides)
    if small > len(kept) / 2:
        lines.append(
            f"{small} of {len(kept)} crops were smaller than {options.size} px and were enlarged "
            f"(median {statistics.median(sides):.0f} px): a smaller --size would lose nothing"
        )
    if given:
        unused = len(set(given.rows) - {photo.name for photo in files.photos})
        if unused:
            lines.append(f"{unused} rows of {given.file.name} name no photo of the source")
    return lines
