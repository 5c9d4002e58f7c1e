"""A trained model: what synthesis, evaluation and exports take."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ecvae_jax.config import Architecture, Config
from ecvae_jax.gaussian import LowRankGaussian
from ecvae_jax.model.conditioning import Condition, Frozen, add_learned_means, compiled_condition
from ecvae_jax.model.cvae import init_params
from ecvae_jax.structure.clusters import Clusters


class Provenance(dict[str, Any]):
    """JSON facts about the training records (`Faces.metadata`), hashable as the static part of a pytree must be."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True))


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["params", "frozen", "density"], meta_fields=["config", "step", "records"]
)
@dataclass(frozen=True)
class Model:
    """A pytree of arrays with a static config."""

    config: Config
    params: PyTree
    """The moving average of the parameters."""
    frozen: Frozen
    step: int = 0
    """Training steps taken."""
    records: Mapping[str, Any] = Provenance()  # noqa: RUF009
    """Facts about the training records, such as the crop's margin: `Faces.metadata`."""
    density: LowRankGaussian | None = None
    """Gaussian of the training faces' appearances, if stored with the model (`synthesis.density`)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", Provenance(self.records))

    @property
    def architecture(self) -> Architecture:
        """The static argument of the compiled programs."""
        return self.config.architecture


def condition_of(model: Model, landmarks: Float[Array | np.ndarray, "n p 2"]) -> Condition:
    """Returns the condition of n faces on their landmarks."""
    return compiled_condition(model.architecture, model.params, model.frozen, jnp.asarray(landmarks))


def abstract_arrays(config: Config) -> tuple[PyTree, Frozen]:
    """Returns shapes and types of the parameters and the frozen part, as `jax.ShapeDtypeStruct`s."""
    architecture = config.architecture
    points, count = architecture.points, architecture.clusters.count

    def build() -> tuple[PyTree, Frozen]:
        frozen = Frozen(
            Clusters(jnp.zeros((count, points, 2)), jnp.zeros((points, 2))),
            jnp.zeros((count, architecture.model.z_dim)),
            jnp.zeros((count,)),
            jnp.zeros(()),
        )
        return add_learned_means(config, init_params(jax.random.key(0), architecture), frozen), frozen

    return jax.eval_shape(build)
