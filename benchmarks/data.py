"""Costs of preparing faces, on rendered heads or on photos from a folder. Downloads nothing.

    python benchmarks/data.py prepare   # a preparation against the detector alone, with the same number of processes
    python benchmarks/data.py box       # faces in a known box against a search for faces, and the bound
    python benchmarks/data.py landmarks # MediaPipe's points against the exact ones

Compared runs alternate; the output is the median of the ratios within a round (`benchmarks/costs.py`).
`benchmarks/reading.py` measures the reading of records.
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
    """Returns the cost per photo of the detector alone, without decoding and the start of processes."""
    photos = [np.asarray(Image.open(file)) for file in sorted(folder.iterdir())]
    lots = [photos[start : start + 16] for start in range(0, len(photos), 16)]
    with ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn"), load, (name,)) as pool:
        list(pool.map(detect, lots[: 2 * CORES]))  # starts the processes
        begin = time.perf_counter()
        found = list(pool.map(detect, lots))
        seconds = time.perf_counter() - begin
    assert any(number for number, _ in found)
    return Cost(seconds / len(photos), sum(cpu for _, cpu in found) / len(photos))


def prepared(folder: Path, options: PrepareConfig) -> Cost:
    """Returns the cost per photo of a whole preparation, from the start of processes to the written records."""
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stderr(io.StringIO()):
        begin, cpu = time.perf_counter(), cpu_seconds()
        summary = prepare(str(folder), Path(out) / "records", options)
        return Cost((time.perf_counter() - begin) / summary.found, (cpu_seconds() - cpu) / summary.found)


def bench_prepare(photos: int, detector: str, rounds: int) -> None:
    options, start = PrepareConfig(size=128, detector=detector), 8 * CORES  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as work:
        folder, few = Path(work) / "photos", Path(work) / "few"  # few: just enough to start all processes
        write_photos(folder, photos)
        write_photos(few, start)
        whole = Ratios(f"{detector} alone / prepare, whole")
        running = Ratios(f"{detector} alone / prepare, without start and end")
        for _ in range(rounds):
            alone = detector_alone(folder, detector)
            many, first = prepared(folder, options), prepared(few, options)
            whole.add(alone, many)
            between = [(photos * a - start * b) / (photos - start) for a, b in zip(many, first, strict=True)]
            running.add(alone, Cost(*between))
        whole.print_summary()
        running.print_summary()


def bench_box(source: Path | None, photos: int, detector: str, box: str, rounds: int) -> None:
    """Compares whole preparations, and the work of one process, which no other process slows down."""
    search = PrepareConfig(size=64, detector=detector, landmarks="none")  # type: ignore[arg-type]
    known = dataclasses.replace(search, box=box)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "photos"
        if source:
            folder.mkdir()
            for file in sorted(source.iterdir())[:photos]:
                (folder / file.name).symlink_to(file.resolve())
        else:
            write_photos(folder, photos)
        jobs = [FaceJob(file) for file in sorted(folder.iterdir())]
        seen = [face_in_photo(FaceWorker(search, True), jobs), face_in_photo(FaceWorker(known, True), jobs)]
        both = [pair for pair in zip(*seen, strict=True) if all(one is not None for one in pair)]
        errors = np.array(
            [np.linalg.norm(one - other, axis=1) / np.linalg.norm(one[36] - one[45]) for one, other in both]
        )
        median, high = np.percentile(errors.mean(axis=1), [50, 95])
        print(
            f"{len(both)} faces found both ways, distance of landmarks {median:.1%} of the eye distance (median; 95th "
            f"percentile {high:.1%})",
            flush=True,
        )
        whole, parts = Ratios("search / known box, whole preparations"), Ratios("search / known box, one process")
        bound = Ratios("search / decoding, predictor, crop and encoding alone")
        for _ in range(rounds):
            whole.add(prepared(folder, search), prepared(folder, known))
            searched = one_process(search, jobs)
            parts.add(searched, one_process(known, jobs))
            bound.add(searched, least(known, jobs))
        for ratios in (whole, parts, bound):
            ratios.print_summary()


def face_in_photo(worker: FaceWorker, jobs: list[FaceJob]) -> list[np.ndarray | None]:
    """Returns the landmarks of each photo in its pixels; None without a face."""
    found = []
    for outcome in map(worker, jobs):
        crop = outcome.crop
        landmarks = outcome.landmarks
        found.append(None if landmarks is None else landmarks * crop["side"] + [crop["x0"], crop["y0"]])
    return found


def one_process(options: PrepareConfig, jobs: list[FaceJob]) -> Cost:
    worker = FaceWorker(options, True)
    worker(jobs[0])
    return timed(lambda: [worker(job) for job in jobs], len(jobs))


def least(options: PrepareConfig, jobs: list[FaceJob]) -> Cost:
    """Returns the lower bound with dlib's predictor: its own cost on prepared pictures, plus all other work."""
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


def bench_landmarks() -> None:
    """Prints the error of MediaPipe's 98 points without the jaw, relative to the distance of the eye corners."""
    faces, detector, errors, missed = load_faces("rendered", "test"), load_detector("mediapipe-98"), [], 0
    for index in range(0, len(faces), 4):
        found = detector.detect(faces.image(index, 256))
        if not found:
            missed += 1
            continue
        true = faces.landmarks[index]
        distance = np.linalg.norm(found[0].landmarks / 256 - true, axis=1)[33:].mean()
        errors.append(distance / np.linalg.norm(true[60] - true[72]))
    low, middle, high = np.percentile(errors, [10, 50, 90])
    print(f"{len(errors)} heads, {missed} missed: error {middle:.1%}; 10th to 90th percentile {low:.1%} to {high:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("prepare", "box", "landmarks"))
    parser.add_argument("--photos", type=int, default=1500)
    parser.add_argument("--detector", default="dlib-68")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="aligned photos, for box; default: rendered heads")
    parser.add_argument("--box", default="0.2,0.2,0.8,0.8", help="box of their faces, for box")
    options = parser.parse_args()
    if options.what == "prepare":
        bench_prepare(options.photos, options.detector, options.rounds)
    elif options.what == "box":
        bench_box(options.folder, options.photos, options.detector, options.box, options.rounds)
    else:
        bench_landmarks()


if __name__ == "__main__":
    main()
