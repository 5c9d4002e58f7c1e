"""New people for training: faces halfway between two people of a records folder, in every view that both have."""

from __future__ import annotations

import io
import itertools
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
"""Cells of the grid on which a warp is worked out before it is spread over the pixels."""
_SHARES = (0.35, 0.65)
"""Of the second person: further out, the morph is too much like one of the two to be a new face."""


def write_morphs(records: str, out: Path, people: int, seed: int = 0, quality: int = 95) -> int:
    """Writes a records folder of `people` new people and returns its number of faces; all are in the split `train`.

    Each is a morph of two people of the training split, drawn at random: in every view that both have (two names that
    differ in the person alone), both faces are warped to landmarks between theirs, and their pixels averaged, with one
    share for all views. People of the validation and test splits are never mixed in.

    Args:
        records: folder that `ecvae prepare` wrote; its names must hold the identities.
        out: folder to be written.
        people: number of new people.
        seed: of the choice of people and shares.
        quality: JPEG quality.

    Raises:
        DataError: records cannot be read, or no two people have two views in common.
    """
    if people < 1:
        raise DataError(f"people={people}: must be at least 1")
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
        raise DataError(f"{faces.records}: no two people of its training split have two views in common; "
                        "the names of their photos must differ in the person alone")  # fmt: skip
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
            tags.pop("crop", None)  # a morph comes from no photo
            group = faces.groups[index].replace(first, identity)
            yield FaceRecord(buffer.getvalue(), points, identity, group, view.replace("*", identity), tags)


def _morph(
    first: UInt8[np.ndarray, "n h w 3"], second: UInt8[np.ndarray, "n h w 3"],
    first_landmarks: Float[np.ndarray, "n p 2"], second_landmarks: Float[np.ndarray, "n p 2"], share: float,
) -> tuple[UInt8[np.ndarray, "n h w 3"], Float[np.ndarray, "n p 2"]]:  # fmt: skip
    landmarks = (1 - share) * first_landmarks + share * second_landmarks
    warped = [np.asarray(_warp(jnp.asarray(images), landmarks, own)) for images, own in
              ((first, first_landmarks), (second, second_landmarks))]  # fmt: skip
    mixed = (1 - share) * warped[0] + share * warped[1]
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8), landmarks.astype(np.float32)


@jax.jit
def _warp(images: Array, landmarks: Array, own: Array) -> Array:
    places = finer(smooth_map(landmarks, own, _FIELD), images.shape[1])
    return resample(images.astype(jnp.float32), places)
