"""Orbax checkpoints: what is stored, when, and how it is read back.

A checkpoint has three items: `config` (JSON: the experiment with its landmark scheme, facts about the records, the sums
of the metrics since the last line of the log), `inference` (averaged parameters and the frozen part: all that synthesis
reads) and `training` (parameters and optimizer state). `integrity` adds a list of checksums to it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import PyTree

from ecvae_jax.config import Config
from ecvae_jax.gaussian import LowRankGaussian
from ecvae_jax.model.conditioning import Frozen


class Model(NamedTuple):
    """What synthesis and evaluation need of a checkpoint."""

    config: Config
    params: PyTree
    """The moving average of the parameters."""
    frozen: Frozen
    """Of means that are trained it has the averages (`conditioning.with_learned_means`)."""
    step: int
    """Training steps taken."""
    records: dict[str, Any]
    """Facts about the records it was trained on, such as the crop's margin: `Faces.metadata`."""
    density: LowRankGaussian | None = None
    """Of the training faces' appearances, where one is stored with the model: see `ecvae_jax.synthesis.density`."""
