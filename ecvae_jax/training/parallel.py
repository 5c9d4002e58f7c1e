"""The map of the per-device step over all devices: `jax.shard_map` under `jit`, or `jax.pmap`.

Both compile to the same program. JAX's notes recommend shard_map for new code; pmap is in maintenance mode.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from ecvae_jax.agreement import DisagreementError
from ecvae_jax.training.state import TrainState
from ecvae_jax.training.step import AXIS, Metrics, StepFunction, TrainStep, step_function

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


@functools.cache
def shard_step(step: StepFunction, mesh: jax.sharding.Mesh) -> Any:
    """Returns the step as one jitted call `(state, batch, hyper)` over the mesh's devices; the state is donated."""
    options = _ONE_ALL_REDUCE if mesh.devices.flat[0].platform == "tpu" else None
    mapped = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(AXIS), PartitionSpec()),
        out_specs=(PartitionSpec(), PartitionSpec()),
        # The step averages its outputs, so they are replicated; the checker cannot infer that through optax's update.
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=0, compiler_options=options)


def _shard_mapped(step: TrainStep) -> MappedStep:
    mesh = make_mesh()
    spread, mapped = NamedSharding(mesh, PartitionSpec(AXIS)), shard_step(step_function(step.program), mesh)
    hyper = jax.device_put(step.hyper, NamedSharding(mesh, PartitionSpec()))

    def call(state: TrainState, batch: HostBatch) -> tuple[TrainState, Metrics]:
        arrays = {name: jax.make_array_from_process_local_data(spread, value) for name, value in batch.items()}
        return mapped(state, arrays, hyper)

    return call


@functools.cache
def _pmap_step(step: StepFunction) -> Any:
    axes: Any = (None, 0, None)
    return jax.pmap(step, axis_name=AXIS, in_axes=axes, out_axes=None, donate_argnums=0)


def _pmapped(step: TrainStep) -> MappedStep:
    mapped = _pmap_step(step_function(step.program))
    local = jax.local_device_count()
    # Else each call copies up to 59 MB. Images are on all devices already.
    hyper = step.hyper._replace(perceptual=replicate(step.hyper.perceptual))

    def call(state: TrainState, batch: HostBatch) -> tuple[TrainState, Metrics]:
        shards = {name: value.reshape(local, -1, *value.shape[1:]) for name, value in batch.items()}
        return mapped(state, shards, hyper)

    return call
