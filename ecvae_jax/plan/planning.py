"""A plan: the compiled programs, the predictions that follow from them, and both as text and JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from ecvae_jax.config import Config
from ecvae_jax.plan.chips import Topology
from ecvae_jax.plan.compile import Program, compile_step, compile_synthesis, state_bytes
from ecvae_jax.plan.hlo import Collective
from ecvae_jax.plan.roofline import HOP_SECONDS, Largest, Roofline, find_largest_batch, roofline
from ecvae_jax.synthesis.batches import BATCH

What = Literal["train", "synthesis"]

_READ_BY_SYNTHESIS = ("ema_params", "frozen")


@dataclass(frozen=True)
class Plan:
    """The cost of one training step, or of one batch of synthesis."""

    what: What
    topology: Topology
    batch_size: int
    """Images of one step over all chips; for synthesis, of one batch on one chip."""
    state: dict[str, int]
    """Bytes of each part of the state, without padding."""
    programs: dict[str, Program]
    bounds: dict[str, Roofline]
    """Each program's times at full peak and bandwidth, a lower bound."""
    expected: dict[str, Roofline]
    """Each program's times at the assumed efficiency."""
    largest: Largest | None
    compiler: str

    @property
    def chips(self) -> int:
        """Number of chips that share the batch; 1 for synthesis."""
        return self.topology.chips if self.what == "train" else 1

    @property
    def batch_per_chip(self) -> int:
        """Images on one chip."""
        return self.batch_size // self.chips

    def images_per_second(self, at: dict[str, Roofline]) -> float:
        """Returns the images/s of all chips at these times, one program after another."""
        return self.batch_size / sum(times.step for times in at.values())


def make_plan(
    config: Config,
    topology: Topology,
    what: What = "train",
    batch_per_chip: int | None = None,
    largest: bool = False,
    efficiency: float = 0.5,
) -> Plan:
    """Returns the plan; compiles once, and a few more times for the largest batch.

    Args:
        what: the training step over all chips, or the programs of `synthesis.transfer` on one chip.
        batch_per_chip: None: `train.batch_size` over all chips, or the batch of synthesis.
        efficiency: in (0, 1]; assumed fraction of peak and bandwidth that a chip reaches on its own work.

    Raises:
        PlanError: a program cannot be compiled.
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
            topology.chip.hbm_bytes,
            batch_size // topology.chips,
            programs["step"].memory,
        )
    bounds, expected = (
        {name: _times(topology, program, fraction) for name, program in programs.items()}
        for fraction in (1.0, efficiency)
    )
    compiler = f"libtpu {metadata.version('libtpu')}, jax {metadata.version('jax')}"
    state = {name: size for name, size in state_bytes(config).items() if what == "train" or name in _READ_BY_SYNTHESIS}
    return Plan(what, topology, batch_size, state, programs, bounds, expected, found, compiler)


def _times(topology: Topology, program: Program, efficiency: float) -> Roofline:
    reduced = [exchange.bytes for exchange in program.collectives]
    return roofline(topology, program.flops, program.hbm_bytes, reduced, efficiency)


_LIMITS = {"compute": "the matrix units", "memory": "the HBM's bandwidth", "collectives": "the links between chips"}
_STATE = {
    "params": "parameters",
    "ema_params": "averaged parameters",
    "opt_state": "optimizer",
    "frozen": "frozen",
    "moments": "moments",
}


def to_lines(plan: Plan) -> list[str]:
    """Returns the plan as lines of text."""
    seconds = sum(program.compile_seconds for program in plan.programs.values())
    where = f"{plan.topology}, {plan.chips} chips" if plan.what == "train" else f"one chip of {plan.topology.chip.name}"
    what = "training step" if plan.what == "train" else "synthesis (transfer)"
    images = f"{plan.batch_size:,} images, {plan.batch_per_chip} a chip"
    title = f"{what} on {where}: {images}; compiled in {seconds:.0f} s by {plan.compiler}"
    return [title, *_memory(plan), *_work(plan), *_collectives(plan), *_prediction(plan)]


def to_json(plan: Plan) -> dict[str, Any]:
    """Returns the plan as a JSON object; bytes, FLOPs and seconds."""
    chip = plan.topology.chip
    return {
        "what": plan.what,
        "topology": str(plan.topology),
        "chips": plan.chips,
        "batch_size": plan.batch_size,
        "batch_per_chip": plan.batch_per_chip,
        "compiler": plan.compiler,
        "chip": dataclasses.asdict(chip),
        "state": plan.state,
        "programs": {
            name: {**dataclasses.asdict(program), "memory": program.memory} for name, program in plan.programs.items()
        },
        "prediction": {
            kind: {
                "images_per_second": plan.images_per_second(times),
                "programs": {
                    name: {**dataclasses.asdict(one), "step": one.step, "limit": one.limit, "scaling": one.scaling}
                    for name, one in times.items()
                },
            }
            for kind, times in (("bound", plan.bounds), ("expected", plan.expected))
        },
        "largest_batch": dataclasses.asdict(plan.largest) if plan.largest else None,
    }


def _memory(plan: Plan) -> list[str]:
    chip = plan.topology.chip
    parts = ", ".join(f"{_STATE[name]} {_gib(size)}" for name, size in plan.state.items())
    limit = f"a program on a {chip.name} may use {_gib(chip.hbm_bytes)}; published: {chip.hbm_capacity}"
    lines = [f"memory a chip, GiB ({limit})"]
    for name, program in plan.programs.items():
        parts_of = {"arguments": program.arguments, "outputs": program.outputs, "temporaries": program.temporaries}
        total = " + ".join(f"{part} {_gib(size)}" for part, size in {**parts_of, "program": program.code}.items())
        lines.append(f"  {name:<12} {_gib(program.memory)} = {total}; {program.memory / chip.hbm_bytes:.0%}")
    lines.append(f"  state        {parts}")
    if plan.largest:
        found = plan.largest
        tried = ", ".join(f"{one} (too large)" if one in found.refused else str(one) for one in found.compiled)
        best = f"{found.batch_per_chip} images a chip, {_gib(found.memory)}"
        lines.append(f"  largest batch that fits: {best}; compiled for {tried}")
    elif plan.what == "train":
        lines.append("  largest batch that fits: --largest-batch searches it, by some more compilations")
    return lines


def _work(plan: Plan) -> list[str]:
    lines = ["work a chip"]
    for name, program in plan.programs.items():
        lines.append(
            f"  {name:<12} {program.flops / 1e9:,.1f} GFLOP, {program.hbm_bytes / 1e9:,.2f} GB to and from HBM "
            f"(XLA's own count, with memory on the core: {program.xla_bytes / 1e9:,.2f}); "
            f"{program.flops / 1e9 / plan.batch_per_chip:,.2f} GFLOP an image"
        )
    return lines


def _collectives(plan: Plan) -> list[str]:
    if plan.what != "train":
        return []
    found: dict[Collective, int] = {}
    for program in plan.programs.values():
        for one in program.collectives:
            found[one] = found.get(one, 0) + 1
    return ["collectives a step" + ("" if found else ": none")] + [
        f"  {count} {one.kind} of {one.bytes:,} bytes in {one.arrays} array(s), over {one.devices or plan.chips} chips"
        f"{', others run meanwhile' if one.overlaps else ''} ({one.strategy})"
        for one, count in found.items()
    ]


def _prediction(plan: Plan) -> list[str]:
    chip, topology = plan.topology.chip, plan.topology
    assumed = next(iter(plan.expected.values())).efficiency
    inputs = f"{chip.bf16_flops / 1e12:g} TFLOP/s in bfloat16, HBM {chip.hbm_bandwidth / 1e9:g} GB/s"
    if plan.what == "train":
        inputs += (
            f", links {chip.link_bandwidth / 1e9:g} GB/s a direction, {sum(topology.wrapped)} of {len(topology.sides)} "
            f"axes closed, {HOP_SECONDS * 1e6:g} µs a hop, collectives overlap with nothing"
        )
    lines = ["prediction: a roofline, checked on no hardware", f"  inputs       {inputs}"]
    for name, bound in plan.bounds.items():
        lines.append(
            f"  {name:<12} compute {_ms(bound.compute)}, memory {_ms(bound.memory)}"
            + (f", collectives {_ms(bound.collective)}" if plan.what == "train" else "")
            + f"; limit: {_LIMITS[bound.limit]}"
        )
    for title, times in (("at best", plan.bounds), (f"at {assumed:.0%}", plan.expected)):
        total = sum(one.step for one in times.values())
        images = plan.images_per_second(times)
        rest = " a chip"
        if plan.what == "train":
            rest = f", {images / plan.chips:,.0f} a chip; scaling {times['step'].scaling:.1%}"
        lines.append(f"  {title:<12} {_ms(total)}, {images:,.0f} images/s{rest}")
    return lines


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g}" if size >= 2**20 * 10 else f"{size / 2**30:.2g}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
