"""The warp baseline: identity for equal landmarks, scikit-image's map, and moved landmarks."""

from __future__ import annotations

import numpy as np
from skimage.transform import PiecewiseAffineTransform, warp

from ecvae_jax.data.faces import load_faces
from ecvae_jax.evaluation.baselines import border_anchors, warp_to_landmarks
from ecvae_jax.evaluation.metrics import psnr


def test_equal_landmarks_change_nothing() -> None:
    faces = load_faces("rendered", "test")
    images = faces.images([0, 5], 64)
    assert np.array_equal(warp_to_landmarks(images, faces.landmarks[[0, 5]], faces.landmarks[[0, 5]]), images)


def test_it_is_the_piecewise_affine_transform_of_scikit_image() -> None:
    faces = load_faces("rendered", "test")
    image, source, target = faces.image(0, 48), faces.landmarks[0], faces.landmarks[3]
    ends = [np.concatenate([points, border_anchors()]) * 48 - 0.5 for points in (target, source)]
    if hasattr(PiecewiseAffineTransform, "from_estimate"):
        transform = PiecewiseAffineTransform.from_estimate(*ends)
    else:  # scikit-image before 0.26
        transform = PiecewiseAffineTransform()
        assert transform.estimate(*ends)
    expected = warp(image.astype(float), transform, order=1, mode="edge", preserve_range=True)
    got = warp_to_landmarks(image[None], source[None], target[None])[0]
    inside = np.abs(expected - got)[1:-1, 1:-1]  # scikit-image may place border pixels outside all triangles
    assert inside.max() <= 0.51


def test_a_spot_moves_with_its_landmark() -> None:
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[0, 30:34, 20:24] = 255
    landmarks = np.array([[[22 / 64, 32 / 64], [0.8, 0.3], [0.7, 0.8]]])
    moved = landmarks.copy()
    moved[0, 0] = (40 / 64, 26 / 64)
    drawn = warp_to_landmarks(image, landmarks, moved)[0, ..., 0].astype(float)
    rows, columns = np.mgrid[:64, :64] + 0.5
    brightest = drawn > 0.7 * drawn.max()
    np.testing.assert_allclose((columns[brightest].mean(), rows[brightest].mean()), (40, 26), atol=1.5)


def test_coincident_and_outside_points_work() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    landmarks = np.array([[[0.5, 0.5], [0.5, 0.5], [1.2, -0.1], [0.0, 0.0], [0.3, 0.6]]])
    drawn = warp_to_landmarks(image, landmarks, landmarks[:, ::-1].copy())
    assert drawn.shape == image.shape
    assert np.array_equal(warp_to_landmarks(image, landmarks, landmarks), image)


def test_a_turned_head_is_nearer_to_its_true_image_than_the_source() -> None:
    faces = load_faces("rendered", "test")
    source, target = faces.images([0] * 6, 64), faces.images(range(1, 7), 64)
    drawn = warp_to_landmarks(source, faces.landmarks[[0] * 6], faces.landmarks[1:7])
    assert psnr(drawn, target).mean() > psnr(source, target).mean()
