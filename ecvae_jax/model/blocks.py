"""The layers of both branches of the network. Convolutions are NHWC and padded to keep the size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import einops
import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ecvae_jax.model.normalization import GroupNorm
from ecvae_jax.model.orthonormal import orthonormal

GROUP_CHANNELS = 8
"""Channels that GroupNorm normalizes together; every width is a multiple of it."""


Layer = nn.Conv | nn.Dense
Observer = Callable[[Layer, Array], Array]
"""Receives a layer and its output; its result replaces the output."""

_OBSERVER: ContextVar[Observer | None] = ContextVar("observer", default=None)


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Passes the output of every layer applied inside the block to `observer`.

    Not `nn.intercept_methods`: flax 0.12.8 removes its interceptor in an assert, so under `python -O` it stays.
    """
    token = _OBSERVER.set(observer)
    try:
        yield
    finally:
        _OBSERVER.reset(token)


def apply_layer(layer: Layer, inputs: Float[Array, "*b c"]) -> Float[Array, "*b f"]:
    """Returns the layer's output, or what the observer makes of it (`observing`). Every layer is applied here."""
    if isinstance(layer, nn.Dense) and isinstance(inputs.shape[0], int):  # the batch of an export is a symbol
        # As matrices: for the gradient of the kernel, XLA's CPU code would transpose maps in memory.
        output = layer(inputs.reshape(-1, inputs.shape[-1])).reshape(*inputs.shape[:-1], layer.features)
    else:
        output = layer(inputs)
    observer = _OBSERVER.get()
    return output if observer is None else observer(layer, output)


def fold(maps: Float[Array, "b h w c"], patch: int) -> Float[Array, "b h//{patch} w//{patch} {patch}*{patch}*c"]:
    """Returns the maps with each square of `patch` pixels moved into channels (space to depth)."""
    return einops.rearrange(maps, "b (h i) (w j) c -> b h w (i j c)", i=patch, j=patch)


def fold_joined(parts: Sequence[Float[Array, "b h w _"]], patch: int) -> Float[Array, "b h//{patch} w//{patch} f"]:
    """Returns `fold` of the parts joined along channels."""
    # Joined after the move: XLA's CPU code moves what it joins several times more slowly.
    moved = [einops.rearrange(part, "b (h i) (w j) c -> b h w i j c", i=patch, j=patch) for part in parts]
    return einops.rearrange(jnp.concatenate(moved, axis=-1), "b h w i j c -> b h w (i j c)")


def unfold(maps: Float[Array, "b h w f"], patch: int) -> Float[Array, "b h*{patch} w*{patch} f//{patch}**2"]:
    """Returns the inverse of `fold` (depth to space, a sub-pixel layer)."""
    return einops.rearrange(maps, "b h w (i j c) -> b (h i) (w j) c", i=patch, j=patch)


def double(maps: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Returns the maps at twice the resolution, nearest neighbor."""
    return einops.repeat(maps, "b h w c -> b (h i) (w j) c", i=2, j=2)


class Conv(nn.Module):
    """Convolution without stride; `kernel` 1 is a dense layer over channels."""

    features: int
    kernel: int = 3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, maps: Float[Array, "b h w c"]) -> Float[Array, "b h w f"]:
        """Returns the maps with `features` channels."""
        if self.kernel == 1:  # a matrix product is several times faster than a 1×1 convolution on CPUs
            return apply_layer(nn.Dense(self.features, dtype=self.dtype, kernel_init=orthonormal), maps)
        shape = (self.kernel, self.kernel)
        return apply_layer(nn.Conv(self.features, shape, dtype=self.dtype, kernel_init=orthonormal), maps)


class Residual(nn.Module):
    """Pre-activation residual block; `code` is added between its two convolutions, the same vector at every pixel."""

    features: int
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    """Whether the gradient computes the block again instead of keeping its maps."""

    @nn.compact
    def __call__(
        self, maps: Float[Array, "b h w c"], code: Float[Array, "b e"] | None = None
    ) -> Float[Array, "b h w f"]:
        """Returns (maps + branch) / √2, with `features` channels."""
        # Not nn.remat(Residual), which names its parameters in another way.
        return (nn.remat(_residual) if self.remat else _residual)(self, maps, code)


def _residual(block: Residual, maps: Float[Array, "b h w c"], code: Float[Array, "b e"] | None) -> Array:
    def convolved(maps: Array) -> Array:
        activated = GroupNorm(num_groups=maps.shape[-1] // GROUP_CHANNELS, dtype=block.dtype)(maps)
        return Conv(block.features, dtype=block.dtype)(activated)

    branch = convolved(maps)
    if code is not None:
        added = apply_layer(nn.Dense(block.features, dtype=block.dtype, kernel_init=orthonormal), code)
        branch += added[:, None, None, :]
    branch = convolved(branch)
    if maps.shape[-1] != block.features:
        maps = Conv(block.features, kernel=1, dtype=block.dtype)(maps)
    # The sum of two independent unit-variance branches has unit variance only when divided by √2.
    return (maps + branch) * jnp.asarray(0.5**0.5, maps.dtype)


class Down(nn.Module):
    """Halves the resolution: 2×2 squares folded into channels, then mixed."""

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, maps: Float[Array, "b h w c"]) -> Float[Array, "b h//2 w//2 f"]:
        """Returns the maps at half the resolution, with `features` channels."""
        return Conv(self.features, kernel=1, dtype=self.dtype)(fold(maps, 2))
