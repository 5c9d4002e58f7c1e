"""Sharpness and detail are 1 for the true image, fall with blur, and scale with contrast."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ecvae_jax.data.faces import load_faces
from ecvae_jax.evaluation.metrics import detail_ratio, gradient_ratio


@pytest.mark.parametrize("ratio", [gradient_ratio, detail_ratio])
def test_blur_lowers_it(ratio) -> None:
    true = load_faces("rendered", "test").images([0, 30], 64)
    assert ratio(true, true) == pytest.approx([1, 1])
    levels = [ratio(gaussian_filter(true, (0, width, width, 0)), true) for width in (0.5, 1.0, 2.0)]
    assert (np.diff(levels, axis=0) < -0.05).all()
    assert (levels[0] < 1).all()
    darker = (true // 2).astype(np.uint8)
    assert ratio(darker, true) == pytest.approx([0.5, 0.5], abs=0.04)
    flat = np.full((1, 64, 64, 3), 90, np.uint8)
    assert ratio(flat, true[:1]) == 0
    assert np.isnan(ratio(true[:1], flat))


def test_the_gradient_of_a_ramp_is_its_slope() -> None:
    ramp = np.broadcast_to(np.arange(0, 192, 3)[None, None, :, None], (1, 64, 64, 3)).astype(np.uint8)
    assert gradient_ratio(ramp, (ramp // 3).astype(np.uint8)) == pytest.approx(3.0)


def test_fine_detail_is_what_edges_alone_do_not_have() -> None:
    rng = np.random.default_rng(0)
    smooth = np.broadcast_to(np.linspace(0, 250, 64)[None, None, :, None], (1, 64, 64, 3)).astype(np.uint8)
    grainy = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    assert detail_ratio(grainy, smooth) > 5
