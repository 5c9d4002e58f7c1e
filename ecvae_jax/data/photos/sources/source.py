"""A source of photos: its photos, in order, and a function that loads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8

from ecvae_jax.data.errors import BadPhotoError, DataError, one_line

T = TypeVar("T")

Content = Path | bytes | UInt8[np.ndarray, "h w 3"] | BadPhotoError
"""A photo file, its bytes, a decoded image, or the reason why it cannot be loaded."""


class Loaded(NamedTuple):
    """The loaded content of one photo."""

    content: Content
    tags: dict[str, Any] = {}  # noqa: RUF012 # never mutated
    """Tags known only after reading the photo."""


@dataclass(frozen=True)
class Photo:
    """One photo of a source."""

    name: str
    """Its path in the source, with `/`; unique."""
    identity: str
    group: str
    """One person under one light and background, if the source distinguishes them, otherwise the person."""
    tags: dict[str, Any] = field(default_factory=dict)
    stamp: str = ""
    """Changes with the content: size and time of a file, checksum of an archive's member."""
    split: str = ""
    """"train", "validation" or "test" if the source defines splits, otherwise ""."""


LARGEST_TABLE = 512 * 10**6
"""Bytes of a landmark table or a list: 400,000 faces of 98 points."""

Files = Callable[[Sequence[str]], dict[str, bytes | DataError]]
"""Returns files of a source that are not photos, such as landmarks: each one's content, or why it cannot be read."""


def _no_files(names: Sequence[str]) -> dict[str, bytes | DataError]:
    return {name: DataError(f"{name}: the source has no other files") for name in names}


@dataclass(frozen=True)
class Source:
    """All photos of a source."""

    label: str
    """Stored in the records as their origin; contains no path of this machine."""
    photos: list[Photo]
    load: Callable[[int], Iterator[Loaded]]
    """Yields the contents of `photos[start:]`, in order, for a given start."""
    root: Path | None = None
    """Its folder, or None."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of other files."""
    facts: list[str] = field(default_factory=list)
    """Messages about the assumptions made."""
    read: Files = _no_files
    """Reads files among `skipped` by name."""
    searched: bool = True
    """Whether everything in `root` belongs to the source."""
    inputs: tuple[Path, ...] = ()
    """Further files and folders that it reads: the list and its photos' folders, the archive, the videos."""


def until_damage(items: Iterable[T], damage: list[str]) -> Iterator[T]:
    """Yields the items of a stream up to its end, or up to damage, whose reason it appends to `damage`.

    What is read before the damage is kept. A refusal (`DataError`) is no damage.
    """
    try:
        yield from items
    except (DataError, RecursionError):
        raise
    except Exception as error:  # tarfile, the decompressors and libav raise many types
        damage.append(one_line(error))


def load_until_damage(contents: Iterable[Loaded], count: int, unit: str) -> Iterator[Loaded]:
    """Yields `count` contents: those before the damaged or early end of a stream, then its reason for the others."""
    damage: list[str] = []
    given = 0
    for given, loaded in enumerate(until_damage(contents, damage), 1):
        yield loaded
        if given == count:
            return
    reason = damage[0] if damage else "the file ends earlier"
    for _ in range(count - given):
        yield Loaded(BadPhotoError(f"damaged: {unit} cannot be decoded: {reason}"))


def damage_fact(name: str, count: int, unit: str, damage: list[str]) -> list[str]:
    """Returns the line of `Source.facts` about a stream whose listing met damage after `count` units; else nothing."""
    return [f"{name} is damaged after {count} {unit}: {reason}; what is before is used" for reason in damage]
