"""Our training step against the same step in PyTorch, on CPUs in float32.

    pip install -e .[bench]
    python -m benchmarks.torch_twin configs/demo.py [--size 64] [--batch 8] [--rounds 5] [--seconds 1] [--no-compile]

Both start from the same parameters; tests/test_torch_twin.py holds forward pass, KL, loss and gradient together.
PyTorch runs in channels-last memory, eager and by `torch.compile`, with fused Adam. A step includes the host's
transfer, clipping, Adam and the moving average. "sketch given": neither draws it. Frame, type and color jitter are set
to what the twin has, and the faces are the rendered heads. Rounds alternate in one process; ratios are of images/s in
one round.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from pathlib import Path
from typing import Any

from ecvae_jax.cli.runtime import keep_freed_memory, set_platform_flags

set_platform_flags()
keep_freed_memory()

import jax
import numpy as np
import torch

from benchmarks.torch_network import Twin
from ecvae_jax.bench.timing import Call, alternate
from ecvae_jax.bench.workloads import Training, at_size, random_state
from ecvae_jax.config import Config, load_config
from ecvae_jax.data.batches import load_faces, training_batches
from ecvae_jax.model import conditioning
from ecvae_jax.training.parallel import HostBatch, make_mesh, shard_step
from ecvae_jax.training.step import make_train_step, read_by_step, step_function


def for_twin(config: Config, size: int | None, batch: int | None) -> Config:
    """Returns the experiment with what the twin has: z in the picture, float32, no jitter, rendered heads."""
    config = at_size(config, size or config.model.image_size)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, frame="picture", dtype="float32"),
        data=dataclasses.replace(config.data, color_jitter=0.0, records="rendered", points=98, cache="off"),
        train=dataclasses.replace(config.train, batch_size=batch or config.train.batch_size),
    )


def ours_given(config: Config, batch: HostBatch, sketches: list[np.ndarray]) -> Call:
    """Returns our step with the sketches as arguments: while JAX traces it, `draw_sketch` returns them in order."""
    step = make_train_step(config)
    function = step_function(step.program)

    def with_sketches(state: Any, inputs: Any, hyper: Any) -> Any:
        given, draw = iter(inputs["sketches"]), conditioning.draw_sketch
        conditioning.draw_sketch = lambda *arguments: next(given)  # type: ignore[assignment]
        try:
            return function(state, inputs["batch"], hyper)
        finally:
            conditioning.draw_sketch = draw

    mapped, held = shard_step(with_sketches, make_mesh()), [random_state(config)]

    def call() -> Any:
        held[0], metrics = mapped(held[0], {"batch": batch, "sketches": sketches}, step.hyper)
        return metrics["loss"]

    return call


def torch_call(twin: Twin, batch: HostBatch, given: bool, compiled: bool) -> Call:
    """Returns the twin's step on the batch."""
    tensors = {name: torch.from_numpy(value.copy()) for name, value in batch.items()}
    pair = "source_landmarks" if "source_landmarks" in tensors else "landmarks"
    with torch.no_grad():
        sketches = (twin.sketch(tensors[pair]), twin.sketch(tensors["landmarks"])) if given else None
    pieces = 1000 if compiled else 8

    def loss(params: Any, batch: Any, noise: torch.Tensor, sketches: Any) -> torch.Tensor:
        return twin.loss(params, batch, noise, sketches=sketches, pieces_at_once=pieces).loss.mean()

    run = torch.compile(loss, dynamic=False) if compiled else loss

    def call() -> None:
        noise = torch.randn(len(tensors["image"]), twin.config.model.z_dim)
        run(twin.params, tensors, noise, sketches).backward()
        twin.update()

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config", type=Path)
    parser.add_argument("--size", type=int, choices=(32, 64, 128, 256))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it compiles for minutes")
    options = parser.parse_args()
    config = for_twin(load_config(options.config), options.size, options.batch)
    size, count = config.model.image_size, config.train.batch_size
    faces = load_faces("rendered", "train")
    batch = read_by_step(config, next(training_batches(faces, config.data, size, count, 0)))
    state = jax.device_get(random_state(config))
    training = Training(config, batch)

    def new_twin() -> Twin:
        return Twin(config, state.params, state.frozen)

    with torch.no_grad():
        drawn = new_twin()
        names = [name for name in ("source_landmarks", "landmarks") if name in batch]
        sketches = [
            np.ascontiguousarray(drawn.sketch(torch.from_numpy(batch[name].copy())).permute(0, 2, 3, 1))
            for name in names
        ]
    calls: dict[str, Call] = {
        "ours": lambda: training.run(batch),
        "ours, sketch given": ours_given(config, batch, sketches),
    }
    for compiled in (False,) if options.no_compile else (False, True):
        for given in (False, True):
            name = f"torch {'compile' if compiled else 'eager'}{', sketch given' if given else ''}"
            calls[name] = torch_call(new_twin(), batch, given, compiled)
    versions = f"jax {jax.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{options.config.stem}: {size} px, batch {count}, {machine}; {versions}", flush=True)
    for name, call in calls.items():
        start = time.perf_counter()
        jax.block_until_ready(call())
        print(f"  first step, {name}: {time.perf_counter() - start:.1f} s", flush=True)
    times = alternate(calls, options.rounds, options.seconds)
    for name, values in times.items():
        speeds = sorted(count / value for value in values)
        print(f"  {name:<28} {statistics.median(speeds):7.2f} images/s ({speeds[0]:.2f} to {speeds[-1]:.2f})")
    for end in ("", ", sketch given"):
        others = [name for name in times if name.startswith("torch") and name.endswith("sketch given") == bool(end)]
        best = min(others, key=lambda name: statistics.median(times[name]))
        ratio = statistics.median(times[best]) / statistics.median(times[f"ours{end}"])
        ratios = sorted(b / a for a, b in zip(times[f"ours{end}"], times[best], strict=True))
        print(f"  ours / {best}: {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
