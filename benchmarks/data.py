"""What preparing faces costs, on rendered heads or your own photos: nothing has to be downloaded.

    python benchmarks/data.py prepare   # a preparation beside the detector alone, in as many processes
    python benchmarks/data.py box       # faces in a known box beside faces that are looked for, and what bounds it
    python benchmarks/data.py landmarks # MediaPipe's points beside the exact ones

What is compared runs by turns; the median of the ratios within a round is printed (`benchmarks/costs.py`). What reading
costs is in `benchmarks/reading.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from costs import Cost, Ratios, cpu_seconds, timed
from PIL import Image

from ecvae_jax.data.detect import load_detector
from ecvae_jax.data.detect.detector import Detector
from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.prepare.job import FaceJob, FaceWorker
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.prepare import prepare

SIDE = 320
"""Pixels of the photos that are prepared: rendered heads, enlarged."""
CORES = len(os.sched_getaffinity(0))


def write_photos(folder: Path, count: int) -> None:
    faces = load_faces("rendered", "train")
    folder.mkdir()
    for start in range(0, count, 256):
        chosen = [index * 7 % len(faces) for index in range(start, min(start + 256, count))]
        for number, pixels in enumerate(faces.images(chosen, SIDE), start):
            Image.fromarray(pixels).save(folder / f"{number:06d}.jpg", quality=90)


_detector: Detector | None = None


def load(name: str) -> None:
    global _detector
    _detector = load_detector(name)


def detect(photos: list[np.ndarray]) -> tuple[int, float]:
    assert _detector is not None
    begin = time.process_time()
    return sum(bool(_detector.detect(photo)) for photo in photos), time.process_time() - begin


def detector_alone(folder: Path, name: str) -> Cost:
    """What a photo costs the detector alone, the photos decoded and the processes started before."""
    photos = [np.asarray(Image.open(file)) for file in sorted(folder.iterdir())]
    lots = [photos[start : start + 16] for start in range(0, len(photos), 16)]
    with ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn"), load, (name,)) as pool:
        list(pool.map(detect, lots[: 2 * CORES]))  # the processes are there now
        begin = time.perf_counter()
        found = list(pool.map(detect, lots))
        seconds = time.perf_counter() - begin
    assert any(number for number, _ in found)
    return Cost(seconds / len(photos), sum(cpu for _, cpu in found) / len(photos))


def prepared(folder: Path, options: PrepareConfig) -> Cost:
    """What a photo costs a whole preparation: processes started, decoded, detected, cropped, encoded, written."""
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stderr(io.StringIO()):
        begin, cpu = time.perf_counter(), cpu_seconds()
        summary = prepare(str(folder), Path(out) / "records", options)
        return Cost((time.perf_counter() - begin) / summary.found, (cpu_seconds() - cpu) / summary.found)


def bench_prepare(photos: int, detector: str, rounds: int) -> None:
    options, start = PrepareConfig(size=128, detector=detector), 8 * CORES  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as work:
        folder, few = Path(work) / "photos", Path(work) / "few"  # few: just enough for all processes to be started
        write_photos(folder, photos)
        write_photos(few, start)
        whole, apart = (Ratios(f"{detector} alone / prepare, {what}") for what in ("whole", "its start and end apart"))
        for _ in range(rounds):
            alone = detector_alone(folder, detector)
            all_of_them, first = prepared(folder, options), prepared(few, options)
            whole.add(alone, all_of_them)
            apart.add(alone, Cost(*((photos * one - start * two) / (photos - start)
                                    for one, two in zip(all_of_them, first, strict=True))))  # fmt: skip
        whole.tell()
        apart.tell()


def bench_box(source: Path | None, photos: int, detector: str, box: str, rounds: int) -> None:
    """Whole preparations, and the parts of the work in one process, where they are not in each other's way."""
    looking = PrepareConfig(size=64, detector=detector, landmarks="none")  # type: ignore[arg-type]
    known = dataclasses.replace(looking, box=box)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "photos"
        if source:
            folder.mkdir()
            for file in sorted(source.iterdir())[:photos]:
                (folder / file.name).symlink_to(file.resolve())
        else:
            write_photos(folder, photos)
        jobs = [FaceJob(file) for file in sorted(folder.iterdir())]
        seen = [face_in_photo(FaceWorker(looking, True), jobs), face_in_photo(FaceWorker(known, True), jobs)]
        both = [pair for pair in zip(*seen, strict=True) if all(one is not None for one in pair)]
        errors = np.array([np.linalg.norm(one - other, axis=1) / np.linalg.norm(one[36] - one[45])
                           for one, other in both])  # fmt: skip
        middle, most = np.percentile(errors.mean(axis=1), [50, 95])
        print(f"{len(both)} faces found both ways, landmarks apart by {middle:.1%} of the eye distance (median; 95th "
              f"percentile {most:.1%})", flush=True)  # fmt: skip
        whole, parts = Ratios("looking / known box, whole preparations"), Ratios("looking / known box, one process")
        bound = Ratios("looking / decoding, predictor, crop and encoding alone")
        for _ in range(rounds):
            whole.add(prepared(folder, looking), prepared(folder, known))
            searched = one_process(looking, jobs)
            parts.add(searched, one_process(known, jobs))
            bound.add(searched, least(known, jobs))
        for ratios in (whole, parts, bound):
            ratios.tell()


def face_in_photo(worker: FaceWorker, jobs: list[FaceJob]) -> list[np.ndarray | None]:
    """The landmarks of each photo in its pixels; none where no face was found."""
    found = []
    for outcome in map(worker, jobs):
        crop = outcome.crop
        found.append(None if outcome.landmarks is None
                     else outcome.landmarks * crop["side"] + [crop["x0"], crop["y0"]])  # fmt: skip
    return found


def one_process(options: PrepareConfig, jobs: list[FaceJob]) -> Cost:
    worker = FaceWorker(options, True)
    worker(jobs[0])
    return timed(lambda: [worker(job) for job in jobs], len(jobs))


def least(options: PrepareConfig, jobs: list[FaceJob]) -> Cost:
    """What no way with dlib's predictor can go below: it alone on pictures that are ready, and all but it."""
    import dlib

    from ecvae_jax.data.detect.dlib import Dlib68

    predictor = dlib.shape_predictor(str(Dlib68()._file))  # type: ignore[attr-defined]
    chips = [np.asarray(Image.open(str(job.content)).convert("L").resize((180, 180))) for job in jobs]
    box = dlib.rectangle(30, 30, 149, 149)  # type: ignore[attr-defined]
    predicted = timed(lambda: [predictor(chip, box) for chip in chips], len(jobs))
    face = np.random.default_rng(0).uniform(0.25, 0.75, (68, 2)).astype(np.float32)
    sizes = [Image.open(str(job.content)).size for job in jobs]
    given = [FaceJob(job.content, face * np.asarray(size, np.float32)) for job, size in zip(jobs, sizes, strict=True)]
    worker = FaceWorker(dataclasses.replace(options, box=""), False)
    rest = timed(lambda: [worker(job) for job in given], len(jobs))
    return Cost(predicted.wall + rest.wall, predicted.cpu + rest.cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("prepare", "box", "landmarks"))
    parser.add_argument("--photos", type=int, default=1500)
    parser.add_argument("--detector", default="dlib-68")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="aligned photos of your own, for box")
    parser.add_argument("--box", default="0.2,0.2,0.8,0.8", help="where their faces are, for box")
    options = parser.parse_args()
    if options.what == "prepare":
        bench_prepare(options.photos, options.detector, options.rounds)
    elif options.what == "box":
        bench_box(options.folder, options.photos, options.detector, options.box, options.rounds)
    else:
        bench_landmarks()


if __name__ == "__main__":
    main()
