"""What XLA's compiler for CUDA makes of the training step, counted without a GPU.

    pip install -e .[cuda]
    python -m benchmarks.cuda [--config configs/paper_256.py] [--batch 64] [--card h100]
    python -m benchmarks.cuda --batches 8 32 128          # memory, with and without model.remat

Counts are of kernels that one step launches; a loop's body counts as often as it runs. Bytes are operands and results
of each kernel once, of slices only the part; what fits a cache is not taken off. "bound" sums over kernels the longest
of bytes at the card's bandwidth, FLOPs at its peak and 2 µs; kernels reach neither, so it is a lower bound. Choices
that the compiler makes by timing are off: on a GPU other algorithms of cuDNN and cuBLAS may run, and Triton's products.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.gpu import variants
from ecvae_jax.checkpoints.store import placed
from ecvae_jax.config import Config, load_config
from ecvae_jax.plan.compile import abstract_batch
from ecvae_jax.plan.hlo import MOVE_NOTHING, Array, arrays_of, entry, instructions
from ecvae_jax.training.parallel import make_mesh, shard_step
from ecvae_jax.training.state import abstract_state
from ecvae_jax.training.step import AXIS, make_train_step, read_by_step, step_function

SECONDS_A_KERNEL = 2e-6
"""Shortest kernel in the bound."""
_DESCRIPTION = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth:.0f} device_memory_size: {memory:.0f}
  cuda_compute_capability {{ major: 9 }}
  device_vendor: "NVIDIA Corporation" name: "{name}" dnn_version: "9.10.0"
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{name}"
"""
"""XLA's description of a card of compute capability 9.0, from NVIDIA's data sheets and CUDA's tables."""


@dataclass(frozen=True)
class Card:
    """A GPU to compile for."""

    name: str
    bandwidth: float
    """Bytes a second."""
    memory: float
    """Bytes."""
    peak: float = 989e12
    """FLOP/s of bfloat16 products."""

    @property
    def description(self) -> str:
        """The card in XLA's text format."""
        return _DESCRIPTION.format(bandwidth=self.bandwidth, memory=self.memory, name=self.name)


CARDS = {"h100": Card("NVIDIA H100 80GB HBM3", 3.35e12, 80e9), "h200": Card("NVIDIA H200", 4.8e12, 141e9)}


@dataclass(frozen=True)
class Kernel:
    """One kernel that a step launches."""

    kind: str
    bytes: int
    flops: float
    """Of products and convolutions; 0 for all others."""
    float32: bool
    """Whether a product reads float32."""


def compiled_step(config: Config, card: Card) -> Any:
    """Returns the training step, compiled for one card that need not be there."""
    try:
        devices = topologies.get_topology_desc(
            platform="cuda", topology_name="", target_config=card.description, topology="1x1x1"
        ).devices
    except NotImplementedError:
        raise SystemExit("no compiler for CUDA: install it with pip install -e .[cuda]; no GPU is needed") from None
    mesh, step = make_mesh(devices), make_train_step(config)
    state, hyper = placed((abstract_state(config), step.hyper), NamedSharding(mesh, PartitionSpec()))
    given = read_by_step(config, abstract_batch(config, config.train.batch_size))
    batch = placed(given, NamedSharding(mesh, PartitionSpec(AXIS)))
    untimed = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
    return shard_step(step_function(step.program), mesh).lower(state, batch, hyper).compile(untimed)


def kernels(text: str) -> list[Kernel]:
    """Returns the kernels of a compiled program, in the order of its text."""
    bodies = dict(re.findall(r"^(%[\w.\-]+) \([^\n]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL))
    return _kernels(entry(text), bodies)


def _kernels(computation: str, bodies: dict[str, str]) -> list[Kernel]:
    known: dict[str, list[Array]] = {}
    found = []
    for name, shape, operation, rest in instructions(computation):
        results = known[name] = arrays_of(shape)
        if operation in MOVE_NOTHING:
            continue
        if operation == "while":
            body, times = re.search(r"body=(%[\w.\-]+)", rest), re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
            if body is None or times is None:
                raise ValueError(f"loop {name}: the compiler does not know how often it runs")
            found += int(times.group(1)) * _kernels(bodies[body.group(1)], bodies)
            continue
        target = re.search(r'custom_call_target="([^"]+)"', rest)
        if target and len(results) > 1:
            results = results[:-1]  # the last is workspace
        operands = [known.get(operand, []) for operand in dict.fromkeys(re.findall(r"%[\w.\-]+", rest.split("), ")[0]))]
        moved = sum(array.bytes for array in [*results, *(array for arrays in operands for array in arrays)])
        body = re.search(r"calls=(%[\w.\-]+)", rest)
        if body:
            moved -= _not_moved(bodies[body.group(1)])
        kind = _kind_of_fusion(bodies[body.group(1)]) if body else target.group(1).strip("_") if target else operation
        flops, float32 = _product(results, operands, rest) if target else (0.0, False)
        found.append(Kernel(kind, moved, flops, float32))
    return found


def _not_moved(body: str) -> int:
    """Returns the bytes of operands and results that a fusion leaves alone, where it reads or writes slices of them."""
    known: dict[str, Array] = {}
    read: dict[str, int] = {}
    """Bytes read of each parameter, of which all or only slices are read."""
    saved = 0
    for name, shape, operation, rest in instructions(body):
        known[name], used = arrays_of(shape)[0], re.findall(r"%[\w.\-]+", rest)
        if operation == "parameter":
            read[name] = 0
            continue
        if operation == "dynamic-slice" and used[0] in read:
            read[used.pop(0)] += known[name].bytes
        elif operation == "dynamic-update-slice" and used[0] in read:  # what it writes over is not read
            saved += known[used.pop(0)].bytes - known[used[0]].bytes
        read |= {each: known[each].bytes for each in used if each in read}
    return saved + sum(max(0, known[name].bytes - bytes_) for name, bytes_ in read.items())


def _kind_of_fusion(body: str) -> str:
    operations = {operation for _, _, operation, _ in instructions(body)}
    for operation in ("reduce", "concatenate", "transpose", "gather", "scatter"):
        if operation in operations:
            return operation
    return "element-wise"


def _product(results: list[Array], operands: list[list[Array]], rest: str) -> tuple[float, bool]:
    """Returns the FLOPs of a product or convolution of two operands, and whether it reads float32."""
    (left, *_), (right, *_) = operands[:2]
    sizes = [math.prod(array.sides) for array in (left, right, results[0])]
    window = re.search(r"window=\{size=([\dx]+)", rest)
    taps = math.prod(int(side) for side in window.group(1).split("x")) if window else 1
    # A product: m k · k n · m n. A convolution without stride, forward or backward: p i · p o · taps i o for p pixels.
    return 2.0 * math.sqrt(taps) * math.sqrt(math.prod(sizes)), left.type == "f32"


def report(name: str, config: Config, card: Card, text: Path | None) -> None:
    """Prints the counts of one step."""
    start = time.monotonic()
    compiled = compiled_step(config, card)
    seconds, program = time.monotonic() - start, compiled.as_text()
    if text is not None:
        text.write_text(program)
    found = kernels(program)
    counts, moved, bound = Counter[str](), Counter[str](), defaultdict[str, float](float)
    for kernel in found:
        counts[kernel.kind] += 1
        moved[kernel.kind] += kernel.bytes
        bound[kernel.kind] += max(kernel.bytes / card.bandwidth, kernel.flops / card.peak, SECONDS_A_KERNEL)
    flops = sum(kernel.flops for kernel in found)
    slow = sum(kernel.flops for kernel in found if kernel.float32)
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    print(f"{name}: {len(found):,} kernels, {sum(moved.values()) / 1e9:.1f} GB, {flops / 1e9:,.0f} GFLOP in products, "
          f"{slow / 1e9:,.1f} of them float32; bound {1e3 * sum(bound.values()):.1f} ms; temporaries "
          f"{temporaries / 2**30:.2f} GiB (compiled in {seconds:.0f} s)", flush=True)  # fmt: skip
    for kind, bytes_ in moved.most_common():
        print(f"  {kind:<32} {counts[kind]:6,} {bytes_ / 1e9:8.2f} GB {1e3 * bound[kind]:8.2f} ms")


def _images(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number of images, 1 or more")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", type=Path, default=Path("configs/paper_256.py"))
    parser.add_argument("--card", choices=CARDS, default="h100")
    parser.add_argument("--batch", type=_images, help="default: that of the experiment")
    parser.add_argument("--batches", type=_images, nargs="+", help="only memory, with and without model.remat")
    parser.add_argument("--variants", action="store_true", help="the variants of benchmarks.gpu too")
    parser.add_argument("--hlo", type=Path, help="file for the text of the compiled program")
    options = parser.parse_args()
    config, card = load_config(options.config), CARDS[options.card]

    def with_batch(config: Config, batch: int | None) -> Config:
        size = batch or config.train.batch_size
        return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=size))

    print(f"{card.name}, jax {jax.__version__}, {options.config.name}, nothing runs")
    for batch in options.batches or ():
        for remat in (False, True):
            each = dataclasses.replace(config, model=dataclasses.replace(config.model, remat=remat))
            bytes_ = compiled_step(with_batch(each, batch), card).memory_analysis().temp_size_in_bytes
            print(f"batch {batch}{', model.remat' if remat else ''}: temporaries {bytes_ / 2**30:.2f} GiB", flush=True)
    if options.batches:
        return
    config = with_batch(config, options.batch)
    for name, each in (variants(config) if options.variants else {"step": config}).items():
        report(name, each, card, options.hlo if name == "step" else None)


if __name__ == "__main__":
    main()
