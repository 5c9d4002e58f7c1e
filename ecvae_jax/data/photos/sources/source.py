"""What a source of photos is: its photos, in order, and how the work on them gets their content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ecvae_jax.data.photos.photo import BadPhotoError

Content = Path | bytes | UInt8[np.ndarray, "h w 3"] | BadPhotoError
"""A photo file, the bytes of one, a decoded picture, or why there is none."""


class Loaded(NamedTuple):
    """What a source hands out for one photo."""

    content: Content
    tags: dict[str, Any] = {}  # noqa: RUF012 # nobody writes into it
    """What the source knows of the photo only when it reads it."""


@dataclass(frozen=True)
class Photo:
    """One photo of a source.

    Attributes:
        name: its place in the source, with `/`; unique.
        identity: who it is.
        group: one person under one light and background, as far as the source tells: else the person.
        tags: what the source knows of it.
        stamp: changes when its content does: size and time of a file, checksum of an archive's member.
        split: "train", "validation" or "test" where the source has splits of its own.
    """

    name: str
    identity: str
    group: str
    tags: dict[str, Any] = field(default_factory=dict)
    stamp: str = ""
    split: str = ""


@dataclass(frozen=True)
class Source:
    """All photos of a source.

    Attributes:
        label: what the records say they were made from; no path of this machine.
        photos: photos to prepare.
        load: the contents of `photos[start:]`, one after the other, for a given start.
        root: its folder, where it has one.
        searched: whether all that lies in that folder belongs to it.
        skipped: other files, and why: (name, reason).
        facts: lines that tell the user what was assumed.
    """

    label: str
    photos: list[Photo]
    load: Callable[[int], Iterator[Loaded]]
    root: Path | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    searched: bool = True
