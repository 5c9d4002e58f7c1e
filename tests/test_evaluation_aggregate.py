"""The parts of the KL and the spectrum, against dense matrices; the spreads of faces beside those of samples."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecvae_jax.comparison.variants import with_settings
from ecvae_jax.config import Config
from ecvae_jax.data.batches import load_faces
from ecvae_jax.data.faces import Faces
from ecvae_jax.evaluation.aggregate import aggregated_posterior
from ecvae_jax.evaluation.pairs import record_pairs
from ecvae_jax.evaluation.protocol import PLAIN, evaluate
from ecvae_jax.evaluation.scoring import Measures, score_samples
from ecvae_jax.model.model import Model, condition_of
from ecvae_jax.prior import CovariancePrior, Covariances
from ecvae_jax.synthesis.batches import encode, transfer_plain
from ecvae_jax.training.preview import device_views, first_examples
from ecvae_jax.training.state import init_state

R = 5


@pytest.fixture(scope="module")
def faces(tiny_config: Config) -> Faces:
    return load_faces(tiny_config.data.records, "test")


@pytest.fixture(scope="module")
def model(tiny_config: Config) -> Model:
    """An untrained model whose prior has covariances."""
    config = with_settings(tiny_config, {"prior.kind": "covariance", "prior.rank": R})
    training = load_faces(config.data.records, "train")
    state = init_state(config, training.landmarks, device_views(first_examples(config, training)))
    rng, z_dim = np.random.default_rng(0), config.model.z_dim
    fitted = Covariances(
        jnp.asarray(0.05 * rng.normal(size=z_dim), jnp.float32),
        jnp.asarray(np.linalg.qr(rng.normal(size=(z_dim, R)))[0], jnp.float32),
        jnp.asarray(rng.uniform(1, 30, (config.clusters.count, R)), jnp.float32),
    )
    return Model(config, state.params, state.frozen._replace(covariances=fitted))


def test_parts_and_spectrum_are_those_of_dense_matrices(model: Model, faces: Faces) -> None:
    images, landmarks = faces.images(range(11), 32), faces.landmarks[:11]
    sections = aggregated_posterior(model, images, landmarks)
    posterior, prior = encode(model, images, landmarks), condition_of(model, landmarks).prior
    assert isinstance(prior, CovariancePrior)
    u, d = np.asarray(prior.gaussian.directions, np.float64), posterior.mean.shape[1]
    places, widths, kls, along, wide = [], [], [], [], []
    for face in range(11):
        s = np.exp(float(prior.gaussian.logvar[face, 0]))
        sigma = s * (np.eye(d) + (u * np.asarray(prior.gaussian.spikes[face])) @ u.T)
        delta = np.asarray(posterior.mean[face] - prior.gaussian.mean[face], np.float64)
        q = np.diag(np.exp(np.asarray(posterior.logvar[face], np.float64)))
        values, vectors = np.linalg.eigh(sigma)
        places.append((vectors / np.sqrt(values)) @ vectors.T @ delta)
        inverse = np.linalg.inv(sigma)
        widths.append(0.5 * (np.trace(inverse @ q) - d + np.linalg.slogdet(sigma)[1] - np.linalg.slogdet(q)[1]))
        kls.append(widths[-1] + 0.5 * delta @ inverse @ delta)
        moment = (np.outer(delta, delta) + q) / s
        along.append([*np.diag(u.T @ moment @ u), (np.trace(moment) - np.trace(u.T @ moment @ u)) / (d - R)])
        wide.append([*np.diag(u.T @ sigma @ u) / s, 1.0])
    parts, mean = sections["kl_parts"], np.mean(places, axis=0)
    assert parts["images"] == 11
    assert parts["kl"] == pytest.approx(np.mean(kls), rel=1e-4)
    assert parts["offset"] == pytest.approx(0.5 * mean @ mean, rel=1e-4)
    assert parts["spread"] == pytest.approx(0.5 * np.square(places - mean).sum(axis=1).mean(), rel=1e-4)
    assert parts["width"] == pytest.approx(np.mean(widths), rel=1e-3)
    expected = {}
    for name, index in (("1", 0), ("2", 1), ("4", 3), ("others", R)):
        expected |= {f"posterior_{name}": np.mean(along, 0)[index], f"prior_{name}": np.mean(wide, 0)[index]}
    assert sections["spectrum"] == pytest.approx(expected, rel=1e-4)


def test_a_prior_without_covariances_has_parts_only_and_a_mixture_neither(model: Model, faces: Faces) -> None:
    images, landmarks = faces.images(range(3), 32), faces.landmarks[:3]
    base = dataclasses.replace(model, frozen=model.frozen._replace(covariances=None))
    for kind in ("equilibrium", "mixture"):
        plain = dataclasses.replace(base, config=with_settings(model.config, {"prior.kind": kind}))
        sections = aggregated_posterior(plain, images, landmarks)
        if kind == "mixture":
            assert sections == {}
            continue
        assert list(sections) == ["kl_parts"]
        posterior, prior = encode(plain, images, landmarks), condition_of(plain, landmarks).prior
        keys = jax.random.split(jax.random.key(0), 3)
        parts = sections["kl_parts"]
        assert parts["kl"] == pytest.approx(float(prior.kl(keys, posterior).mean()), rel=1e-5)
        assert parts["offset"] + parts["spread"] + parts["width"] == pytest.approx(parts["kl"])
        u = np.asarray((posterior.mean - prior.reference.mean) / prior.reference.stddev)
        assert parts["offset"] + parts["spread"] == pytest.approx(0.5 * np.square(u).sum(axis=1).mean(), rel=1e-4)


def test_the_report_has_the_sections(model: Model, faces: Faces) -> None:
    report = evaluate(model, faces, limit=4, adapt=PLAIN, measures=Measures())
    assert report.to_dict()["kl_parts"]["kl"] > 0
    named = [line.split("  ")[0] for line in report.to_lines()]
    assert named.index("kl parts") < named.index("spectrum") < named.index("samples")
    assert "posterior_1" in report.to_markdown()


def test_samples_have_the_spread_of_faces_beside_theirs(model: Model, faces: Faces) -> None:
    pairs = record_pairs(faces, 32, model.config.data.points, 40, 0, "any")
    numbers = score_samples(model, pairs, Measures()).numbers
    first = [pairs.people.index(person) for person in sorted(set(pairs.people))]
    assert numbers["pixel_spread_true"] == pytest.approx(pairs.target[first].std(axis=0, ddof=1).mean(), rel=1e-5)
    spreads = []
    for structure in np.unique(np.linspace(0, len(pairs) - 1, 32).round().astype(int)):
        others = np.flatnonzero(np.array(pairs.people) != pairs.people[structure])
        rows = others[np.linspace(0, len(others) - 1, 8).round().astype(int)]
        drawn = transfer_plain(model, pairs.target[rows], pairs.target_landmarks[rows],
                               pairs.target_landmarks[[structure] * 8])  # fmt: skip
        spreads.append(drawn.std(axis=0, ddof=1).mean())
    assert numbers["pixel_spread_faces"] == pytest.approx(np.mean(spreads), rel=1e-3)
    alone = dataclasses.replace(pairs, people=["one"] * len(pairs))
    numbers = score_samples(model, alone, Measures()).numbers
    assert numbers["pixel_spread_true"] is None
    assert numbers["pixel_spread_faces"] is None
