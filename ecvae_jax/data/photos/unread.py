"""Landmarks beside the photos in a file that is not read by its name: refused, so that none is detected in silence."""

from __future__ import annotations

import os
import posixpath
import re
import stat

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.landmark_files import composed
from ecvae_jax.data.photos.sources.source import Source

_NAMED = re.compile(r"landmarks?(?:68|98)?(?:[ ._(-].*)?|.*\.pts\.[a-z0-9]+", re.IGNORECASE)
_TEXTS = (".csv", ".tsv", ".txt", ".json", ".npy", ".lnd", ".land", ".asf", "")
_HEAD = 2**16
"""Bytes read of a file."""
_MOST = 8
"""Files that are opened."""
_FEWEST = 20
"""Points that are taken for landmarks."""
_NUMBER = r"[-+]?\d+(?:[.,]\d*)?(?:e[-+]?\d+)?"
_LINE = re.compile(rf"\s*\(?{_NUMBER}(?:\s+|\s*[,;]\s*){_NUMBER}\)?\s*", re.IGNORECASE)
_PAIR = re.compile(rf"\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]", re.IGNORECASE)
_KEY = re.compile(r"\"[a-z0-9_]{0,30}(?:landmark|keypoint)[a-z0-9_]{0,30}\"\s*:", re.IGNORECASE)
_ARRAY = re.compile(r"'shape': \((?:68|98), [23]\)")
_DO = (
    "write landmarks68.csv or landmarks98.csv (columns image,x0,y0,…) or .pts files, give a table by --landmarks FILE, "
    "or --landmarks none to detect"
)


def refuse_unread(source: Source) -> None:
    """Accepts a source whose other files hold no landmarks, as far as their names and first lines tell.

    Raises:
        DataError: a file is named like landmarks, or begins like them.
    """
    names = [name for name, _ in source.skipped]
    if source.root is not None and source.searched:
        names += [f"{name}/" for name in ("landmarks68.csv", "landmarks98.csv") if (source.root / name).is_dir()]
    for name in names:
        if _NAMED.fullmatch(posixpath.basename(name.replace("\\", "/").rstrip("/"))):
            raise DataError(f"source {source.label!r}: {name!r} is named like landmarks, and is not read; {_DO}")
    stems = {composed(posixpath.splitext(photo.name)[0]) for photo in source.photos}
    beside = [name for name in names if composed(posixpath.splitext(name)[0]) in stems]
    sidecar = next((name for name in beside if name.lower().endswith(".mat")), None)
    if sidecar is not None:  # as in 300W-LP and AFLW2000-3D
        raise DataError(f"source {source.label!r}: {sidecar!r} is named like a photo, and is not read; {_DO}")
    texts = [name for name in names if posixpath.splitext(name)[1].lower() in _TEXTS]
    first = beside[:1] + sorted(set(texts) - set(beside), key=lambda name: (name.count("/"), name))
    for name in first[:_MOST]:
        reason = _looks_like_landmarks(_head(source, name))
        if reason:
            raise DataError(f"source {source.label!r}: {name!r} {reason}, and is not read by this name; {_DO}")


def _head(source: Source, name: str) -> str:
    """Returns a file's first characters; "" where it is in an archive or not readable."""
    if source.root is None:
        return ""
    try:
        handle = os.open(source.root / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            content = file.read(_HEAD) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    except (OSError, ValueError):
        return ""
    return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")


def _looks_like_landmarks(text: str) -> str | None:
    """Returns why a text looks like landmarks, or None."""
    lines = text.splitlines()
    first = lines[0].lower() if lines else ""
    cells = {cell.strip(" \"'") for cell in re.split(r"[,;\t]", first)}
    if any(names <= cells for names in ({"x0", "y0", "x1"}, {"x1", "y1", "x2"}, {"x_0", "y_0"})):
        return "has columns of landmarks"
    if len(first.split()) == 207:
        return "is a list in WFLW's format"
    if _KEY.search(text):
        return "names landmarks"
    if _ARRAY.search(text[:200]) or len(_PAIR.findall(text)) >= _FEWEST:
        return "has points"
    return "has lines of points" if sum(bool(_LINE.fullmatch(line)) for line in lines) >= _FEWEST else None
