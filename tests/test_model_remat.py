"""Blocks computed again for the gradient: the same parameters and gradient, fewer maps kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecvae_jax.config import Config
from ecvae_jax.model.conditioning import init_frozen, make_condition
from ecvae_jax.model.cvae import CVAE, init_params

Loss = Callable[[Any], jax.Array]


def losses(config: Config, batch: dict[str, np.ndarray]) -> tuple[Any, Loss, Loss]:
    """Returns parameters and the loss of a reconstruction, without and with rematerialized blocks."""
    remat = dataclasses.replace(config, model=dataclasses.replace(config.model, remat=True))
    frozen = init_frozen(jax.random.key(1), config, batch["landmarks"])
    params = init_params(jax.random.key(0), config.architecture)
    image = jnp.asarray(batch["image"], jnp.float32) / 127.5 - 1.0
    condition = make_condition(config.architecture, None, frozen, jnp.asarray(batch["landmarks"]))

    def loss_of(config: Config) -> Loss:
        def loss(params: Any) -> jax.Array:
            drawn = CVAE(config.model).apply({"params": params}, image, condition, frozen.z_scale)
            assert isinstance(drawn, jax.Array)
            return jnp.mean(jnp.square(drawn - image))

        return loss

    return params, loss_of(config), loss_of(remat)


@pytest.mark.parametrize("frame", ["picture", "face"])
def test_the_gradient_keeps_fewer_maps(
    tiny_config: Config, tiny_batch: dict[str, np.ndarray], frame: Literal["picture", "face"]
) -> None:
    config = dataclasses.replace(
        tiny_config, model=dataclasses.replace(tiny_config.model, frame=frame, blocks=2, patch=2, z_grid=8, z_dim=64)
    )
    params, plain, remat = losses(config, tiny_batch)

    def kept(loss: Loss) -> int:
        residuals = jax.tree.leaves(jax.eval_shape(lambda params: jax.vjp(loss, params)[1], params))
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in residuals)

    assert kept(remat) < 0.6 * kept(plain)


def test_the_gradient_is_the_same(tiny_config: Config, tiny_batch: dict[str, np.ndarray]) -> None:
    params, plain, remat = losses(tiny_config, tiny_batch)
    kept, again = jax.jit(jax.grad(plain))(params), jax.jit(jax.grad(remat))(params)
    assert jax.tree.structure(kept) == jax.tree.structure(again)
    for one, other in zip(jax.tree.leaves(kept), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * float(jnp.abs(one).max()))


def test_initialization_does_not_depend_on_it(tiny_config: Config) -> None:
    remat = dataclasses.replace(tiny_config, model=dataclasses.replace(tiny_config.model, remat=True))
    plain, again = (
        jax.eval_shape(lambda c=c: init_params(jax.random.key(0), c.architecture)) for c in (tiny_config, remat)
    )
    assert jax.tree.leaves_with_path(plain) == jax.tree.leaves_with_path(again)
