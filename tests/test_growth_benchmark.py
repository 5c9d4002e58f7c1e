"""The benchmark of growing work: its exponents, its plot, and what each axis changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.growth import Curve, changed, input_curves, plot
from ecvae_jax.config import Config


def test_the_exponent_of_a_power_law_is_its_power() -> None:
    sizes = [2, 4, 8, 32]
    square = Curve("files", "seconds", sizes, [3.0 * size**2 for size in sizes])
    assert square.exponents == pytest.approx((2.0, 2.0))
    fixed = Curve("files", "seconds", sizes, [100.0 + size for size in sizes])
    assert 0.0 < fixed.exponents[0] < fixed.exponents[1] < 0.5


@pytest.mark.parametrize("axis", ["batch", "clusters", "z_dim", "resolution"])
def test_each_axis_changes_its_setting_alone(axis: str) -> None:
    config, wanted = Config(), {"batch": 4, "clusters": 7, "z_dim": 128, "resolution": 128}
    other = changed(config, axis, wanted[axis])
    found = {
        "batch": other.train.batch_size,
        "clusters": other.clusters.count,
        "z_dim": other.model.z_dim,
        "resolution": other.model.image_size,
    }
    usual = {
        "batch": config.train.batch_size,
        "clusters": config.clusters.count,
        "z_dim": config.model.z_dim,
        "resolution": config.model.image_size,
    }
    assert found == {**usual, axis: wanted[axis]}


@pytest.mark.slow
def test_input_is_measured_over_the_number_of_faces() -> None:
    opening, batch = input_curves([1], rounds=1)
    assert opening.sizes == batch.sizes == [4800]
    assert min(opening.values[0], batch.values[0]) > 0


def test_the_plot_has_a_panel_for_each_axis(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    curves = [Curve(axis, "seconds", [1, 2, 4], [1.0, 2.0, 4.0]) for axis in ("files", "faces", "batch", "z_dim")]
    heights = []
    for shown in (curves[:3], curves):
        plot(shown, tmp_path / "growth.png")
        with Image.open(tmp_path / "growth.png") as picture:
            heights.append(picture.height)
    assert heights[1] == 2 * heights[0]
