"""Reading photos: any file gives upright RGB or a one-line reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms

from ecvae_jax.data.photos.photo import BadPhotoError, read_photo

RED_LEFT = np.zeros((20, 30, 3), np.uint8)
RED_LEFT[:, :15, 0] = 255


def test_exif_rotation_is_applied(tmp_path: Path):
    image = Image.fromarray(RED_LEFT)
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90° clockwise to see it upright: what was left is on top
    image.save(tmp_path / "a.png", exif=exif)
    photo, notes = read_photo(tmp_path / "a.png")
    assert photo.shape == (30, 20, 3)
    assert (photo[:15, :, 0] == 255).all()
    assert (photo[15:, :, 0] == 0).all()
    assert notes == ["rotated upright (EXIF)"]


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGB", "YCbCr", "RGBA", "LA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str):
    if mode == "YCbCr" and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow 12 cannot read an uncompressed YCbCr TIFF, not even its own; the extra `beam` asks for it")
    white = Image.new("RGB", (16, 12), "white")
    image = white.convert("L").convert("LA") if mode == "LA" else white.convert(mode)
    file = tmp_path / ("a.png" if mode in ("L", "1", "P", "RGB", "RGBA", "LA") else "a.tif")
    image.save(file)
    photo, _ = read_photo(file)
    assert photo.shape == (12, 16, 3)
    assert photo.dtype == np.uint8
    assert photo.min() >= 250


def test_sixteen_bits_are_scaled_by_their_range_even_in_a_dark_photo(tmp_path: Path):
    for value, expected in ((65535, 255), (32768, 128), (200, 1)):
        Image.fromarray(np.full((8, 8), value, np.uint16)).save(tmp_path / "a.png")
        photo, notes = read_photo(tmp_path / "a.png")
        assert photo.shape == (8, 8, 3)
        assert (photo == expected).all(), value
        assert "8 bits" in notes[0]


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_profile_for_another_mode_is_ignored(tmp_path: Path, mode: str):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ" if mode == "CMYK" else "LAB")).tobytes()
    image = Image.new(mode, (8, 8), (200, 40, 40) if mode == "RGB" else (0, 200, 200, 10))
    image.save(tmp_path / "a.tif", icc_profile=profile)
    photo, notes = read_photo(tmp_path / "a.tif")  # a profile for another mode
    assert "unreadable color profile ignored" in notes
    assert photo[0, 0, 0] > 150


def test_an_srgb_profile_changes_nothing(tmp_path: Path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(RED_LEFT).save(tmp_path / "a.png", icc_profile=profile)
    photo, notes = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo, RED_LEFT)
    assert notes == []


def swapped_profile() -> bytes:
    """Returns sRGB with red and blue primaries exchanged and another name, so applying it is visible."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    tags = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    data[red + 4 : red + 12], data[blue + 4 : blue + 12] = data[blue + 4 : blue + 12], data[red + 4 : red + 12]
    return bytes(data).replace("sRGB".encode("utf-16-be"), "Swap".encode("utf-16-be")).replace(b"sRGB", b"Swap")


def test_a_profile_is_applied(tmp_path: Path):
    Image.fromarray(RED_LEFT).save(tmp_path / "a.png", icc_profile=swapped_profile())
    photo, notes = read_photo(tmp_path / "a.png")
    assert notes[0].startswith("colors converted from ")
    assert photo[0, 0, 2] > 240
    assert photo[0, 0, 0] < 15


def test_transparency_is_composited_on_white(tmp_path: Path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.png")
    photo, notes = read_photo(tmp_path / "a.png")
    assert (photo == 255).all()
    assert notes == ["transparency composited on white"]


def test_the_first_frame_of_an_animation_is_used(tmp_path: Path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    photo, notes = read_photo(tmp_path / "a.gif")
    assert (photo[..., 0] > 200).all()
    assert "3 frames" in notes[0]


def test_a_wrong_suffix_does_not_matter(tmp_path: Path):
    Image.fromarray(RED_LEFT).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_photo(tmp_path / "a.jpg")[0], RED_LEFT)


def bad_files(folder: Path) -> dict[str, str]:
    """Writes bad photos and returns the start of each one's expected reason."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "whole.jpg")
    Image.fromarray(noise).save(folder / "whole.png")
    for name in ("whole.jpg", "whole.png"):
        data = (folder / name).read_bytes()
        (folder / name.replace("whole", "truncated")).write_bytes(data[: len(data) // 2])
        (folder / name).unlink()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no image at all")
    Image.new("1", (4000, 3000)).save(folder / "bomb.png")
    Image.new("1", (20000, 20000)).save(folder / "bigger_bomb.png")  # 400 megapixels: Pillow itself refuses
    return {
        "truncated.jpg": "damaged",
        "truncated.png": "damaged",
        "empty.jpg": "empty file",
        "text.jpg": "not an image",
        "bomb.png": "too large",
        "bigger_bomb.png": "too large",
    }


def test_a_bad_file_gets_one_line(tmp_path: Path):
    for name, beginning in bad_files(tmp_path).items():
        with pytest.raises(BadPhotoError) as caught:
            read_photo(tmp_path / name, max_megapixels=5)
        assert str(caught.value).startswith(beginning), name
        assert "\n" not in str(caught.value)


@pytest.mark.slow  # 600 MB of pixels: Pillow's limit is the subject
def test_a_larger_photo_is_read_if_allowed(tmp_path: Path):
    """Pillow's own limit, 179 megapixels, must not apply before the user's."""
    Image.new("1", (20000, 10000)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png", max_megapixels=300)[0].shape == (10000, 20000, 3)
    with pytest.raises(BadPhotoError, match=r"200 megapixels, at most 150 \(max_megapixels\)"):
        read_photo(tmp_path / "a.png", max_megapixels=150)


def test_a_missing_file_gets_one_line(tmp_path: Path):
    with pytest.raises(BadPhotoError, match=r"damaged: .*No such file"):
        read_photo(tmp_path / "gone.jpg")
