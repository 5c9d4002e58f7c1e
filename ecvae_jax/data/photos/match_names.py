"""The photos that the rows of a landmark table name, where names differ in Unicode form, folder, case or suffix."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Mapping


def composed(name: str) -> str:
    """Returns the name with composed letters: macOS stores them decomposed, tables mostly composed."""
    return unicodedata.normalize("NFC", name)


def match_names(rows: list[str], photos: list[str]) -> dict[str, str]:
    """Returns each row's photo: the first rule that matches any row counts for all, and must be unambiguous."""
    known = set(photos)
    exact = {name: name for name in rows if name in known}
    others = [name for name in rows if name not in known]
    exact |= _paired(others, known - set(exact), composed, composed)
    if exact:
        return exact
    rules: list[tuple[Callable[[str], str], Callable[[str], str]]] = []
    if prefix := _prefix(rows, photos):
        rules.append((_without(prefix), composed))
    if prefix := _prefix(photos, rows):
        rules.append((composed, _without(prefix)))
    rules += [
        (lambda name: composed(name).casefold(), lambda name: composed(name).casefold()),
        (composed, lambda name: composed(posixpath.splitext(name)[0])),
    ]
    return next((found for rule in rules if (found := _paired(rows, photos, *rule))), {})


def _prefix(longer: list[str], shorter: list[str]) -> str:
    """Returns the folder in front of the first name whose rest is among the shorter ones, or ""."""
    known = {composed(name) for name in shorter}
    for name in map(composed, longer):
        parts = name.split("/")
        for count in range(1, len(parts)):
            if "/".join(parts[count:]) in known:
                return "/".join(parts[:count]) + "/"
    return ""


def _without(prefix: str) -> Callable[[str], str]:
    return lambda name: composed(name).removeprefix(prefix) if composed(name).startswith(prefix) else "\0" + name


def _paired(
    rows: Iterable[str], photos: Iterable[str], row_key: Callable[[str], str], photo_key: Callable[[str], str]
) -> dict[str, str]:
    """Returns the rows' photos with equal keys; names that share a key with another stay exact, or without a pair."""
    by_key = _unique(photos, photo_key)
    return {row: by_key[key] for key, row in _unique(rows, row_key).items() if key in by_key}


def _unique(names: Iterable[str], key: Callable[[str], str]) -> Mapping[str, str]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(key(name), []).append(name)
    return {k: same[0] for k, same in found.items() if len(same) == 1}
