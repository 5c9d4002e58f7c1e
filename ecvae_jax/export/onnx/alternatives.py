"""The same mathematics in another order, for runtimes that run one operator at a time and have no fast loops.

Each function replaces the jitted one of the package that bears its name in `ALTERNATIVES`; tests hold both equal.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ecvae_jax.config import Architecture
from ecvae_jax.structure.scheme import get_scheme
from ecvae_jax.structure.sketch import curve_matrix
from ecvae_jax.structure.warp import newton_solve

_TOGETHER = 16
"""Pieces of a curve whose distances are held at once: more leave the processor's cache."""
_SMALLEST_SQUARE = 1e-12


def draw_sketch(architecture: Architecture, landmarks: Float[Array, "b p 2"]) -> Float[Array, "b h w s"]:
    """Returns `structure.sketch.draw_sketch`, one boundary after another, without a loop or a scatter."""
    scheme, settings, size = get_scheme(architecture.points), architecture.sketch, architecture.model.image_size
    scale = 1 / (2**0.5 * settings.sigma)
    centers = jnp.asarray(scale * (np.arange(size) + 0.5) / size, jnp.float32)
    starts, ends, counts = [], [], []
    for _, curve in scheme.boundaries:
        matrix = np.zeros(((len(curve) - 1) * settings.samples_per_span + 1, scheme.points))
        matrix[:, curve] = curve_matrix(len(curve), settings.samples_per_span)
        starts, ends, counts = [*starts, matrix[:-1]], [*ends, matrix[1:]], [*counts, len(matrix) - 1]
    start, end = (
        jnp.einsum("mp,bpx->bmx", jnp.asarray(scale * np.concatenate(each), jnp.float32), landmarks)
        for each in (starts, ends)
    )
    segments, squares, first = _Segments.between(start, end, centers), [], 0
    for count in counts:
        pieces = [slice(at, min(at + _TOGETHER, first + count)) for at in range(first, first + count, _TOGETHER)]
        squares.append(functools.reduce(jnp.minimum, [segments.nearest_square(piece) for piece in pieces]))
        first += count
    if settings.channels == "single":
        squares = [functools.reduce(jnp.minimum, squares)]
    return jnp.exp(-jnp.stack(squares, axis=-1))


class _Segments(NamedTuple):
    """Straight pieces of curves; coordinates along and across a piece are sums of a row's part and a column's."""

    half: Float[Array, "b m"]
    """Half the length of a piece."""
    along: tuple[Float[Array, "b m size"], Float[Array, "b m size"]]
    """Parts of the columns and of the rows."""
    across: tuple[Float[Array, "b m size"], Float[Array, "b m size"]]

    @classmethod
    def between(cls, start: Float[Array, "b m 2"], end: Float[Array, "b m 2"], centers: Float[Array, " size"]) -> Self:
        """Returns the pieces from `start` to `end`; `centers` are those of the pixels."""
        along = end - start
        square = jnp.sum(jnp.square(along), axis=-1, keepdims=True)
        exists = square > _SMALLEST_SQUARE
        length = jnp.sqrt(jnp.where(exists, square, 1.0))
        direction = jnp.where(exists, along / length, jnp.array([1.0, 0.0])[None, None])
        half, middle = jnp.where(exists, 0.5 * length, 0.0), 0.5 * (start + end)
        x, y = (centers[None, None] - middle[..., axis : axis + 1] for axis in (0, 1))
        dx, dy = direction[..., 0:1], direction[..., 1:2]
        return cls(half[..., 0], (dx * x, dy * y), (-dy * x, dx * y))

    def nearest_square(self, chosen: slice) -> Float[Array, "b size size"]:
        """Returns the squared distance of each pixel from the nearest of the chosen pieces."""
        (columns, rows), (columns_across, rows_across) = self.along, self.across
        over = lambda columns, rows: columns[:, chosen, None, :] + rows[:, chosen, :, None]  # noqa: E731
        beyond = jnp.maximum(jnp.abs(over(columns, rows)) - self.half[:, chosen, None, None], 0.0)
        across = over(columns_across, rows_across)
        return jnp.min(beyond * beyond + across * across, axis=1)


def alternatives(architecture: Architecture) -> dict[str, Callable[..., Array]]:
    """Returns the functions by the name of the jitted function that each replaces."""

    def sketch(landmarks: Array, *_: Array) -> Array:
        return draw_sketch(architecture, landmarks)

    return {"draw_sketch": sketch, "_solve": jax.named_call(newton_solve)}
