"""Frames of one source under many structures: encoded once, drawn in batches of one compiled shape."""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from ecvae_jax.config import AdaptConfig
from ecvae_jax.images import to_float, to_uint8
from ecvae_jax.model.model import Model
from ecvae_jax.synthesis.adapt import fit_source
from ecvae_jax.synthesis.overlay import draw_over
from ecvae_jax.video.source import Source

BATCH = 8
"""Frames per compiled call."""


def draw_frames(
    model: Model,
    source: Source,
    faces: Float[np.ndarray, "n p 2"],
    side: int,
    transport: bool = True,
    adaptation: AdaptConfig = AdaptConfig(),  # noqa: B008
) -> Iterator[UInt8[np.ndarray, "side side 3"]]:
    """Yields the source's crop under each structure, at `side` pixels.

    The photo's own pixels are laid over at their own resolution, not the model's. Eyes that close are the model's
    alone, unlike in a picture of `ecvae transfer`.

    Args:
        faces: crop units of the source.
    """
    landmarks = source.landmarks[None]
    params, z = fit_source(model, source.view[None], landmarks, adaptation)
    photo, share = to_float(jnp.asarray(source.crop(side)[None])), jnp.float32(adaptation.detail)
    for start in range(0, len(faces), BATCH):
        rows = faces[start : start + BATCH]
        padded = np.concatenate([rows, np.repeat(rows[-1:], BATCH - len(rows), axis=0)])
        drawn = draw_over(
            model.architecture, params, model.frozen, z, photo, landmarks, padded, share, transport=transport
        )
        yield from to_uint8(np.asarray(drawn))[: len(rows)]
