"""New people for training: faces between two people of a records folder, in every view that both have."""

from __future__ import annotations

import io
import itertools
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import Faces, load_faces
from ecvae_jax.data.records import METADATA_KEYS, FaceRecord, write_records
from ecvae_jax.structure.warp import finer, resample, smooth_map

_FIELD = 32
"""Side, in cells, of the coarse grid on which a warp is computed before it is interpolated to pixels."""
_SHARES = (0.35, 0.65)
"""Range of the second person's share. Outside it, the morph resembles one person too much to be new."""


def write_morphs(records: str, out: Path, people: int, seed: int = 0, quality: int = 95) -> int:
    """Writes a records folder of `people` new people, all in the split `train`; returns its number of faces.

    Each new person is a morph of two random people of the training split. In every view that both have, both faces are
    warped to landmarks between theirs, and their pixels averaged. One share holds for all views of a person. Two names
    are the same view if they differ in the identity only. People of the validation and test splits are never used.

    Args:
        records: folder that `ecvae prepare` wrote; its names must contain the identities.
        quality: of JPEG, 1..100.

    Raises:
        DataError: records cannot be read, `out` exists, or no two people have two views in common.
    """
    if people < 1:
        raise DataError(f"people={people}: must be at least 1")
    if os.path.lexists(out):
        raise DataError(f"{out} exists: give another folder")
    faces = load_faces(records, "train")
    metadata = {key: faces.metadata[key] for key in METADATA_KEYS if key in faces.metadata}
    metadata["source"] = f"morphs of {faces.metadata.get('source')}"
    made = list(_morphs(faces, people, seed, quality))
    write_records(out, {"train": made}, metadata)
    return len(made)


def _morphs(faces: Faces, people: int, seed: int, quality: int) -> Iterator[FaceRecord]:
    views: dict[str, dict[str, int]] = defaultdict(dict)
    for index, (name, identity) in enumerate(zip(faces.names, faces.identities, strict=True)):
        views[identity][name.replace(identity, "*")] = index
    names = sorted(views)
    couples = [(a, b) for a, b in itertools.combinations(names, 2) if len(views[a].keys() & views[b].keys()) > 1]
    if not couples:
        raise DataError(
            f"{faces.records}: no two people of its training split have two views in common; "
            "the names of their photos must differ in the identity only"
        )
    rng = np.random.default_rng(seed)
    for number in range(people):
        first, second = couples[rng.integers(len(couples))]
        share = rng.uniform(*_SHARES)
        identity = f"morph{number:04d}"
        shared = sorted(views[first].keys() & views[second].keys())
        places = [[views[person][view] for view in shared] for person in (first, second)]
        first_images, second_images = (faces.images(one) for one in places)
        first_landmarks, second_landmarks = (faces.landmarks[one] for one in places)
        images, landmarks = _morph(first_images, second_images, first_landmarks, second_landmarks, share)
        for view, index, image, points in zip(shared, places[0], images, landmarks, strict=True):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
            tags = {**faces.tags[index], "morph": [first, second, round(float(share), 3)]}
            tags.pop("crop", None)  # a morph has no photo
            group = faces.groups[index].replace(first, identity)
            yield FaceRecord(buffer.getvalue(), points, identity, group, view.replace("*", identity), tags)


def _morph(
    first: UInt8[np.ndarray, "n h w 3"],
    second: UInt8[np.ndarray, "n h w 3"],
    first_landmarks: Float[np.ndarray, "n p 2"],
    second_landmarks: Float[np.ndarray, "n p 2"],
    share: float,
) -> tuple[UInt8[np.ndarray, "n h w 3"], Float[np.ndarray, "n p 2"]]:
    landmarks = (1 - share) * first_landmarks + share * second_landmarks
    warped_first = np.asarray(_warp(jnp.asarray(first), landmarks, first_landmarks))
    warped_second = np.asarray(_warp(jnp.asarray(second), landmarks, second_landmarks))
    mixed = (1 - share) * warped_first + share * warped_second
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8), landmarks.astype(np.float32)


@jax.jit
def _warp(images: Array, target: Array, source: Array) -> Array:
    places = finer(smooth_map(target, source, _FIELD), images.shape[1])
    return resample(images.astype(jnp.float32), places)
