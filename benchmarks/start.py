"""CPU time and programs of an initialization: clusters, parameters, LSUV, optimizer.

    python benchmarks/start.py [CONFIG] [--batch 8]

CONFIG is an experiment file; its faces are the rendered heads. The cache of compiled programs is off. "digest" is of
the parameters' bits: equal values before and after a change give equal digests on one machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import time
from pathlib import Path

from ecvae_jax.cli.runtime import keep_freed_memory, set_platform_flags

set_platform_flags()
keep_freed_memory()

import jax
import numpy as np

from ecvae_jax.config import Config, load_config
from ecvae_jax.data.batches import load_faces
from ecvae_jax.training.preview import device_views, first_examples
from ecvae_jax.training.state import init_state

_COMPILED = "/jax/core/compile/backend_compile_duration"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config", nargs="?", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    config = load_config(options.config) if options.config else Config()
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, records="rendered"),
        train=dataclasses.replace(config.train, batch_size=options.batch),
    )
    faces, programs = load_faces("rendered", "train"), []
    first = device_views(first_examples(config, faces))
    landmarks = faces.landmarks_as(config.data.points)
    jax.config.update("jax_enable_compilation_cache", False)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **kwargs: programs.append(event) if event == _COMPILED else None
    )
    start, used = time.perf_counter(), time.process_time()
    state = jax.block_until_ready(init_state(config, landmarks, first))
    wall, cpu = time.perf_counter() - start, time.process_time() - used
    digest = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state.params)))
    print(f"{wall:.1f} s, CPU {cpu:.1f} s, {len(programs)} programs, digest {digest.hexdigest()[:16]}")


if __name__ == "__main__":
    main()
