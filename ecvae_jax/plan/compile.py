"""The training step and the programs of synthesis, compiled for an absent TPU."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from ecvae_jax.checkpoints.store import placed
from ecvae_jax.config import Config
from ecvae_jax.plan.chips import PlanError, TooLargeError, Topology
from ecvae_jax.plan.hlo import Collective, collectives, hbm_bytes
from ecvae_jax.synthesis.batches import PROGRAMS
from ecvae_jax.training.parallel import make_mesh, shard_step
from ecvae_jax.training.state import TrainState, abstract_state
from ecvae_jax.training.step import AXIS, make_train_step, read_by_step, step_function


@dataclass(frozen=True)
class Program:
    """The compiler's figures for one program on one chip, in bytes and FLOPs."""

    arguments: int
    """State and batch."""
    outputs: int
    """Results that do not overwrite a donated argument."""
    temporaries: int
    """Everything else alive at the peak: activations, gradients, exchanged buffers."""
    code: int
    """The program itself."""
    flops: float
    hbm_bytes: int
    """Bytes read from and written to HBM, counted from the program's text (`plan.hlo.hbm_bytes`)."""
    xla_bytes: float
    """"bytes accessed" of XLA's cost analysis, which also counts memory on the core."""
    collectives: tuple[Collective, ...]
    compile_seconds: float

    @property
    def memory(self) -> int:
        """Peak bytes of HBM."""
        return self.arguments + self.outputs + self.temporaries + self.code


def tpu_devices(topology: Topology) -> list[Any]:
    """Returns the devices to compile for, one per chip.

    Raises:
        PlanError: the compiler does not know the topology.
    """
    options: dict[str, Any] = {"chip_config_name": "megacore"} if topology.chip.two_cores else {}
    # No program here depends on hosts, but the compiler rejects a slice smaller than its host.
    options["chips_per_host_bounds"] = tuple(min(side, 2) for side in (*topology.sides, 1)[:3])
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=str(topology), **options).devices
    except (jax.errors.JaxRuntimeError, RuntimeError) as error:
        raise PlanError(f"topology {topology}: the compiler rejects it: {str(error).splitlines()[0]}") from error
    if len(devices) != topology.chips:
        raise PlanError(f"topology {topology}: {len(devices)} devices for {topology.chips} chips")
    return devices


def compile_step(config: Config, topology: Topology, batch_size: int) -> Program:
    """Returns the figures of the training step, mapped over the topology as `ecvae train` maps it over devices.

    The global `batch_size` is a multiple of the chips.

    Raises:
        PlanError: the batch is no multiple of the chips, or the compiler does not know the topology.
        TooLargeError: the chip's memory is too small.
    """
    if batch_size < 1 or batch_size % topology.chips:
        raise PlanError(
            f"train.batch_size={batch_size}: must be a multiple of the {topology.chips} chips of {topology}; "
            f"use {max(1, batch_size // topology.chips) * topology.chips}, or --batch-per-chip"
        )
    mesh, step = make_mesh(tpu_devices(topology)), make_train_step(config)
    state, hyper = placed((abstract_state(config), step.hyper), NamedSharding(mesh, PartitionSpec()))
    batch = placed(read_by_step(config, abstract_batch(config, batch_size)), NamedSharding(mesh, PartitionSpec(AXIS)))
    return _compile(shard_step(step_function(step.program), mesh), topology, state, batch, hyper)


def compile_synthesis(config: Config, topology: Topology, batch_size: int) -> dict[str, Program]:
    """Returns the figures of the programs that `transfer` runs one after another, on one chip.

    Raises:
        PlanError: the compiler does not know the topology.
        TooLargeError: the chip's memory is too small.
    """
    place = SingleDeviceSharding(tpu_devices(topology)[0])
    state: TrainState = placed(abstract_state(config), place)
    batch = placed(abstract_batch(config, batch_size), place)
    z = jax.ShapeDtypeStruct((batch_size, config.model.z_dim), jnp.float32, sharding=place)
    inputs = {
        "encode": (state.ema_params, state.frozen, batch["image"], batch["landmarks"]),
        "move": (state.ema_params, state.frozen, z, batch["source_landmarks"], batch["landmarks"]),
        "decode": (state.ema_params, state.frozen, z, batch["landmarks"]),
    }
    return {name: _compile(PROGRAMS[name], topology, config.architecture, *given) for name, given in inputs.items()}


def abstract_batch(config: Config, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes and types of a batch of `data.batches`."""
    size, points = config.model.image_size, config.data.points
    image = jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.uint8)
    landmarks = jax.ShapeDtypeStruct((batch_size, points, 2), jnp.float32)
    return {"source_image": image, "source_landmarks": landmarks, "image": image, "landmarks": landmarks}


def state_bytes(config: Config) -> dict[str, int]:
    """Returns the bytes of each part of the state, without the padding of a chip's layouts."""
    return {
        name: sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(part))
        for name, part in abstract_state(config)._asdict().items()
        if name != "step"
    }


def _compile(call: Any, topology: Topology, *arguments: Any) -> Program:
    start = time.monotonic()
    lowered = call.lower(*arguments)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" in reason:
            raise TooLargeError(f"the program exceeds the memory of a {topology.chip.name}: {reason[:300]}") from error
        raise PlanError(f"{topology}: the compiler failed: {reason[:300]}") from error
    memory, cost, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    return Program(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=float(cost["flops"]),
        hbm_bytes=hbm_bytes(text),
        xla_bytes=float(cost["bytes accessed"]),
        collectives=tuple(collectives(text)),
        compile_seconds=time.monotonic() - start,
    )
