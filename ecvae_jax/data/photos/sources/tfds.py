"""Image sets of tensorflow-datasets; other features, such as CelebA's attributes, become tags."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from ecvae_jax.data.errors import DataError, one_line
from ecvae_jax.data.host_tf import load_tensorflow, load_tfds
from ecvae_jax.data.photos.sources.source import Loaded, Photo, Source

_FEATURES = "tensorflow_datasets.core.features."
_OUR_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def open_tfds(text: str) -> Source:
    """Returns the images of a set, `NAME` or `NAME:SPLIT`, split by split in the order of the set's files.

    tensorflow-datasets downloads and prepares the set if necessary. The set's train, validation and test splits are
    kept. Identities are unknown, so each image is its own person.

    Raises:
        DataError: the set or split does not exist, cannot be downloaded, or has no image.
    """
    tfds = load_tfds()
    name, _, split = text.partition(":")
    try:
        with _own_features_only(tfds):
            builder = tfds.builder(name)
            builder.download_and_prepare()
    except Exception as error:  # tfds' downloads and parsers raise many types
        raise DataError(
            f"source 'tfds:{text}': tensorflow-datasets cannot provide {name!r}: {one_line(error, 300)}"
        ) from error
    counts = {key: info.num_examples for key, info in builder.info.splits.items()}
    if split and split not in counts:
        raise DataError(f"source 'tfds:{text}': no split {split!r}; must be one of {', '.join(counts)}")
    features = builder.info.features
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    if not images:
        raise DataError(f"source 'tfds:{text}': none of its features {list(features)} is an image")
    image, splits = images[0], [split] if split else list(counts)
    version = str(builder.info.full_name)
    names = [(part, f"{part}/{number:07d}") for part in splits for number in range(counts[part])]
    photos = [Photo(name, name, name, {}, version, _OUR_SPLITS.get(part, "")) for part, name in names]
    facts = [f"identities: unknown in {version}, one per image", f"images: feature {image!r}"]
    return Source(
        f"tfds:{version}", photos, lambda start: _load(builder, image, splits, counts, start), None, [], facts
    )


@contextlib.contextmanager
def _own_features_only(tfds: ModuleType) -> Iterator[None]:
    """Blocks the import of modules that a prepared set names: its features.json may come from a stranger.

    tensorflow-datasets 4.9.10 imports the module of every `pythonClassName` (`FeatureConnector.cls_from_name`). Its own
    features and the classes that the program has already imported stay available.
    """
    connector: Any = tfds.features.FeatureConnector
    original = connector.__dict__["cls_from_name"]

    def named(cls: Any, python_class_name: str) -> Any:
        if not python_class_name.startswith(_FEATURES) and python_class_name not in cls._registered_features:
            raise DataError(f"features.json names the class {python_class_name!r}; only {_FEATURES}* is imported")
        return original.__get__(None, cls)(python_class_name)

    connector.cls_from_name = classmethod(named)
    try:
        yield
    finally:
        connector.cls_from_name = original


def _load(builder: Any, image: str, splits: list[str], counts: Mapping[str, int], start: int) -> Iterator[Loaded]:
    tf, tfds = load_tensorflow(), load_tfds()
    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)  # files in order
    for split in splits:
        if start >= counts[split]:
            start -= counts[split]
            continue
        decoders = {image: tfds.decode.SkipDecoding()}
        data = builder.as_dataset(split=split, shuffle_files=False, decoders=decoders, read_config=config)
        for example in data.skip(start).prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
            content = example.pop(image)
            yield Loaded(content if isinstance(content, bytes) else np.asarray(content), _plain(example))
        start = 0


def _plain(value: Any) -> Any:
    """Returns the value in JSON types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
