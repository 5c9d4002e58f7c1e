"""Orthonormal kernels, those of one shape drawn together: a network has many layers of few shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

# Layer-sequential unit-variance initialization starts from orthonormal kernels (Mishkin & Matas 2016, algorithm 1).
_ALONE = nn.initializers.orthogonal()

_POSTPONED: ContextVar[list[tuple[Array, Array]] | None] = ContextVar("postponed", default=None)


def orthonormal(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Returns a kernel whose columns, or rows if these are fewer, are orthonormal; inside `drawn_together`, zeros."""
    postponed = _POSTPONED.get()
    if postponed is None:
        return _ALONE(key, shape, dtype)
    # Distinct objects, so that `drawn_together` finds them again.
    kernel = jnp.zeros(shape, dtype)
    postponed.append((key, kernel))
    return kernel


def drawn_together(init: Callable[[], PyTree]) -> PyTree:
    """Returns the parameters of `init`, bitwise, drawn in a few loops instead of layer by layer.

    Call it under jit. With a generator a layer, the compilation of a network takes three times as long.
    """
    postponed: list[tuple[Array, Array]] = []
    token = _POSTPONED.set(postponed)
    try:
        params = init()
    finally:
        _POSTPONED.reset(token)
    leaves, structure = jax.tree.flatten(params)
    place = {id(leaf): number for number, leaf in enumerate(leaves)}
    normals = _normals([(key, kernel.size) for key, kernel in postponed])
    groups: dict[tuple[int, int], list[tuple[Array, int]]] = {}
    for (_, kernel), numbers in zip(postponed, normals, strict=True):
        matrix = (math.prod(kernel.shape[:-1]), kernel.shape[-1])
        groups.setdefault(matrix, []).append((numbers, place[id(kernel)]))
    for matrix, members in groups.items():
        # Not vmap: jax 0.10.2 hangs in a batched QR decomposition on a CPU.
        kernels = jax.lax.map(partial(_orthonormal, matrix), jnp.stack([numbers for numbers, _ in members]))
        for kernel, (_, number) in zip(kernels, members, strict=True):
            leaves[number] = kernel.reshape(leaves[number].shape)
    return jax.tree.unflatten(structure, leaves)


def _normals(wanted: list[tuple[Array, int]]) -> list[Float[Array, " n"]]:
    """Returns standard normals for each (key, n): `n` values do not depend on the length of the draw they begin."""
    lengths: dict[int, list[int]] = {}
    for number, (_, size) in enumerate(wanted):
        lengths.setdefault(1 << (size - 1).bit_length(), []).append(number)
    drawn: dict[int, Array] = {}
    for length, members in lengths.items():
        draw = partial(jax.random.normal, shape=(length,))
        rows = jax.lax.map(draw, jnp.stack([wanted[number][0] for number in members]))
        drawn |= {number: row[: wanted[number][1]] for number, row in zip(members, rows, strict=True)}
    return [drawn[number] for number in range(len(wanted))]


def _orthonormal(shape: tuple[int, int], normals: Float[Array, " n"]) -> Float[Array, "rows columns"]:
    """Returns what `jax.random.orthogonal` makes of its normals."""
    high, low = max(shape), min(shape)
    q, r = jnp.linalg.qr(normals.reshape(high, low))
    q = q * jnp.sign(jnp.diagonal(r))[None]
    return q if shape == (high, low) else q.mT
