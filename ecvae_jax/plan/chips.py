"""What can go wrong in a plan. Imports nothing."""

from __future__ import annotations

import difflib
import importlib.util
import math
import os
from dataclasses import dataclass
from importlib import metadata


class PlanError(ValueError):
    """A plan that cannot be made: no compiler, a topology that does not exist, a batch that does not fit."""


class TooLargeError(PlanError):
    """A program that needs more memory than the chip has."""

_GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One generation of TPU."""

    name: str
    bf16_flops: float
    """Peak of the matrix units in bfloat16, FLOP/s."""
    hbm_capacity: str
    """As published."""
    hbm_bytes: int
    """What the compiler lets a program use."""
    hbm_bandwidth: float
    """Bytes/s."""
    axes: int
    """Dimensions of the mesh or torus of chips: 2 or 3."""
    link_bandwidth: float
    """Bytes/s of one link in one direction; a chip has two links an axis."""
    largest: int
    """Chips of the largest slice."""
    first_jax: tuple[int, int] = (0, 10)
    """The first version of JAX whose libtpu compiled for it here."""
    two_cores: bool = False
    """Two cores that run as one device ("megacore"), which the compiler has to be asked for."""


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
    """Chips of one generation, joined as a mesh or torus."""

    chip: Chip
    sides: tuple[int, ...]
    """Chips along each axis."""

    @classmethod
    def parse(cls, text: str) -> Topology:
        """Returns the topology that a text such as "v5e:4x4" or "v5p:4x4x8" names.

        Raises:
            PlanError: the generation is unknown, or its chips do not come in this shape.
        """
        name, _, shape = text.partition(":")
        if name not in CHIPS:
            close = difflib.get_close_matches(name, CHIPS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(CHIPS)}"
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
        """Whether each axis is closed to a ring: a full pod's side of a v5e or v6e; whole cubes of a v4 or v5p."""
        if self.chip.axes == 2:
            return tuple(side == 16 for side in self.sides)
        return (all(side % 4 == 0 for side in self.sides),) * 3

    def __str__(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.sides))}"

# A program for a chip that is not there can be written to JAX's cache and not read back from it. The last two are asked
# of a metadata server, and complained about, where they are not set.
_SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def use_compiler_only(chip: Chip) -> None:
    """Lets this process compile for a chip, and computes on its CPU. Call it before JAX is imported.

    Raises:
        PlanError: the compiler is not installed, or it is too old for the chip.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise PlanError("the TPU compiler libtpu is not installed; it comes with the extra: pip install -e '.[tpu]'")
    version = metadata.version("jax")
    if tuple(int(part) for part in version.split(".")[:2]) < chip.first_jax:
        wanted = ".".join(map(str, chip.first_jax))
        raise PlanError(
            f"jax {version}: its compiler crashes on a {chip.name}; take jax {wanted} or newer (Python 3.12)"
        )
    os.environ.update(_SETTINGS)
