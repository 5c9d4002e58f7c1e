"""A plan: what is compiled, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from ecvae_jax.config import Config
from ecvae_jax.plan.chips import Topology
from ecvae_jax.plan.compile import Program, compile_step, compile_synthesis, state_bytes
from ecvae_jax.plan.largest import Largest, find_largest_batch
from ecvae_jax.plan.roofline import Roofline, roofline
from ecvae_jax.synthesis import BATCH

What = Literal["train", "synthesis"]

_READ_BY_SYNTHESIS = ("ema_params", "frozen")


@dataclass(frozen=True)
class Plan:
    """What one step of training, or one batch of synthesis, asks of the chips."""

    what: What
    topology: Topology
    batch_size: int
    """Images of one step, over all chips; of synthesis: of one batch on one chip."""
    state: dict[str, int]
    """Bytes of each part of the state, without padding."""
    programs: dict[str, Program]
    bounds: dict[str, Roofline]
    """Each program's times at full peak and bandwidth, which nothing can beat."""
    expected: dict[str, Roofline]
    """Each program's times at the assumed efficiency."""
    largest: Largest | None
    compiler: str

    @property
    def chips(self) -> int:
        """Chips that share the batch: synthesis runs on one."""
        return self.topology.chips if self.what == "train" else 1

    @property
    def batch_per_chip(self) -> int:
        """Images on one chip."""
        return self.batch_size // self.chips

    def images_per_second(self, at: dict[str, Roofline]) -> float:
        """Returns the images/s of all chips by these times, one program after the other."""
        return self.batch_size / sum(times.step for times in at.values())


def make_plan(
    config: Config,
    topology: Topology,
    what: What = "train",
    batch_per_chip: int | None = None,
    largest: bool = False,
    efficiency: float = 0.5,
) -> Plan:
    """Returns the plan; compiles once, and a few times more for the largest batch.

    Args:
        config: the experiment.
        topology: the chips.
        what: the training step over all chips, or the programs of `synthesis.transfer` on one chip.
        batch_per_chip: images a chip; none: `train.batch_size` over all chips, or the batch of synthesis.
        largest: search the largest batch that fits as well (training only).
        efficiency: fraction of peak and bandwidth that is expected of a chip's own work.

    Raises:
        PlanError: what cannot be compiled, in one line.
    """
    if what == "train":
        batch_size = batch_per_chip * topology.chips if batch_per_chip else config.train.batch_size
        programs = {"step": compile_step(config, topology, batch_size)}
    else:
        batch_size = batch_per_chip or BATCH
        programs = compile_synthesis(config, topology, batch_size)
    found = None
    if largest and what == "train":
        found = find_largest_batch(
            lambda per_chip: compile_step(config, topology, per_chip * topology.chips).memory,
            topology.chip.hbm_bytes, batch_size // topology.chips, programs["step"].memory,
        )  # fmt: skip
    bounds, expected = ({name: _times(topology, program, fraction) for name, program in programs.items()}
                        for fraction in (1.0, efficiency))  # fmt: skip
    compiler = f"libtpu {metadata.version('libtpu')}, jax {metadata.version('jax')}"
    state = {name: size for name, size in state_bytes(config).items() if what == "train" or name in _READ_BY_SYNTHESIS}
    return Plan(what, topology, batch_size, state, programs, bounds, expected, found, compiler)


def _times(topology: Topology, program: Program, efficiency: float) -> Roofline:
    reduced = [exchange.bytes for exchange in program.collectives]
    return roofline(topology, program.flops, program.hbm_bytes, reduced, efficiency)
