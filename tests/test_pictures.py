"""Pictures: pixels, tiles, and files written whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecvae_jax.images import enlarge, save_png, sketch_image, tile, to_uint8


def test_to_uint8_covers_the_range_and_clips() -> None:
    images = np.array([[[[-1.0, 0.0, 1.0]]], [[[-9.0, 0.004, 9.0]]]])
    assert to_uint8(images).tolist() == [[[[0, 128, 255]]], [[[0, 128, 255]]]]


def test_8_bit_pixels_survive_the_way_there_and_back() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert np.array_equal(to_uint8(pixels.astype(np.float32) / 127.5 - 1.0), pixels)


def test_sketch_is_dark_where_any_line_is() -> None:
    sketch = np.zeros((1, 2, 2, 3))
    sketch[0, 0, 1, 2] = 1.0
    assert sketch_image(sketch)[0, :, :, 0].tolist() == [[255, 0], [255, 255]]


def test_tile_places_images_and_leaves_none_white() -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    picture = tile([[None, image], [image, image]])
    assert picture.shape == (2 * 6 + 2, 2 * 7 + 2, 3)
    assert (picture[2:6, 2:7] == 255).all()
    assert (picture[2:6, 9:14] == 0).all()


def test_tile_refuses_mixed_sizes() -> None:
    with pytest.raises(ValueError, match="one size"):
        tile([[np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)]])


def test_enlarge_repeats_pixels() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert enlarge(image, 3).shape == (6, 6, 3)
    assert np.array_equal(enlarge(image, 3)[::3, ::3], image)
    assert np.array_equal(enlarge(image, 3)[2::3, 1::3], image)


def test_saved_picture_reads_back(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (6, 7, 3)).astype(np.uint8)
    save_png(image, tmp_path / "deep" / "grid.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "deep" / "grid.png")), image)


def test_failed_save_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "grid.png"
    path.write_bytes(b"old")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        save_png(np.zeros((2, 2, 3), np.uint8), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_png_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.png"):
        save_png(np.zeros((2, 2, 3), np.uint8), tmp_path / "grid.jpg")
