"""Metrics against their definitions, the protocol, and the report."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.cli.options.evaluate import EvaluateOptions
from ecvae_jax.config import Config
from ecvae_jax.data.faces import Faces, load_faces
from ecvae_jax.evaluation.baselines import warp_to_landmarks
from ecvae_jax.evaluation.likelihood import elbo_bits
from ecvae_jax.evaluation.metrics import METRICS, gradient_ratio, psnr, ssim
from ecvae_jax.evaluation.pairs import same_group_pairs
from ecvae_jax.evaluation.protocol import PLAIN, evaluate, evaluate_checkpoint
from ecvae_jax.evaluation.report import _caption
from ecvae_jax.evaluation.scoring import SAMPLES, Measures, load_measures
from ecvae_jax.files import UnsafePathError
from ecvae_jax.model.model import Model
from ecvae_jax.synthesis.batches import reconstruct, sample, transfer_plain


@pytest.fixture(scope="module")
def model(tiny_workdir: Path) -> Model:
    return load_model(tiny_workdir)


@pytest.fixture(scope="module")
def faces(tiny_config: Config) -> Faces:
    return load_faces(tiny_config.data.records, "test")


def test_psnr_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    predicted = rng.integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    error = ((true.astype(float) - predicted) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(psnr(predicted, true), 10 * np.log10(255**2 / error), rtol=1e-6)


def test_ssim_is_one_for_the_same_image_and_falls_with_noise() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 256, (2, 24, 24, 3)).astype(np.uint8)
    noisy = np.clip(true + rng.normal(0, 40, true.shape), 0, 255).astype(np.uint8)
    assert ssim(true, true) == pytest.approx([1.0, 1.0])
    assert (ssim(noisy, true) < 0.95).all()


def test_pairs_join_different_views_of_one_group() -> None:
    groups = ["a", "b", "a", "c", "b", "a"]
    pairs = same_group_pairs(groups, limit=100, seed=0)
    assert sorted(target for _, target in pairs) == [0, 1, 2, 4, 5]  # every view with a partner is a target once
    for source, target in pairs:
        assert source != target
        assert groups[source] == groups[target]
    assert np.array_equal(pairs, same_group_pairs(groups, limit=100, seed=0))
    assert len(same_group_pairs(groups, limit=2, seed=0)) == 2


def test_without_pairs_only_reconstruction_is_scored(model: Model, faces: Faces) -> None:
    assert same_group_pairs(["a", "b"], limit=10, seed=0).shape == (0, 2)
    faces = copy.copy(faces)
    faces.groups = [str(i) for i in range(len(faces))]
    report = evaluate(model, faces, limit=5, measures=Measures())
    assert list(report.scores) == ["reconstruction"]
    assert report.scores["reconstruction"]["psnr"].count == 5
    with pytest.raises(ValueError, match="limit=0: must be at least 1"):
        evaluate(model, faces, limit=0)


def test_each_score_compares_its_method_with_the_target(model: Model, faces: Faces) -> None:
    report = evaluate(model, faces, limit=12, seed=3, adapt=PLAIN, measures=Measures())
    pairs = same_group_pairs(faces.groups, 12, 3)
    source, target = (faces.images(pairs[:, side], 32) for side in (0, 1))
    points = faces.landmarks
    expected = {
        "reconstruction": reconstruct(model, target, points[pairs[:, 1]]),
        "model": transfer_plain(model, source, points[pairs[:, 0]], points[pairs[:, 1]]),
        "copy": source,
        "warp": warp_to_landmarks(source, points[pairs[:, 0]], points[pairs[:, 1]]),
    }
    for method, images in expected.items():
        assert report.scores[method]["psnr"].mean == pytest.approx(psnr(images, target).mean())
        assert report.scores[method]["ssim"].mean == pytest.approx(ssim(images, target).mean())
    assert report.scores["model"]["psnr"].mean != report.scores["reconstruction"]["psnr"].mean


def test_report_of_a_trained_checkpoint(tiny_config: Config, tiny_workdir: Path, tmp_path: Path) -> None:
    report = evaluate_checkpoint(
        tiny_workdir, tiny_config.data.records, "test", limit=20, metrics="pixels", adapt=PLAIN
    )
    assert list(report.scores) == ["reconstruction", "model", "copy", "warp"]
    for metrics in report.scores.values():
        assert set(metrics) == {"psnr", "ssim", "sharpness", "detail"}
        assert all(score.count == 20 and score.low < score.mean < score.high for score in metrics.values())
    lines = report.to_lines()
    assert [line.split()[0] for line in lines[:4]] == ["reconstruction", "transfer", "copy", "warp"]
    assert all("(n = 20)" in line for line in lines[:4])
    report.save(tmp_path / "report.json")
    stored = json.loads((tmp_path / "report.json").read_text())
    score = report.scores["copy"]["psnr"]
    assert stored["copy"]["psnr"] == score.mean
    assert stored["copy"]["psnr_ci"] == [score.low, score.high]
    assert stored["protocol"]["people"] == 2
    assert stored["protocol"]["checkpoint"] == tiny_workdir.name
    assert stored["differences"]["model - warp"]["ssim"] == pytest.approx(
        stored["model"]["ssim"] - stored["warp"]["ssim"]
    )


def test_every_output_reads_the_table_of_metrics(model: Model, faces: Faces) -> None:
    report = evaluate(model, faces, limit=12, adapt=PLAIN, measures=Measures())
    shown = [metric for metric in METRICS if metric.shown and not metric.needs]
    assert [metric.key for metric in shown] == ["psnr", "ssim", "sharpness", "detail"]
    copied = report.scores["copy"]["sharpness"]
    ratio = gradient_ratio(report.pairs.source, report.pairs.target)
    np.testing.assert_array_equal(report.methods["copy"].values["sharpness"], ratio)
    line = next(line for line in report.to_lines() if line.startswith("copy"))
    assert f"sharpness {100 * copied.mean:.1f} ({100 * copied.low:.1f} to {100 * copied.high:.1f}) %" in line
    table = report.to_markdown().splitlines()
    assert table[0] == f"|  | {' | '.join(metric.heading for metric in shown)} |"
    stored = report.to_dict()
    assert stored["copy"]["sharpness"] == copied.mean
    assert stored["copy"]["verified"] is None
    assert set(stored["copy"]) >= {key for m in METRICS if m.over == "pairs" for key in (m.key, f"{m.key}_ci")}
    assert stored["by_view"]["0-7.5"]["warp"]["detail"] > 0
    assert _caption(report, "copy")[2] == f"sharpness {100 * copied.mean:.1f} %"


def test_samples_are_returned_structure_by_structure(model: Model, faces: Faces) -> None:
    report = evaluate(model, faces, limit=12, adapt=PLAIN, measures=Measures())
    samples, pairs = report.samples, report.pairs
    assert samples.numbers == report.sections["samples"]
    assert samples.people == pairs.people
    assert {key: len(values) for key, values in samples.values.items()} == {"sample_spread": 12, "sample_sharpness": 12}
    drawn = sample(model, jax.random.key(0), pairs.target_landmarks[3:4], SAMPLES)
    assert drawn.shape[1] == samples.numbers["samples_each"] == SAMPLES
    for key, number in (("sample_spread", "pixel_spread"), ("sample_sharpness", "sharpness")):
        assert samples.values[key].mean() == pytest.approx(samples.numbers[number], rel=1e-5)


def test_the_defaults_are_those_of_the_command() -> None:
    command = {field.name: field for field in dataclasses.fields(EvaluateOptions)}
    for function in (evaluate, evaluate_checkpoint):
        parameters = inspect.signature(function).parameters.values()
        common = [each for each in parameters if each.name in command]
        assert len(common) >= 7
        for each in common:
            field = command[each.name]
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            assert each.default == default, (function.__name__, each.name)
    assert inspect.signature(load_measures).parameters["metrics"].default == command["metrics"].default


def test_equal_images_and_a_single_pair_give_finite_json(model: Model, faces: Faces, tmp_path: Path) -> None:
    image = np.zeros((1, 32, 32, 3), np.uint8)
    almost = image.copy()
    almost[0, 3, 4, 1] = 1
    assert np.isfinite(psnr(image, image)).all()
    assert psnr(image, image) == pytest.approx(psnr(almost, image))
    report = evaluate(model, faces, limit=1, adapt=PLAIN, measures=Measures())
    assert report.scores["copy"]["psnr"].low is None
    assert "(?)" in report.to_lines()[0]
    report.save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["copy"]["psnr_ci"] is None


def test_a_failed_write_leaves_no_partial_report(model: Model, faces: Faces, tmp_path: Path) -> None:
    report = evaluate(model, faces, limit=1, adapt=PLAIN, measures=Measures())
    (tmp_path / "report.json").mkdir()
    with pytest.raises(UnsafePathError, match=r"report\.json is a folder"):
        report.save(tmp_path / "report.json")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_bits_per_dimension_are_those_of_the_elbo(model: Model, faces: Faces) -> None:
    images, landmarks = faces.images(range(40), 32), faces.landmarks[:40]
    found = elbo_bits(model, images, landmarks)
    assert found["images"] == 32  # whole batches
    assert found["kl"] > 0
    nats = (found["recon_nll"] + found["kl"]) / (32 * 32 * 3)
    assert found["bits_per_dimension"] == pytest.approx((nats - np.log(2 / 255)) / np.log(2))
    assert 1 < found["bits_per_dimension"] < 9  # a model of ten steps; noise needs 8
    assert found == elbo_bits(model, images, landmarks)
    assert elbo_bits(model, images[:3], landmarks[:3])["images"] == 3
    noise = np.random.default_rng(0).integers(0, 256, images.shape).astype(np.uint8)
    assert elbo_bits(model, noise, landmarks)["bits_per_dimension"] > found["bits_per_dimension"]


def test_features_of_the_user_are_reported_under_their_name(model: Model, faces: Faces) -> None:
    measures = Measures(features=("means", lambda images: images.mean(axis=(1, 2))))
    report = evaluate(model, faces, limit=12, adapt=PLAIN, measures=measures)
    numbers = report.methods["copy"].numbers
    assert set(numbers) == {"distance_means", "frechet_means", "kernel_means"}
    apart = report.pairs.source.mean(axis=(1, 2)) - report.pairs.target.mean(axis=(1, 2))
    assert numbers["distance_means"] == pytest.approx(np.linalg.norm(apart, axis=1).mean())
    assert report.sections["samples"]["frechet_means"] >= 0
    assert report.facts["features"] == "means"
