"""The records on disk: a tensorflow-datasets directory of ArrayRecord files.

Any program can read it with `tfds.builder_from_directory(DIR).as_data_source(SPLIT)`. Splits are `train`, `validation`
and `test`, an empty one is left out. The order of the records is the order in which they were given. Nothing here
touches the network or the user's home directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.host_tf import load_tfds
from ecvae_jax.data.photos.splits import SPLITS

tfds = load_tfds()

METADATA_KEYS = ("points", "image_size", "source", "detector", "margin")


@dataclasses.dataclass(frozen=True)
class FaceRecord:
    """One face as it is stored.

    Attributes:
        image: JPEG bytes of the square crop, RGB; stored as they are.
        landmarks: crop units, 0..1 across the crop, x right, y down; may lie outside 0..1.
        identity: who it is; people are never shared between splits.
        group: one person under one light and background; two views of a group may be paired in training.
        name: unique; where it came from.
        tags: anything that JSON can hold: pose, expression, light, the crop's place in its photo.
    """

    image: bytes
    landmarks: Float[np.ndarray, "p 2"]
    identity: str
    group: str
    name: str
    tags: Mapping[str, Any]


def face_features(image_size: int, points: int) -> Any:
    """Returns the tfds features of a records folder: image, landmarks, identity, group, name, tags."""
    return tfds.features.FeaturesDict({
        "image": tfds.features.Image(shape=(image_size, image_size, 3), dtype=np.uint8, encoding_format="jpeg"),
        "landmarks": tfds.features.Tensor(shape=(points, 2), dtype=np.float32),
        "identity": tfds.features.Text(),
        "group": tfds.features.Text(),
        "name": tfds.features.Text(),
        "tags": tfds.features.Text(doc="one JSON object"),
    })


class LocalDatasetInfo(tfds.core.DatasetInfo):  # pyright: ignore
    """Of a set in no public bucket: looking there, tensorflow-datasets leaves an empty temporary folder behind."""

    def initialize_from_bucket(self) -> None:
        """Does nothing."""


class EcvaeFaces(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
    """Square face crops with landmarks, prepared by `ecvae prepare`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}

    def __init__(self, examples: Mapping[str, Any], metadata: Mapping[str, Any], data_dir: str) -> None:
        """Makes a builder that will write below `data_dir`; `examples` as `build_records` has them."""
        self._examples = examples
        self._facts = dict(metadata)
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> Any:
        return LocalDatasetInfo(
            builder=self,
            description="Square face crops with landmarks, prepared by ecvae_jax.",
            features=face_features(self._facts["image_size"], self._facts["points"]),
            metadata=tfds.core.MetadataDict(self._facts),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {split: self._generate_examples(split) for split in self._examples}

    def _generate_examples(self, split: str) -> Any:
        return self._examples[split]


def face_example(record: FaceRecord) -> dict[str, Any]:
    """Returns a record as tensorflow-datasets takes it."""
    return {
        "image": io.BytesIO(record.image),  # stored byte for byte; an array would be re-encoded
        "landmarks": np.asarray(record.landmarks, np.float32),
        "identity": record.identity,
        "group": record.group,
        "name": record.name,
        "tags": json.dumps(dict(record.tags), sort_keys=True),
    }


def write_records(out: Path, splits: Mapping[str, Iterable[FaceRecord]], metadata: Mapping[str, Any]) -> None:
    """Writes a records folder; it appears at `out` complete or not at all.

    Args:
        out: folder to make; it must not exist.
        splits: the records of each split, none of them empty; each iterable is read once, in order.
        metadata: `points`, `image_size`, `source`, `detector`, `margin` and whatever else JSON can hold.

    Raises:
        DataError: a needed metadata key is missing, or a split has an unknown name.
        FileExistsError: `out` exists.
    """
    build_records(out, {split: numbered_examples(records) for split, records in splits.items()}, metadata)


def numbered_examples(records: Iterable[FaceRecord]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Returns the records of one split as `EcvaeFaces` takes them."""
    return ((key, face_example(record)) for key, record in enumerate(records))


def build_records(
    out: Path,
    examples: Mapping[str, Any],
    metadata: Mapping[str, Any],
    seen: Callable[[Path], str] = os.fspath,
    **download: Any,
) -> None:
    """Writes a records folder as `write_records` does, from whatever tensorflow-datasets can make splits of.

    Args:
        out: folder to make; it must not exist.
        examples: of each split, an iterator of (index, `face_example`), or an Apache Beam transform that gives these.
        metadata: as in `write_records`.
        seen: where those who write find a folder of this machine, if they are not on it.
        download: more of `tfds.download.DownloadConfig`: Beam's runner and options.

    Raises:
        DataError: a needed metadata key is missing, or a split has an unknown name.
        FileExistsError: `out` exists.
    """
    missing = [key for key in METADATA_KEYS if key not in metadata]
    if missing:
        raise DataError(f"metadata lacks {missing}: records need {list(METADATA_KEYS)}")
    unknown = sorted(set(examples) - set(SPLITS))
    if unknown:
        raise DataError(f"split {unknown[0]!r}: must be one of {list(SPLITS)}")
    if out.exists():
        raise FileExistsError(f"{out} exists: give another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        builder = EcvaeFaces(examples, metadata, seen(work))
        with contextlib.redirect_stdout(io.StringIO()):  # tfds prints that it "downloads", which would alarm the reader
            builder.download_and_prepare(
                download_dir=os.fspath(work / "download"),
                download_config=tfds.download.DownloadConfig(try_download_gcs=False, **download),
            )
        written = work / builder.name / str(builder.version)
        pack_records(written)
        written.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def pack_records(folder: Path, compression: str = "zstd:3") -> None:
    """Writes the ArrayRecord files of `folder` again, with the features of each record in sorted order.

    tensorflow-datasets leaves that order to a hash which differs from process to process, so that the same seed would
    not give the same bytes.
    """
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    for file in sorted(folder.glob("*.array_record-*")):
        reader = ArrayRecordReader(str(file))
        records = reader.read_all()
        reader.close()
        packed = file.with_name(f".{file.name}")
        writer = ArrayRecordWriter(str(packed), f"group_size:1,{compression}")
        for record in records:
            example = tf_example_pb2.Example.FromString(record)  # type: ignore[attr-defined]
            writer.write(example.SerializeToString(deterministic=True))
        writer.close()
        packed.replace(file)
