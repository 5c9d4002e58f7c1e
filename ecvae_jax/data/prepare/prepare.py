"""From a source of photos to a records folder with its report.csv: what `ecvae prepare` calls."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecvae_jax import __version__
from ecvae_jax.data.detect import load_detector
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.given import GivenLandmarks, find_given_landmarks
from ecvae_jax.data.photos.sources import Source, open_source
from ecvae_jax.data.prepare.lots import AT_WORK, Lots, Place, put_outcomes, read_records
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.pool import find_faces
from ecvae_jax.data.prepare.publish import PREVIEW, REPORT, check_out, publish, restore_replaced, work_folder
from ecvae_jax.data.prepare.report import (
    KeptFace,
    PrepareSummary,
    advice,
    no_face,
    sort_photos,
    summarize,
    write_report,
)
from ecvae_jax.data.records import plan_shards, write_info, write_shard
from ecvae_jax.progress import track

if TYPE_CHECKING:
    from ecvae_jax.data.prepare.beam import BeamWork

_FREE_OPTIONS = frozenset(
    "workers overwrite preview validation test landmarks identity beam_runner beam_options beam_paths".split()  # noqa: SIM905
)
"""Options that no outcome depends on. `landmarks` counts through the landmarks themselves."""


def prepare(source: str, out: Path, options: PrepareConfig | None = None) -> PrepareSummary:
    """Writes a records folder from a source of photos and returns the summary.

    All work happens in a hidden folder beside `out`; complete records are moved from there. After an interrupt or a
    crash that folder stays, and the same call resumes. The same source and options give the same bytes, for any number
    of processes and interrupts.

    Raises:
        DataError: the source, an option or the given landmarks cannot be used, `out` exists, or no photo has a face.
        MissingExtraError: the detector, or Apache Beam if asked for, is not installed.
        UnsafePathError: `.OUT.partial` is a link, or a folder that is not ours; it stays untouched.
        OSError: the disk is full; finished work is kept.
    """
    options = options or PrepareConfig()
    files = open_source(source, options)
    restore_replaced(out)
    check_out(out, files, options)
    given = find_given_landmarks(files, options.landmarks)
    if given:
        detector, points = f"given ({given.label})", given.points
    else:
        loaded = load_detector(options.detector)
        detector, points = loaded.name, loaded.points
    out.parent.mkdir(parents=True, exist_ok=True)
    work = work_folder(out)
    records = work / "records"
    start = time.perf_counter()
    beam = None
    if options.beam_runner:
        from ecvae_jax.data.prepare.beam import BeamWork  # late: Beam is an extra and takes a second

        beam = BeamWork(options, work)
    lots = Lots(work, _task(files, given, options, detector), len(files.photos))
    with _kept_on_interrupt(lots):
        todo = len(files.photos) - len(lots)
        if todo and beam:
            beam.find_faces(lots, files, given)
        elif todo:  # else: a detector would be loaded in vain
            _find_faces(lots, todo, files, given, options)
        rows, faces = sort_photos(files, given, lots.outcomes(), options)
        if not faces:
            raise DataError(no_face(source, rows))
        metadata = {"points": points, "image_size": options.size, "source": files.label, "detector": detector}
        metadata |= {"margin": options.margin, "quality": options.quality}
        _write_records(records, lots, faces, metadata, beam)
        write_report(records / REPORT, rows)
        if options.preview:
            from ecvae_jax.data.prepare.preview import write_preview  # late: JAX

            write_preview(records, options.preview, records / PREVIEW)
        publish(records, out)
    facts = (*files.facts, f"landmarks: {points} points, {detector}", *advice(faces, files, given, options))
    return summarize(out, rows, faces, facts, time.perf_counter() - start, todo)


def _find_faces(lots: Lots, count: int, files: Source, given: GivenLandmarks | None, options: PrepareConfig) -> None:
    jobs = (job for _, job in lots.missing_jobs(files, given))
    with contextlib.closing(find_faces(jobs, count, options, given is None, lots.work / AT_WORK)) as outcomes:
        shown = track(outcomes, count, "photos")
        for number in lots.missing():
            put_outcomes(lots.folder, number, list(islice(shown, lots.size(number))))


def _write_records(
    records: Path, lots: Lots, faces: dict[str, list[KeptFace]], metadata: dict[str, Any], beam: BeamWork | None
) -> None:
    shards: dict[str, Iterator[Place]] = {}
    lengths: dict[str, list[int]] = {}
    for split, members in faces.items():
        plan = plan_shards(split, len(members), sum(face.length for face in members))
        lengths[split] = [len(numbers) for numbers in plan.values()]
        for name, numbers in plan.items():
            shards[name] = _places(lots, members[numbers.start : numbers.stop])
    records.mkdir()
    if beam:
        beam.write_shards(lots, records, shards)
    else:
        for name, places in shards.items():
            write_shard(records / name, read_records(lots.folder, places))
    write_info(records, lengths, metadata)


def _places(lots: Lots, faces: list[KeptFace]) -> Iterator[Place]:
    return ((*lots.locate(face.place), face.fields) for face in faces)


@contextlib.contextmanager
def _kept_on_interrupt(lots: Lots) -> Iterator[None]:
    """Removes the work folder after success or a final refusal; otherwise keeps the lots that are done."""
    if len(lots):
        print(f"{lots.work}: resuming after {len(lots)} photos", file=sys.stderr)
    try:
        yield
    except DataError:
        lots.close(remove=True)
        raise
    except BaseException:
        done = len(lots)
        if done:
            print(f"{done} photos are done and kept in {lots.work}: run the same command to resume", file=sys.stderr)
        lots.close(remove=not done)
        raise
    lots.close(remove=True)


def _task(files: Source, given: GivenLandmarks | None, options: PrepareConfig, detector: str) -> dict[str, Any]:
    """Returns all that the outcomes depend on; only a work folder of the same task is resumed."""
    settings = {key: value for key, value in dataclasses.asdict(options).items() if key not in _FREE_OPTIONS}
    digest = hashlib.sha256()
    for photo in files.photos:
        digest.update(f"{photo.name}\0{photo.stamp}\n".encode())
    if given:
        for name, landmarks in given.rows.items():
            digest.update(name.encode() + landmarks.tobytes())
    return {"version": __version__, "photos": digest.hexdigest(), "detector": detector, **settings}
