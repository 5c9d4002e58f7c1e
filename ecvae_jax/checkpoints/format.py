"""The checkpoint format: its items, metadata, frozen part and density file; Orbax errors in one line."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from ecvae_jax import __version__
from ecvae_jax.checkpoints.integrity import MARK, CheckpointError
from ecvae_jax.checkpoints.resume import unknown_settings
from ecvae_jax.config import Config, rename_old
from ecvae_jax.gaussian import LowRankGaussian
from ecvae_jax.model.conditioning import Frozen
from ecvae_jax.prior import Covariances
from ecvae_jax.structure.clusters import Clusters
from ecvae_jax.structure.scheme import get_scheme

ITEMS = ("config", "inference", "training")
"""The parts of a checkpoint; an exported one lacks the last."""

DENSITY_FILE = "density.npz"
"""File in the folder of a step: a density of z, if one is stored."""

_FORMAT = 1
_LIBRARIES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "numpy")


def metadata_to_store(config: Config, records: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metadata of a checkpoint (item `config`) as JSON."""
    return {
        "format": _FORMAT,
        "config": json.loads(config.to_json()),
        "records": dict(records),
        "scheme": _scheme(config),
        "versions": versions(),
        MARK: True,
    }


def versions() -> dict[str, str]:
    """Returns the versions of Python, this package and the libraries that compute and store, by name."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"Python": python, "ecvae_jax": __version__, **{name: version(name) for name in _LIBRARIES}}


def read_metadata(manager: ocp.CheckpointManager, step: int, root: Path) -> dict[str, Any]:
    """Returns the metadata of a checkpoint; its `config` may lack settings that are newer than the checkpoint.

    Raises:
        CheckpointError: the metadata cannot be read, or another version of ecvae_jax wrote it.
    """
    with readable(root / str(step)):
        metadata = read_json(manager, step)
        metadata["config"] = {name: rename_old(name, values) for name, values in metadata["config"].items()}
        stored_format, config = metadata["format"], metadata["config"]
        unknown = unknown_settings(config)
    if stored_format != _FORMAT or unknown:
        what = f"it has {', '.join(unknown)}" if unknown else f"its format is {stored_format}"
        raise CheckpointError(
            f"checkpoint {root / str(step)} was written by another version of ecvae_jax: {what}, "
            "which this version does not know; use the version that wrote it, or a newer one"
        )
    with readable(root / str(step)):
        if metadata["scheme"] != _scheme(Config.from_json(json.dumps(config))):
            raise ValueError("its landmark scheme has other boundaries than this version of ecvae_jax draws")
    return metadata


def read_json(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """Returns the item `config` as stored."""
    return manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))["config"]


def frozen_to_store(frozen: Frozen) -> dict[str, Any]:
    """Returns the frozen part as a tree with the keys of the format, which do not follow renames in the code."""
    clusters = {"centres": frozen.clusters.centers, "mean_shape": frozen.clusters.mean_shape}
    stored = {**frozen._asdict(), "clusters": clusters}
    covariances = stored.pop("covariances")
    return stored if covariances is None else {**stored, "covariances": covariances._asdict()}


def read_frozen(stored: Mapping[str, Any]) -> Frozen:
    """Returns the frozen part that `frozen_to_store` wrote."""
    clusters = Clusters(stored["clusters"]["centres"], stored["clusters"]["mean_shape"])
    covariances = Covariances(**stored["covariances"]) if "covariances" in stored else None
    return Frozen(**{**stored, "clusters": clusters, "covariances": covariances})


def save_density(folder: Path, density: LowRankGaussian) -> None:
    """Writes the density, as float16, into the folder of a step.

    Raises:
        OSError: the file cannot be written.
    """
    with (folder / DENSITY_FILE).open("wb") as file:
        np.savez(file, mean=np.asarray(density.mean, np.float16), axes=np.asarray(density.axes, np.float16))


def load_density(folder: Path, z_dim: int) -> LowRankGaussian | None:
    """Returns the density (float32) stored in the folder of a step, or None if there is none.

    Raises:
        ValueError: the file is damaged, or has the shapes of another model.
    """
    path = folder / DENSITY_FILE
    if not path.is_file():
        return None
    try:
        shapes = _array_shapes(path)
    except Exception as error:  # zip and NumPy raise many kinds; the user needs the file's name
        raise ValueError(f"{DENSITY_FILE} is damaged") from error
    mean, axes = (shapes.get(name, ()) for name in LowRankGaussian._fields)
    # Before reading: a megabyte of zeros unpacks to gigabytes. More axes than dimensions cannot be orthogonal.
    if mean != (z_dim,) or len(axes) != 2 or axes[0] > z_dim or axes[1] != z_dim:
        raise ValueError(
            f"{DENSITY_FILE} has the shapes {mean} and {axes}, expected ({z_dim},) and (at most {z_dim}, {z_dim})"
        )
    try:
        with np.load(path, allow_pickle=False) as stored:
            return LowRankGaussian(*(jnp.asarray(stored[name], jnp.float32) for name in LowRankGaussian._fields))
    except Exception as error:
        raise ValueError(f"{DENSITY_FILE} is damaged") from error


def _array_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array of an .npz file by its name, from the headers; holds no array."""
    shapes = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
            if dtype.kind != "f" or dtype.itemsize > 8:
                raise ValueError(f"{entry.filename} has the type {dtype}")
            shapes[entry.filename.removesuffix(".npy")] = shape
    return shapes


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turns any error of reading a checkpoint inside the block into a CheckpointError of one line."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # Orbax and TensorStore raise many kinds; the user needs the folder and one line
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"checkpoint {folder} cannot be read: {lines[0]}; delete that folder to use the previous checkpoint"
        ) from error


@contextmanager
def quiet_loops() -> Iterator[None]:
    """Hides tracebacks of threads that report to a closed event loop, inside the block and after an error.

    After a failure, TensorStore's remaining threads end later than Orbax's loop. Orbax raises the cause itself.
    """
    show: Callable[[Any], object] = sys.unraisablehook

    def hide(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, RuntimeError) or str(unraisable.exc_value) != "Event loop is closed":
            show(unraisable)

    sys.unraisablehook = hide
    yield  # after an error the hook stays: the threads end later
    sys.unraisablehook = show


@contextmanager
def quiet_orbax(level: int = logging.ERROR) -> Iterator[None]:
    """Hides Orbax's log records below `level` inside the block: every start of a manager logs a warning."""

    def keep(record: logging.LogRecord) -> bool:
        return record.levelno >= level or "orbax" not in record.pathname

    # A filter, because importing TensorFlow resets the logger's level.
    logger = logging.getLogger("absl")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _scheme(config: Config) -> dict[str, Any]:
    """Returns the landmark scheme as JSON: other boundaries would draw sketches the network was not trained on."""
    return json.loads(json.dumps(dataclasses.asdict(get_scheme(config.data.points))))
