"""What preparing and reading faces costs, on rendered heads: nothing has to be downloaded.

    python benchmarks/data.py prepare   # a preparation beside the detector alone, in as many processes
    python benchmarks/data.py box       # faces in a known box beside faces that are looked for
    python benchmarks/data.py landmarks # MediaPipe's points beside the exact ones
    python benchmarks/data.py pipeline  # tf.data beside plain decoding of the same JPEGs, on one core
    python benchmarks/data.py memory    # resident memory over epochs, images not kept in memory
    python benchmarks/data.py start     # time to the first batch of 200,000 faces, and memory after it

What is compared runs by turns; the median of the ratios within a round is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from ecvae_jax.config import DataConfig
from ecvae_jax.data.builders import FaceRecord, write_records
from ecvae_jax.data.detect import Detector, load_detector
from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.options import PrepareConfig
from ecvae_jax.data.pipeline import training_batches
from ecvae_jax.data.prepare import prepare

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


def detect(photos: list[np.ndarray]) -> int:
    assert _detector is not None
    return sum(bool(_detector.detect(photo)) for photo in photos)


def detector_alone(folder: Path, name: str) -> float:
    """Photos a second that the detector alone finds faces in, the photos decoded before."""
    photos = [np.asarray(Image.open(file)) for file in sorted(folder.iterdir())]
    lots = [photos[start : start + 16] for start in range(0, len(photos), 16)]
    with ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn"), load, (name,)) as pool:
        list(pool.map(detect, lots[: 2 * CORES]))  # the processes are there now
        begin = time.perf_counter()
        found = sum(pool.map(detect, lots))
        seconds = time.perf_counter() - begin
    assert found
    return len(photos) / seconds


def prepared(folder: Path, options: PrepareConfig) -> float:
    """Photos a second of a whole preparation: processes started, decoded, detected, cropped, encoded, written."""
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stderr(io.StringIO()):
        begin = time.perf_counter()
        summary = prepare(str(folder), Path(out) / "records", options)
        return summary.found / (time.perf_counter() - begin)


def bench_prepare(photos: int, detector: str, rounds: int) -> None:
    options = PrepareConfig(size=128, detector=detector)  # type: ignore[arg-type]
    by_turns(photos, rounds, {
        f"{detector} alone": lambda folder: detector_alone(folder, detector),
        "prepare": lambda folder: prepared(folder, options),
    })  # fmt: skip


def bench_box(photos: int, detector: str, rounds: int) -> None:
    looking = PrepareConfig(size=128, detector=detector)  # type: ignore[arg-type]
    known = dataclasses.replace(looking, box="0.2,0.2,0.8,0.8")
    by_turns(photos, rounds, {
        "looking": lambda folder: prepared(folder, looking),
        "known box": lambda folder: prepared(folder, known),
    })  # fmt: skip


def by_turns(photos: int, rounds: int, runs: dict[str, Callable[[Path], float]]) -> None:
    """Prints the photos a second of two runs over the same folder, and the second's as a multiple of the first's."""
    first, second = runs
    with tempfile.TemporaryDirectory() as work:
        folder, ratios = Path(work) / "photos", []
        write_photos(folder, photos)
        for number in range(rounds):
            speed = {name: run(folder) for name, run in runs.items()}
            ratios.append(speed[second] / speed[first])
            print(f"round {number + 1}: {', '.join(f'{n} {v:.1f}' for n, v in speed.items())} photos/s", flush=True)
        print_ratio(f"{second} / {first}", ratios)


def bench_landmarks() -> None:
    """MediaPipe's 98 points against the exact ones, without the jaw, over the distance of the eye corners."""
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


def bench_pipeline(rounds: int, side: int) -> None:
    """Both on one core: batches with landmarks and mirrors, beside nothing but decoding of the same JPEGs."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from ecvae_jax.data.host_tf import load_tensorflow

    tf = load_tensorflow()
    heads = load_faces("rendered", "train")
    with tempfile.TemporaryDirectory() as work:
        images, few = heads.images(range(512), side), []
        for index, pixels in enumerate(images):
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "JPEG", quality=PrepareConfig.quality, subsampling=0)
            few.append(FaceRecord(stream.getvalue(), heads.landmarks[index], "a", "a", str(index), {}))
        write_records(Path(work) / "records", {"train": few}, {**heads.metadata, "image_size": side})
        faces = load_faces(Path(work) / "records", "train")
        jpegs = faces.encoded(range(len(faces)))
        batches = training_batches(faces, DataConfig(cache=False, pairs=0.0), side, 32, 0)
        next(batches)

        @tf.function
        def decode_all(data):  # in a graph: op by op from Python it is a third slower
            size = tf.constant(0, tf.int64)
            for jpeg in data:
                size += tf.size(tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE"), tf.int64)
            return size

        data = tf.constant(jpegs)
        assert int(decode_all(data)) == images.size
        ratios = []
        for number in range(rounds):
            begin = time.perf_counter()
            int(decode_all(data))
            plain = len(jpegs) / (time.perf_counter() - begin)
            begin = time.perf_counter()
            for _ in range(len(jpegs) // 32):
                next(batches)
            whole = len(jpegs) / (time.perf_counter() - begin)
            ratios.append(whole / plain)
            print(f"round {number + 1}: pipeline {whole:.0f}, decoding alone {plain:.0f} images/s", flush=True)
    print_ratio(f"{side} px: pipeline / decoding alone", ratios)


def bench_memory(epochs: int) -> None:
    faces = load_faces("rendered", "train")
    batches = training_batches(faces, DataConfig(cache=False), 128, 32, 0)
    for epoch in range(epochs):
        for _ in range(len(faces) // 32):
            next(batches)
        print(f"epoch {epoch + 1}: {resident():.0f} MB resident", flush=True)
    print(f"largest: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def bench_start(count: int) -> None:
    source = load_faces("rendered", "train")
    jpegs = source.encoded(range(256))

    def records() -> Iterator[FaceRecord]:
        for number in range(count):
            which = number % 256
            yield FaceRecord(jpegs[which], source.landmarks[which], f"p{number // 24}", f"p{number // 12}",
                             f"{number:07d}", {"crop": {"x0": 1.5, "side": 200.25}})  # fmt: skip

    with tempfile.TemporaryDirectory() as work:
        begin = time.perf_counter()
        write_records(Path(work) / "records", {"train": records()}, dict(source.metadata))
        print(f"written: {count} faces in {time.perf_counter() - begin:.0f} s", flush=True)
        before, begin = resident(), time.perf_counter()
        faces = load_faces(Path(work) / "records", "train")
        opened = time.perf_counter() - begin
        batches = training_batches(faces, DataConfig(cache=False), 128, 32, 0)
        next(batches)
        first = time.perf_counter() - begin
        more = resident() - before
        print(f"start-up: records open after {opened:.1f} s, first batch after {first:.1f} s; {more:.0f} MB more")
        for _ in range(2000):
            next(batches)
        held = resident()
        for _ in range(4000):
            next(batches)
        print(f"memory after 2,000 batches {held:.0f} MB, after 6,000 {resident():.0f} MB")


def print_ratio(name: str, ratios: list[float]) -> None:
    ordered = sorted(ratios)
    print(f"{name}: median {statistics.median(ordered):.2f}, {ordered[0]:.2f} to {ordered[-1]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("prepare", "box", "landmarks", "pipeline", "memory", "start"))
    parser.add_argument("--photos", type=int, default=1500)
    parser.add_argument("--detector", default="dlib-68")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=256, help="pixels of the stored faces, for pipeline")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--faces", type=int, default=200_000)
    options = parser.parse_args()
    if options.what == "prepare":
        bench_prepare(options.photos, options.detector, options.rounds)
    elif options.what == "box":
        bench_box(options.photos, options.detector, options.rounds)
    elif options.what == "landmarks":
        bench_landmarks()
    elif options.what == "pipeline":
        bench_pipeline(options.rounds, options.side)
    elif options.what == "memory":
        bench_memory(options.epochs)
    else:
        bench_start(options.faces)


if __name__ == "__main__":
    main()
