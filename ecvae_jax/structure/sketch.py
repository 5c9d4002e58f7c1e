"""The boundary sketch: a Gaussian of the distance to smooth curves through the landmarks."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ecvae_jax.structure.scheme import Scheme, check_landmarks

_SWEEP = 8
"""Pieces per sweep over the pixels: more do not fuse better, fewer load more."""
_FARTHEST = 1e6
"""Largest coordinate, in crops, that is drawn where it is; farther landmarks are drawn there, without a gradient."""
_SMALLEST_SQUARE = 1e-12
"""Squared length, in units of sigma, below which a piece counts as a point."""


class _Plan(NamedTuple):
    """Constants of a scheme and a number of samples, independent of the landmarks."""

    samples: Float[np.ndarray, "m p"]
    """Weights of the landmarks in each sample of each curve."""
    starts: Int[np.ndarray, "sweeps pieces"]
    """Sample at which each straight piece starts; it ends at the next sample."""
    channels: Int[np.ndarray, " sweeps"]
    """Boundary of the pieces of each sweep."""


class _Segments(NamedTuple):
    """Ends of straight pieces, in units where the sketch is exp(-distance²)."""

    start: Float[Array, "b n 2"]
    end: Float[Array, "b n 2"]


@functools.partial(jax.jit, static_argnames=("scheme", "image_size", "samples_per_span", "channels"))
def draw_sketch(
    landmarks: Float[Array | np.ndarray, "b p 2"],
    scheme: Scheme,
    image_size: int,
    sigma: float,
    samples_per_span: int,
    channels: Literal["boundary", "single"],
) -> Float[Array, "b h w s"]:
    """Returns the boundary sketch, exp(-D² / 2 sigma²), in [0, 1]; h = w = image_size.

    D is the distance, in crop units like sigma, from the pixel's center ((column + ½) / w, (row + ½) / h) to the curve.
    The curve is a Catmull-Rom spline through the boundary's landmarks, as samples_per_span straight pieces between two
    of them. "boundary": one channel per boundary, in the scheme's order. "single": the maximum over all boundaries,
    s = 1. Differentiable in the landmarks: the derivative is that of the nearest piece, and 0 on the line.

    Deviation: LAB and its successors draw one-pixel lines, take the distance transform and cut it at 3 sigma. This
    sketch is exact between pixels, equal at every resolution, and has a gradient.

    Raises:
        ValueError: channels is unknown, or the landmarks do not have the scheme's shape.
    """
    landmarks = jnp.asarray(landmarks)
    check_landmarks(landmarks, scheme)
    # Squared distances of farther ones overflow, and the gradient becomes 0 · inf.
    landmarks = jnp.clip(landmarks, -_FARTHEST, _FARTHEST)
    if channels not in ("boundary", "single"):
        raise ValueError(f"sketch channels={channels!r}: must be 'boundary' or 'single'")
    plan = _plan(scheme, samples_per_span)
    scale = 1 / (2**0.5 * jnp.asarray(sigma, landmarks.dtype))
    weights = jnp.asarray(plan.samples, landmarks.dtype)
    samples = scale * jnp.einsum("mp,bpx->bmx", weights, landmarks, precision=jax.lax.Precision.HIGHEST)
    starts = plan.starts.reshape(-1)
    segments = _Segments(samples[:, starts], samples[:, starts + 1])
    centers = scale * (jnp.arange(image_size, dtype=landmarks.dtype) + 0.5) / image_size
    square = _nearest_square(tuple(plan.channels.tolist()), segments, centers)
    if channels == "single":
        return jnp.exp(-jnp.min(square, axis=0))[..., None]
    return jnp.exp(-jnp.moveaxis(square, 0, -1))


def curve_matrix(points: int, samples_per_span: int) -> Float[np.ndarray, "samples points"]:
    """Returns the points' weights in (points - 1) · samples_per_span + 1 samples of the curve through them.

    Uniform Catmull-Rom: the tangent at a point is half the way from its predecessor to its successor. Beyond each end
    the neighbor is reflected, so the end tangent equals the first or last span.
    """
    spans = points - 1
    padded = np.zeros((points + 2, points))
    padded[1:-1] = np.eye(points)
    padded[0], padded[-1] = 2 * padded[1] - padded[2], 2 * padded[-2] - padded[-3]
    basis = 0.5 * np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])
    powers = np.vander(np.arange(samples_per_span) / samples_per_span, 4, increasing=True)
    rows = [powers @ basis @ padded[span : span + 4] for span in range(spans)]
    return np.concatenate([*rows, padded[points : points + 1]])


def _plan(scheme: Scheme, samples_per_span: int) -> _Plan:
    samples, starts, channels, first = [], [], [], 0
    for channel, (_, curve) in enumerate(scheme.boundaries):
        matrix = curve_matrix(len(curve), samples_per_span)
        scattered = np.zeros((len(matrix), scheme.points))
        scattered[:, curve] = matrix
        pieces = len(matrix) - 1
        sweeps = -(-pieces // _SWEEP)
        # The last piece is repeated to fill its sweep, which changes no minimum.
        starts.append(first + np.minimum(np.arange(sweeps * _SWEEP), pieces - 1).reshape(sweeps, _SWEEP))
        channels += [channel] * sweeps
        samples.append(scattered)
        first += len(matrix)
    return _Plan(np.concatenate(samples), np.concatenate(starts), np.array(channels))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _nearest_square(
    channels: tuple[int, ...], segments: _Segments, centers: Float[Array, " size"]
) -> Float[Array, "s b h w"]:
    """Returns each pixel's squared distance to the nearest piece of each boundary; `channels` gives each sweep's one.

    A loop over sweeps keeps a running minimum, so no array of pixels × pieces is held. Automatic differentiation would
    hold one, hence the rule below.
    """
    return _sweep_pixels(channels, segments, centers, track=False)[0]


@_nearest_square.defjvp
def _nearest_square_jvp(
    channels: tuple[int, ...], primals: tuple[_Segments, Array], tangents: tuple[_Segments, Array]
) -> tuple[Array, Array]:
    (segments, centers), (segments_dot, centers_dot) = primals, tangents
    square, piece = _sweep_pixels(channels, segments, centers, track=True)
    assert piece is not None
    start, end = (_gather(side, piece) for side in segments)
    pixels = _grid(centers)
    along = end - start
    length_square = jnp.sum(jnp.square(along), axis=-1, keepdims=True)
    place = jnp.sum((pixels - start) * along, axis=-1, keepdims=True) / jnp.maximum(length_square, _SMALLEST_SQUARE)
    place = jnp.clip(place, 0.0, 1.0)
    away = pixels - start - place * along
    # Moving the nearest point along the piece leaves the distance unchanged to first order, so `place` is constant.
    start_dot, end_dot = (_gather(side, piece) for side in segments_dot)
    moved = _grid(centers_dot) - (1 - place) * start_dot - place * end_dot
    return square, 2 * jnp.sum(away * moved, axis=-1)


def _grid(centers: Float[Array, " size"]) -> Float[Array, "1 1 h w 2"]:
    return jnp.stack(jnp.meshgrid(centers, centers), axis=-1)[None, None]


def _gather(side: Float[Array, "b n 2"], piece: Int[Array, "s b h w"]) -> Float[Array, "s b h w 2"]:
    return jax.vmap(lambda ends, chosen: ends[chosen], in_axes=(0, 1), out_axes=1)(side, piece)


def _sweep_pixels(
    channels: tuple[int, ...], segments: _Segments, centers: Float[Array, " size"], track: bool
) -> tuple[Float[Array, "s b h w"], Int[Array, "s b h w"] | None]:
    """Returns the squared distance to the nearest piece of each boundary and, with `track`, that piece's index."""
    start, end = segments
    along = end - start
    length_square = jnp.sum(jnp.square(along), axis=-1)
    exists = length_square > _SMALLEST_SQUARE
    direction = along * jax.lax.rsqrt(jnp.where(exists, length_square, 1.0))[..., None]
    any_direction = jnp.broadcast_to(jnp.array([1.0, 0.0], start.dtype), start.shape)
    direction = jnp.where(exists[..., None], direction, any_direction)
    half = jnp.where(exists, 0.5 * jnp.sqrt(jnp.where(exists, length_square, 1.0)), 0.0)
    # (sweeps, pieces, b, …): the loop takes one slab of each.
    slabs = [
        jnp.moveaxis(part.reshape(part.shape[0], len(channels), _SWEEP, *part.shape[2:]), 0, 2)
        for part in (0.5 * (start + end), direction, half[..., None])
    ]
    channel_of = jnp.asarray(channels)

    def sweep(number: Array, state: tuple[Array, Array | None]) -> tuple[Array, Array | None]:
        middle, direction, half = (slab[number] for slab in slabs)
        # In a piece's frame both coordinates of a pixel are one term per column plus one per row. They are computed
        # here, not before the loop: XLA's CPU code would read them ten times more slowly.
        from_x, from_y = (centers[None, None, :] - middle[..., axis : axis + 1] for axis in (0, 1))
        dx, dy = direction[..., 0:1], direction[..., 1:2]
        along_x, along_y, across_x, across_y = dx * from_x, dy * from_y, -dy * from_x, dx * from_y
        channel = channel_of[number]
        squares, pieces = state
        nearest = squares[channel]
        piece = None if pieces is None else pieces[channel]
        for k in range(_SWEEP):
            beyond = jnp.abs(along_x[k][:, None, :] + along_y[k][:, :, None]) - half[k][:, None]
            beyond = jnp.maximum(beyond, 0.0)
            across = across_x[k][:, None, :] + across_y[k][:, :, None]
            square = beyond * beyond + across * across
            if piece is not None:
                piece = jnp.where(square < nearest, number * _SWEEP + k, piece)
            nearest = jnp.minimum(nearest, square)
        squares = squares.at[channel].set(nearest)
        return squares, None if pieces is None or piece is None else pieces.at[channel].set(piece)

    shape = (max(channels) + 1, start.shape[0], len(centers), len(centers))
    pieces = jnp.zeros(shape, jnp.int32) if track else None
    return jax.lax.fori_loop(0, len(channels), sweep, (jnp.full(shape, jnp.inf, start.dtype), pieces))
