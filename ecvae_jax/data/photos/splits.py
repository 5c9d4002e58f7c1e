"""The split of each person: train, validation or test."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

SPLITS = ("train", "validation", "test")


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
