"""The cost of reading faces for training, on the embedded heads, without a download.

    python benchmarks/reading.py pipeline # tf.data against plain decoding of the same JPEGs, on one core
    python benchmarks/reading.py epochs   # resident memory over epochs, without the image cache
    python benchmarks/reading.py start    # time to the first batch of 200,000 faces, and memory after it
    python benchmarks/reading.py train    # memory while a small model trains on 200,000 faces

Compared variants alternate; the median of the ratios within a round is printed (`benchmarks/costs.py`).
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from costs import Ratios, timed
from PIL import Image

from ecvae_jax.config import Config, DataConfig, ModelConfig, TrainConfig
from ecvae_jax.data.batches import training_batches
from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.records import FaceRecord, write_records

SIDE = 128
QUALITIES = range(80, 96, 2)


def write_many(out: Path, count: int) -> None:
    """Writes a records folder of embedded heads, each several times at other JPEG qualities, under new names."""
    source = load_faces("rendered", "train")
    shown = range(0, len(source), 10)
    images = zip(shown, source.images(shown, SIDE), strict=True)
    jpegs = [(index, encoded(pixels, quality)) for index, pixels in images for quality in QUALITIES]
    tags = {"crop": {"x0": 1.5, "side": 200.25}}

    def records() -> Iterator[FaceRecord]:
        for number in range(count):
            index, jpeg = jpegs[number % len(jpegs)]
            identity, group = f"p{number // 24}", f"p{number // 12}"
            yield FaceRecord(jpeg, source.landmarks[index], identity, group, f"{number:07d}", tags)

    begin = time.perf_counter()
    write_records(out, {"train": records()}, {**source.metadata, "image_size": SIDE})
    print(f"wrote {count} faces, {len(jpegs)} distinct, in {time.perf_counter() - begin:.0f} s", flush=True)


def encoded(pixels: np.ndarray, quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def bench_pipeline(rounds: int, side: int) -> None:
    """Compares batches with landmarks and mirroring to decoding the same JPEGs alone, on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from ecvae_jax.data.host_tf import load_tensorflow

    tf = load_tensorflow()
    heads = load_faces("rendered", "train")
    with tempfile.TemporaryDirectory() as work:
        images = heads.images(range(512), side)
        few = [
            FaceRecord(encoded(pixels, PrepareConfig.quality), heads.landmarks[index], "a", "a", str(index), {})
            for index, pixels in enumerate(images)
        ]
        write_records(Path(work) / "records", {"train": few}, {**heads.metadata, "image_size": side})
        faces = load_faces(Path(work) / "records", "train")
        jpegs = faces.encoded(range(len(faces)))
        batches = training_batches(faces, DataConfig(cache="off", pairs=0.0), side, 32, 0)
        next(batches)

        @tf.function
        def decode_all(data):  # in a graph: eager execution is a third slower
            size = tf.constant(0, tf.int64)
            for jpeg in data:
                size += tf.size(tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE"), tf.int64)
            return size

        data = tf.constant(jpegs)
        assert int(decode_all(data)) == images.size
        ratios = Ratios(f"{side} px: decoding alone / pipeline")
        for _ in range(rounds):
            plain = timed(lambda: int(decode_all(data)), len(jpegs))
            ratios.add(plain, timed(lambda: [next(batches) for _ in range(len(jpegs) // 32)], len(jpegs)))
    ratios.print_summary()


def bench_epochs(epochs: int) -> None:
    faces = load_faces("rendered", "train")
    batches = training_batches(faces, DataConfig(cache="off"), SIDE, 32, 0)
    for epoch in range(epochs):
        for _ in range(len(faces) // 32):
            next(batches)
        print(f"epoch {epoch + 1}: {resident():.0f} MB resident", flush=True)
    print(f"largest: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def bench_start(records: Path) -> None:
    from ecvae_jax.data.host_tf import load_tensorflow, load_tfds

    begin = time.perf_counter()
    load_tfds()
    load_tensorflow()
    print(f"remaining libraries loaded in {time.perf_counter() - begin:.1f} s", flush=True)
    before, begin, cpu = resident(), time.perf_counter(), time.process_time()
    faces = load_faces(records, "train")
    opened, opened_cpu = time.perf_counter() - begin, time.process_time() - cpu
    batches = training_batches(faces, DataConfig(cache="off"), SIDE, 32, 0)
    next(batches)
    first, first_cpu = time.perf_counter() - begin, time.process_time() - cpu
    more = resident() - before
    opening = f"records open after {opened:.1f} s ({opened_cpu:.1f} s of CPU)"
    print(f"{opening}, first batch after {first:.1f} s ({first_cpu:.1f} s of CPU); {more:.0f} MB more", flush=True)
    for _ in range(2000):
        next(batches)
    held = resident()
    for _ in range(4000):
        next(batches)
    print(f"memory after 2,000 batches {held:.0f} MB, after 6,000 {resident():.0f} MB")


def bench_train(records: Path, steps: int) -> None:
    """Prints the memory of a training with batches of 64, at every twentieth of the steps."""
    from ecvae_jax.training import loop

    every, begin = max(1, steps // 20), time.perf_counter()

    def watched(*arguments, **options) -> Iterator[dict[str, np.ndarray]]:
        for step, batch in enumerate(training_batches(*arguments, **options), 1):
            if step == 2 or step % every == 0:  # the first batch is also drawn for initialization
                passed = time.perf_counter() - begin
                print(f"step {step}, {64 * step} examples: {resident():.0f} MB resident, {passed:.0f} s", flush=True)
            yield batch

    loop.training_batches = watched
    config = Config(
        data=DataConfig(records=str(records), cache="off", pairs=0.0),
        model=ModelConfig(image_size=32, widths=(8, 16), z_dim=64, z_grid=8),
        train=TrainConfig(steps=steps, batch_size=64, log_every=every, images_every=steps, checkpoint_every=steps),
    )
    with tempfile.TemporaryDirectory() as work:
        outcome = loop.train(config, Path(work))
    print(f"{outcome.step} steps, {64 * outcome.step} examples: {resident():.0f} MB resident at the end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("pipeline", "epochs", "start", "train"))
    parser.add_argument("--rounds", type=int, default=7, help="for pipeline")
    parser.add_argument("--side", type=int, default=256, help="side of the stored faces in pixels, for pipeline")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--faces", type=int, default=200_000)
    parser.add_argument("--steps", type=int, default=6250, help="of 64 examples, for train: two epochs")
    options = parser.parse_args()
    if options.what == "epochs":
        bench_epochs(options.epochs)
        return
    if options.what == "pipeline":
        bench_pipeline(options.rounds, options.side)
        return
    with tempfile.TemporaryDirectory() as work:
        write_many(Path(work) / "records", options.faces)
        if options.what == "start":
            bench_start(Path(work) / "records")
        else:
            bench_train(Path(work) / "records", options.steps)


if __name__ == "__main__":
    main()
