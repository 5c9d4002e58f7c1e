"""Smooth maps between faces, and images resampled along them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from ecvae_jax.data.faces import load_faces
from ecvae_jax.structure import warp
from ecvae_jax.structure.warp import cell_centers, newton_solve

smooth_map = jax.jit(warp.smooth_map, static_argnums=2)
finer = jax.jit(warp.finer, static_argnums=1)
resample = jax.jit(warp.resample)
resample_cubic = jax.jit(warp.resample_cubic)


@pytest.fixture(scope="module")
def frontal() -> np.ndarray:
    """68 landmarks of frontal heads in different expressions."""
    faces = load_faces("rendered", "test")
    chosen = [i for i, tags in enumerate(faces.tags) if abs(tags["yaw"]) < 15]
    return faces.landmarks_as(68)[chosen][:40]


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.5, 2.0),
    angle=st.floats(-1.0, 1.0),
    shift=st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)),
    seed=st.integers(0, 2**16),
)
def test_an_affine_map_of_the_landmarks_is_the_map_of_the_crop(scale, angle, shift, seed) -> None:
    landmarks = np.random.default_rng(seed).uniform(0.2, 0.8, (1, 68, 2)).astype(np.float32)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], np.float32) * scale
    move = np.array(shift, np.float32)
    places = smooth_map(jnp.asarray(landmarks), jnp.asarray(landmarks @ turn + move), 8)
    expected = np.asarray(cell_centers(8)) @ turn + move
    np.testing.assert_allclose(places[0], expected, atol=2e-4)


def test_landmarks_of_heads_are_matched_within_two_pixels_of_128(frontal) -> None:
    first, second = jnp.asarray(frontal[::2]), jnp.asarray(frontal[1::2])
    field = finer(smooth_map(first, second, 32), 128)
    met = resample(field, first[:, None])[:, 0]
    pixels = 128 * jnp.linalg.norm(met - second, axis=-1)
    unmoved = 128 * jnp.linalg.norm(first - second, axis=-1)
    assert float(pixels.mean()) < 2.0 < float(unmoved.mean())


@pytest.mark.parametrize("pinned", [False, True])
def test_maps_of_all_pairs_are_the_maps_of_each_pair(frontal, pinned: bool) -> None:
    ours, theirs = jnp.asarray(frontal[:2]), jnp.asarray(frontal[2:5])
    every = jax.jit(warp.smooth_maps, static_argnums=(2, 3))(ours, theirs, 8, pinned)
    assert every.shape == (3, 2, 8, 8, 2)
    first, second = jnp.tile(ours, (3, 1, 1)), jnp.repeat(theirs, 2, axis=0)
    each = jax.jit(warp.smooth_map, static_argnums=(2, 3))(first, second, 8, pinned)
    np.testing.assert_allclose(every.reshape(each.shape), each, atol=1e-5)
    assert float(jnp.abs(every[0] - every[1]).max()) > 1e-3


def test_the_map_back_inverts_the_map(frontal) -> None:
    first, second = jnp.asarray(frontal[::2]), jnp.asarray(frontal[1::2])
    there, back = finer(smooth_map(first, second, 32), 64), finer(smooth_map(second, first, 32), 64)
    round_trip = 128 * jnp.linalg.norm(resample(back, there) - cell_centers(64)[None], axis=-1)
    assert float(jnp.median(round_trip)) < 1.0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), size=st.sampled_from([(1, 1), (1, 7), (4, 1), (5, 9)]))
def test_resample_is_bilinear_and_keeps_the_edge_beyond_it(seed: int, size: tuple[int, int]) -> None:
    height, width = size  # few sizes: each is a program of its own
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(1, height, width, 2)).astype(np.float32)
    places = rng.uniform(-0.5, 1.5, (1, 4, 5, 2)).astype(np.float32)
    rows, columns = places[0, ..., 1] * height - 0.5, places[0, ..., 0] * width - 0.5
    expected = np.stack(
        [map_coordinates(maps[0, ..., c], [rows, columns], order=1, mode="nearest") for c in range(2)], -1
    )
    np.testing.assert_allclose(resample(jnp.asarray(maps), jnp.asarray(places))[0], expected, atol=2e-5)


def test_resample_at_its_own_cells_changes_nothing() -> None:
    maps = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    here = jnp.broadcast_to(cell_centers(16)[None], (2, 16, 16, 2))
    np.testing.assert_allclose(resample(maps, here), maps, atol=1e-5)


def test_finer_keeps_a_straight_map_straight() -> None:
    turn = jnp.array([[0.9, 0.1], [-0.2, 1.1]])
    np.testing.assert_allclose(
        finer((cell_centers(8) @ turn + 0.05)[None], 64)[0, 4:-4, 4:-4],
        (cell_centers(64) @ turn + 0.05)[4:-4, 4:-4],
        atol=1e-5,
    )


def test_the_map_is_differentiable_where_landmarks_coincide(frontal) -> None:
    closed = np.array(frontal[:1])
    closed[:, 61:64] = closed[:, [67, 66, 65]]  # the lips touch
    slope = jax.jit(jax.grad(lambda face: jnp.sum(smooth_map(face, jnp.asarray(frontal[1:2]), 8) ** 2)))
    gradient = slope(jnp.asarray(closed))
    assert jnp.isfinite(gradient).all()
    assert (jnp.abs(gradient) > 0).any()


def test_cubic_reading_is_exact_on_cells_and_on_parabolas() -> None:
    """Catmull-Rom's kernel interpolates, and reproduces polynomials of degree 2 away from the border."""
    here = cell_centers(16)[None]
    random = jnp.asarray(np.random.default_rng(0).normal(size=(1, 16, 16, 3)), jnp.float32)
    np.testing.assert_allclose(resample_cubic(random, here), random, atol=1e-5)
    x, y = here[..., :1], here[..., 1:]
    parabola = lambda x, y: 1.0 + x - 2.0 * y + 3.0 * x * y + x**2 - y**2  # noqa: E731
    places = jnp.asarray(np.random.default_rng(1).uniform(0.2, 0.8, (1, 5, 5, 2)), jnp.float32)
    expected = parabola(places[..., :1], places[..., 1:])
    np.testing.assert_allclose(resample_cubic(parabola(x, y), places), expected, atol=1e-5)
    outside = jnp.full((1, 1, 1, 2), -3.0)
    np.testing.assert_allclose(resample_cubic(random, outside)[0, 0, 0], random[0, 0, 0], atol=1e-5)


@pytest.mark.parametrize("points", [68, 98, 114])
def test_newtons_inverse_solves_the_worst_kernel_matrix(points: int) -> None:
    matrix = np.ones((1, points, points), np.float32) + 0.1 * np.eye(points, dtype=np.float32)  # all points coincide
    right = np.random.default_rng(0).normal(size=(1, points, 2)).astype(np.float32)
    wanted = np.linalg.solve(matrix.astype(np.float64), right.astype(np.float64))
    found = newton_solve(jnp.asarray(matrix), jnp.asarray(right))
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(("platform", "loops"), [("cuda", 0), ("rocm", 0), ("cpu", 1), ("tpu", 1)])
def test_on_gpus_no_loop_over_the_landmarks_is_left(platform: str, loops: int) -> None:
    shape = jax.ShapeDtypeStruct((2, 68, 2), jnp.float32)
    mapped = jax.jit(lambda first, second: warp.smooth_map(first, second, 8))
    text = mapped.trace(shape, shape).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.while") == loops
