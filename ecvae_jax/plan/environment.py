"""What has to be settled before JAX is imported, for the TPU's compiler to run on a machine without a TPU."""

from __future__ import annotations

import importlib.util
import os
from importlib import metadata

from ecvae_jax.plan.chips import Chip
from ecvae_jax.plan.errors import PlanError

# A program for a chip that is not there can be written to JAX's cache and not read back from it. The last two are asked
# of a metadata server, and complained about, where they are not set.
_SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def use_compiler_only(chip: Chip) -> None:
    """Lets this process compile for a chip, and computes on its CPU. Call it before JAX is imported.

    Raises:
        PlanError: the compiler is not installed, or it is too old for the chip.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise PlanError("the TPU compiler libtpu is not installed; it comes with the extra: pip install -e '.[tpu]'")
    version = metadata.version("jax")
    if tuple(int(part) for part in version.split(".")[:2]) < chip.first_jax:
        wanted = ".".join(map(str, chip.first_jax))
        raise PlanError(
            f"jax {version}: its compiler crashes on a {chip.name}; take jax {wanted} or newer (Python 3.12)"
        )
    os.environ.update(_SETTINGS)
