"""TPUs and their topologies, and the environment in which a process compiles for one. Imports no JAX."""

from __future__ import annotations

import difflib
import importlib.util
import math
import os
from dataclasses import dataclass
from importlib import metadata


class PlanError(ValueError):
    """A plan is impossible: no compiler, an unknown topology, or a batch that does not fit the chips."""


class TooLargeError(PlanError):
    """A program needs more memory than the chip has."""


_GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One generation of TPU."""

    name: str
    bf16_flops: float
    """Peak of the matrix units in bfloat16, FLOP/s."""
    hbm_capacity: str
    """Published capacity."""
    hbm_bytes: int
    """Bytes that the compiler lets a program use."""
    hbm_bandwidth: float
    """Bytes/s."""
    axes: int
    """Dimensions of the mesh or torus of chips: 2 or 3."""
    link_bandwidth: float
    """Bytes/s of one link in one direction; a chip has two links per axis."""
    largest: int
    """Chips of the largest slice."""
    first_jax: tuple[int, int] = (0, 10)
    """First version of JAX whose libtpu compiled for this chip in our tests."""
    two_cores: bool = False
    """Whether two cores run as one device ("megacore"); the compiler needs an option for it."""


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, "32 GiB", int(30.75 * _GIB), 1200e9, 3, 50e9, 4096, two_cores=True),
        Chip("v5e", 197e12, "16 GB", int(15.75 * _GIB), 819e9, 2, 50e9, 256),
        Chip("v5p", 459e12, "95 GB", int(95.74 * _GIB), 2765e9, 3, 100e9, 6144),
        Chip("v6e", 918e12, "32 GB", int(31.24 * _GIB), 1638e9, 2, 100e9, 256, first_jax=(0, 12)),
    )
}

_FLAT_SHAPES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_SMALL_BLOCKS = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))


@dataclass(frozen=True)
class Topology:
    """Chips of one generation in a mesh or torus."""

    chip: Chip
    sides: tuple[int, ...]
    """Chips along each axis."""

    @classmethod
    def parse(cls, text: str) -> Topology:
        """Returns the topology of a text such as "v5e:4x4" or "v5p:4x4x8".

        Raises:
            PlanError: the generation is unknown, or has no slice of this shape.
        """
        name, _, shape = text.partition(":")
        if name not in CHIPS:
            close = difflib.get_close_matches(name, CHIPS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"must be one of {', '.join(CHIPS)}"
            raise PlanError(f"topology {text!r}: no TPU {name!r}; {hint} (GENERATION:SHAPE, such as v5e:4x4)")
        chip = CHIPS[name]
        parts = shape.split("x")
        sides = tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
        if chip.axes == 2:
            fits, rule = sides in _FLAT_SHAPES, "one of " + ", ".join("x".join(map(str, s)) for s in _FLAT_SHAPES)
        else:
            blocks = len(sides) == 3 and all(side and side % 4 == 0 for side in sides)
            fits = sides in _SMALL_BLOCKS or (blocks and math.prod(sides) <= chip.largest)
            small = ", ".join("x".join(map(str, s)) for s in _SMALL_BLOCKS)
            rule = f"{small}, or three multiples of 4, at most {chip.largest} chips"
        if not fits:
            raise PlanError(f"topology {text!r}: the shape of a {name} must be {rule}")
        return cls(chip, sides)

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.sides)

    @property
    def wrapped(self) -> tuple[bool, ...]:
        """Whether each axis is a ring: a side of 16 on v5e and v6e; all axes of whole 4×4×4 cubes on v4 and v5p."""
        if self.chip.axes == 2:
            return tuple(side == 16 for side in self.sides)
        return (all(side % 4 == 0 for side in self.sides),) * 3

    def __str__(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.sides))}"


# No cache: JAX writes a program for an absent chip to it but cannot read it back. Without the last two, libtpu asks a
# metadata server and complains.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def use_compiler_only(chip: Chip) -> None:
    """Makes this process compile for an absent chip and compute on its CPU. Call it before JAX is imported.

    Raises:
        PlanError: the compiler is not installed, or is too old for the chip.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise PlanError("the TPU compiler libtpu is not installed; install the extra tpu: pip install -e '.[tpu]'")
    version = metadata.version("jax")
    if tuple(int(part) for part in version.split(".")[:2]) < chip.first_jax:
        wanted = ".".join(map(str, chip.first_jax))
        raise PlanError(
            f"jax {version}: its compiler crashes on a {chip.name}; install jax {wanted} or newer (Python 3.12)"
        )
    os.environ.update(_ENVIRONMENT)
