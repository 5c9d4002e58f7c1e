"""The identity of a photo, from its path, and the split of each identity."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from statistics import median

SPLITS = ("train", "validation", "test")

_NUMBERED = re.compile(r"(.*?[^\W\d_].*?)[ _-]\d+")  # a name with a letter, a separator, a number
_CAMERA_PREFIXES = frozenset(
    "img dsc dscn dscf image photo picture pic frame face pxl mvi dcim sam scan".split()  # noqa: SIM905
)


def identity_of(name: str, rule: str) -> str:
    """Returns the identity of the photo at path `name` by a rule: "folder", "prefix", "stem" or "none"."""
    path = PurePosixPath(name)
    if rule == "folder":
        return str(path.parent) if len(path.parts) > 1 else path.stem
    if rule == "prefix":
        numbered = _NUMBERED.fullmatch(path.stem)
        return numbered[1] if numbered else path.stem
    return path.stem if rule == "stem" else name


def choose_identity_rule(names: Sequence[str]) -> tuple[str, str]:
    """Returns the identity rule that the photos' paths suggest, and the reason.

    The first rule that matches:

    1. "stem": more distinct file names than folders, and most names occur in several folders. Names that are only
       1, 2, 3, … do not match: they number one person's photos.
    2. "prefix": 90% of the names end in a number after a space, `_` or `-`. At least two distinct prefixes exist that
       are not a camera's (IMG_0001), and one of them occurs more than once.
    3. "folder": at least two folders, with a median of at least two photos.
    4. "none".
    """
    paths = [PurePosixPath(name) for name in names]
    folders_of: dict[str, set[PurePosixPath]] = defaultdict(set)
    for path in paths:
        folders_of[path.stem].add(path.parent)
    folders = Counter(path.parent for path in paths)
    shared = sum(len(places) > 1 for places in folders_of.values())
    if 2 <= len(folders) < len(folders_of) and shared > len(folders_of) / 2 and not _are_numbers(folders_of):
        return "stem", f"{shared} of {len(folders_of)} file names occur in several folders"
    matches = [_NUMBERED.fullmatch(path.stem) for path in paths]
    prefixes = Counter(match[1] for match in matches if match)
    named = {prefix for prefix in prefixes if prefix.lower() not in _CAMERA_PREFIXES}
    if sum(prefixes.values()) >= 0.9 * len(paths) and len(named) >= 2 and any(prefixes[p] > 1 for p in named):
        return "prefix", f"file names are NAME_NUMBER, with {len(prefixes)} distinct names"
    if len(folders) >= 2 and median(folders.values()) >= 2:
        return "folder", f"{len(folders)} folders with several photos each"
    return "none", "neither file names nor folders distinguish people"


def _are_numbers(stems: dict[str, set[PurePosixPath]]) -> bool:
    if not all(stem.isdecimal() for stem in stems):
        return False
    numbers = sorted({int(stem) for stem in stems})
    return numbers[0] in (0, 1) and numbers[-1] - numbers[0] == len(numbers) - 1


def assign_splits(identities: Iterable[str], validation: float, test: float) -> dict[str, str]:
    """Returns the split ("train", "validation" or "test") of each identity.

    A hash of the identity alone determines the split, so a person has the same split in every preparation. If a small
    set leaves a split empty, one person moves there from the largest split. Train is filled unless the other fractions
    sum to 1, the others if they are requested and there are at least three people.
    """
    place = {name: _place(name) for name in identities}
    ordered = sorted(place, key=lambda name: (place[name], name))
    splits = {
        name: "test" if place[name] < test else "validation" if place[name] < test + validation else "train"
        for name in ordered
    }
    for split, requested in (("train", validation + test < 1), ("test", test > 0), ("validation", validation > 0)):
        present = Counter(splits.values())
        if present[split] or not requested or len(ordered) < (1 if split == "train" else 3):
            continue
        donor = max(present, key=lambda name: (present[name], name))
        splits[next(name for name in ordered if splits[name] == donor)] = split
    return splits


def _place(identity: str) -> float:
    """Returns a number in [0, 1) that depends only on the identity."""
    digest = hashlib.sha256(f"ecvae split: {identity}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
