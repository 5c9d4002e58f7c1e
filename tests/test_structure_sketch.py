"""The boundary sketch against a slow drawing of its definition, its symmetries, its gradient and its memory."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecvae_jax.structure.scheme import get_scheme, mirror_landmarks
from ecvae_jax.structure.sketch import curve_matrix, draw_sketch

both = pytest.mark.parametrize("points", [98, 68])
SIGMA = 0.02


def random_landmarks(points, faces=2, seed=0):
    return np.random.default_rng(seed).uniform(0.05, 0.95, size=(faces, points, 2)).astype(np.float32)


def draw(landmarks, size=32, channels="boundary", samples_per_span=2, sigma=SIGMA):
    scheme = get_scheme(landmarks.shape[-2])
    return np.asarray(draw_sketch(landmarks, scheme, size, sigma, samples_per_span, channels))


def slow_channel(points, size, samples_per_span, sigma):
    """Returns one channel drawn pixel by pixel from the textbook form of the curve, in float64."""
    points = np.asarray(points, np.float64)
    ends = np.concatenate([[2 * points[0] - points[1]], points, [2 * points[-1] - points[-2]]])
    samples = []
    for before, a, b, after in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        for t in np.arange(samples_per_span) / samples_per_span:
            # Cubic Hermite with the tangents (next - previous) / 2.
            value = (2 * t**3 - 3 * t**2 + 1) * a + (3 * t**2 - 2 * t**3) * b
            samples.append(value + (t**3 - 2 * t**2 + t) * (b - before) / 2 + (t**3 - t**2) * (after - a) / 2)
    samples.append(points[-1])
    centers = (np.arange(size) + 0.5) / size
    pixels = np.stack(np.meshgrid(centers, centers), axis=-1)
    nearest = np.full((size, size), np.inf)
    for start, end in itertools.pairwise(samples):
        along = end - start
        t = np.clip((pixels - start) @ along / max(along @ along, 1e-300), 0, 1)
        nearest = np.minimum(nearest, ((pixels - start - t[..., None] * along) ** 2).sum(axis=-1))
    return np.exp(-nearest / (2 * sigma**2))


@both
@pytest.mark.parametrize("samples_per_span", [1, 2, 5])
def test_every_channel_is_the_gaussian_of_the_distance_to_its_curve(points, samples_per_span):
    landmarks = random_landmarks(points)
    sketch = draw(landmarks, 24, samples_per_span=samples_per_span)
    assert sketch.shape == (2, 24, 24, len(get_scheme(points).boundaries))
    assert sketch.dtype == np.float32
    for channel, (_, curve) in enumerate(get_scheme(points).boundaries):
        for face in range(2):
            wanted = slow_channel(landmarks[face, list(curve)], 24, samples_per_span, SIGMA)
            np.testing.assert_allclose(sketch[face, ..., channel], wanted, atol=2e-5)


@both
def test_single_is_the_maximum_over_the_boundaries(points):
    landmarks = random_landmarks(points)
    single = draw(landmarks, channels="single")
    assert single.shape == (2, 32, 32, 1)
    np.testing.assert_allclose(single, draw(landmarks).max(axis=-1, keepdims=True), atol=1e-6)


@both
def test_every_landmark_of_a_boundary_lies_on_its_line(points):
    size = 64
    pixels = np.random.default_rng(1).integers(0, size, size=(1, points, 2))
    sketch = draw(((pixels + 0.5) / size).astype(np.float32), size)
    for channel, (_, curve) in enumerate(get_scheme(points).boundaries):
        for column, row in pixels[0, list(curve)]:
            assert sketch[0, row, column, channel] > 0.9999
    assert sketch.min() >= 0
    assert sketch.max() <= 1


@both
def test_the_mirrored_face_has_the_mirrored_sketch(points):
    landmarks, scheme = random_landmarks(points), get_scheme(points)
    mirrored = draw(mirror_landmarks(landmarks, scheme))
    channels = {frozenset(curve): channel for channel, (_, curve) in enumerate(scheme.boundaries)}
    order = [channels[frozenset(scheme.mirror[i] for i in curve)] for _, curve in scheme.boundaries]
    np.testing.assert_allclose(mirrored, draw(landmarks)[:, :, ::-1, order], atol=2e-5)


def test_the_sketch_is_the_same_at_every_resolution():
    landmarks = random_landmarks(68)
    # The center of each coarse pixel is the center of the middle one of 3 × 3 fine pixels.
    np.testing.assert_allclose(draw(landmarks, 96)[:, 1::3, 1::3], draw(landmarks, 32), atol=2e-5)


def test_moving_the_face_by_whole_pixels_moves_the_sketch():
    landmarks = random_landmarks(68)
    moved = draw(landmarks + np.float32([5 / 32, 3 / 32]))
    np.testing.assert_allclose(moved[:, 3:, 5:], draw(landmarks)[:, :-3, :-5], atol=2e-5)


def test_faces_of_a_batch_are_independent_and_vmap_agrees():
    landmarks = random_landmarks(68, faces=3)
    sketch = draw(landmarks)
    np.testing.assert_allclose(sketch[1:2], draw(landmarks[1:2]), atol=1e-6)
    alone = lambda x: draw_sketch(x[None], get_scheme(68), 32, SIGMA, 2, "boundary")[0]  # noqa: E731
    np.testing.assert_allclose(jax.vmap(alone)(jnp.asarray(landmarks)), sketch, atol=1e-6)


def test_finer_samples_come_closer_to_the_smooth_curve():
    landmarks = random_landmarks(68)
    smooth = draw(landmarks, samples_per_span=32)
    errors = [np.abs(draw(landmarks, samples_per_span=n) - smooth).mean() for n in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.1 * errors[0]


def test_a_face_outside_the_crop_is_an_empty_sketch():
    assert not draw(random_landmarks(68) + 3).any()


# The curve


def test_curve_goes_through_its_points_and_follows_them():
    for points, samples_per_span in ((2, 3), (4, 2), (33, 5)):
        matrix = curve_matrix(points, samples_per_span)
        assert matrix.shape == ((points - 1) * samples_per_span + 1, points)
        np.testing.assert_allclose(matrix[::samples_per_span], np.eye(points), atol=1e-15)
        np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-14)
        # Equally spaced points on a straight line: equally spaced samples.
        np.testing.assert_allclose(matrix @ np.arange(points), np.linspace(0, points - 1, len(matrix)), atol=1e-13)
        np.testing.assert_allclose(matrix[::-1, ::-1], matrix, atol=1e-15)


def test_curve_bends_smoothly():
    angles = np.linspace(0, np.pi, 9)
    circle = curve_matrix(9, 8) @ np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    radius = np.linalg.norm(circle, axis=1)
    assert np.abs(radius[8:-8] - 1).max() < 2e-3


# The gradient


@pytest.mark.parametrize(("points", "channels"), [(98, "boundary"), (68, "single")])
def test_gradient_matches_finite_differences_in_both_directions(points, channels):
    scheme, rng = get_scheme(points), np.random.default_rng(5)
    with jax.enable_x64(True):
        landmarks = jnp.asarray(random_landmarks(points), jnp.float64)
        weight = jnp.asarray(rng.normal(size=(2, 16, 16, len(scheme.boundaries) if channels == "boundary" else 1)))
        direction = jnp.asarray(rng.normal(size=landmarks.shape))
        loss = lambda x: jnp.sum(weight * draw_sketch(x, scheme, 16, 0.05, 2, channels))  # noqa: E731
        step = 1e-6
        wanted = float(loss(landmarks + step * direction) - loss(landmarks - step * direction)) / (2 * step)
        reverse = float(jnp.sum(jax.grad(loss)(landmarks) * direction))
        forward = float(jax.jvp(loss, (landmarks,), (direction,))[1])
    np.testing.assert_allclose(reverse, wanted, rtol=1e-5)
    np.testing.assert_allclose(forward, reverse, rtol=1e-10)


@both
def test_every_channel_depends_on_exactly_the_landmarks_of_its_boundary(points):
    scheme = get_scheme(points)
    weight = jnp.asarray(np.random.default_rng(6).normal(size=(1, 64, 64, 1)), jnp.float32)
    totals = lambda x: jnp.sum(weight * draw_sketch(x, scheme, 64, SIGMA, 2, "boundary"), axis=(0, 1, 2))  # noqa: E731
    slopes = np.asarray(jax.jit(jax.jacrev(totals))(jnp.asarray(random_landmarks(points, faces=1))))[:, 0]
    for slope, (name, curve) in zip(slopes, scheme.boundaries, strict=True):
        moving = set(np.flatnonzero(np.abs(slope).max(axis=-1) > 0).tolist())
        assert moving == set(curve), name


def test_coincident_points_and_pixels_on_the_line_have_finite_gradients():
    scheme = get_scheme(68)
    together = np.full((1, 68, 2), (5 + 0.5) / 16, np.float32)
    level = np.full((1, 68, 2), (7 + 0.5) / 16, np.float32)
    level[0, :, 0] = np.linspace(0.1, 0.9, 68)
    for channels in ("boundary", "single"):
        loss = lambda x, c=channels: jnp.sum(draw_sketch(x, scheme, 16, 0.05, 2, c) ** 2)  # noqa: E731
        slope_of = jax.jit(jax.value_and_grad(loss))
        for landmarks in (together, level):
            value, slope = slope_of(jnp.asarray(landmarks))
            assert np.isfinite(value)
            assert np.isfinite(slope).all()
    point = draw(together, 16, "single", sigma=0.05)[0, ..., 0]
    distance = np.hypot(*np.meshgrid(np.arange(16) - 5, np.arange(16) - 5)) / 16
    np.testing.assert_allclose(point, np.exp(-(distance**2) / (2 * 0.05**2)), atol=1e-5)


def test_a_pixel_nearest_to_a_shared_end_of_two_pieces_counts_once():
    # All pieces of a boundary meet at a corner there; counting the pixel for each of them would double the slope.
    scheme = get_scheme(68)
    at = lambda x: jnp.full((1, 68, 2), 0.5).at[..., 0].set(x)  # noqa: E731
    loss = jax.jit(lambda x: jnp.sum(draw_sketch(at(x), scheme, 16, 0.2, 1, "boundary")[..., 3]))
    wanted = float(loss(0.531) - loss(0.529)) / 2e-3
    np.testing.assert_allclose(jax.grad(loss)(0.53), wanted, rtol=0.02)


# Memory and refused inputs


def test_no_tensor_of_pixels_times_pieces_is_held_at_the_papers_resolution():
    scheme, size, faces = get_scheme(98), 256, 2
    landmarks = jnp.asarray(random_landmarks(98, faces))
    drawing = draw_sketch.lower(landmarks, scheme, size, SIGMA, 2, "boundary").compile()
    output = faces * size * size * len(scheme.boundaries) * 4
    assert drawing.memory_analysis().temp_size_in_bytes < 1.5 * output  # 182 pieces would be 12 times the output
    training = jax.jit(jax.grad(lambda x: draw_sketch(x, scheme, size, SIGMA, 2, "boundary").sum()))
    assert training.lower(landmarks).compile().memory_analysis().temp_size_in_bytes < 20 * output


def test_wrong_inputs_are_named():
    with pytest.raises(ValueError, match=r"sketch channels='both'.*'boundary' or 'single'"):
        draw(random_landmarks(68), channels="both")
    with pytest.raises(ValueError, match=r"landmarks \(2, 68, 2\).*\(98, 2\)"):
        draw_sketch(random_landmarks(68), get_scheme(98), 32, SIGMA, 2, "single")


def test_float64_is_kept():
    with jax.enable_x64(True):
        assert draw(random_landmarks(68).astype(np.float64)).dtype == np.float64


@pytest.mark.parametrize("far", [1e6, 1e12, 1e18, 1e30, -1e37])
def test_gradient_at_far_landmarks_is_finite(far: float) -> None:
    """Squared distances overflow beyond 1e18; the gradient was 0 · inf."""
    scheme = get_scheme(68)
    landmarks = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, (1, 68, 2)), jnp.float32)
    for moved in (landmarks + far, landmarks.at[0, 3, 0].set(far)):
        image, gradient = jax.value_and_grad(lambda x: draw_sketch(x, scheme, 16, 0.05, 2, "boundary").sum())(moved)
        assert np.isfinite(image)
        assert np.isfinite(gradient).all()
    assert float(draw_sketch(landmarks + far, scheme, 16, 0.05, 2, "boundary").max()) == 0.0
