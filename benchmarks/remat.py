"""Memory of the training step with and without `model.remat`, from the compilers' own analysis.

    python -m benchmarks.remat [--config configs/paper_256.py] [--batches 8 32 128] [--tpu v5e:2x4]

"temporaries" are maps, gradients and workspace that one device holds at once, without state and batch. Without --tpu
the step is compiled for the CPU; with it for a chip of that topology (extra tpu), and the batch is that of one chip.
Nothing runs. A compilation takes one to four CPU minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from pathlib import Path

from ecvae_jax.cli.runtime import set_platform_flags

os.environ["JAX_PLATFORMS"] = "cpu"
set_platform_flags()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", type=Path, default=Path("configs/paper_256.py"))
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--tpu", help="topology, such as v5e:2x4; default: the CPU")
    options = parser.parse_args()

    from ecvae_jax.config import load_config
    from ecvae_jax.plan.chips import TooLargeError, Topology, use_compiler_only
    from ecvae_jax.plan.compile import abstract_batch, compile_step
    from ecvae_jax.training.parallel import make_mesh, shard_step
    from ecvae_jax.training.state import abstract_state
    from ecvae_jax.training.step import make_train_step, read_by_step, step_function

    config = load_config(options.config)
    topology = Topology.parse(options.tpu) if options.tpu else None
    if topology is not None:
        use_compiler_only(topology.chip)
    for batch in options.batches:
        for remat in (False, True):
            each = dataclasses.replace(config, model=dataclasses.replace(config.model, remat=remat))
            start = time.monotonic()
            if topology is not None:
                try:
                    program = compile_step(each, topology, batch * topology.chips)
                    found = f"{program.temporaries / 2**30:.2f} GiB, {program.flops / 1e9:.0f} GFLOP"
                except TooLargeError as error:
                    found = f"too large: {error}"
            else:
                step = make_train_step(each)
                given = read_by_step(each, abstract_batch(each, batch))
                jitted = shard_step(step_function(step.program), make_mesh())
                compiled = jitted.lower(abstract_state(each), given, step.hyper).compile()
                memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
                found = f"{memory.temp_size_in_bytes / 2**30:.2f} GiB, {costs['flops'] / 1e9:.0f} GFLOP"
            seconds = time.monotonic() - start
            name = "remat" if remat else "plain"
            print(f"batch {batch:3d}, {name}: temporaries {found} ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
