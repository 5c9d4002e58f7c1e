"""From a source of photos to a records folder with its report.csv: what `ecvae prepare` calls."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ecvae_jax import __version__
from ecvae_jax.data.detect import load_detector
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.given import GivenLandmarks, find_given_landmarks
from ecvae_jax.data.photos.sources import Source, open_source
from ecvae_jax.data.photos.splits import SPLITS, assign_splits
from ecvae_jax.data.prepare.by_processes import ByProcesses
from ecvae_jax.data.prepare.job import FaceOutcome
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.report import (
    Kept,
    PrepareSummary,
    advice,
    count_reasons,
    no_face,
    placed,
    sort_out,
    write_report,
)

REPORT = "report.csv"


PREVIEW = "preview.png"


class Way(Protocol):
    """How the photos are worked on: by processes of this machine, or by Apache Beam."""

    def __len__(self) -> int:
        """Returns the number of photos that are done."""
        ...

    def find_faces(self, files: Source, given: GivenLandmarks | None) -> None:
        """Has all photos done."""
        ...

    @property
    def outcomes(self) -> Iterable[FaceOutcome]:
        """The outcomes of all photos in their order, without their JPEGs."""
        ...

    def write(self, out: Path, splits: Mapping[str, Sequence[Kept]], metadata: dict[str, Any]) -> None:
        """Writes the records folder."""
        ...

    def close(self, remove: bool) -> None:
        """Lets go of the work folder, and removes it where it is no longer wanted."""
        ...


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
        MissingExtraError: the detector, or Apache Beam where it is asked for, is not installed.
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
    way = _open(work, _task(files, given, options, detector), options, len(files.photos))
    with _kept_if_broken_off(way, work):
        before = len(way)
        way.find_faces(files, given)
        rows, kept = sort_out(files, given, way.outcomes)
        if not kept:
            raise DataError(no_face(source, rows))
        splits = assign_splits((face.photo.identity for face in kept), options.validation, options.test)
        splits |= {face.photo.identity: face.photo.split for face in kept if face.photo.split}
        metadata = {
            "points": points, "image_size": options.size, "source": files.label, "detector": detector,
            "margin": options.margin, "quality": options.quality,
        }  # fmt: skip
        by_split = _by_split(kept, splits)
        way.write(work / "records", by_split, metadata)
        rows = [placed(row, splits) for row in rows]
        write_report(work / "records" / REPORT, rows)
        if options.preview:
            from ecvae_jax.data.prepare.preview import write_preview  # JAX: late, workers skip it

            write_preview(work / "records", options.preview, work / "records" / PREVIEW)
        _publish(work / "records", out)
    seconds = time.perf_counter() - start
    status = [row.status for row in rows]
    return PrepareSummary(
        out=out, found=len(rows), kept=len(kept), rejected=status.count("rejected"), skipped=status.count("skipped"),
        splits={split: len(faces) for split, faces in by_split.items()}, identities=len(splits),
        reasons=count_reasons(rows),
        facts=(*files.facts, f"landmarks: {points} points, {detector}", *advice(kept, files, given, options)),
        seconds=seconds, images_per_second=(len(files.photos) - before) / seconds,
    )  # fmt: skip


@contextlib.contextmanager
def _kept_if_broken_off(way: Way, work: Path) -> Iterator[None]:
    """The work on the photos: its folder is removed when all is done or can never be, else kept to be gone on with."""
    if len(way):
        print(f"{work}: going on after {len(way)} photos", file=sys.stderr)
    try:
        yield
    except DataError:
        way.close(remove=True)
        raise
    except BaseException:
        if len(way):
            print(f"{len(way)} photos are done and kept in {work}: the same command goes on there", file=sys.stderr)
        way.close(remove=not len(way))
        raise
    way.close(remove=True)


def _task(files: Source, given: GivenLandmarks | None, options: PrepareConfig, detector: str) -> dict[str, Any]:
    """Everything that the outcomes depend on: what an earlier work folder was begun for is compared with it."""
    settings = dataclasses.asdict(options)
    for free in ("workers", "overwrite", "preview", "validation", "test", "landmarks", "identity",
                 "beam_runner", "beam_options", "beam_paths"):  # fmt: skip
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


def _open(work: Path, task: dict[str, Any], options: PrepareConfig, photos: int) -> Way:
    if not options.beam_runner:
        return ByProcesses(work, task, options)
    from ecvae_jax.data.prepare.beam import ByBeam  # Beam: late, it is an extra and takes a second

    return ByBeam(work, task, options, photos)


def _by_split(kept: list[Kept], splits: dict[str, str]) -> dict[str, list[Kept]]:
    found = {split: [face for face in kept if splits[face.photo.identity] == split] for split in SPLITS}
    return {split: faces for split, faces in found.items() if faces}


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
