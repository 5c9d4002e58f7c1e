"""Faces of one split of a records folder: landmarks and names in memory, images by index."""

from __future__ import annotations

import bisect
import copy
import hashlib
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ecvae_jax.data.detect import recorded_detector
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.host_tf import load_tfds
from ecvae_jax.data.manifest import RecordFile, find_records, read_manifest, unreadable
from ecvae_jax.data.shards import check_files, float_values, jpeg_size, read_in_order


class _Tags(Sequence[dict[str, Any]]):
    """Tags, parsed on access: parsing those of 200,000 faces would take a gigabyte and seconds."""

    def __init__(self, texts: list[bytes]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [json.loads(text) for text in self._texts[index]]
        return json.loads(self._texts[index])


class Faces:
    """The faces of one split, in the order of the records.

    Attributes:
        records: the folder.
        split: "train", "validation" or "test".
        points: landmarks per face, 98 or 68.
        image_size: side of the stored images in pixels.
        landmarks: crop units, 0..1 across the crop, x right, y down.
        identities, groups, names: one text per face (see `records.FaceRecord`).
        tags: one dict per face: pose, expression, light and crop transform, where the source provides them.
        metadata: of the whole folder: source, detector, margin, …
    """

    def __init__(self, records: Path, split: str, files: Sequence[RecordFile], metadata: dict[str, Any]) -> None:
        """Reads landmarks and names of all records in `files`; decodes no image.

        Raises:
            DataError: a file is not regular, claims too much memory, or lacks records that the manifest states.
        """
        load_tfds()  # first: it makes the imports below quiet
        from array_record.python.array_record_data_source import ArrayRecordDataSource
        from tensorflow_datasets.proto import tf_example_pb2

        reads = check_files(files)  # before the readers: their C++ blocks on a FIFO, and believes claimed sizes
        source: Any = ArrayRecordDataSource(list[Any](files))
        self.records, self.split, self.metadata = records, split, metadata
        self.points, self.image_size = int(metadata["points"]), int(metadata["image_size"])
        self._source, self._example = source, tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]
        self.identities: list[str] = []
        self.groups: list[str] = []
        self.names: list[str] = []
        tags: list[bytes] = []
        self.landmarks: Float[np.ndarray, "n p 2"] = np.empty((len(source), self.points, 2), np.float32)
        for index, raw in enumerate(read_in_order(files, reads)):
            feature = self._example.FromString(raw).features.feature
            self.landmarks[index] = float_values(feature["landmarks"].float_list, 2 * self.points).reshape(-1, 2)
            self.identities.append(feature["identity"].bytes_list.value[0].decode())
            self.groups.append(feature["group"].bytes_list.value[0].decode())
            self.names.append(feature["name"].bytes_list.value[0].decode())
            tags.append(feature["tags"].bytes_list.value[0])
        if not np.isfinite(self.landmarks).all():
            raise DataError("a landmark is NaN or infinite")
        self.tags: Sequence[dict[str, Any]] = _Tags(tags)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits: a hash of the faces' names, people and landmarks."""
        digest = hashlib.sha256(np.ascontiguousarray(self.landmarks).tobytes())
        digest.update(json.dumps([self.names, self.identities, self.groups]).encode())
        return digest.hexdigest()[:16]

    def landmarks_as(self, points: int) -> Float[np.ndarray, "n p 2"]:
        """Returns the landmarks in the scheme of `points` points.

        Raises:
            DataError: 98 points are requested of 68-point records.
        """
        if points == self.points:
            return self.landmarks
        from ecvae_jax.structure.scheme import convert_landmarks

        try:
            return np.asarray(convert_landmarks(self.landmarks, points), np.float32)
        except ValueError:
            raise DataError(
                f"{self.records} has {self.points} landmarks per face, but the model needs {points}: "
                f"set data.points to {self.points}, or prepare the records with {points} points"
            ) from None

    def encoded(self, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """Returns the JPEG bytes of the faces at `indices`.

        Raises:
            DataError: one is not a JPEG of the stated size; no decoder sees its bytes.
        """
        # One at a time: the reader distributes a batch over threads, which takes three times as long.
        raws = (self._source[int(i)] for i in indices)
        jpegs = [self._example.FromString(raw).features.feature["image"].bytes_list.value[0] for raw in raws]
        for jpeg in jpegs:
            if jpeg_size(jpeg) != (self.image_size, self.image_size):
                raise DataError(
                    f"records {str(self.records)!r}: an image is not a JPEG of {self.image_size}×{self.image_size} px, "
                    "as metadata.json states; prepare them again"
                )
        return jpegs

    def image(self, index: int, size: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """Returns one face as `images` does."""
        return self.images([index], size)[0]

    def images(self, indices: Sequence[int] | np.ndarray, size: int | None = None) -> UInt8[np.ndarray, "b h w 3"]:
        """Returns the faces at `indices`, resized to `size` × `size` pixels (by area means when reducing)."""
        side = size or self.image_size
        out = np.empty((len(indices), side, side, 3), np.uint8)
        with ThreadPoolExecutor(max_workers=2) as pool:
            for row, pixels in enumerate(pool.map(lambda jpeg: _decode(jpeg, side), self.encoded(indices))):
                out[row] = pixels
        return out


class _JoinedSource:
    """The records of several sources, concatenated."""

    def __init__(self, sources: Sequence[Any]) -> None:
        self._sources, self._starts = sources, list(accumulate(map(len, sources), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> bytes:
        owner = bisect.bisect_right(self._starts, index) - 1
        return self._sources[owner][index - self._starts[owner]]


def join_faces(parts: Sequence[Faces]) -> Faces:
    """Returns the faces of several folders, concatenated.

    Landmarks are converted to the smallest scheme among the folders. Groups of different folders stay separate.
    Identities with equal names count as one person.

    Raises:
        DataError: the folders differ in crop size or margin.
    """
    for fact, rule in (("image_size", "--size"), ("margin", "--margin")):
        values = {str(part.records): part.metadata.get(fact) for part in parts}
        if len(set(values.values())) > 1:
            found = ", ".join(f"{folder} has {value}" for folder, value in values.items())
            raise DataError(f"joined records must have the same {fact}: {found}; prepare them with the same {rule}")
    points = min(part.points for part in parts)
    joined = copy.copy(parts[0])
    joined.records, joined.points = Path("+".join(str(part.records) for part in parts)), points
    joined.landmarks = np.concatenate([part.landmarks_as(points) for part in parts])
    joined.identities = [name for part in parts for name in part.identities]
    joined.groups = [f"{number}/{name}" for number, part in enumerate(parts) for name in part.groups]
    joined.names = [f"{number}/{name}" for number, part in enumerate(parts) for name in part.names]
    joined.tags = _Tags([text for part in parts for text in part.tags._texts])  # type: ignore[attr-defined]
    joined._source = _JoinedSource([part._source for part in parts])
    detectors = [str(part.metadata.get("detector", "")) for part in parts]
    shared = parts[0].metadata.items()
    joined.metadata = {
        **{key: value for key, value in shared if all(part.metadata.get(key) == value for part in parts)},
        "points": points,
        "source": " + ".join(str(part.metadata.get("source")) for part in parts),
        # Photos must be read by the detector of the photos among the faces; exact and given landmarks have none.
        "detector": next(filter(recorded_detector, detectors), detectors[0]),
    }
    return joined


def load_faces(records: str | Path, split: str) -> Faces:
    """Returns the faces of one split of a records folder; "rendered" is the embedded heads.

    Folders joined by "+" ("rendered+records/london") are concatenated (see `join_faces`).

    Raises:
        DataError: the folder does not exist, is not a records folder, or lacks the split.
    """
    if "+" in str(records) and not Path(records).exists():
        return join_faces([load_faces(part, split) for part in str(records).split("+")])
    folder = find_records(records)
    manifest = read_manifest(folder)
    if split not in manifest.splits:
        raise DataError(f"split {split!r}: {folder} has only {sorted(manifest.splits)}")
    try:
        return Faces(folder, split, manifest.splits[split], manifest.metadata)
    except Exception as error:  # the reader's C++ raises many types; the user needs the folder's name and one line
        raise unreadable(folder, error) from error


def record_splits(records: str | Path) -> dict[str, int]:
    """Returns the number of faces in each split of a records folder.

    Raises:
        DataError: the folder cannot be read as records.
    """
    manifest = read_manifest(Path(records))
    return {name: manifest.count(name) for name in manifest.splits}


def _decode(jpeg: bytes, size: int) -> UInt8[np.ndarray, "h w 3"]:
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        image = image.convert("RGB")
        if image.size != (size, size):
            smaller = size < image.width
            image = image.resize((size, size), Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC)
        return np.asarray(image)
