"""What the text of a compiled TPU program says: its collectives, and the bytes that go to and from HBM."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

_WIDTHS = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}
_ARRAY = re.compile(r"\b(pred|bf16|[suf]\d+\w*|c64|c128)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?(%[\w.\-]+) = (\(.*?\)|\S+) ([a-z][a-z\-]*)\((.*)$")
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
                "collective-broadcast", "ragged-all-to-all")  # fmt: skip
# They name or regroup what is there, or end what a -start began: no bytes move.
_MOVE_NOTHING = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"}


@dataclass(frozen=True)
class Array:
    """One array of a shape in the text."""

    bytes: int
    """Without padding."""
    padded_bytes: int
    """As its layout's tiles store it."""
    in_hbm: bool
    """False where the compiler put it into memory on the chip's core."""


@dataclass(frozen=True)
class Collective:
    """One exchange between devices."""

    kind: str
    arrays: int
    """Arrays that go together."""
    bytes: int
    """Of the result, on each device."""
    devices: int
    """Devices that take part in each group; 0: all."""
    overlaps: bool
    """Whether the schedule lets other work go on meanwhile."""
    strategy: str
    """The compiler's name of how it is done."""


def collectives(text: str) -> list[Collective]:
    """Returns every exchange between devices in a compiled program, in the order of its text.

    One inside a loop is listed once.
    """
    found = []
    for _, shape, name, rest in _instructions(text):
        kind = name.removesuffix("-start")
        if kind not in _COLLECTIVES:
            continue
        arrays = _arrays(shape)
        if name.endswith("-start") and kind != "all-reduce":
            arrays = arrays[len(arrays) // 2 :]  # operands and results in one tuple
        strategy = re.search(r'"strategy":"(\w+)"', rest) or re.search(r'"emitter":"(\w+)"', rest)
        found.append(
            Collective(kind, len(arrays), sum(array.bytes for array in arrays), _group_size(rest),
                       name.endswith("-start"), strategy.group(1) if strategy else "")
        )  # fmt: skip
    return found


def hbm_bytes(text: str) -> int:
    """Returns the bytes that a compiled program reads from and writes to HBM, tile padding included.

    Every instruction of the entry computation is taken to read its operands and write its results once, those in HBM;
    a loop counts as one pass over what it is given.
    """
    total = 0
    known: dict[str, list[Array]] = {}
    for name, shape, kind, rest in _instructions(_entry(text)):
        known[name] = arrays = _arrays(shape)
        if kind in _MOVE_NOTHING or kind.endswith("-done"):
            continue
        operands = re.findall(r"%[\w.\-]+", rest.split("), ")[0])
        if kind == "copy-start":  # target, source and a flag
            moved = arrays[:2]
        elif kind == "slice-start":  # source, the slice, and a flag: no more of the source is read than the slice
            moved = [arrays[1], dataclasses.replace(arrays[1], in_hbm=arrays[0].in_hbm)]
        else:
            moved = arrays + [array for operand in operands for array in known.get(operand, [])]
        total += sum(array.padded_bytes for array in moved if array.in_hbm)
    return total


def _instructions(text: str) -> Iterator[tuple[str, str, str, str]]:
    """Name, shape, operation and the rest of each instruction."""
    for line in text.splitlines():
        match = _INSTRUCTION.match(line)
        if match:
            yield match.group(1), match.group(2), match.group(3), match.group(4)


def _entry(text: str) -> str:
    start = text.index("\nENTRY ")
    return text[start : text.index("\n}", start)]


def _arrays(shape: str) -> list[Array]:
    return [_array(*match.groups()) for match in _ARRAY.finditer(shape)]


def _array(kind: str, dimensions: str, order: str | None, layout: str | None) -> Array:
    sides = [int(side) for side in dimensions.split(",") if side]
    width = _WIDTHS.get(kind) or max(1, int(re.sub(r"\D.*", "", kind[1:])) // 8)
    tile = re.search(r"T\(([\d,]+)\)", layout or "")
    space = re.search(r"S\((\d+)\)", layout or "")
    stored = [sides[int(axis)] for axis in reversed((order or "").split(",")) if axis]
    if tile and stored:
        lengths = [int(length) for length in tile.group(1).split(",")]
        if len(lengths) <= len(stored):
            tail = [-(-side // length) * length for side, length in
                    zip(stored[-len(lengths) :], lengths, strict=True)]  # fmt: skip
            stored = stored[: -len(lengths)] + tail
    return Array(math.prod(sides) * width, math.prod(stored or sides) * width, space is None or space.group(1) == "0")


def _group_size(rest: str) -> int:
    """Compilers write groups in three ways: device by device, counted, and (JAX 0.12) by axes of a mesh."""
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    if listed:
        return len(listed.group(1).split(","))
    meshed = re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\S+)? \{([^}]*)\}", rest)
    if meshed:
        sides = dict(re.findall(r"'([^']+)'=(\d+)", meshed.group(1)))
        # A part of an axis is written 'name':(devices before it)its own.
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", meshed.group(2))
        return math.prod(int(part or sides[axis]) for axis, part in axes)
    counted = re.search(r"replica_groups=\[(\d+),(\d+)\]", rest)
    return int(counted.group(2)) if counted else 0
