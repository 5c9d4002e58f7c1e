"""Landmark files: tables, .pts and WFLW's list, from bytes to landmarks by name; and the photos that the names mean."""

from __future__ import annotations

import csv
import io
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float

from ecvae_jax.data.errors import DataError

_SEPARATORS = (",", ";", "\t")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?")
_PTS_HEADER = re.compile(r"\s*(?:version|n_points|image)\s*[:=].*", re.IGNORECASE)


def decode_text(label: str, content: bytes) -> str:
    """Returns a file's text: UTF-8, or UTF-16 with its mark, as spreadsheets save "Unicode text".

    Raises:
        DataError: it is neither.
    """
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{label} cannot be read: {error}; save it as UTF-8") from None


def read_table(label: str, content: bytes) -> tuple[int, dict[str, Float[np.ndarray, "p 2"]]]:
    """Returns the number of points, and the landmarks by image, of a table with columns image, x0, y0, x1, y1, ….

    Its cells are separated by commas, semicolons or tabs; with the latter two, numbers may have decimal commas. `label`
    names the file in messages.

    Raises:
        DataError: a column is missing, there are neither 68 nor 98 points, or an image has two rows.
    """
    text = decode_text(label, content)
    first = text.partition("\n")[0]
    marked = re.fullmatch(r"\"?sep=([,;\t])\"?", first.strip("\r\n"), re.IGNORECASE)  # a spreadsheet's mark
    if marked:
        text = text.partition("\n")[2]
        first = text.partition("\n")[0]
    separator = marked[1] if marked else max(_SEPARATORS, key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        header = [cell.strip().lower() for cell in next(reader, [])]
        image, columns = _columns(label, header)
        rows: dict[str, np.ndarray] = {}
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(f"{label}, line {reader.line_num}: {len(cells)} cells, the header has {len(header)}")
            name = cells[image].strip().replace("\\", "/").removeprefix("./")
            if name in rows:
                raise DataError(f"{label}, line {reader.line_num}: image {name!r} has a second row; keep one")
            numbers = [_number(cells[column], separator != ",") for column in columns]
            rows[name] = np.array(numbers, np.float32).reshape(-1, 2)
    except csv.Error as error:
        raise DataError(f"{label} cannot be read as CSV: {error}") from None
    return len(columns) // 2, rows


def read_wflw(label: str, text: str) -> dict[str, Float[np.ndarray, "98 2"]]:
    """Returns the landmarks by image of WFLW's list; of several faces the one with the largest box.

    Raises:
        DataError: a line has another format, or the list is empty.
    """
    best: dict[str, tuple[float, np.ndarray]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        cells = line.split(maxsplit=206)
        if not cells:
            continue
        values = [_number(cell) for cell in cells[:200]]
        if len(cells) != 207 or not np.isfinite(values).all():
            raise DataError(f"{label}, line {number}: must have WFLW's 196 coordinates, 4 of a box, 6 flags and a name")
        x0, y0, x1, y1 = values[196:]
        area, name = (x1 - x0) * (y1 - y0), cells[206].strip().replace("\\", "/")
        if name not in best or area > best[name][0]:
            best[name] = area, np.array(values[:196], np.float32).reshape(98, 2)
    if not best:
        raise DataError(f"{label}: the list is empty")
    return {name: landmarks for name, (_, landmarks) in best.items()}


def read_pts(label: str, content: bytes) -> Float[np.ndarray, "p 2"]:
    """Returns the landmarks of a .pts file, in pixels counted from 0: one point a line, within braces or without.

    Comments (#, //) are ignored. A comma separates x from y, or is a decimal comma where a space separates them.

    Raises:
        DataError: a line is not a point, their number differs from n_points, or the file has several faces.
    """
    text = decode_text(label, content)
    if ("{" in text) != ("}" in text):
        raise DataError(f"{label}: it has only one of its braces")
    if text.count("{") > 1:
        raise DataError(f"{label}: {text.count('{')} faces in braces; keep one")
    stated = re.search(r"^\s*n_points\s*[:=]\s*(\d+)", text, re.MULTILINE | re.IGNORECASE)
    body = text.partition("{")[2].partition("}")[0] if "{" in text else text
    points = []
    for line in body.splitlines():
        line = re.split(r"#|//", line)[0].strip()
        if not line or _PTS_HEADER.fullmatch(line):
            continue
        cells = line.split()
        spaced = len(cells) == 2
        if len(cells) == 1:
            cells = cells[0].split(",")
        elif spaced:
            # "12.5, 80": the comma separates; "12,5 80,0": both are decimal commas
            cells = [cells[0].removesuffix(","), cells[1]]
        values = [_number(cell.strip(), decimal_comma=spaced) for cell in cells]
        if len(values) % 2 or (len(values) > 2 and "," in line) or not np.isfinite(values).all():
            raise DataError(f"{label}: {line[:40]!r} is not a point; write x y")
        points += values
    landmarks = np.array(points, np.float32).reshape(-1, 2) - np.float32(0.5)
    if not len(landmarks) or (stated and int(stated[1]) != len(landmarks)):
        raise DataError(f"{label}: {len(landmarks)} points, n_points states {stated[1] if stated else 'none'}")
    return landmarks


def _columns(label: str, header: list[str]) -> tuple[int, list[int]]:
    if "image" not in header:
        raise DataError(f"{label}: no column `image` in its first line; it must be image,x0,y0,x1,y1,…")
    points = sum(bool(re.fullmatch(r"x\d+", name)) for name in header)
    if points not in (68, 98):
        raise DataError(f"{label}: {points} columns x0, x1, …; a face must have 68 or 98")
    wanted = [f"{axis}{i}" for i in range(points) for axis in "xy"]
    missing = [name for name in wanted if name not in header]
    if missing:
        raise DataError(f"{label}: column {missing[0]!r} is missing")
    return header.index("image"), [header.index(name) for name in wanted]


def _number(cell: str, decimal_comma: bool = False) -> float:
    if "_" in cell:  # float reads 1_5 as 15
        return float("nan")
    try:
        return float(
            cell.strip().replace(",", ".") if decimal_comma and _DECIMAL_COMMA.fullmatch(cell.strip()) else cell
        )
    except ValueError:
        return float("nan")


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


def _unique(names: Iterable[str], key: Callable[[str], str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(key(name), []).append(name)
    return {k: same[0] for k, same in found.items() if len(same) == 1}
