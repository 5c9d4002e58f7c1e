"""Writes records folders: ArrayRecord files with the metadata of tensorflow-datasets.

Any program reads one with `tfds.builder_from_directory(DIR).as_data_source(SPLIT)`. Splits are `train`, `validation`
and `test`; empty ones are left out. Records keep the order in which they are given. The same records give the same
bytes. Nothing here touches the network or the user's home directory.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.host_tf import load_tfds
from ecvae_jax.data.photos.identity import SPLITS
from ecvae_jax.folders import temporary_folder

METADATA_KEYS = ("points", "image_size", "source", "detector", "margin")


@dataclasses.dataclass(frozen=True)
class FaceRecord:
    """One face of a records folder, as stored."""

    image: bytes
    """JPEG bytes of the square crop, RGB; stored unchanged."""
    landmarks: Float[np.ndarray, "p 2"]
    """Crop units, 0..1 across the crop, x right, y down; may exceed 0..1."""
    identity: str
    """The person; no two splits share one."""
    group: str
    """One person under one light and background; training may pair two views of a group."""
    name: str
    """Unique; where the face came from."""
    tags: Mapping[str, Any]
    """JSON: pose, expression, light, the crop's place in its photo."""


def write_records(
    out: Path,
    splits: Mapping[str, Iterable[FaceRecord]],
    metadata: Mapping[str, Any],
    shards: int = 0,
    compression: str = "zstd:3",
) -> None:
    """Writes a records folder; it appears at `out` complete or not at all.

    Args:
        out: folder to make; it must not exist.
        splits: the records of each split, held in memory.
        metadata: `METADATA_KEYS` and any other JSON.
        shards: files per split; 0: as `plan_shards` chooses.

    Raises:
        DataError: a needed metadata key is missing, or a split has an unknown name.
        FileExistsError: `out` exists.
        OSError: the disk is full.
    """
    missing = [key for key in METADATA_KEYS if key not in metadata]
    if missing:
        raise DataError(f"metadata lacks {missing}: records need {list(METADATA_KEYS)}")
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise DataError(f"split {unknown[0]!r}: must be one of {list(SPLITS)}")
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists: give another folder")
    with temporary_folder(out) as work:
        folder = work / out.name
        folder.mkdir()
        lengths = {}
        for split, records in splits.items():
            faces = list(records)
            plan = plan_shards(split, len(faces), sum(len(face.image) for face in faces), shards)
            for name, places in plan.items():
                write_shard(folder / name, faces[places.start : places.stop], compression)
            lengths[split] = [len(places) for places in plan.values()]
        write_info(folder, lengths, metadata)
        folder.rename(out)


def plan_shards(split: str, count: int, size: int, shards: int = 0) -> dict[str, range]:
    """Returns the files of a split by name, each with the places in the split of its records.

    Files hold equal numbers of records; tensorflow-datasets' rule keeps them between 64 MiB and 1 GiB.

    Args:
        count: number of records; 0 gives no file.
        size: bytes of all JPEGs.
        shards: number of files; 0: by the rule.
    """
    load_tfds()
    from tensorflow_datasets.core.utils.shard_utils import ShardConfig, get_shard_boundaries

    if not count:
        return {}
    number = min(count, ShardConfig(num_shards=shards or None).get_number_shards(size, count))
    ends = get_shard_boundaries(count, number)
    starts = [0, *ends[:-1]]
    return {
        f"ecvae_faces-{split}.array_record-{i:05d}-of-{number:05d}": range(start, end)
        for i, (start, end) in enumerate(zip(starts, ends, strict=True))
    }


def write_shard(path: Path, records: Iterable[FaceRecord], compression: str = "zstd:3") -> None:
    """Writes one ArrayRecord file.

    Raises:
        OSError: the disk is full.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    try:
        writer = ArrayRecordWriter(os.fspath(path), f"group_size:1,{compression}")
        for record in records:
            writer.write(encode_record(record))
        writer.close()
    except RuntimeError as error:  # ArrayRecord's for all that the system refuses
        raise OSError(f"cannot write into {path.parent}: {error}") from None


def encode_record(record: FaceRecord) -> bytes:
    """Returns the tf.Example of a record; its features are in sorted order, so the bytes are reproducible."""
    from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

    texts = {
        "identity": record.identity,
        "group": record.group,
        "name": record.name,
        "tags": json.dumps(dict(record.tags), sort_keys=True),
    }
    feature, as_list = tf_feature_pb2.Feature, tf_feature_pb2.BytesList  # pyright: ignore[reportAttributeAccessIssue]
    numbers = np.asarray(record.landmarks, np.float32).ravel()
    features = {name: feature(bytes_list=as_list(value=[text.encode()])) for name, text in texts.items()}
    features["image"] = feature(bytes_list=as_list(value=[record.image]))
    features["landmarks"] = feature(float_list=tf_feature_pb2.FloatList(value=numbers))  # pyright: ignore
    example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=features))  # pyright: ignore
    return example.SerializeToString(deterministic=True)


def write_info(folder: Path, lengths: Mapping[str, list[int]], metadata: Mapping[str, Any]) -> None:
    """Writes dataset_info.json, features.json and metadata.json beside the ArrayRecord files of a folder.

    Args:
        lengths: the number of records in each file of each split.
        metadata: `METADATA_KEYS` and any other JSON.
    """
    tfds = load_tfds()
    size, features = metadata["image_size"], tfds.features
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features.FeaturesDict(
            {
                "image": features.Image(shape=(size, size, 3), dtype=np.uint8, encoding_format="jpeg"),
                "landmarks": features.Tensor(shape=(metadata["points"], 2), dtype=np.float32),
                "identity": features.Text(),
                "group": features.Text(),
                "name": features.Text(),
                "tags": features.Text(doc="one JSON object"),
            }
        ),
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=numbers,
                num_bytes=sum(file.stat().st_size for file in folder.glob(f"ecvae_faces-{split}.*")),
            )
            for split, numbers in lengths.items()
            if numbers
        ],
        check_data=False,
        description="Square face crops with landmarks, prepared by ecvae_jax.",
        metadata=tfds.core.MetadataDict(metadata),
        disable_shuffling=True,
    )
