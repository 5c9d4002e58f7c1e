"""Group normalization with SiLU: equal to Flax's layer and its gradient, and invariant to each group's scale."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from ecvae_jax.model.normalization import normalized_silu

GROUPS = 2


def flax_silu(maps: Array, scale: Array, bias: Array) -> Array:
    layer = nn.GroupNorm(num_groups=GROUPS, dtype=jnp.float32)
    normalized = layer.apply({"params": {"scale": scale, "bias": bias}}, maps)
    assert isinstance(normalized, jax.Array)
    return jax.nn.silu(normalized).astype(maps.dtype)


def ours(maps: Array, scale: Array, bias: Array) -> Array:
    return normalized_silu(maps, scale, bias, GROUPS)


def draw(seed: int, offset: float = 0.0) -> tuple[Array, Array, Array, Array]:
    keys = jax.random.split(jax.random.key(seed), 4)
    shape = (3, 4, 6, 8)
    maps = offset + jax.random.normal(keys[0], shape)
    scale, bias = 1.0 + jax.random.normal(keys[1], (8,)), jax.random.normal(keys[2], (8,))
    return maps, scale, bias, jax.random.normal(keys[3], shape)


def with_gradient(function, maps: Array, scale: Array, bias: Array, direction: Array) -> list[np.ndarray]:
    result, pull = jax.vjp(function, maps, scale, bias)
    return [np.asarray(part) for part in (result, *pull(direction.astype(result.dtype)))]


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_value_and_gradient_are_those_of_flax(offset: float) -> None:
    arguments = draw(0, offset)
    for mine, theirs in zip(with_gradient(ours, *arguments), with_gradient(flax_silu, *arguments), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=3e-5 * (1 + offset**2), rtol=1e-4)


def test_bfloat16_maps_keep_their_type_and_have_statistics_in_float32() -> None:
    maps, scale, bias, direction = draw(1)
    result, *gradients = with_gradient(ours, maps.astype(jnp.bfloat16), scale, bias, direction)
    assert [part.dtype for part in (result, *gradients)] == [jnp.bfloat16, jnp.bfloat16, np.float32, np.float32]
    rounded = maps.astype(jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_allclose(result.astype(np.float32), ours(rounded, scale, bias), atol=0.02, rtol=0.01)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_gradients_of_bfloat16_maps_are_those_of_the_same_maps_in_float32(
    on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if on_gpu:  # its branch, run here
        monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arguments, cuda, **others: cuda(*arguments))
    maps, scale, bias, direction = draw(4)
    rounded, turned = (part.astype(jnp.bfloat16) for part in (maps, direction))
    wide = with_gradient(ours, rounded.astype(jnp.float32), scale, bias, turned.astype(jnp.float32))
    for half, whole in zip(with_gradient(ours, rounded, scale, bias, turned), wide, strict=True):
        np.testing.assert_allclose(half.astype(np.float32), whole, atol=1e-5, rtol=0.005)


def test_a_groups_scale_and_offset_change_nothing() -> None:
    maps, scale, bias, _ = draw(2)
    moved = jnp.concatenate([3.0 * maps[..., :4] + 1.0, 0.5 * maps[..., 4:] - 2.0], -1)
    np.testing.assert_allclose(ours(moved, scale, bias), ours(maps, scale, bias), atol=1e-4)


def test_constant_maps_have_a_finite_gradient() -> None:
    _, scale, bias, direction = draw(3)
    result, *gradients = with_gradient(ours, jnp.full((3, 4, 6, 8), 0.25), scale, bias, direction)
    np.testing.assert_allclose(result, np.broadcast_to(jax.nn.silu(bias), result.shape), atol=1e-4)
    assert all(np.isfinite(part).all() for part in gradients)
