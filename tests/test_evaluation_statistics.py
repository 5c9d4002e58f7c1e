"""Bootstrap, distances between sets, spread and bits against closed forms and laws."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecvae_jax.evaluation.distribution import (
    compute_features,
    feature_spread,
    feature_spreads,
    frechet_distance,
    kernel_distance,
    load_features,
    pixel_spread,
    pixel_spreads,
)
from ecvae_jax.evaluation.likelihood import LEVEL_WIDTH, bits_per_dimension
from ecvae_jax.evaluation.statistics import score


def test_interval_holds_the_mean_and_shrinks_with_people() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for people in (10, 160):
        names = [str(i // 3) for i in range(3 * people)]
        found = score(rng.normal(5, 1, 3 * people), names)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.mean < found.high
        assert found.count == 3 * people
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


def test_interval_has_the_width_of_the_normal_theory() -> None:
    values = np.random.default_rng(1).normal(0, 1, 400)
    found = score(values, [str(i) for i in range(400)])
    assert found is not None
    assert found.high is not None
    assert found.low is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_people_are_resampled_and_not_their_pairs() -> None:
    """A hundred equal pairs of one person carry the information of one."""
    means = np.array([1.0, 2.0, 4.0, 7.0, 3.0])
    one = score(means, list("abcde"))
    many = score(np.repeat(means, 100), [p for p in "abcde" for _ in range(100)])
    assert one is not None
    assert many is not None
    assert many[:3] == pytest.approx(one[:3])


def test_nan_is_left_out() -> None:
    found = score(np.array([1.0, np.nan, 3.0]), ["a", "a", "b"])
    assert found is not None
    assert (found.mean, found.count) == (2.0, 2)
    assert score(np.array([np.nan]), ["a"]) is None
    alone = score(np.array([1.0, 2.0]), ["a", "a"])
    assert alone == (1.5, None, None, 2)
    with pytest.raises(ValueError, match="2 people for 1 values"):
        score(np.array([1.0]), ["a", "b"])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_frechet_of_gaussians_is_the_closed_form(seed: int, width: int) -> None:
    """For sets whose covariances commute: |Δμ|² + Σ (√λ₁ − √λ₂)²; zero for a set and itself."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(50, width))
    base -= base.mean(axis=0)
    base = np.linalg.qr(base)[0] * np.sqrt(49)  # covariance: the unit matrix
    first_scale, second_scale = rng.uniform(0.1, 3, (2, width))
    shift = rng.normal(size=width)
    turn = np.linalg.qr(rng.normal(size=(width, width)))[0]
    first, second = (base * first_scale) @ turn, (base * second_scale) @ turn + shift
    expected = (shift**2).sum() + ((first_scale - second_scale) ** 2).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-6)


def test_frechet_of_fewer_images_than_features_is_finite() -> None:
    rows = np.random.default_rng(0).normal(size=(10, 40))
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(frechet_distance(rows, rows[:5] + 1))


def test_kernel_distance_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    same = [kernel_distance(rng.normal(size=(20, 4)), rng.normal(size=(30, 4))) for _ in range(400)]
    assert abs(np.mean(same)) < 4 * np.std(same) / 20
    assert min(same) < 0
    far = kernel_distance(rng.normal(size=(50, 4)), rng.normal(size=(50, 4)) + 2)
    assert far > 10 * np.std(same)


def test_kernel_distance_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (0.5 * (a @ b) + 1) ** 3

    expected = np.mean([kernel(x[i], x[j]) for i in range(4) for j in range(4) if i != j])
    expected += np.mean([kernel(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    expected -= 2 * np.mean([kernel(a, b) for a in x for b in y])
    assert kernel_distance(x, y, gamma=0.5) == pytest.approx(expected)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("function", [frechet_distance, kernel_distance])
def test_sets_that_cannot_be_compared_are_refused(function) -> None:
    with pytest.raises(ValueError, match=r"features \[1, 3\] and \[4, 3\]: must be two sets of at least 2 rows"):
        function(np.ones((1, 3)), np.ones((4, 3)))
    with pytest.raises(ValueError, match="one width"):
        function(np.ones((4, 2)), np.ones((4, 3)))


def test_spread_of_samples() -> None:
    rng = np.random.default_rng(0)
    samples = np.clip(rng.normal(128, 10, (3, 40, 8, 8, 3)), 0, 255).astype(np.uint8)
    assert pixel_spread(samples) == pytest.approx(10, rel=0.03)
    assert pixel_spread(np.repeat(samples[:, :1], 5, axis=1)) == 0
    assert pixel_spreads(samples).mean() == pytest.approx(pixel_spread(samples))
    assert pixel_spreads(samples[:2]) == pytest.approx(pixel_spreads(samples)[:2])
    features = np.array([[[0.0, 0], [3, 4], [np.nan, np.nan]], [[np.nan, 0]] * 3])
    assert feature_spread(features) == 5
    assert feature_spread(features[1:]) is None
    np.testing.assert_array_equal(feature_spreads(features), [5, np.nan])


def test_bits_of_uniform_noise_are_eight() -> None:
    values = 3 * 16 * 16
    assert bits_per_dimension(values * math.log(256 * LEVEL_WIDTH), values) == pytest.approx(8)
    assert bits_per_dimension(0.0, values) == pytest.approx(math.log2(127.5))


def test_features_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_network.py").write_text(
        "def means(images): return images.mean(axis=(1, 2))\ndef wrong(images): return images\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    name, function = load_features("my_network:means")
    assert sys.path == before
    images = np.full((4, 8, 8, 3), 7, np.uint8)
    assert compute_features(name, function, images).tolist() == [[7.0] * 3] * 4
    cases = {
        "my_network": "must be MODULE:FUNCTION", "my_network:number": "has no function number",
        "my_network:none": "has no function none", "nothing_there:f": "cannot be imported: ModuleNotFoundError",
    }  # fmt: skip
    for spec, words in cases.items():
        with pytest.raises(ValueError, match=words):
            load_features(spec)
    with pytest.raises(ValueError, match=r"features wrong: must give finite \[4, d\] of 4 images; got \[4, 8, 8, 3\]"):
        compute_features(*load_features("my_network:wrong"), images)
