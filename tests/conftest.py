"""Settings for every test, made before JAX is imported, and the small data and model that many tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from support.processes import QUICK_COMPILATION, environment

# Two devices: the maps over devices are tested on any machine. Eight cost tens of seconds a training on two cores, so
# only .ci/run takes them, for the tests marked `devices`.
os.environ.update(environment(devices=int(os.environ.get("ECVAE_TEST_DEVICES", "2"))))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from ecvae_jax.cli.runtime import set_platform_flags, use_compilation_cache

assert "jax" not in sys.modules, "its settings come too late"
set_platform_flags()
# Compilation is most of the tests' time. Without LLVM's optimization and the MLIR emitters of fusions, the step's
# program of a small model compiles in a quarter of the time (8.2 to 2.2 CPU seconds).
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {' '.join(QUICK_COMPILATION)}".strip()
# Many tests train the same small model: it is compiled once for all workers, the processes they start and later runs.
# An entry's key holds the program, the flags, the version of jaxlib and the CPU.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    use_compilation_cache(str(Path(__file__).parents[1] / ".pytest_cache" / "xla"))

import jaxtyping
from support.shapes import check_shapes

# Modules imported from here on check every array against its annotated shape. The hook imports JAX.
jaxtyping.install_import_hook("ecvae_jax", f"{check_shapes.__module__}.{check_shapes.__name__}")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

import numpy as np
import pytest
from support.shared import shared_folder

from ecvae_jax.config import (
    ClusterConfig,
    Config,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    SketchConfig,
    TrainConfig,
)

TINY_FACES = 96


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Turns the check of shapes off, for a test that gives wrong ones and expects the package's own message."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def tiny_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A records folder of the first rendered heads: 96 faces of 4 people to train on, 48 of 2 others to test on."""
    from ecvae_jax.data.batches import load_faces
    from ecvae_jax.data.records import FaceRecord, write_records

    def records(split: str, count: int) -> list[FaceRecord]:
        faces = load_faces("rendered", split)
        jpegs = faces.encoded(range(count))
        return [
            FaceRecord(*fields)
            for fields in zip(
                jpegs, faces.landmarks, faces.identities, faces.groups, faces.names, faces.tags, strict=False
            )
        ]

    metadata = {**load_faces("rendered", "train").metadata, "source": "tests"}

    return shared_folder(
        tmp_path_factory,
        "tiny_records",
        lambda out: write_records(out, {"train": records("train", TINY_FACES), "test": records("test", 48)}, metadata),
    )


@pytest.fixture(scope="session")
def tiny_config(tiny_records: Path) -> Config:
    """An experiment on `tiny_records` that compiles and runs in seconds."""
    return Config(
        data=DataConfig(records=str(tiny_records)),
        sketch=SketchConfig(samples_per_span=1, sigma=0.02),
        clusters=ClusterConfig(count=6),
        model=ModelConfig(image_size=32, patch=4, widths=(16, 16), z_dim=32, z_grid=4),
        objective=ObjectiveConfig(beta_ramp=0.0),
        optim=OptimConfig(warmup_steps=2, ema_decay=0.9),
        train=TrainConfig(steps=10, batch_size=8, log_every=5, images_every=5, checkpoint_every=5),
    )


@pytest.fixture(scope="session")
def tiny_workdir(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of `tiny_config` with checkpoints at 5 and 10. All workers read it: change only a copy."""
    from ecvae_jax.training.loop import train

    def make(folder: Path) -> None:
        assert train(tiny_config, folder).finished

    return shared_folder(tmp_path_factory, "tiny_workdir", make)


@pytest.fixture(scope="session")
def tiny_batch(tiny_config: Config) -> dict[str, np.ndarray]:
    """The first batch of `tiny_config`."""
    from ecvae_jax.data.batches import load_faces, training_batches

    faces = load_faces(tiny_config.data.records, "train")
    return next(training_batches(faces, tiny_config.data, 32, 8, seed=0))
