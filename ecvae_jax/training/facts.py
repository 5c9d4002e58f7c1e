"""What must be equal on all hosts of a training: settings, code, versions, records."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import ecvae_jax
from ecvae_jax.config import Config, Span

OWN = frozenset({"data.cache", "train.hang_after", "train.hang_exit"})
"""Settings that each host may choose: memory, and what it does about a hang."""

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn", "tensorflow")
# JAX's settings that change the program or its numbers.
_JAX_SETTINGS = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion",
    "jax_disable_jit",
    "jax_debug_nans",
)


def host_facts(config: Config, workdir: Path, profile: Span | None, allowed: Collection[str]) -> dict[str, Any]:
    """Returns what must be equal on all hosts before the records are read, as JSON values by name.

    Hosts with other settings or code do not fail: each updates its copy of the parameters in its own way, and every
    checkpoint mixes the copies.
    """
    settings = {
        f"{section}.{name}": value
        for section, fields in dataclasses.asdict(config).items()
        for name, value in fields.items()
        if f"{section}.{name}" not in OWN
    }
    return {
        **settings,
        # Host memory is each host's own affair, but the step that gathers on the device is another program.
        "data.cache device": config.data.cache == "device",
        "--workdir": str(workdir.absolute()),
        "--profile": profile,
        "--allow-change": sorted(allowed),
        "ecvae_jax": ecvae_jax.__version__,
        "code of ecvae_jax": code_hash(),
        "Python": ".".join(map(str, sys.version_info[:2])),
        **{name: _version(name) for name in _LIBRARIES},
        **{name: str(getattr(jax.config, name)) for name in _JAX_SETTINGS},
    }


def record_facts(records: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metadata, count and fingerprint of the faces under the names of facts."""
    return {f"records: {name}": value for name, value in records.items()}


@functools.cache
def code_hash() -> str:
    """Returns 16 hexadecimal digits: a hash of the source files of the package."""
    root = Path(ecvae_jax.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # TensorFlow comes under two names
        return "absent"
