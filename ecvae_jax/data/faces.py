"""Faces of one split of a records folder: landmarks and names in memory, images by index."""

from __future__ import annotations

import bisect
import copy
import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ecvae_jax.config import RENDERED
from ecvae_jax.data.errors import DataError

_READ_CHUNK = 2048


class _Tags(Sequence[dict[str, Any]]):
    """Tags that are parsed when they are asked for: of 200,000 faces they would take a gigabyte and seconds."""

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
        identities, groups, names: one text a face (see `builders.FaceRecord`).
        tags: one dict a face: pose, expression, light, crop transform, as far as the source knew them.
        metadata: facts about the whole folder: source, detector, margin, …
    """

    def __init__(self, records: Path, split: str, files: Sequence[Any], metadata: dict[str, Any]) -> None:
        """Reads landmarks and names of every record of `files` (tfds' file instructions); decodes no image."""
        from array_record.python.array_record_data_source import ArrayRecordDataSource
        from tensorflow_datasets.proto import tf_example_pb2

        source: Any = ArrayRecordDataSource(files)
        self.records, self.split, self.metadata = records, split, metadata
        self.points, self.image_size = int(metadata["points"]), int(metadata["image_size"])
        self._source, self._example = source, tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]
        self.identities: list[str] = []
        self.groups: list[str] = []
        self.names: list[str] = []
        tags: list[bytes] = []
        self.landmarks: Float[np.ndarray, "n p 2"] = np.empty((len(source), self.points, 2), np.float32)
        for index, raw in enumerate(_in_order(files)):
            feature = self._example.FromString(raw).features.feature
            self.landmarks[index] = _numbers(feature["landmarks"].float_list, 2 * self.points).reshape(-1, 2)
            self.identities.append(feature["identity"].bytes_list.value[0].decode())
            self.groups.append(feature["group"].bytes_list.value[0].decode())
            self.names.append(feature["name"].bytes_list.value[0].decode())
            tags.append(feature["tags"].bytes_list.value[0])
        self.tags: Sequence[dict[str, Any]] = _Tags(tags)

    def __len__(self) -> int:
        """Returns the number of faces."""
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that tell these faces from others: a hash of their names, people and landmarks."""
        digest = hashlib.sha256(np.ascontiguousarray(self.landmarks).tobytes())
        digest.update(json.dumps([self.names, self.identities, self.groups]).encode())
        return digest.hexdigest()[:16]

    def landmarks_as(self, points: int) -> Float[np.ndarray, "n p 2"]:
        """Returns the landmarks in the scheme of `points` points.

        Raises:
            DataError: 98 points are asked of 68-point records.
        """
        if points == self.points:
            return self.landmarks
        from ecvae_jax.structure.scheme import convert_landmarks

        try:
            return np.asarray(convert_landmarks(self.landmarks, points), np.float32)
        except ValueError:
            raise DataError(
                f"{self.records} has {self.points} landmarks a face and the model asks for {points}: "
                f"set data.points to {self.points}, or prepare the records with {points} points"
            ) from None

    def encoded(self, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """Returns the JPEG bytes of the faces at `indices`."""
        # One by one: asked for many at once, the reader hands them to threads, which takes three times as long.
        raws = (self._source[int(i)] for i in indices)
        return [self._example.FromString(raw).features.feature["image"].bytes_list.value[0] for raw in raws]

    def image(self, index: int, size: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """Returns one face, resized to `size` pixels a side (by area means where that is smaller)."""
        return self.images([index], size)[0]

    def images(
        self, indices: Sequence[int] | np.ndarray, size: int | None = None
    ) -> UInt8[np.ndarray, "b h w 3"]:
        """Returns the faces at `indices`, resized to `size` pixels a side (by area means where that is smaller)."""
        side = size or self.image_size
        out = np.empty((len(indices), side, side, 3), np.uint8)
        with ThreadPoolExecutor(max_workers=2) as pool:
            for row, pixels in enumerate(pool.map(lambda jpeg: _decode(jpeg, side), self.encoded(indices))):
                out[row] = pixels
        return out


class _JoinedSource:
    """The records of several sources, one source after the other."""

    def __init__(self, sources: Sequence[Any]) -> None:
        self._sources, self._starts = sources, list(accumulate(map(len, sources), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> bytes:
        owner = bisect.bisect_right(self._starts, index) - 1
        return self._sources[owner][index - self._starts[owner]]


def join_faces(parts: Sequence[Faces]) -> Faces:
    """Returns the faces of several folders, one after the other, as one set.

    Landmarks come in the smallest scheme among them. Groups of two folders stay apart; identities of the same name are
    taken to be one person.

    Raises:
        DataError: the folders differ in the size of their crops or in the crop's margin.
    """
    for fact, rule in (("image_size", "--size"), ("margin", "--margin")):
        values = {str(part.records): part.metadata.get(fact) for part in parts}
        if len(set(values.values())) > 1:
            told = ", ".join(f"{folder} has {value}" for folder, value in values.items())
            raise DataError(f"records that are joined must have one {fact}: {told}; prepare them with the same {rule}")
    points = min(part.points for part in parts)
    joined = copy.copy(parts[0])
    joined.records, joined.points = Path("+".join(str(part.records) for part in parts)), points
    joined.landmarks = np.concatenate([part.landmarks_as(points) for part in parts])
    joined.identities = [name for part in parts for name in part.identities]
    joined.groups = [f"{number}/{name}" for number, part in enumerate(parts) for name in part.groups]
    joined.names = [f"{number}/{name}" for number, part in enumerate(parts) for name in part.names]
    joined.tags = _Tags([text for part in parts for text in part.tags._texts])  # type: ignore[attr-defined]
    joined._source = _JoinedSource([part._source for part in parts])
    found_by = [str(part.metadata.get("detector", "")) for part in parts]
    joined.metadata = {
        **{key: value for key, value in parts[0].metadata.items()
           if all(part.metadata.get(key) == value for part in parts)},
        "points": points, "source": " + ".join(str(part.metadata.get("source")) for part in parts),
        # Photos are to be read as the photos among the faces were; exact and given landmarks have no detector.
        "detector": next((name for name in found_by if name.startswith(("dlib", "mediapipe"))), found_by[0]),
    }  # fmt: skip
    return joined


def load_faces(records: str | Path, split: str) -> Faces:
    """Returns the faces of one split of a records folder, or of the embedded heads for "rendered".

    Several folders, joined by "+" ("rendered+records/london"), are read as one set (`join_faces`).

    Raises:
        DataError: no such folder, not a records folder, or it has no such split.
    """
    if "+" in str(records) and not Path(records).exists():
        return join_faces([load_faces(part, split) for part in str(records).split("+")])
    if str(records) == RENDERED:
        from ecvae_jax.data.rendered import rendered_directory

        records = rendered_directory()
    folder = Path(records)
    if not folder.is_dir():
        raise DataError(f"records {str(folder)!r}: no such folder; make one with `ecvae prepare SOURCE OUT`")
    if not (folder / "dataset_info.json").is_file():
        raise DataError(
            f"records {str(folder)!r}: not a records folder (it has no dataset_info.json); "
            "make one with `ecvae prepare SOURCE OUT`"
        )
    info, metadata = _read_info(folder)
    if split not in info.splits:
        raise DataError(f"split {split!r}: {folder} has only {sorted(info.splits)}")
    try:
        return Faces(folder, split, info.splits[split].file_instructions, metadata)
    except Exception as error:  # the reader raises what its C++ raises; the user needs the folder's name and one line
        raise _unreadable(folder, error) from error


def record_splits(records: str | Path) -> dict[str, int]:
    """Returns how many faces each split of a records folder has.

    Raises:
        DataError: the folder cannot be read as records.
    """
    info, _ = _read_info(Path(records))
    return {name: split.num_examples for name, split in info.splits.items()}


def _read_info(folder: Path) -> tuple[Any, dict[str, Any]]:
    from ecvae_jax.data.host_tf import load_tfds

    try:
        info = load_tfds().builder_from_directory(str(folder)).info
        metadata = json.loads((folder / "metadata.json").read_text())
        _ = int(metadata["points"]), int(metadata["image_size"])
    except Exception as error:  # tfds raises whatever its parsers raise; the user needs the folder's name and one line
        raise _unreadable(folder, error) from error
    return info, metadata


def _unreadable(folder: Path, error: Exception) -> DataError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return DataError(f"records {str(folder)!r} cannot be read: {reason}; prepare them again")


def _in_order(files: Sequence[Any]) -> Iterator[bytes]:
    """The records of tfds' file instructions, the next ones read while some are looked at.

    A data source, which is asked by index, takes half as long again.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    with ThreadPoolExecutor(max_workers=1) as ahead:
        coming: deque[Future[list[bytes]]] = deque()
        for file in files:
            reader = ArrayRecordReader(os.fspath(file.filename))
            end = file.skip + file.take
            for start in range(file.skip, end, _READ_CHUNK):
                coming.append(ahead.submit(reader.read, start, min(start + _READ_CHUNK, end)))
                if len(coming) > 1:
                    yield from coming.popleft().result()
        for last in coming:
            yield from last.result()


def _numbers(stored: Any, count: int) -> Float[np.ndarray, " n"]:
    """The numbers of a FloatList, which are packed: its bytes end with them.

    Taken from the message one by one they take ten times as long, of 200,000 faces more than ten seconds.
    """
    if len(stored.value) != count:
        raise ValueError(f"a face has {len(stored.value)} landmark coordinates, and metadata.json speaks of {count}")
    return np.frombuffer(stored.SerializeToString()[-4 * count :], "<f4")


def _decode(jpeg: bytes, size: int) -> UInt8[np.ndarray, "h w 3"]:
    with Image.open(io.BytesIO(jpeg)) as image:
        image = image.convert("RGB")
        if image.size != (size, size):
            smaller = size < image.width
            image = image.resize((size, size), Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC)
        return np.asarray(image)
