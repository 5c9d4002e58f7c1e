"""Transfer and interpolation between faces from Python, with the pixels of the commands."""

from __future__ import annotations

from typing import Protocol, TypedDict, Unpack

import numpy as np
from jaxtyping import UInt8

from ecvae_jax.config import AdaptConfig
from ecvae_jax.model.model import Model
from ecvae_jax.synthesis.adapt import transfer_adapted
from ecvae_jax.synthesis.batches import Images, Landmarks
from ecvae_jax.synthesis.cross import transfer_cross


class FaceArrays(Protocol):
    """n faces as arrays, such as `Portraits`: images at the model's resolution, landmarks in its scheme."""

    @property
    def images(self) -> Images: ...  # noqa: D102
    @property
    def landmarks(self) -> Landmarks: ...  # noqa: D102


class Drawing(TypedDict, total=False):
    """How `transfer` and `interpolate` draw; `transfer_cross` has the defaults, those of the command line."""

    transport: bool
    """Move z from the prior of the source's structure to that of the target's."""
    adaptation: AdaptConfig
    """To each source; `AdaptConfig(detail=0)` uses the model alone."""


def transfer(model: Model, sources: FaceArrays, targets: FaceArrays, **drawing: Unpack[Drawing]) -> Images:
    """Returns the source appearances under the target structures, as `ecvae transfer` draws them: n h w 3.

    Args:
        sources: n faces, or one for all targets.
        targets: n faces, or one for all sources.
        drawing: `transport=True`, `adaptation=AdaptConfig()`; see `Drawing`.

    Raises:
        ValueError: the numbers of sources and targets differ and neither is 1, or the model has another size or scheme.
    """
    n, m = len(sources.landmarks), len(targets.landmarks)
    if n != m and 1 not in (n, m):
        raise ValueError(f"{n} sources and {m} targets: give equal numbers, or one of either")
    count = max(n, m) if min(n, m) else 0
    if 1 in (n, m) or not count:  # the program of the command, so that its pixels are the very same
        grid = transfer_cross(model, sources.images, sources.landmarks, targets.landmarks, **drawing)
        return grid.reshape(count, *sources.images.shape[1:])
    return transfer_adapted(model, sources.images, sources.landmarks, targets.landmarks, **drawing)


def interpolate(
    model: Model, sources: FaceArrays, targets: FaceArrays, steps: int, **drawing: Unpack[Drawing]
) -> UInt8[np.ndarray, "n steps h w 3"]:
    """Returns each source appearance on the straight path from its own landmarks to its target's.

    Args:
        targets: as many faces as sources, or one for all.
        steps: images per path, ends included; at least 2.
        drawing: see `transfer`.

    Raises:
        ValueError: fewer than 2 steps, another number of targets, or as for `transfer`.
    """
    if steps < 2:
        raise ValueError(f"steps={steps}: must be at least 2, the two ends of the path")
    n, m = len(sources.landmarks), len(targets.landmarks)
    if m not in (1, n):
        raise ValueError(f"{n} sources and {m} targets: give as many targets as sources, or one")
    along = np.linspace(0.0, 1.0, steps, dtype=np.float32)[None, :, None, None]
    paths = (1 - along) * sources.landmarks[:, None] + along * targets.landmarks[:, None]
    drawn = np.empty((*paths.shape[:2], *sources.images.shape[1:]), np.uint8)
    for row, path in enumerate(paths):
        one = slice(row, row + 1)
        drawn[row] = transfer_cross(model, sources.images[one], sources.landmarks[one], path, **drawing)[0]
    return drawn
