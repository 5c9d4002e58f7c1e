"""What `ecvae bench` times at one image size: training, synthesis, sketch, KL and input."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree

from ecvae_jax.bench.timing import Call
from ecvae_jax.config import Architecture, Config
from ecvae_jax.data.batches import Faces, training_batches
from ecvae_jax.gaussian import DiagGaussian
from ecvae_jax.model.conditioning import Frozen, make_condition
from ecvae_jax.prior import init_cluster_means, init_covariances
from ecvae_jax.structure.clusters import Clusters
from ecvae_jax.synthesis.batches import PROGRAMS
from ecvae_jax.training.covariance import init_moments
from ecvae_jax.training.parallel import HostBatch, make_mesh, replicate, shard_step
from ecvae_jax.training.state import TrainState, abstract_state
from ecvae_jax.training.step import AXIS, make_train_step, read_by_step, step_function


class Work(NamedTuple):
    """One line of the table."""

    call: Call
    flops: float | None = None
    """XLA's count for one call on one device, loops counted once; None: no product worth a share."""
    memory: int | None = None
    """Bytes that the compiled program holds at once: arguments, outputs and temporaries."""
    compile_seconds: float | None = None
    """Seconds to trace and compile, or to read the program from the compile cache."""


def at_size(config: Config, size: int) -> Config:
    """Returns the experiment at another image size: levels are added or dropped where the widths end.

    The coarsest maps keep their side, so z keeps its grid. An added level repeats the last width.

    Raises:
        ValueError: fewer than two levels, or no level with the grid of z, would remain.
    """
    model, widths = config.model, config.model.widths
    levels = len(widths) + (size.bit_length() - model.image_size.bit_length())
    widths = (*widths[:levels], *[widths[-1]] * (levels - len(widths))) if levels > 0 else ()
    return dataclasses.replace(config, model=dataclasses.replace(model, image_size=size, widths=widths))


def random_state(config: Config) -> TrainState:
    """Returns a training state with random parameters, on all devices: without k-means and LSUV.

    Speed does not depend on the values as long as they are finite.
    """
    abstract, rng = abstract_state(config), np.random.default_rng(0)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(leaf.shape) < 2:
            scale = str(getattr(path[-1], "key", "")) == "scale"
            return np.full(leaf.shape, float(scale), leaf.dtype)
        spread = 1.0 / np.sqrt(np.prod(leaf.shape[:-1]))
        return (spread * rng.standard_normal(leaf.shape, np.float32)).astype(leaf.dtype)

    params = jax.tree_util.tree_map_with_path(draw, abstract.params)
    opt_state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract.opt_state)
    frozen = _random_frozen(config, rng)
    moments = None if frozen.covariances is None else init_moments(frozen.covariances)
    copy = jax.tree.map(np.copy, params)
    return replicate(TrainState(jnp.zeros((), jnp.int32), params, copy, opt_state, frozen, moments))


def _random_frozen(config: Config, rng: np.random.Generator) -> Frozen:
    count, points, z_dim = config.clusters.count, config.data.points, config.model.z_dim
    centers = rng.standard_normal((count, points, 2)).astype(np.float32)
    clusters = Clusters(centers, np.zeros((points, 2), np.float32))
    means = init_cluster_means(jax.random.key(0), count, z_dim, config.prior.mean_norm)
    fitted = config.prior.kind == "covariance"
    covariances = init_covariances(count, z_dim, min(config.prior.rank, z_dim)) if fitted else None
    stddev = jnp.full((count,), config.prior.stddev, jnp.float32)
    return Frozen(clusters, means, stddev, jnp.asarray(config.prior.stddev, jnp.float32), covariances)


def random_batch(config: Config) -> dict[str, np.ndarray]:
    """Returns a batch of noise in the form of `data.batches`, for processes that need no faces."""
    model, count, points = config.model, config.train.batch_size, config.data.points
    rng, batch = np.random.default_rng(0), {}
    for prefix in ("source_", ""):
        batch[f"{prefix}image"] = rng.integers(0, 256, (count, model.image_size, model.image_size, 3), np.uint8)
        batch[f"{prefix}landmarks"] = rng.uniform(0.2, 0.8, (count, points, 2)).astype(np.float32)
    return batch


def compiled(jitted: Any, *arguments: Any, options: Mapping[str, Any] | None = None) -> tuple[Any, Work]:
    """Returns the program compiled for the arguments, and its figures (a `Work` that must get its call)."""
    start = time.perf_counter()
    program = jitted.lower(*arguments).compile(options)
    seconds, costs = time.perf_counter() - start, program.cost_analysis() or {}
    memory = program.memory_analysis()
    total = None
    if memory is not None:
        total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        total -= memory.alias_size_in_bytes
    return program, Work(lambda: None, float(costs.get("flops", 0.0)) or None, total, seconds)


class Training:
    """The compiled step and the state that it updates."""

    def __init__(self, config: Config, batch: HostBatch, options: Mapping[str, Any] | None = None) -> None:
        """Compiles the step for batches like `batch`, with options of XLA's compiler."""
        mesh, step = make_mesh(), make_train_step(config)
        self._config, self._spread = config, NamedSharding(mesh, PartitionSpec(AXIS))
        self._hyper = jax.device_put(step.hyper, NamedSharding(mesh, PartitionSpec()))
        self._state, self.metrics = random_state(config), {}
        jitted = shard_step(step_function(step.program), mesh)
        self._step, self.figures = compiled(jitted, self._state, self.place(batch), self._hyper, options=options)

    def run(self, batch: HostBatch) -> Array:
        """Dispatches one step, the host's transfer included, and returns its loss."""
        return self.run_placed(self.place(batch))

    def run_placed(self, arrays: dict[str, Array]) -> Array:
        """Dispatches one step with a batch on the devices and returns its loss."""
        self._state, self.metrics = self._step(self._state, arrays, self._hyper)
        return self.metrics["loss"]

    def place(self, batch: HostBatch) -> dict[str, Array]:
        """Returns the batch on the devices, without what the step does not read."""
        read = read_by_step(self._config, batch)
        return {name: jax.make_array_from_process_local_data(self._spread, value) for name, value in read.items()}


@functools.partial(jax.jit, static_argnums=0)
def _sketch(architecture: Architecture, frozen: Frozen, landmarks: Array) -> Array:
    return make_condition(architecture, None, frozen, landmarks).sketch


@functools.partial(jax.jit, static_argnums=0)
def _kl(
    architecture: Architecture, params: PyTree, frozen: Frozen, landmarks: Array, posterior: DiagGaussian, keys: Array
) -> Float[Array, " b"]:
    return make_condition(architecture, params, frozen, landmarks).prior.kl(keys, posterior)


def workloads(config: Config, faces: Faces) -> tuple[dict[str, Work], Training]:
    """Returns the work of one size, by name, and the training behind two of them. One call is one batch."""
    batch_size, seed = config.train.batch_size, config.train.seed
    batches = training_batches(faces, config.data, config.model.image_size, batch_size, seed)
    batch = next(batches)
    training = Training(config, batch)
    found = {
        "step": training.figures._replace(call=lambda: training.run(batch)),
        "step_fed": Work(lambda: training.run(next(batches))),
        "input": Work(lambda: next(batches)["landmarks"]),
    }
    return found | _synthesis(config, batch), training


def _synthesis(config: Config, batch: HostBatch) -> dict[str, Work]:
    state = jax.device_put(jax.device_get(random_state(config)), jax.local_devices()[0])
    params, frozen, architecture = state.params, state.frozen, config.architecture
    names = ("image", "source_landmarks", "landmarks")
    image, source, target = (jnp.asarray(batch[name]) for name in names)
    encode, encoding = compiled(PROGRAMS["encode"], architecture, params, frozen, image, source)
    posterior = encode(params, frozen, image, source)
    z = posterior.mean
    move, _ = compiled(PROGRAMS["move"], architecture, params, frozen, z, source, target)
    decode, decoding = compiled(PROGRAMS["decode"], architecture, params, frozen, z, target)
    sketch, sketching = compiled(_sketch, architecture, frozen, target)
    keys = jax.random.split(jax.random.key(0), len(z))
    kl, diverging = compiled(_kl, architecture, params, frozen, source, posterior, keys)

    def transfer() -> Array:
        z = encode(params, frozen, image, source).mean
        return decode(params, frozen, move(params, frozen, z, source, target), target)

    return {
        "encode": encoding._replace(call=lambda: encode(params, frozen, image, source)),
        "decode": decoding._replace(call=lambda: decode(params, frozen, z, target)),
        "transfer": Work(transfer, _sum(encoding.flops, decoding.flops)),
        "sketch": sketching._replace(call=lambda: sketch(frozen, target), flops=None),
        "kl": diverging._replace(call=lambda: kl(params, frozen, source, posterior, keys), flops=None),
    }


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second
