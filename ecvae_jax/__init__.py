"""ecvae_jax: the equilibrium conditional VAE for face synthesis (Qian et al. 2018) in JAX/Flax.

It learns appearance (who, light, background) apart from structure (pose and expression, as landmarks), and draws any
appearance under any structure. The rooms, in the order in which a face goes through them; each imports only from those
before it:

    config         every setting, with its default (experiments: files that hold one)
    pictures, cpu, compile_cache   PNG files; settings for CPUs; where compiled programs are kept. They import nothing
                   of ours
    gaussian       diagonal Gaussians and their KL (Eq. 5), Gaussians of low rank
    prior          the priors of Eqs. 2, 3 and 4, transport between them
    structure      landmark schemes, alignment, the sketch, clusters and their weights
    model          appearance encoder, structure U-Net, LSUV initialization, conditioning on landmarks
    objective      recon_nll + beta · kl
    data           photos to records, records to batches, the embedded rendered heads
    training       state, step, its map over devices, checkpoints, the loop and what watches it
    synthesis      jitted batches: encode, decode, transfer, sample
    adaptation     going towards one source photo: steps on z and decoder, its own pixels
    density        of the training faces' appearances, fitted after training, to sample from beside the prior
    evaluation     metrics, pairs with a true image, baselines
    comparison     the three priors and their variants trained alike, with intervals and a verdict
    figures        the paper's figures from a checkpoint
    plan           the step and synthesis compiled for a TPU that is not there: memory, work, predicted speed
    grids, information   what `ecvae transfer`, `sample` and `info` show
    cli            the command `ecvae` (commands: its subcommands, options: what they read)

The names below are imported when they are first used, so that `import ecvae_jax` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ecvae_jax.checkpoints.load import load_model
    from ecvae_jax.config import Config
    from ecvae_jax.data.batches import load_faces, training_batches
    from ecvae_jax.gaussian import DiagGaussian, kl_divergence
    from ecvae_jax.prior import equilibrium_prior, mixture_prior, standard_prior, transport
    from ecvae_jax.structure.sketch import draw_sketch
    from ecvae_jax.synthesis.batches import (
        decode,
        encode,
        interpolate,
        reconstruct,
        sample,
        transfer,
        transfer_grid,
    )
    from ecvae_jax.training.loop import train

_HOMES = {
    "Config": "config",
    "DiagGaussian": "gaussian",
    "kl_divergence": "gaussian",
    "equilibrium_prior": "prior",
    "mixture_prior": "prior",
    "standard_prior": "prior",
    "transport": "prior",
    "draw_sketch": "structure.sketch",
    "load_faces": "data.pipeline",
    "training_batches": "data.pipeline",
    "load_model": "training.checkpoint",
    "train": "training.loop",
    "decode": "synthesis",
    "encode": "synthesis",
    "interpolate": "synthesis",
    "reconstruct": "synthesis",
    "sample": "synthesis",
    "transfer": "synthesis",
    "transfer_grid": "synthesis",
}

__all__ = [
    "Config",
    "DiagGaussian",
    "decode",
    "draw_sketch",
    "encode",
    "equilibrium_prior",
    "interpolate",
    "kl_divergence",
    "load_faces",
    "load_model",
    "mixture_prior",
    "reconstruct",
    "sample",
    "standard_prior",
    "train",
    "training_batches",
    "transfer",
    "transfer_grid",
    "transport",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ecvae_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ecvae_jax.{_HOMES[name]}"), name)
