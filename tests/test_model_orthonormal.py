"""Kernels drawn together are those that each layer draws alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.training import assert_same

from ecvae_jax.model.orthonormal import drawn_together, orthonormal

SHAPES = {"square": (8, 8), "tall": (3, 3, 4, 8), "twin": (3, 3, 4, 8), "wide": (5, 24), "odd": (7, 3)}


def draw(key: jax.Array) -> dict[str, jax.Array]:
    keys = jax.random.split(key, len(SHAPES))
    kernels = {name: orthonormal(each, shape) for each, (name, shape) in zip(keys, SHAPES.items(), strict=True)}
    return kernels | {"bias": jnp.ones(3)}


def test_kernels_drawn_together_are_bitwise_those_drawn_alone() -> None:
    alone, together = draw(jax.random.key(3)), jax.jit(lambda key: drawn_together(lambda: draw(key)))(jax.random.key(3))
    assert_same(alone, together)
    assert not np.array_equal(together["tall"], together["twin"])


@pytest.mark.parametrize("name", SHAPES)
def test_columns_or_rows_are_orthonormal(name: str) -> None:
    matrix = np.asarray(draw(jax.random.key(0))[name]).reshape(-1, SHAPES[name][-1])
    small = matrix.T @ matrix if len(matrix) >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-5)


def test_a_failed_draw_leaves_the_next_one_alone() -> None:
    with pytest.raises(ZeroDivisionError):
        drawn_together(lambda: {"kernel": 1 // 0})
    assert float(jnp.abs(orthonormal(jax.random.key(0), (4, 4))).sum()) > 0
