"""`Model`: a trained model, the input of synthesis, evaluation and exports."""

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
from ecvae_jax.model.conditioning import Condition, Frozen, abstract_frozen, add_learned_means, compiled_condition
from ecvae_jax.model.cvae import init_params


class Provenance(dict[str, Any]):
    """Metadata of the training records (`Faces.metadata`), hashable because it is a static part of a pytree."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True))


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "frozen", "density"],
    meta_fields=["config", "step", "records"],
)
@dataclass(frozen=True)
class Model:
    """A pytree of arrays with a static config."""

    config: Config
    params: PyTree
    """Moving average of the parameters."""
    frozen: Frozen
    step: int = 0
    """Number of training steps."""
    records: Mapping[str, Any] = Provenance()
    """Metadata of the training records (`Faces.metadata`), such as the crop's margin."""
    density: LowRankGaussian | None = None
    """Gaussian of the training faces' appearances (`synthesis.density`); None if the checkpoint has none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", Provenance(self.records))

    @property
    def architecture(self) -> Architecture:
        """Static argument of the compiled programs."""
        return self.config.architecture


def condition_of(model: Model, landmarks: Float[Array | np.ndarray, "n p 2"]) -> Condition:
    """Returns the condition of n faces on their landmarks."""
    return compiled_condition(model.architecture, model.params, model.frozen, jnp.asarray(landmarks))


def abstract_arrays(config: Config) -> tuple[PyTree, Frozen]:
    """Returns shapes and types of the parameters and the frozen part, as `jax.ShapeDtypeStruct`s."""

    def build(frozen: Frozen) -> tuple[PyTree, Frozen]:
        return add_learned_means(config, init_params(jax.random.key(0), config.architecture), frozen), frozen

    return jax.eval_shape(build, abstract_frozen(config.architecture))
