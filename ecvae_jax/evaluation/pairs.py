"""Pairs of views: the source gives the appearance, the target the structure and the true image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import Faces
from ecvae_jax.data.photos.sources.folder import list_photos
from ecvae_jax.data.portraits import NoFaceError, PortraitReader, Portraits
from ecvae_jax.evaluation.tags import is_neutral, yaw_of
from ecvae_jax.model.model import Model
from ecvae_jax.progress import track

SourceView = Literal["any", "frontal"]

_NAMED = 5  # files that a note names; the rest is counted


@dataclass(frozen=True)
class Pairs:
    """n pairs at the model's resolution and in its landmark scheme."""

    names: list[str]
    """One a pair, unique, usable as file names."""
    people: list[str]
    source: UInt8[np.ndarray, "n h w 3"]
    source_landmarks: Float[np.ndarray, "n p 2"]
    target: UInt8[np.ndarray, "n h w 3"]
    """The true images."""
    target_landmarks: Float[np.ndarray, "n p 2"]
    source_tags: list[dict[str, Any]]
    target_tags: list[dict[str, Any]]
    facts: dict[str, Any]
    """Origin, for the report: files found, files left out, and why."""
    notes: list[str]
    """For the user, a line each."""

    def __len__(self) -> int:
        return len(self.names)


def same_group_pairs(groups: Sequence[str], limit: int, seed: int) -> Int[np.ndarray, "n 2"]:
    """Returns (source, target) indices, n 2: two different views of one person under one light.

    Each view is a target once; its source is drawn from the rest of its group. At most `limit` pairs are drawn.
    n is 0 if no group has two views.
    """
    rng = np.random.default_rng(seed)
    pairs = [
        (int(rng.choice([other for other in views if other != target])), target)
        for views in _members(groups).values()
        if len(views) > 1
        for target in views
    ]
    return _at_most(pairs, limit, rng)


def frontal_pairs(
    groups: Sequence[str], tags: Sequence[Mapping[str, Any]], limit: int, seed: int
) -> Int[np.ndarray, "n 2"]:
    """Returns (source, target) indices, n 2: from each group's most frontal neutral view to its other views.

    In a group without neutral views, the most frontal view is the source.

    Raises:
        DataError: no view has a tag `yaw`.
    """
    parsed = [(yaw_of(tag), is_neutral(tag)) for tag in tags]
    if not any(yaw is not None for yaw, _ in parsed):
        raise DataError("source_view='frontal': the records have no tag yaw; use 'any'")
    pairs = []

    def turned(index: int) -> tuple[bool, float]:
        yaw, neutral = parsed[index]
        return not neutral, abs(yaw) if yaw is not None else 180.0

    for views in _members(groups).values():
        source = min(views, key=turned)
        pairs += [(source, target) for target in views if target != source]
    return _at_most(pairs, limit, np.random.default_rng(seed))


def record_pairs(
    faces: Faces, image_size: int, points: int, limit: int = 500, seed: int = 0, source_view: SourceView = "any"
) -> Pairs:
    """Returns pairs of two views of one person in one sitting; none if no person has two.

    Args:
        image_size: side of the images, pixels.
        points: landmark scheme, 98 or 68.
        source_view: "any": each view is a target once, its source drawn; "frontal": see `frontal_pairs`.

    Raises:
        DataError: the records have fewer landmarks, or no yaw for "frontal".
    """
    if source_view == "frontal":
        chosen = frontal_pairs(faces.groups, faces.tags, limit, seed)
    else:
        chosen = same_group_pairs(faces.groups, limit, seed)
    landmarks = faces.landmarks_as(points)
    source, target = chosen[:, 0], chosen[:, 1]
    stems = [_file_name(PurePosixPath(faces.names[i]).stem) for i in range(len(faces))]
    facts = {"kind": "records", "records": faces.records.name, "split": faces.split, "faces": len(faces)}
    facts |= {"source_view": source_view, "limit": limit, "seed": seed}
    names = [f"{number:04d}_{stems[s]}_to_{stems[t]}" for number, (s, t) in enumerate(chosen)]
    sides = (faces.images(source, image_size), landmarks[source], faces.images(target, image_size), landmarks[target])
    source_tags, target_tags = ([faces.tags[i] for i in side] for side in (source, target))
    people = [faces.identities[i] for i in target]
    return Pairs(names, people, *sides, source_tags, target_tags, facts, [])


def single_views(faces: Faces, image_size: int, points: int, limit: int, seed: int, facts: Mapping[str, Any]) -> Pairs:
    """Returns at most `limit` views, each paired with itself, for records without two views of any person."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(faces))[:limit])
    views = faces.images(chosen, image_size), faces.landmarks_as(points)[chosen]
    tags = [faces.tags[i] for i in chosen]
    note = "no person has two views of one sitting: only reconstruction is scored"
    names, people = [f"{i:04d}" for i in chosen], [faces.identities[i] for i in chosen]
    return Pairs(names, people, *views, *views, tags, tags, dict(facts), [note])


def folder_pairs(model: Model, sources: Path, targets: Path, limit: int = 500, seed: int = 0) -> Pairs:
    """Returns pairs of photos, one from each folder: files of the same name, whatever their suffix, are one person.

    The detector and the crop rule are those of the model's training faces. Files without a partner, unreadable files
    and photos without a face are left out, counted in `facts` and reported in `notes`. At most `limit` pairs are drawn
    with `seed`.

    Raises:
        DataError: a folder is missing or empty, no name is in both, or no pair shows two faces.
        MissingExtraError: the detector is not installed.
    """
    files = _by_stem(sources), _by_stem(targets)
    common = [name for name in files[0] if name in files[1]]
    if not common:
        raise DataError(
            f"pairs {str(sources)!r} and {str(targets)!r}: no file has the same name in both; "
            "the same name (001.jpg and 001.png) means the same person"
        )
    unpaired = sorted(set(files[0]) ^ set(files[1]))
    chosen = [common[i] for i in np.sort(np.random.default_rng(seed).permutation(len(common))[:limit])]
    reader = PortraitReader.of_model(model)
    detector = reader.detector
    kept: list[tuple[str, Portraits, Portraits]] = []
    left_out: dict[str, list[str]] = {"no face found": [], "not readable": []}
    several: list[str] = []
    for name in track(chosen, len(chosen), "pairs of photos"):
        try:
            first, second = (reader.read_photo(side[name]) for side in files)
        except NoFaceError:
            left_out["no face found"].append(name)
        except DataError:
            left_out["not readable"].append(name)
        else:
            kept.append((name, first, second))
            several += [name] if any("using the largest" in note for note in (*first.notes, *second.notes)) else []
    causes = {cause: names for cause, names in left_out.items() if names}
    notes = [f"{_count(names, 'pair')} left out, {cause}: {_listed(names)}" for cause, names in causes.items()]
    if unpaired:
        notes.append(f"{_count(unpaired, 'file')} left out, present in one folder only: {_listed(unpaired)}")
    if several:
        notes.append(f"{_count(several, 'pair')} with several faces in a photo, used the largest: {_listed(several)}")
    if len(chosen) < len(common):
        notes.append(f"{len(chosen)} of {len(common)} pairs are used (limit)")
    if not kept:
        raise DataError(f"pairs {str(sources)!r} and {str(targets)!r}: no pair is left; {'; '.join(notes)}")
    facts = {"kind": "folders", "sources": sources.resolve().name, "targets": targets.resolve().name}
    facts |= {"files": [len(side) for side in files], "unpaired": len(unpaired)}
    facts |= {"no_face": len(left_out["no face found"]), "not_readable": len(left_out["not readable"])}
    facts |= {"detector": detector.name, "limit": limit, "seed": seed}
    names, firsts, seconds = zip(*kept, strict=True)
    source, source_landmarks, target, target_landmarks = (
        np.concatenate([getattr(face, field) for face in faces])
        for faces in (firsts, seconds)
        for field in ("images", "landmarks")
    )
    none = [{} for _ in names]
    return Pairs(list(names), list(names), source, source_landmarks, target, target_landmarks, none, none, facts, notes)


def evenly_spaced(count: int, most: int) -> Int[np.ndarray, " k"]:
    """Returns at most `most` indices of `count` items, evenly spaced, first and last included."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))


def _members(groups: Sequence[str]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    return members


def _at_most(pairs: list[tuple[int, int]], limit: int, rng: np.random.Generator) -> Int[np.ndarray, "n 2"]:
    order = rng.permutation(len(pairs))[:limit]
    return np.array(pairs, np.int64).reshape(-1, 2)[np.sort(order)]


def _by_stem(folder: Path) -> dict[str, Path]:
    """Photos by their path in the folder without the suffix."""
    if not folder.is_dir():
        raise DataError(f"pairs {str(folder)!r}: no such folder; give two folders of photos, SOURCES and TARGETS")
    photos: dict[str, Path] = {}
    for name, path in list_photos(folder)[0].items():
        stem = str(PurePosixPath(name).with_suffix(""))
        if stem in photos:
            raise DataError(f"pairs {str(folder)!r}: {photos[stem].name} and {path.name} have the same name; keep one")
        photos[stem] = path
    return photos


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)


def _count(names: Sequence[str], unit: str) -> str:
    return f"{len(names)} {unit}" + ("" if len(names) == 1 else "s")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
