"""The functions that an export holds: pure functions of arrays, with the model's parameters as constants.

Images are float32 in [0, 1], b h w 3; landmarks are b p 2 in crop units; z is b d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ecvae_jax.gaussian import DiagGaussian
from ecvae_jax.model import cvae
from ecvae_jax.model.conditioning import Condition, make_condition
from ecvae_jax.model.model import Model
from ecvae_jax.prior import CovariancePrior, Covariances, transport


@dataclass(frozen=True)
class Function:
    """One exported function; the first axis of every input and output is the batch."""

    name: str
    call: Callable[..., tuple[Array, ...]]
    inputs: dict[str, tuple[int, ...]]
    """Shape of each input by its name, without the batch axis."""
    outputs: tuple[str, ...]
    about: str
    """What it returns, one sentence."""

    def specs(self, batch: object) -> list[jax.ShapeDtypeStruct]:
        """Returns the inputs as abstract arrays, for a number or a symbol of `jax.export` as the batch size."""
        return [jax.ShapeDtypeStruct((batch, *shape), jnp.float32) for shape in self.inputs.values()]  # pyright: ignore[reportArgumentType]


def exported_functions(model: Model) -> list[Function]:
    """Returns encode, draw, transfer, move and prior of a model, and sample if a Gaussian gives its z.

    They compute what `ecvae_jax.encode` (the mean), `decode` and `transfer` without detail compute. Parameters in half
    precision become float32 inside the function, so a traced function holds them in half precision.
    """
    architecture, frozen = model.architecture, model.frozen
    pooled = frozen.covariances is not None and _are_pooled(frozen.covariances)
    size, points, d = architecture.model.image_size, architecture.points, architecture.model.z_dim

    def params() -> PyTree:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), model.params)

    def condition(landmarks: Float[Array, "b p 2"]) -> Condition:
        return make_condition(architecture, params(), frozen, landmarks)

    def encode(image: Array, landmarks: Array) -> tuple[Array, ...]:
        return (cvae.encode(architecture, params(), 2.0 * image - 1.0, condition(landmarks)).mean,)

    def draw(z: Array, landmarks: Array) -> tuple[Array, ...]:
        drawn = cvae.decode(architecture, params(), z, condition(landmarks), frozen.z_scale)
        return (jnp.clip(0.5 * drawn + 0.5, 0.0, 1.0),)

    def move(z: Array, landmarks: Array, target_landmarks: Array) -> tuple[Array, ...]:
        start, end = condition(landmarks).prior, condition(target_landmarks).prior
        if pooled and isinstance(start, CovariancePrior) and isinstance(end, CovariancePrior):
            # The stretch along the directions is 1, and without them a graph is a megabyte smaller.
            return (transport(z, *(DiagGaussian(each.center, each.reference.logvar) for each in (start, end))),)
        return (start.transport(z, end),)

    def transfer(image: Array, landmarks: Array, target_landmarks: Array) -> tuple[Array, ...]:
        (z,) = encode(image, landmarks)
        (moved,) = move(z, landmarks, target_landmarks)
        return draw(moved, target_landmarks)

    def prior(landmarks: Array) -> tuple[Array, ...]:
        reference = condition(landmarks).reference
        return reference.mean, reference.stddev

    def sample(noise: Array, landmarks: Array) -> tuple[Array, ...]:
        mean, stddev = prior(landmarks)
        if model.density is None:
            law = condition(landmarks).prior
            return (law.gaussian.color(noise) if isinstance(law, CovariancePrior) else mean + stddev * noise,)
        center, axes = (part.astype(jnp.float32) for part in model.density)
        along = jnp.matmul(noise, axes, precision=jax.lax.Precision.HIGHEST)
        return (mean + stddev * (center[None] + along),)

    image, face, z = (size, size, 3), (points, 2), (d,)
    found = [
        Function("encode", encode, {"image": image, "landmarks": face}, ("z",), "Mean of q(z | image, landmarks)."),
        Function("draw", draw, {"z": z, "landmarks": face}, ("drawn",), "Mean image of p(image | z, landmarks)."),
        Function(
            "transfer",
            transfer,
            {"image": image, "landmarks": face, "target_landmarks": face},
            ("drawn",),
            "The appearance of the image under the target landmarks: encode, move, draw.",
        ),
        Function(
            "move",
            move,
            {"z": z, "landmarks": face, "target_landmarks": face},
            ("moved",),
            "z moved from the prior of the landmarks to that of the target landmarks.",
        ),
        Function(
            "prior", prior, {"landmarks": face}, ("mean", "stddev"), "Mean and deviation of the landmarks' prior."
        ),
    ]
    if model.density is not None:
        noise, law = (len(model.density.axes),), "the density of the training faces"
    elif architecture.prior.kind != "mixture":  # a mixture also draws a component
        noise, law = z, "the prior"
    else:
        return found
    about = f"z from standard normal noise, by {law}."
    return [*found, Function("sample", sample, {"noise": noise, "landmarks": face}, ("z",), about)]


def _are_pooled(covariances: Covariances) -> bool:
    """Returns whether all clusters have the same variances along the directions, up to 0.01%."""
    variances = 1.0 + np.asarray(covariances.spikes)
    return bool((np.ptp(variances, axis=0) <= 1e-4 * variances.min(axis=0)).all())
