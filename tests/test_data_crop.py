"""The crop rule: position of the square, its inverse, its edges, its resizing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecvae_jax.data.photos.crop import (
    CropBox,
    crop_box,
    cut_crop,
    outside_fraction,
    paste_crop,
    to_crop_units,
)


def test_square_is_centered_on_the_bounding_box_and_margin_times_its_longer_side():
    landmarks = np.array([[10.0, 20.0], [30.0, 60.0], [12.0, 21.0]], np.float32)
    assert crop_box(landmarks, 1.5) == CropBox(x0=20 - 30, y0=40 - 30, side=60)


@given(st.floats(-500, 500), st.floats(-500, 500), st.floats(5, 800))
def test_crop_units_and_pixels_are_inverse(x0: float, y0: float, side: float):
    landmarks = np.random.default_rng(0).uniform(-100, 300, (68, 2)).astype(np.float32)
    box = CropBox(x0, y0, side)
    pixels = to_crop_units(landmarks, box) * box.side + [box.x0, box.y0]
    np.testing.assert_allclose(pixels, landmarks, atol=2e-3)


def test_landmarks_are_centered_in_their_crop():
    landmarks = np.random.default_rng(1).uniform(50, 90, (68, 2)).astype(np.float32)
    units = to_crop_units(landmarks, crop_box(landmarks, 2.0))
    low, high = units.min(axis=0), units.max(axis=0)
    np.testing.assert_allclose((low + high) / 2, 0.5, atol=1e-5)
    np.testing.assert_allclose((high - low).max(), 0.5, atol=1e-5)


def test_whole_pixels_are_copied_and_reduced_by_their_mean():
    photo = np.random.default_rng(2).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(cut_crop(photo, CropBox(10, 5, 20), 20), photo[5:25, 10:30])
    means = photo[5:25, 10:30].reshape(10, 2, 10, 2, 3).mean(axis=(1, 3))
    # Pillow rounds twice, once per direction
    np.testing.assert_allclose(cut_crop(photo, CropBox(10, 5, 20), 10), means, atol=1.01)


def test_beyond_the_edge_the_photo_is_reflected():
    photo = np.random.default_rng(3).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    got = cut_crop(photo, CropBox(-4, 0, 8), 8)
    np.testing.assert_array_equal(got[:, 4:], photo[:, :4])
    np.testing.assert_array_equal(got[:, :4], photo[:, 4:0:-1])


@pytest.mark.parametrize(
    "box",
    [
        CropBox(-3, -5, 24),
        CropBox(10, 12, 14),
        CropBox(-2, 4, 12),
        CropBox(-30, 3, 40),
        CropBox(-25, -40, 90),
        CropBox(40, 30, 8),
    ],
)
def test_the_reflection_is_exact_however_far_the_square_reaches(box: CropBox):
    photo = np.random.default_rng(4).integers(0, 256, (20, 22, 3), dtype=np.uint8)
    x0, y0, side = map(int, box)
    rows, columns = (
        np.pad(np.arange(length), 100, "reflect")[100 + start : 100 + start + side]
        for length, start in ((20, y0), (22, x0))
    )
    np.testing.assert_array_equal(cut_crop(photo, box, side), photo[np.ix_(rows, columns)])


def test_a_marked_point_of_the_photo_is_at_its_landmark():
    photo = np.zeros((200, 300, 3), np.uint8)
    photo[88:92, 138:142] = 255  # its middle is (140, 90)
    box = CropBox(101.3, 60.7, 75.5)
    crop = cut_crop(photo, box, 128).astype(float)[..., 0]
    rows, columns = np.mgrid[0:128, 0:128] + 0.5
    middle = np.array([(crop * columns).sum(), (crop * rows).sum()]) / crop.sum() / 128
    np.testing.assert_allclose(middle, to_crop_units(np.array([[140.0, 90.0]]), box)[0], atol=0.3 / 128)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 2)])
def test_tiny_photos_can_be_cropped(shape: tuple[int, int]):
    photo = np.full((*shape, 3), 7, np.uint8)
    assert (cut_crop(photo, CropBox(-5, -5, 40), 16) == 7).all()


def test_outside_fraction_is_the_area_beyond_the_photo():
    assert outside_fraction(CropBox(0, 0, 10), 10, 10) == 0
    assert outside_fraction(CropBox(-5, 0, 10), 10, 10) == pytest.approx(0.5)
    assert outside_fraction(CropBox(-5, -5, 10), 10, 10) == pytest.approx(0.75)
    assert outside_fraction(CropBox(100, 0, 10), 10, 10) == 1


@pytest.mark.parametrize(("x0", "y0", "side"), [(20.3, 31.7, 40.0), (-10.0, 60.5, 55.5), (70.0, -20.0, 90.0)])
def test_a_crop_pasted_into_its_photo_changes_nothing(x0: float, y0: float, side: float):
    rows, columns = np.mgrid[0:120, 0:150]
    photo = np.stack([rows + columns, 2 * rows, 250 - columns], axis=-1).clip(0, 255).astype(np.uint8)
    box = CropBox(x0, y0, side)
    again = paste_crop(photo, cut_crop(photo, box, 128), box)
    assert np.abs(again.astype(int) - photo).max() <= 3


def test_a_pasted_image_stays_in_its_square_and_fades_at_the_edge():
    photo, crop = np.zeros((60, 80, 3), np.uint8), np.full((32, 32, 3), 200, np.uint8)
    hard = paste_crop(photo, crop, CropBox(10, 20, 30), feather=0.0)
    assert (hard[20:50, 10:40] == 200).all()
    assert hard.sum() == 200 * 3 * 30 * 30
    soft = paste_crop(photo, crop, CropBox(10, 20, 30), feather=0.2)
    assert soft[35, 25, 0] == 200
    assert 0 < soft[21, 25, 0] < 80
    assert (paste_crop(photo, crop, CropBox(200, 200, 30)) == 0).all()
