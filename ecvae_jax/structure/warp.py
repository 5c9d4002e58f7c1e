"""Smooth maps between two faces by their landmarks, and images resampled along them."""

from __future__ import annotations

import einops
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

REACH = 0.12
"""Standard deviation of a landmark's pull in crop units: about the width of an eye."""
_RIDGE = 0.1
"""Added to the kernel's diagonal: coincident landmarks (closed lips) must not tear the map."""
_SMALLEST = 1e-6
_NEWTON_STEPS = 15
"""The error is squared in each step. 15 reach float32's precision up to a condition of 2,000; 98 points have 981."""
_STOPS = np.linspace(0.0, 1.0, 5)
_BORDER = np.array([(x, y) for x in _STOPS for y in _STOPS if x in (0, 1) or y in (0, 1)])


def smooth_map(
    landmarks: Float[Array, "b p 2"], landmarks_to: Float[Array, "b p 2"], side: int, pinned: bool = False
) -> Float[Array, "b side side 2"]:
    """Returns, for each cell of a square grid over the first face's crop, the position (x, y) in the second's.

    An affine map (least squares over the landmarks) moves the whole crop. Gaussian kernel ridge regression smooths its
    residual at the landmarks over their surroundings, so far from the face only the affine map remains. Landmarks are
    matched closely, not exactly.

    Args:
        landmarks: of the face whose crop the grid covers, crop units.
        landmarks_to: the same points on the other face, crop units.
        side: cells of the grid in each direction; cell i is centered at (i + 1/2) / side.
        pinned: also maps the crop's border onto itself; for crops that show the same surroundings.
    """
    return _regressed(landmarks, landmarks_to, side, pinned).reshape(-1, side, side, 2)


def smooth_maps(
    landmarks: Float[Array, "c p 2"], landmarks_to: Float[Array, "r p 2"], side: int, pinned: bool = False
) -> Float[Array, "r c side side 2"]:
    """Returns `smooth_map` of each first face to each second face; kernels and eliminations are done once a first face.

    Arguments are those of `smooth_map`.
    """
    columns = einops.repeat(landmarks_to, "r p xy -> c p (r xy)", c=landmarks.shape[0])
    places = _regressed(landmarks, columns, side, pinned)
    return einops.rearrange(places, "c (i j) (r xy) -> r c i j xy", i=side, xy=2)


def _regressed(
    landmarks: Float[Array, "b p 2"], landmarks_to: Float[Array, "b p k"], side: int, pinned: bool
) -> Float[Array, "b {side}*{side} k"]:
    """Returns each column of `landmarks_to`, a coordinate of a face, regressed over the grid of the first face."""
    if pinned:
        landmarks = _with_border(landmarks, 1)
        landmarks_to = _with_border(landmarks_to, landmarks_to.shape[-1] // 2)
    center = jnp.mean(landmarks, axis=1, keepdims=True)
    center_to = jnp.mean(landmarks_to, axis=1, keepdims=True)
    points, points_to = landmarks - center, landmarks_to - center_to
    # TPUs multiply in bfloat16 by default: an error of more than a pixel.
    with jax.default_matmul_precision("highest"):
        affine = _inverse_2x2(points.mT @ points) @ (points.mT @ points_to)
        kernel = _kernel(points, points) + _RIDGE * jnp.eye(points.shape[1])[None]
        pull = _solve(kernel, points_to - points @ affine)
        cells = cell_centers(side).reshape(1, -1, 2) - center
        return cells @ affine + _kernel(cells, points) @ pull + center_to


def _with_border(columns: Float[Array, "b p k"], faces: int) -> Float[Array, "b q k"]:
    border = jnp.asarray(np.tile(_BORDER, faces), columns.dtype)
    return jnp.concatenate([columns, jnp.broadcast_to(border[None], (columns.shape[0], *border.shape))], axis=1)


def cell_centers(side: int) -> Float[Array, "side side 2"]:
    """Returns the cell centers (x, y) of a grid over the crop: the identity map."""
    middles = (jnp.arange(side) + 0.5) / side
    return jnp.stack(jnp.meshgrid(middles, middles, indexing="xy"), axis=-1)


@jax.jit  # a name in the traced program, by which an export finds it
def resample(maps: Float[Array, "b h w c"], places: Float[Array, "b i j 2"]) -> Float[Array, "b i j c"]:
    """Returns the maps read at `places` (x, y in crop units) by bilinear interpolation; the edge extends outside.

    The gradient in `places` is that of the interpolation, piecewise constant.
    """
    height, width = maps.shape[1:3]
    limit = jnp.array([width - 1.0, height - 1.0], jnp.float32)
    at = jnp.clip(places * (limit + 1.0)[None, None, None] - 0.5, 0.0, limit[None, None, None])
    low = jnp.minimum(jnp.floor(jax.lax.stop_gradient(at)), jnp.maximum(limit - 1.0, 0.0)[None, None, None])
    part = (at - low).astype(maps.dtype)
    column, row = low[..., 0].astype(jnp.int32), low[..., 1].astype(jnp.int32)

    def read(one: Float[Array, "h w c"], row: Array, column: Array, part: Array) -> Array:
        cells, first = one.reshape(-1, one.shape[-1]), row * width + column
        right, down = min(1, width - 1), width * min(1, height - 1)
        x, y = part[..., :1], part[..., 1:]
        upper = cells[first] * (1 - x) + cells[first + right] * x
        return upper * (1 - y) + (cells[first + down] * (1 - x) + cells[first + down + right] * x) * y

    return jax.vmap(read)(maps, row, column, part)


def resample_cubic(maps: Float[Array, "b h w c"], places: Float[Array, "b i j 2"]) -> Float[Array, "b i j c"]:
    """Returns the maps read at `places` as by `resample`, with Catmull-Rom's cubic kernel, which keeps fine detail."""
    return read_cubic(with_margin(maps), places)


def with_margin(maps: Float[Array, "b h w c"]) -> Float[Array, "b h+3 w+3 c"]:
    """Returns the maps with their edges repeated as far as `read_cubic` reads beyond them."""
    return jnp.pad(maps, ((0, 0), (1, 2), (1, 2), (0, 0)), mode="edge")


def read_cubic(cells: Float[Array, "b h w c"], places: Float[Array, "b i j 2"]) -> Float[Array, "b i j c"]:
    """Returns `resample_cubic` of maps that already have their margin."""
    count, height, width, channels = cells.shape
    column, across = _cubic_taps(places[..., 0], width - 3)
    row, down = _cubic_taps(places[..., 1], height - 3)
    # One unsigned index: XLA's CPU code is slower with two, and JAX asks a signed one whether it is negative.
    cells, face = cells.reshape(-1, channels), jnp.arange(count, dtype=jnp.uint32)[:, None, None]
    first = (face * height + row) * width + column
    lines = []
    for y, weight in enumerate(down):
        line = [cells[first + (y * width + x)] * each[..., None] for x, each in enumerate(across)]
        lines.append(sum(line) * weight[..., None])
    return jnp.asarray(sum(lines))


def _cubic_taps(places: Float[Array, "b i j"], size: int) -> tuple[UInt32[Array, "b i j"], list[Array]]:
    """Returns along one axis the first of the four cells that a place reads, and their weights.

    Cells are counted with the margin.
    """
    at = jnp.clip(places * size - 0.5, 0.0, size - 1.0)
    low = jnp.floor(at)
    part = at - low
    near = lambda x: (1.5 * x - 2.5) * x * x + 1.0  # noqa: E731
    far = lambda x: ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0  # noqa: E731
    return low.astype(jnp.uint32), [far(1.0 + part), near(part), near(1.0 - part), far(2.0 - part)]


def finer(places: Float[Array, "b i j 2"], side: int) -> Float[Array, "b side side 2"]:
    """Returns a map on another grid of the same crop, extrapolated linearly beyond the outer cells."""
    count, cells = places.shape[:2]
    shape, scale = (count, side, side, 2), jnp.full((2,), side / cells)
    offsets = places - cell_centers(cells)[None]
    offsets = jax.image.scale_and_translate(offsets, shape, (1, 2), scale, jnp.zeros((2,)), "linear", antialias=False)
    return offsets + cell_centers(side)[None]


def _inverse_2x2(moment: Float[Array, "b 2 2"]) -> Float[Array, "b 2 2"]:
    a, b, c, d = moment[:, 0, 0], moment[:, 0, 1], moment[:, 1, 0], moment[:, 1, 1]
    determinant = jnp.maximum(a * d - b * c, _SMALLEST)
    return jnp.stack([jnp.stack([d, -b], -1), jnp.stack([-c, a], -1)], -2) / determinant[:, None, None]


@jax.jit  # named for exports, as above
def _solve(matrix: Float[Array, "b n n"], right: Float[Array, "b n m"]) -> Float[Array, "b n m"]:
    """Returns matrix⁻¹ · right for kernel matrices; on GPUs without a loop of n steps, each of several kernels."""
    return jax.lax.platform_dependent(matrix, right, cuda=newton_solve, rocm=newton_solve, default=_eliminate)


def _eliminate(matrix: Float[Array, "b n n"], right: Float[Array, "b n m"]) -> Float[Array, "b n m"]:
    """Returns matrix⁻¹ · right for symmetric positive definite matrices, by Gauss-Jordan elimination.

    Such matrices need no pivoting. LAPACK's solve hung in a training step on a CPU (jax 0.10.2). Conjugate gradients
    lose digits in float32: their result depended on the batch size.
    """

    def eliminate(row: Array, both: Float[Array, "b n k"]) -> Float[Array, "b n k"]:
        column = jax.lax.dynamic_index_in_dim(both, row, axis=2)
        pivot = jax.lax.dynamic_index_in_dim(both, row, axis=1)
        pivot = pivot / jax.lax.dynamic_index_in_dim(column, row, axis=1)
        others = jnp.where(jnp.arange(both.shape[1])[None, :, None] == row, 0.0, column)
        return jax.lax.dynamic_update_slice_in_dim(both, pivot, row, axis=1) - others * pivot

    size = matrix.shape[1]
    return jax.lax.fori_loop(0, size, eliminate, jnp.concatenate([matrix, right], axis=2))[:, :, size:]


def newton_solve(matrix: Float[Array, "b n n"], right: Float[Array, "b n m"]) -> Float[Array, "b n m"]:
    """Returns matrix⁻¹ · right by Newton's iteration X ← X (2 − A X) (Schulz 1933) and one step of refinement.

    It consists of products alone.

    Args:
        matrix: kernel matrices of `smooth_map`, symmetric, with eigenvalues of at least 0.1.
    """
    largest = jnp.max(jnp.sum(jnp.abs(matrix), axis=2), axis=1)[:, None, None]
    twice = 2.0 * jnp.eye(matrix.shape[1])[None]
    inverse = 0.5 * twice / largest
    for _ in range(_NEWTON_STEPS):
        inverse = inverse @ (twice - matrix @ inverse)
    found = inverse @ right
    return found + inverse @ (right - matrix @ found)


def _kernel(first: Float[Array, "b n 2"], second: Float[Array, "b m 2"]) -> Float[Array, "b n m"]:
    # Coordinate by coordinate: XLA's CPU code for a sum over two of them is slow.
    x, y = (first[:, :, None, axis] - second[:, None, :, axis] for axis in (0, 1))
    return jnp.exp(-(jnp.square(x) + jnp.square(y)) / (2 * REACH**2))
