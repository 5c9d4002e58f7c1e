"""The density of the training faces' appearances: the fit, its samples, and its storage."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ecvae_jax.checkpoints.format import DENSITY_FILE
from ecvae_jax.checkpoints.integrity import CheckpointError
from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.cli.main import main
from ecvae_jax.config import Config
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import Faces, load_faces
from ecvae_jax.evaluation.protocol import PLAIN, evaluate
from ecvae_jax.evaluation.scoring import Measures
from ecvae_jax.export.small import export_model
from ecvae_jax.gaussian import LowRankGaussian
from ecvae_jax.model.conditioning import make_condition
from ecvae_jax.model.model import Model
from ecvae_jax.synthesis import density as density_module
from ecvae_jax.synthesis.batches import decode, encode, sample
from ecvae_jax.synthesis.density import density_of, fit_density


@pytest.fixture(scope="module")
def model(tiny_workdir: Path) -> Model:
    return load_model(tiny_workdir)


@pytest.fixture(scope="module")
def faces(tiny_config: Config) -> Faces:
    return load_faces(tiny_config.data.records, "train")


@pytest.fixture(scope="module")
def fitted(model: Model, faces: Faces) -> LowRankGaussian:
    return fit_density(model, faces, 8)[0]


@pytest.fixture(scope="module")
def exported(tiny_workdir: Path, fitted: LowRankGaussian, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "small"
    export_model(tiny_workdir, out, density=fitted)
    return out


def in_units_of_the_prior(model: Model, faces: Faces) -> np.ndarray:
    posterior = encode(model, faces.images(range(len(faces)), 32), faces.landmarks)
    reference = make_condition(model.architecture, model.params, model.frozen, jnp.asarray(faces.landmarks)).reference
    return np.asarray((posterior.mean - reference.mean) / reference.stddev, np.float64)


def test_draws_have_the_mean_and_covariance_of_the_density() -> None:
    density = LowRankGaussian(jnp.array([1.0, -2.0, 0.5]), jnp.array([[2.0, 0.0, 1.0], [0.0, 0.5, 0.0]]))
    keys = jax.random.split(jax.random.key(0), 20_000)
    for temperature in (1.0, 0.5):
        drawn = np.asarray(jax.vmap(lambda key, t=temperature: density.sample(key, t))(keys))
        np.testing.assert_allclose(drawn.mean(axis=0), density.mean, atol=0.06)
        expected = temperature**2 * np.asarray(density.axes.T @ density.axes)
        np.testing.assert_allclose(np.cov(drawn.T), expected, atol=0.12)


def test_the_directions_are_the_principal_ones_of_the_posterior_means(model: Model, faces: Faces) -> None:
    rows = in_units_of_the_prior(model, faces)
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    density, share = fit_density(model, faces, 8)
    np.testing.assert_allclose(density.mean, rows.mean(axis=0), atol=1e-4)
    best = vectors[:, -8:] * values[-8:] @ vectors[:, -8:].T
    np.testing.assert_allclose(density.axes.T @ density.axes, best, atol=2e-3 * values[-1])
    lengths = np.linalg.norm(density.axes, axis=1)
    np.testing.assert_allclose(lengths**2, values[:-9:-1], rtol=1e-3)
    assert share == pytest.approx(values[-8:].sum() / values.sum(), abs=1e-3)
    whole, everything = fit_density(model, faces, 1000)
    assert len(whole.axes) == 31  # of 32 dimensions; Lanczos gives one less
    assert share < everything <= 1.0 + 1e-6
    assert np.array_equal(density.axes, fit_density(model, faces, 8)[0].axes)


def test_many_faces_are_subsampled_evenly(model: Model, faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_module, "MAX_FACES", 20)
    rows = in_units_of_the_prior(model, faces)[np.linspace(0, 95, 20).round().astype(int)]
    np.testing.assert_allclose(fit_density(model, faces, 4)[0].mean, rows.mean(axis=0), atol=1e-4)


def test_temperature_0_draws_the_mean_of_the_density_or_prior(
    model: Model, faces: Faces, fitted: LowRankGaussian
) -> None:
    landmarks = faces.landmarks[[0, 40]]
    prior = make_condition(model.architecture, model.params, model.frozen, jnp.asarray(landmarks)).reference
    for density, z in ((fitted, prior.mean + prior.stddev * fitted.mean[None]), (None, prior.mean)):
        drawn = sample(model, jax.random.key(0), landmarks, 2, density, temperature=0.0)
        expected = decode(model, z, landmarks)
        assert np.abs(drawn.astype(int) - expected[:, None]).max() <= 1
        draws = [sample(model, jax.random.key(0), landmarks, 8, density, temperature) for temperature in (1.0, 0.3)]
        wide, narrow = (images.std(axis=1).mean() for images in draws)
        assert 0 < narrow < 0.6 * wide
    with pytest.raises(ValueError, match=r"temperature=-0\.1: must be 0 or more"):
        sample(model, jax.random.key(0), landmarks, 2, temperature=-0.1)


def test_an_export_keeps_the_density_in_half_precision(
    model: Model, fitted: LowRankGaussian, exported: Path, tmp_path: Path
) -> None:
    assert model.density is None
    stored = load_model(exported).density
    assert stored is not None
    for ours, theirs in zip(stored, fitted, strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    export_model(exported, tmp_path / "again")
    again = load_model(tmp_path / "again").density
    assert again is not None
    assert np.array_equal(again.axes, stored.axes)


def test_a_damaged_density_raises(exported: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(exported, tmp_path / "copy")
    (file,) = copy.rglob(DENSITY_FILE)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"10 cannot be read: density\.npz is damaged"):
        load_model(copy)
    np.savez(file, mean=np.zeros(7), axes=np.zeros((2, 7)))
    with pytest.raises(CheckpointError, match=r"shapes \(7,\) and \(2, 7\), expected \(32,\) and \(at most 32, 32\)"):
        load_model(copy)
    # A bomb: megabytes of zeros that unpack to gigabytes are refused by their header.
    np.savez_compressed(file, mean=np.zeros(32, np.float16), axes=np.zeros((10**6, 32), np.float16))
    with pytest.raises(CheckpointError, match=r"and \(1000000, 32\), expected"):
        load_model(copy)
    np.savez(file, mean=np.array([{}] * 32), axes=np.zeros((2, 32)))
    with pytest.raises(CheckpointError, match=r"density\.npz is damaged"):
        load_model(copy)


def test_too_few_faces_and_missing_records_raise(model: Model, faces: Faces) -> None:
    missing = dataclasses.replace(model, config=Config())
    with pytest.raises(DataError, match=r"faces that the model was trained on: .*no such folder.*with --data"):
        density_of(missing, "nowhere")
    with pytest.raises(ValueError, match="rank=0: must be at least 1"):
        fit_density(model, faces, 0)
    few = load_faces(faces.records, "train")
    few.names = few.names[:2]
    with pytest.raises(DataError, match="a density of 2 faces; at least 3 needed"):
        fit_density(model, few)


def test_the_commands_fit_store_and_draw(
    tiny_workdir: Path, tiny_records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = ["--structure", f"{tiny_records}:test:0,9", "--n", "3", "--from", "posterior", "--temperature", "0.7"]
    assert main(["sample", "--checkpoint", str(tiny_workdir), *shown, "--out", str(tmp_path / "own.png")]) == 0
    messages = capsys.readouterr().err
    assert f"a density of 96 faces of {tiny_records} (rank 31, 100% of their variance), not the prior" in messages
    assert main(["export", str(tiny_workdir), str(tmp_path / "small"), "--density", "31"]) == 0
    assert main(["sample", "--checkpoint", str(tmp_path / "small"), *shown, "--out", str(tmp_path / "kept.png")]) == 0
    assert "a density of the training faces (rank 31), not the prior" in capsys.readouterr().err
    own, kept = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("own.png", "kept.png"))
    assert np.abs(own - kept).mean() < 2  # half precision
    assert main(["sample", "--checkpoint", str(tiny_workdir), *shown[:4], "--out", str(tmp_path / "prior.png")]) == 0
    assert "drawn from the prior" in capsys.readouterr().err
    assert np.abs(own - np.asarray(Image.open(tmp_path / "prior.png"))).mean() > 2
    assert main(["info", str(tmp_path / "small")]) == 0
    assert "density      fitted to the training faces' appearances, rank 31" in capsys.readouterr().out


def test_both_kinds_of_samples_are_evaluated(model: Model, fitted: LowRankGaussian, tiny_config: Config) -> None:
    test = load_faces(tiny_config.data.records, "test")
    plain = evaluate(model, test, limit=12, adapt=PLAIN, measures=Measures())
    assert "samples_from_posterior" not in plain.sections
    both = evaluate(dataclasses.replace(model, density=fitted), test, limit=12, adapt=PLAIN, measures=Measures())
    assert both.sections["samples"] == plain.sections["samples"]
    assert both.sections["samples_from_posterior"]["pixel_spread"] != both.sections["samples"]["pixel_spread"]
    titles = [line.split(" structures")[0].strip() for line in both.to_lines()]
    assert titles[-2:] == ["samples", "samples from posterior"]


def test_the_bundled_prior_draws_faces_and_so_does_its_density() -> None:
    pytest.importorskip("dlib")
    from ecvae_jax.data.detect import load_detector

    model, test = load_model(), load_faces("rendered", "test")
    assert model.density is not None
    assert model.density.axes.shape == (64, 2048)
    landmarks = test.landmarks_as(68)[100:101]
    detector = load_detector("dlib-68")
    found = {}
    for name, density in (("prior", None), ("posterior", model.density)):
        drawn = sample(model, jax.random.key(0), landmarks, 4, density)[0]
        found[name] = sum(bool(detector.detect(np.repeat(np.repeat(image, 2, axis=0), 2, axis=1))) for image in drawn)
    assert min(found.values()) >= 3
