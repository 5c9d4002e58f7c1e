"""Damage to the files of `benchmarks/fuzz_inputs.py`: bytes, whole files, values of JSON; odd values and names."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

VALUES = ("NaN", "inf", "-1", "0", "1e308", "9" * 400, "null", "[]", "{}", '""', "true", "ü", "1;2", "1,5", " ", "\0")
NAMES = (
    "w[1]", "a\\b", "new\nline", "\x1b[31m", "-rf", "=cmd", "a b", "Zo\u0308e", "Zoë", "ü→", "x" * 255, "x" * 300,
    "{a}*?", "a:b", "rendered:test:0", "@2", "%s%n", "~", "$HOME", ".", "..", "", "a\0b", os.fsdecode(b"\xff\xfe"),
    "con", "a/" * 1000, "loop", "fifo", "link", "guard/thesis.txt", "guard", "photos", "photos/p0.jpg", "/dev/null/x",
)  # fmt: skip


def damage(data: bytes, rng: random.Random) -> bytes:
    """Returns the bytes with one kind of damage."""
    some = bytearray(data)
    at, length = rng.randrange(len(some) + 1), rng.choice([1, 4, 64, 4096])
    kind = rng.randrange(8)
    if kind == 0:
        for _ in range(rng.choice([1, 3, 30])):
            if some:
                some[rng.randrange(len(some))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del some[at:]
    elif kind == 2:
        del some[at : at + length]
    elif kind == 3:
        some[at : at + length] = rng.randbytes(length)
    elif kind == 4:
        some[at:at] = bytes(rng.choice([1, 1000, 10_000_000]))
    elif kind == 5:
        some[at:at] = some[max(0, at - length) : at] * rng.choice([2, 50])
    elif kind == 6:  # numbers of text: another one
        parts = data.split(b",")
        parts[rng.randrange(len(parts))] = rng.choice(VALUES).encode()
        return b",".join(parts)
    else:
        return rng.choice([b"", b"\xef\xbb\xbf" + data, data.decode("latin-1").encode("utf-16"), rng.randbytes(length)])
    return bytes(some)


def replace(path: Path, rng: random.Random, guard: Path) -> str:
    """Replaces a file by a damaged one, or by something else of its name; returns what it did."""
    data, what = path.read_bytes(), rng.choice(["damaged"] * 12 + ["FIFO", "link to /dev/zero", "link out", "folder"])
    path.unlink()
    if what == "damaged":
        path.write_bytes(damage(data, rng))
    elif what == "FIFO":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if "zero" in what else guard / "thesis.txt")
    return f"{path.name}: {what}"


def any_file(folder: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))


def edit_json(path: Path, rng: random.Random) -> str:
    """Gives one value of a JSON file, at any depth, another one; returns what it did."""
    try:
        tree = place = json.loads(path.read_text())
    except ValueError:
        path.write_bytes(damage(path.read_bytes(), rng))
        return f"{path.name}: damaged"
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        if not keys:
            break
        key = rng.choice(keys)
        if isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.8:
            place = place[key]
            continue
        odd = (-1, 0, 10**9, 10**18, 1e308, float("nan"), float("inf"), None, True, "", "../../guard/thesis.txt",
               "this.Text", "/dev/zero", [], {}, [10**9], "x" * 10**6)  # fmt: skip
        place[key] = rng.choice(odd)
        path.write_text(json.dumps(tree))
        return f"{path.name}: {key}={str(place[key])[:40]!r}"
    return f"{path.name}: unchanged"
