"""Faces to training batches: the only tf.data.

There is no shuffle buffer. Example number `counter = step · batch_size + row` belongs to epoch `counter // n`. Its face
is `index_shuffle(counter % n)` with a seed from (seed, epoch): a permutation of the split in each epoch. Pairing and
mirroring use a stateless generator seeded by (seed, step). A batch is therefore a pure function of (seed, step): a
training resumes exactly from its step number, and the hosts of a pod together hold the rows of a single host.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ecvae_jax.config import DataConfig
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import Faces, load_faces
from ecvae_jax.data.host_tf import load_tensorflow
from ecvae_jax.structure.scheme import get_scheme, mirror_landmarks

__all__ = ["Faces", "load_faces", "training_batches"]

_LOG = logging.getLogger(__name__)
_THREADS = 2  # the host's other cores belong to the training (on CPU) or to other work
_STEPS = 2**40  # endless in practice, and step · batch_size still fits into int64


def training_batches(
    faces: Faces,
    config: DataConfig,
    image_size: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Returns an endless iterator over one host's batches, starting at step `start_step`.

    A batch is {"source_image", "source_landmarks", "image", "landmarks"}: images uint8 (b, h, w, 3), landmarks float32
    (b, p, 2) in crop units, b = batch_size / process_count. The source gives z; the other two give the sketch and the
    true image. With probability `config.pairs` the source is another face of the target's group, if one exists;
    otherwise it is the target. With `config.mirror`, half of the examples are flipped, source and target alike.

    With `config.cache` "device" the batch has no pixels, but {"source_index", "index": int32 (b,), "flip": bool (b,)}
    for the images of `decode_faces`; its landmarks are already flipped.

    Raises:
        DataError: the split is empty, the hosts cannot share the batch evenly, or the records have too few landmarks.
    """
    if not len(faces):
        raise DataError(f"split {faces.split!r} of {faces.records} is empty")
    if batch_size % process_count:
        raise DataError(f"batch_size={batch_size}: must be a multiple of the number of hosts, {process_count}")
    tf = load_tensorflow()
    local = batch_size // process_count
    landmarks, scheme = faces.landmarks_as(config.points), get_scheme(config.points)
    rows = slice(process_index * local, (process_index + 1) * local)
    plan = _plan(tf, faces, config, batch_size, seed, start_step, rows)
    # No autograph, here and below: there is no control flow to convert, and checking takes three seconds.
    no_autograph = tf.autograph.experimental.do_not_convert

    def landmarks_of(indices: np.ndarray, flips: np.ndarray) -> np.ndarray:
        points = landmarks[indices]
        if not config.mirror:
            return points
        return np.where(flips[:, None, None], mirror_landmarks(points, scheme), points)

    def finish(chosen: dict[str, Any], images: Any, source_images: Any) -> dict[str, Any]:
        """Returns the batch; the images are already mirrored."""
        batch = {}
        for prefix, pixels, indices in (("", images, chosen["target"]), ("source_", source_images, chosen["source"])):
            points = tf.numpy_function(landmarks_of, [indices, chosen["flip"]], tf.float32, stateful=False)
            batch |= {f"{prefix}image": pixels, f"{prefix}landmarks": points}
        return batch

    def from_memory(chosen: dict[str, Any], name: str) -> Any:
        pixels = tf.gather(cached, chosen[name])
        if not config.mirror:
            return pixels
        # gathering from both versions is ten times faster than tf.where on uint8 images
        either = tf.concat([pixels, tf.reverse(pixels, [2])], axis=0)
        return tf.gather(either, tf.range(local) + local * tf.cast(chosen["flip"], tf.int32))

    def indices(chosen: dict[str, Any]) -> dict[str, Any]:
        batch = finish(chosen, None, None)
        at = {"index": tf.cast(chosen["target"], tf.int32), "source_index": tf.cast(chosen["source"], tf.int32)}
        flips = chosen["flip"] if config.mirror else tf.zeros_like(chosen["flip"])
        return {name: value for name, value in batch.items() if value is not None} | at | {"flip": flips}

    if config.cache == "device":
        data = plan.map(no_autograph(indices))
    elif config.cache == "host" and _fits(len(faces), image_size):
        cached = tf.constant(decode_faces(faces, image_size))
        data = plan.map(
            no_autograph(lambda chosen: finish(chosen, from_memory(chosen, "target"), from_memory(chosen, "source")))
        )
    else:
        always_same = config.pairs == 0  # each face is then read once: images[:local] is images[-local:]
        read = _reader(tf, faces, image_size)

        def from_disk(chosen: dict[str, Any]) -> dict[str, Any]:
            images = read(*_wanted(tf, chosen, always_same, config.mirror))
            return finish(chosen, images[:local], images[-local:])

        data = plan.map(no_autograph(from_disk), num_parallel_calls=_THREADS)
    return data.with_options(_options(tf)).prefetch(2).as_numpy_iterator()


def _plan(
    tf: ModuleType, faces: Faces, config: DataConfig, batch_size: int, seed: int, start_step: int, rows: slice
) -> Any:
    """Returns the faces of each step as {"target", "source": indices, "flip": bool}, for one host's `rows`."""
    count = len(faces)
    members, start, rank, size = _group_table(faces.groups)
    members, start, rank, size = (tf.constant(table) for table in (members, start, rank, size))

    def choose(step: Any) -> dict[str, Any]:
        counter = step * batch_size + tf.range(batch_size, dtype=tf.int64)
        epoch = counter // count
        seeds = tf.fill([batch_size], tf.constant(seed, tf.int64))
        shuffle_seed = tf.stack([seeds, epoch, tf.zeros_like(epoch)], axis=1)
        # tf.random.experimental.index_shuffle calls this op, but cannot take a seed per example (TensorFlow 2.21)
        target = tf.raw_ops.RandomIndexShuffle(
            index=counter % count, seed=shuffle_seed, max_index=tf.constant(count - 1, tf.int64), rounds=4
        )
        # drawn for the global batch, then sliced: the rows do not depend on the number of hosts
        draws = tf.random.stateless_uniform([3, batch_size], seed=tf.stack([tf.constant(seed, tf.int64), step]))
        others = tf.gather(size, target) - 1
        offset = 1 + tf.cast(draws[1] * tf.cast(others, tf.float32), tf.int64)
        partner_rank = (tf.gather(rank, target) + tf.minimum(offset, others)) % (others + 1)
        partner = tf.gather(members, tf.gather(start, target) + partner_rank)
        source = tf.where(draws[0] < config.pairs, partner, target)
        chosen = {"target": target, "source": source, "flip": draws[2] < 0.5}
        return {name: value[rows] for name, value in chosen.items()}

    return tf.data.Dataset.range(start_step, _STEPS).map(tf.autograph.experimental.do_not_convert(choose))


def _group_table(groups: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the faces ordered by group, and per face: its group's start in that order, its rank there, its size."""
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    members = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rank = np.empty(len(groups), np.int64)
    rank[members] = np.arange(len(groups)) - starts[group[members]]
    return members.astype(np.int64), starts[group].astype(np.int64), rank, sizes[group].astype(np.int64)


def _wanted(tf: ModuleType, chosen: dict[str, Any], always_same: bool, mirror: bool) -> tuple[Any, Any]:
    """Returns the faces to read for a batch, targets first, and whether each is mirrored."""
    flip = chosen["flip"] if mirror else tf.zeros_like(chosen["flip"])
    if always_same:
        return chosen["target"], flip
    return tf.concat([chosen["target"], chosen["source"]], axis=0), tf.concat([flip, flip], axis=0)


def _reader(tf: ModuleType, faces: Faces, image_size: int) -> Callable[[Any, Any], Any]:
    """Returns a function from (indices, flips) to decoded images, mirrored where `flips` is set."""
    resize = "area" if image_size < faces.image_size else "bicubic"
    spec = tf.TensorSpec([image_size, image_size, 3], tf.uint8)

    def decode(example: tuple[Any, Any]) -> Any:
        jpeg, times = example
        # the exact inverse transform that Pillow uses: the same pixels as Faces.images
        pixels = tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")
        if image_size != faces.image_size:
            pixels = tf.image.resize(pixels, [image_size, image_size], resize)
            pixels = tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)
        # reverses axis 1 or no axis: a tf.cond per image takes longer
        return tf.ensure_shape(tf.reverse(pixels, tf.fill(times, 1)), spec.shape)

    def read(indices: Any, flips: Any) -> Any:
        jpegs = tf.numpy_function(lambda i: np.array(faces.encoded(i), object), [indices], tf.string, stateful=False)
        # a map within the batch: mapping single images in tf.data costs one dispatch per image
        return tf.map_fn(decode, (jpegs, tf.cast(flips, tf.int32)[:, None]), fn_output_signature=spec)

    return read


def decode_faces(faces: Faces, image_size: int) -> UInt8[np.ndarray, "n h w 3"]:
    """Returns all images of the split, at `image_size` pixels, as the batches have them."""
    tf = load_tensorflow()
    images = np.empty((len(faces), image_size, image_size, 3), np.uint8)
    read = _reader(tf, faces, image_size)
    chunks = tf.data.Dataset.range(len(faces)).batch(64)
    read_unflipped = tf.autograph.experimental.do_not_convert(lambda at: read(at, tf.zeros_like(at, tf.bool)))
    chunks = chunks.map(read_unflipped, num_parallel_calls=_THREADS)
    position = 0
    for pixels in chunks.with_options(_options(tf)).as_numpy_iterator():
        images[position : position + len(pixels)] = pixels
        position += len(pixels)
    return images


def _fits(count: int, image_size: int) -> bool:
    needed = 2 * count * image_size**2 * 3  # once in NumPy while decoding, once as TensorFlow's copy
    free = available_memory()
    if free is None:  # unknown on some systems
        return True
    if needed > 0.8 * free:
        _LOG.warning(
            "%d faces at %d px need %.1f GB of memory, %.1f GB are free: decoding them on demand instead of caching",
            count,
            image_size,
            needed / 1e9,
            free / 1e9,
        )
        return False
    return True


def available_memory() -> float | None:
    """Returns the bytes available to a program, free or in the page cache; None if the system does not report them."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return None


def _options(tf: ModuleType) -> Any:
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.threading.private_threadpool_size = _THREADS
    options.threading.max_intra_op_parallelism = 1
    return options
