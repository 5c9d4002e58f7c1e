"""The density of the training faces' appearances as a small file in a checkpoint's folder."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from ecvae_jax.gaussian import LowRankGaussian

FILE = "density.npz"


def save_density(folder: Path, density: LowRankGaussian) -> None:
    """Writes the density, as float16, into the folder of a step.

    Raises:
        OSError: it cannot be written.
    """
    with (folder / FILE).open("wb") as file:
        np.savez(file, mean=np.asarray(density.mean, np.float16), axes=np.asarray(density.axes, np.float16))


def load_density(folder: Path, z_dim: int) -> LowRankGaussian | None:
    """Returns the density that is stored in the folder of a step, float32; none where there is none.

    Raises:
        ValueError: the file is damaged, or of another model.
    """
    if not (folder / FILE).is_file():
        return None
    try:
        with np.load(folder / FILE, allow_pickle=False) as stored:
            density = LowRankGaussian(*(jnp.asarray(stored[name], jnp.float32) for name in LowRankGaussian._fields))
    except Exception as error:  # zip and NumPy raise many kinds; the user needs the file's name
        raise ValueError(f"{FILE} is damaged") from error
    if density.mean.shape != (z_dim,) or density.axes.ndim != 2 or density.axes.shape[1] != z_dim:
        raise ValueError(f"{FILE} has the shapes {density.mean.shape} and {density.axes.shape} for a z of {z_dim}")
    return density
