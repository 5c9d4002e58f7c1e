"""Collectives, HBM traffic and instructions of a compiled program, read from its text."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

_WIDTHS = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}
_ARRAY = re.compile(r"\b(pred|bf16|[suf]\d+\w*|c64|c128)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?(%[\w.\-]+) = (\(.*?\)|\S+) ([a-z][a-z\-]*)\((.*)$")
_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
)
MOVE_NOTHING = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"}
"""Operations that name or regroup values and move no bytes. Neither does the -done of a -start."""


@dataclass(frozen=True)
class Array:
    """One array of a shape in the program's text."""

    type: str
    sides: tuple[int, ...]
    bytes: int
    """Without padding."""
    padded_bytes: int
    """With the padding of its layout's tiles."""
    in_hbm: bool
    """False where the compiler placed it in memory on the core."""


@dataclass(frozen=True)
class Collective:
    """One exchange between devices."""

    kind: str
    arrays: int
    """Number of arrays in this exchange."""
    bytes: int
    """Size of the result on each device."""
    devices: int
    """Devices in each group; 0: all."""
    overlaps: bool
    """Whether other work may run at the same time."""
    strategy: str
    """The compiler's name of the algorithm."""


def collectives(text: str) -> list[Collective]:
    """Returns every exchange between devices in a compiled program, in textual order; one inside a loop once."""
    found = []
    for _, shape, name, rest in instructions(text):
        kind = name.removesuffix("-start")
        if kind not in _COLLECTIVES:
            continue
        arrays = arrays_of(shape)
        if name.endswith("-start") and kind != "all-reduce":
            arrays = arrays[len(arrays) // 2 :]  # operands and results in one tuple
        strategy = re.search(r'"strategy":"(\w+)"', rest) or re.search(r'"emitter":"(\w+)"', rest)
        found.append(
            Collective(
                kind,
                len(arrays),
                sum(array.bytes for array in arrays),
                _group_size(rest),
                overlaps=name.endswith("-start"),
                strategy=strategy.group(1) if strategy else "",
            )
        )
    return found


def hbm_bytes(text: str) -> int:
    """Returns the bytes that a compiled program reads from and writes to HBM, tile padding included.

    Each instruction of the entry computation counts once: its operands and results in HBM. A loop counts as one pass
    over its operands.
    """
    total = 0
    known: dict[str, list[Array]] = {}
    for name, shape, kind, rest in instructions(entry(text)):
        known[name] = arrays = arrays_of(shape)
        if kind in MOVE_NOTHING or kind.endswith("-done"):
            continue
        operands = re.findall(r"%[\w.\-]+", rest.split("), ")[0])
        if kind == "copy-start":  # target, source and a flag
            moved = arrays[:2]
        elif kind == "slice-start":  # source, slice and a flag; only the slice of the source is read
            moved = [arrays[1], dataclasses.replace(arrays[1], in_hbm=arrays[0].in_hbm)]
        else:
            moved = arrays + [array for operand in operands for array in known.get(operand, [])]
        total += sum(array.padded_bytes for array in moved if array.in_hbm)
    return total


def instructions(text: str) -> Iterator[tuple[str, str, str, str]]:
    """Yields name, shape, operation and remaining text of each instruction."""
    for line in text.splitlines():
        match = _INSTRUCTION.match(line)
        if match:
            yield match.group(1), match.group(2), match.group(3), match.group(4)


def entry(text: str) -> str:
    """Returns the entry computation of a program's text."""
    start = text.index("\nENTRY ")
    return text[start : text.index("\n}", start)]


def arrays_of(shape: str) -> list[Array]:
    """Returns the arrays in a shape, which is one array or a tuple."""
    return [_array(*match.groups()) for match in _ARRAY.finditer(shape)]


def _array(kind: str, dimensions: str, order: str | None, layout: str | None) -> Array:
    sides = tuple(int(side) for side in dimensions.split(",") if side)
    width = _WIDTHS.get(kind) or max(1, int(re.sub(r"\D.*", "", kind[1:])) // 8)
    tile = re.search(r"T\(([\d,]+)\)", layout or "")
    space = re.search(r"S\((\d+)\)", layout or "")
    stored = [sides[int(axis)] for axis in reversed((order or "").split(",")) if axis]
    if tile and stored:
        lengths = [int(length) for length in tile.group(1).split(",")]
        if len(lengths) <= len(stored):
            sizes = zip(stored[-len(lengths) :], lengths, strict=True)
            tail = [-(-side // length) * length for side, length in sizes]
            stored = stored[: -len(lengths)] + tail
    in_hbm = space is None or space.group(1) == "0"
    return Array(kind, sides, math.prod(sides) * width, math.prod(stored or sides) * width, in_hbm)


def _group_size(rest: str) -> int:
    """Returns the devices in a group, which compilers list, count, or (JAX 0.12) give as axes of a mesh."""
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    if listed:
        return len(listed.group(1).split(","))
    meshed = re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\S+)? \{([^}]*)\}", rest)
    if meshed:
        sides = dict(re.findall(r"'([^']+)'=(\d+)", meshed.group(1)))
        # Part of an axis is written 'name':(devices before it)devices in it.
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", meshed.group(2))
        return math.prod(int(part or sides[axis]) for axis, part in axes)
    counted = re.search(r"replica_groups=\[(\d+),(\d+)\]", rest)
    return int(counted.group(2)) if counted else 0
