"""Which people are learned from and which are kept for validation and test."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

SPLITS = ("train", "validation", "test")


def assign_splits(identities: Iterable[str], validation: float, test: float) -> dict[str, str]:
    """Returns the split ("train", "validation" or "test") of each identity.

    The split follows from a hash of the identity alone, so a person lands in the same split in every preparation. Only
    if a small set leaves a split empty, a person moves there from the largest split: into train if the fractions leave
    people for it; into the others if their fraction is positive and there are at least three people.
    """
    place = {name: _place(name) for name in identities}
    ordered = sorted(place, key=lambda name: (place[name], name))
    splits = {
        name: "test" if place[name] < test else "validation" if place[name] < test + validation else "train"
        for name in ordered
    }
    wanted = [("train", validation + test < 1), ("test", test > 0), ("validation", validation > 0)]
    for split, asked in wanted:
        present = Counter(splits.values())
        if present[split] or not asked or len(ordered) < (1 if split == "train" else 3):
            continue
        donor = max(present, key=lambda name: (present[name], name))
        splits[next(name for name in ordered if splits[name] == donor)] = split
    return splits


def _place(identity: str) -> float:
    """A number in [0, 1) that depends on the identity alone."""
    digest = hashlib.sha256(f"ecvae split: {identity}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
