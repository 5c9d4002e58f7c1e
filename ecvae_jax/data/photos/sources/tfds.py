"""Any image set of tensorflow-datasets; CelebA's five landmarks and attributes become tags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.host_tf import load_tensorflow, load_tfds
from ecvae_jax.data.photos.sources.source import Loaded, Photo, Source

_OUR_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def open_tfds(text: str) -> Source:
    """Returns the pictures of a set, `NAME` or `NAME:SPLIT`, split after split in the order of the set's own files.

    It is downloaded and prepared by tensorflow-datasets where that was not done before. Train, validation and test stay
    what they are in the set. Nobody's name is known, so that each picture is its own person.

    Raises:
        DataError: there is no such set or split, it cannot be had, or it holds no picture.
    """
    tfds = load_tfds()
    name, _, split = text.partition(":")
    try:
        builder = tfds.builder(name)
        builder.download_and_prepare()
    except Exception as error:  # tfds raises what its downloads and parsers raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(f"source 'tfds:{text}': tensorflow-datasets cannot give {name!r}: {reason}") from error
    counts = {key: info.num_examples for key, info in builder.info.splits.items()}
    if split and split not in counts:
        raise DataError(f"source 'tfds:{text}': no split {split!r}; there are {', '.join(counts)}")
    features = builder.info.features
    pictures = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    if not pictures:
        raise DataError(f"source 'tfds:{text}': none of its features {list(features)} is a picture")
    picture, splits = pictures[0], [split] if split else list(counts)
    version = str(builder.info.full_name)
    photos = [
        Photo(f"{part}/{number:07d}", f"{part}/{number:07d}", f"{part}/{number:07d}", {}, version,
              _OUR_SPLITS.get(part, ""))
        for part in splits for number in range(counts[part])
    ]  # fmt: skip
    return Source(
        f"tfds:{version}", photos, lambda start: _load(builder, picture, splits, counts, start), None, [],
        [f"identities: unknown in {version}, each picture is its own", f"pictures: feature {picture!r}"],
    )  # fmt: skip


def _load(builder: Any, picture: str, splits: list[str], counts: Mapping[str, int], start: int) -> Iterator[Loaded]:
    tf, tfds = load_tensorflow(), load_tfds()
    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)  # the files one after the other
    for split in splits:
        if start >= counts[split]:
            start -= counts[split]
            continue
        decoders = {picture: tfds.decode.SkipDecoding()}
        data = builder.as_dataset(split=split, shuffle_files=False, decoders=decoders, read_config=config)
        for example in data.skip(start).prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
            content = example.pop(picture)
            yield Loaded(content if isinstance(content, bytes) else np.asarray(content), _plain(example))
        start = 0


def _plain(value: Any) -> Any:
    """The value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
