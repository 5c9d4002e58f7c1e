"""What one accelerator makes of a training step, change by change, in at most ten minutes.

    python -m benchmarks.gpu [--config configs/paper_256.py] [--batch 64] [--rounds 5] [--seconds 1] [--out gpu.json]
    python -m benchmarks.gpu --tiny          # the same on a CPU in small, to test the script

Variants, compiled and then timed in alternating rounds: the step of the experiment; with other options of XLA's
compiler (`OPTIONS`); with SSIM and two views, as a step without either was before they were left out; in float32. Each
has images/s with the host's transfer and with the batch on the device, XLA's FLOPs, the share of the measured product
peak of its type, memory and compile time. For an earlier state of the code, run its own script on the same machine.
A profile of a few steps then gives the kernels of the first variant by kind. Results are written after each part, so
that a run that is cut short keeps them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from ecvae_jax.cli.runtime import set_platform_flags

set_platform_flags()

import jax
import numpy as np

from ecvae_jax.bench.timing import alternate, products
from ecvae_jax.bench.workloads import Training, random_batch
from ecvae_jax.config import Config, load_config
from ecvae_jax.files import write_text

KINDS = {
    "convolution": ("conv", "cudnn", "implicit_gemm", "xmma", "cutlass"),
    "product": ("gemm", "dot", "cublas", "matmul"),
    "reduction": ("reduce", "reduction"),
    "transpose": ("transpose", "copy_transpose", "nhwc", "nchw"),
    "concatenation": ("concat", "concatenate"),
    "copy": ("memcpy", "copy"),
    "loop": ("while", "loop_body"),
    "element-wise": ("fusion", "elementwise", "loop_"),
}
"""Words in a kernel's name, by kind; the first kind with one of its words counts."""


OPTIONS: dict[str, dict[str, Any]] = {
    # XLA's default list lacks convolutions, so they part the step into many graphs.
    "one graph": {
        "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONVOLUTION,WHILE,CONDITIONAL"
    },
    "no graph": {"xla_gpu_enable_command_buffer": ""},
    "no Triton": {"xla_gpu_enable_triton_gemm": False},
}
"""Options of XLA's compiler for CUDA, by the variant's name."""


def variants(config: Config) -> dict[str, Config]:
    """Returns the experiments to compare, by name; the first is `config`."""
    objective = dataclasses.replace(config.objective, ssim_weight=0.3)
    data = dataclasses.replace(config.data, pairs=1e-6)
    found = {"step": config, "SSIM, two views": dataclasses.replace(config, objective=objective, data=data)}
    float32 = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype="float32"))
    return found | ({"float32": float32} if config.model.dtype != "float32" else {})


def kind_of(kernel: str) -> str:
    """Returns the kind of a kernel, by its name."""
    name = kernel.lower()
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "other")


def kernels(run: Any, steps: int = 3) -> dict[str, Any]:
    """Returns kernels and milliseconds a step by kind, from a profile: of the device, or of XLA's threads on a CPU."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                result = run()
            jax.block_until_ready(result)
        (path,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(path))
        seconds, counts, names = Counter[str](), Counter[str](), Counter[str]()
        planes = list(profile.planes)
        devices = [plane for plane in planes if plane.name.startswith("/device:")]
        for plane in devices[:1] or planes:
            for line in plane.lines:
                wanted = line.name.startswith("Stream") if devices else "XLA" in line.name
                for event in line.events if wanted else ():
                    kind = kind_of(event.name)
                    counts[kind] += 1
                    seconds[kind] += event.duration_ns / 1e6
                    names[event.name] += event.duration_ns / 1e6
    return {
        "kernels": sum(counts.values()) / steps,
        "by_kind": {k: {"count": counts[k] / steps, "ms": ms / steps} for k, ms in seconds.most_common()},
        "longest_ms": {name[:120]: ms / steps for name, ms in names.most_common(25)},
    }


def measure(config: Config, rounds: int, seconds: float, peak_side: int | None, out: Path | None) -> dict[str, Any]:
    """Returns all results; writes them to `out` after each part."""
    device = jax.devices()[0]
    found: dict[str, Any] = {"device": device.device_kind, "jax": jax.__version__, "batch": config.train.batch_size}

    def keep(**part: Any) -> None:
        found.update(part)
        if out is not None:
            write_text(out, json.dumps(found, indent=1) + "\n")

    calls, trainings, batch, experiments = {}, {}, random_batch(config), variants(config)
    tried = dict.fromkeys(experiments, None) | (OPTIONS if device.platform == "gpu" else {})
    for name, options in tried.items():
        training = trainings[name] = Training(experiments.get(name, config), batch, options)
        placed = training.place(batch)
        calls[name] = lambda training=training: training.run(batch)
        calls[f"{name}, batch on the device"] = lambda training=training, placed=placed: training.run_placed(placed)
        print(f"compiled {name}: {training.figures.compile_seconds:.1f} s", flush=True)
    peak = products(peak_side)
    times = alternate(calls | {name: call for name, (_, call) in peak.items()}, rounds, seconds)
    best = {name: flops / min(times[name]) for name, (flops, _) in peak.items()}
    keep(peaks={name: value for name, value in best.items()})
    rows = {}
    for name, training in trainings.items():
        on_device = statistics.median(times[f"{name}, batch on the device"])
        flops, dtype = training.figures.flops or float("nan"), experiments.get(name, config).model.dtype
        speeds = [config.train.batch_size / each for each in times[name]]
        rows[name] = {
            "images_per_second": statistics.median(speeds),
            "range": [min(speeds), max(speeds)],
            "images_per_second_on_device": config.train.batch_size / on_device,
            "ms": 1e3 * on_device,
            "gflop_per_image": flops * jax.device_count() / config.train.batch_size / 1e9,
            "peak_share": flops / on_device / best.get(dtype, best["float32"]),
            "memory_gib": (training.figures.memory or 0) / 2**30,
            "compile_seconds": training.figures.compile_seconds,
            "skipped": float(np.asarray(training.metrics["skipped"])),
        }
    keep(variants=rows)
    keep(profile=kernels(calls["step, batch on the device"]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", type=Path, default=Path("configs/paper_256.py"))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--tiny", action="store_true", help="a small network and one round, to test the script")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    config, rounds, seconds, side = load_config(options.config), options.rounds, options.seconds, None
    if options.tiny:
        model = dataclasses.replace(config.model, image_size=32, patch=4, widths=(8, 8), blocks=1, z_dim=16, z_grid=4)
        config, rounds, seconds, side = dataclasses.replace(config, model=model), 1, 0.0, 256
    batch = options.batch or (4 if options.tiny else config.train.batch_size)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=batch))
    found = measure(config, rounds, seconds, side, options.out)
    peaks = ", ".join(f"{value / 1e12:.3g} TFLOP/s {name}" for name, value in found["peaks"].items())
    print(f"{found['device']}, jax {found['jax']}, batch {found['batch']}; product peak {peaks}")
    for name, row in found["variants"].items():
        low, high = row["range"]
        print(f"  {name:<16} {row['images_per_second']:8.1f} images/s ({low:.1f} to {high:.1f}), on the device "
              f"{row['images_per_second_on_device']:.1f}; {row['ms']:.2f} ms, {row['peak_share']:.1%} of peak, "
              f"{row['memory_gib']:.2f} GiB")  # fmt: skip
    profile = found["profile"]
    print(f"kernels a step: {profile['kernels']:.0f}")
    for kind, one in profile["by_kind"].items():
        print(f"  {kind:<14} {one['count']:7.0f} {one['ms']:9.3f} ms")


if __name__ == "__main__":
    main()
