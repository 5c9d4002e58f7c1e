"""The map of the per-device step over all devices: `jax.shard_map` under `jit`, or `jax.pmap`.

Both compile to the same program. JAX's notes recommend shard_map for new code; pmap is in maintenance mode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from ecvae_jax.agreement import DisagreementError
from ecvae_jax.training.state import TrainState
from ecvae_jax.training.step import AXIS, Metrics, StepFunction, TrainStep, step_function, steps_function

HostBatch = Mapping[str, np.ndarray]
"""A host's share of a batch of `data.batches`."""

# By default the TPU compiler combines at most 256 arrays into one all-reduce; deep networks have more.
_ONE_ALL_REDUCE = {"xla_jf_crs_combiner_threshold_count": 65536}


class MappedStep(Protocol):
    """A step over all devices: takes a host's share of the batch, returns replicated state and metrics."""

    def __call__(self, state: TrainState, batch: HostBatch) -> tuple[TrainState, Metrics]:
        """Returns the next state and the metrics of this step; the buffers of `state` are donated."""
        ...


def check_batch_size(batch_size: int) -> None:
    """Raises ValueError if the global batch is not a multiple of the number of devices."""
    devices = jax.device_count()
    if batch_size % devices:
        raise ValueError(
            f"train.batch_size={batch_size}: must be a multiple of the {devices} devices; "
            f"take {max(1, batch_size // devices) * devices}"
        )


def make_mesh(devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
    """Returns the mesh of all devices, or of those given, with the single axis `AXIS`."""
    # Not jax.make_mesh, which may reorder devices: the rows of the batch must have the order of a single host.
    ordered = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    return jax.sharding.Mesh(np.array(ordered), (AXIS,), axis_types=(AxisType.Auto,))


def replicated_sharding() -> NamedSharding:
    """Returns the sharding of an array with a copy on every device of every host."""
    return NamedSharding(make_mesh(), PartitionSpec())


def replicate(tree: PyTree) -> PyTree:
    """Returns the tree with a copy of every array on each device of every host.

    Raises:
        DisagreementError: the values differ between hosts.
    """
    if jax.process_count() > 1:  # device_put cannot copy from a device of this host to those of another
        tree = jax.device_get(tree)
    try:
        return jax.device_put(tree, replicated_sharding())
    except AssertionError:  # its message holds all values of an array
        raise DisagreementError(
            "the hosts of this training computed different initial values from the same settings, code and records: "
            "use machines with the same processor and devices"
        ) from None


def over_hosts(tree: PyTree) -> PyTree:
    """Returns replicated arrays as global arrays of all hosts; `pmap` returns arrays local to a host."""
    if not all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)) or jax.process_count() == 1:
        return tree
    return multihost_utils.host_local_array_to_global_array(on_one_device(tree), make_mesh(), PartitionSpec())


def on_one_device(tree: PyTree) -> PyTree:
    """Returns this host's first copy of replicated arrays, for programs that are not mapped."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def map_step(step: TrainStep, kind: Literal["shard_map", "pmap"]) -> MappedStep:
    """Returns the per-device step as one call over all devices; trainings of one program share its compilation."""
    return _shard_mapped(step) if kind == "shard_map" else _pmapped(step)


def map_steps(step: TrainStep, kind: Literal["shard_map", "pmap"]) -> Any:
    """Returns several steps as one call `(state, placed batches, count) -> (state, metrics)`.

    See `training.step.steps_function`. `place_batch` places the batches.
    """
    function = steps_function(step.program)
    if kind == "shard_map":
        mesh = make_mesh()
        mapped, hyper = _shard_steps(function, mesh), jax.device_put(step.hyper, NamedSharding(mesh, PartitionSpec()))
    else:
        mapped, hyper = _pmap_steps(function), step.hyper._replace(perceptual=replicate(step.hyper.perceptual))
    return lambda state, batches, count: mapped(state, batches, np.int32(count), hyper)


def place_batch(batch: HostBatch, kind: Literal["shard_map", "pmap"], steps: bool = False) -> Mapping[str, Any]:
    """Returns a host's share of a batch on the devices, as the step shards it; `pmap` moves it itself.

    Args:
        steps: the arrays have a leading axis of steps.
    """
    if kind == "shard_map":
        spread = NamedSharding(make_mesh(), PartitionSpec(None, AXIS) if steps else PartitionSpec(AXIS))
        return {name: jax.make_array_from_process_local_data(spread, value) for name, value in batch.items()}
    local = jax.local_device_count()
    if steps:
        return {name: value.reshape(len(value), local, -1, *value.shape[2:]) for name, value in batch.items()}
    return {name: value.reshape(local, -1, *value.shape[1:]) for name, value in batch.items()}


@functools.cache
def shard_step(step: StepFunction, mesh: jax.sharding.Mesh) -> Any:
    """Returns the step as one jitted call `(state, batch, hyper)` over the mesh's devices; the state is donated."""
    return _sharded(step, mesh, (PartitionSpec(), PartitionSpec(AXIS), PartitionSpec()))


@functools.cache
def _shard_steps(steps: Callable[..., Any], mesh: jax.sharding.Mesh) -> Any:
    return _sharded(steps, mesh, (PartitionSpec(), PartitionSpec(None, AXIS), PartitionSpec(), PartitionSpec()))


def _sharded(function: Callable[..., Any], mesh: jax.sharding.Mesh, inputs: tuple[PartitionSpec, ...]) -> Any:
    options = _ONE_ALL_REDUCE if mesh.devices.flat[0].platform == "tpu" else None
    mapped = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=inputs,
        out_specs=(PartitionSpec(), PartitionSpec()),
        # The step averages its outputs, so they are replicated; the checker cannot infer that through optax's update.
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=0, compiler_options=options)


def _shard_mapped(step: TrainStep) -> MappedStep:
    mesh = make_mesh()
    mapped = shard_step(step_function(step.program), mesh)
    hyper = jax.device_put(step.hyper, NamedSharding(mesh, PartitionSpec()))

    def call(state: TrainState, batch: HostBatch) -> tuple[TrainState, Metrics]:
        return mapped(state, batch if _is_placed(batch) else place_batch(batch, "shard_map"), hyper)

    return call


@functools.cache
def _pmap_steps(steps: Callable[..., Any]) -> Any:
    axes: Any = (None, 1, None, None)
    return jax.pmap(steps, axis_name=AXIS, in_axes=axes, out_axes=None, donate_argnums=0)


@functools.cache
def _pmap_step(step: StepFunction) -> Any:
    axes: Any = (None, 0, None)
    return jax.pmap(step, axis_name=AXIS, in_axes=axes, out_axes=None, donate_argnums=0)


def _pmapped(step: TrainStep) -> MappedStep:
    mapped = _pmap_step(step_function(step.program))
    # Else each call copies up to 59 MB. Images are on all devices already.
    hyper = step.hyper._replace(perceptual=replicate(step.hyper.perceptual))

    def call(state: TrainState, batch: HostBatch) -> tuple[TrainState, Metrics]:
        return mapped(state, place_batch(batch, "pmap"), hyper)

    return call


def _is_placed(batch: Mapping[str, Any]) -> bool:
    return all(isinstance(value, jax.Array) for value in batch.values())
