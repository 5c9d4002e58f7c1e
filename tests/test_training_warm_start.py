"""`train.init_from`: a training that begins with the weights of a trained model."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.training import assert_same, before_step, restored

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.checkpoints.store import CheckpointError
from ecvae_jax.comparison.variants import with_settings
from ecvae_jax.config import Config
from ecvae_jax.data.batches import Faces, load_faces
from ecvae_jax.export.small import export_model
from ecvae_jax.images import to_float
from ecvae_jax.model.conditioning import make_condition
from ecvae_jax.model.cvae import encode
from ecvae_jax.training.loop import train
from ecvae_jax.training.state import abstract_state
from ecvae_jax.training.warm_start import warm_state


@pytest.fixture
def faces(tiny_config: Config) -> Faces:
    return load_faces(tiny_config.data.records, "train")


def test_the_first_state_holds_the_models_weights_and_a_new_optimizer(
    tiny_config: Config, tiny_workdir: Path, faces: Faces
) -> None:
    model = load_model(tiny_workdir)
    config = with_settings(tiny_config, {"train.init_from": "run", "optim.learning_rate": 1e-4, "train.seed": 5})
    state, line = warm_state(config, model, faces)
    assert_same(state.params, model.params)
    assert_same(state.ema_params, model.params)
    assert_same(state.frozen, model.frozen)  # the same prior, so its scale of z too
    assert int(state.step) == 0
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(state.opt_state))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (state, abstract_state(config)))
    assert shapes[0] == shapes[1]
    assert "\n" not in line
    assert line.startswith("begun with the weights of run, step 10 (")
    assert "taken over: parameters, clusters, cluster means, scale of z; fresh: optimizer, step count" in line


def test_another_prior_keeps_what_the_network_reads_and_starts_its_fit_fresh(
    tiny_config: Config, tiny_workdir: Path, faces: Faces
) -> None:
    model = load_model(tiny_workdir)
    settings = {"train.init_from": "run", "prior.kind": "covariance", "prior.rank": 8, "prior.noise": "shared"}
    config = with_settings(tiny_config, {**settings, "prior.stddev": 0.07})
    state, line = warm_state(config, model, faces)
    assert_same(state.frozen.clusters, model.frozen.clusters)
    assert_same(state.frozen.cluster_means, model.frozen.cluster_means)
    np.testing.assert_allclose(state.frozen.z_scale, 0.07, rtol=1e-6)  # one width for all faces
    assert line.endswith("scale of z, covariances of the prior (fitted to 96 faces)")
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (state, abstract_state(config)))
    assert shapes[0] == shapes[1]
    assert_same(warm_state(config, model, faces)[0], state)

    # As the prior of these faces it fits better than Eq. (4), and further moments are added to theirs.
    images, landmarks = faces.images(range(32), 32), faces.landmarks[:32]
    kl = []
    for frozen in (state.frozen, state.frozen._replace(covariances=None)):
        condition = make_condition(config.architecture, model.params, frozen, jnp.asarray(landmarks))
        posterior = encode(config.architecture, model.params, to_float(jnp.asarray(images)), condition)
        kl.append(float(condition.prior.kl(jnp.zeros(0), posterior).mean()))
    assert kl[0] < 0.8 * kl[1]
    assert state.frozen.covariances is not None
    assert state.moments is not None
    assert 0 < float(state.frozen.covariances.floor) < 1
    assert float(state.moments.faces) == len(faces)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model.widths": (16, 24)}, r"model\.widths: \(16, 16\) -> \(16, 24\); take its settings, or a model with"),
        ({"clusters.temperature": 0.5}, r"clusters\.temperature: 0\.2 -> 0\.5"),
        ({"prior.learned": True}, r"prior\.learned: False -> True"),
        ({"data.points": 68}, r"data\.points: 98 -> 68"),
        (
            {
                "sketch.sigma": 0.03,
                "sketch.channels": "single",
                "clusters.count": 3,
                "model.z_dim": 64,
                "model.blocks": 2,
            },
            "and 1 more; take",
        ),
    ],
)
def test_weights_of_another_network_are_refused_in_one_line(
    tiny_config: Config, tiny_workdir: Path, faces: Faces, settings: dict, words: str
) -> None:  # fmt: skip
    config = with_settings(tiny_config, {**settings, "train.init_from": "run"})
    with pytest.raises(CheckpointError, match=rf"train\.init_from='run': its weights do not fit .*{words}") as caught:
        warm_state(config, load_model(tiny_workdir), faces)
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_exist_is_refused_before_the_first_step(tiny_config: Config, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        train(with_settings(tiny_config, {"train.init_from": str(tmp_path / "nothing")}), tmp_path / "run")


@pytest.mark.slow  # three trainings; how any training resumes is in test_training_loop.py
def test_it_trains_from_them_and_resumes_bit_for_bit_without_the_model(
    tiny_config: Config, tiny_workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    first = shutil.copytree(tiny_workdir, tmp_path / "first")
    config = with_settings(
        tiny_config, {"train.init_from": str(first), "train.steps": 4, "train.seed": 3, "optim.learning_rate": 1e-4}
    )
    assert train(config, tmp_path / "whole").finished
    assert f"begun with the weights of {first}, step 10" in capfd.readouterr().err
    trained, begun = load_model(tmp_path / "whole"), load_model(first)
    assert trained.config.train.init_from == str(first)
    moved, size = (
        float(jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree))))
        for tree in (jax.tree.map(jnp.subtract, trained.params, begun.params), begun.params)
    )
    assert 0 < moved < 0.02 * size
    export_model(tmp_path / "whole", tmp_path / "small")
    assert load_model(tmp_path / "small").config.train.init_from == "first"  # no folder of this machine

    before_step(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert train(config, tmp_path / "parts").step == 3
    monkeypatch.undo()
    shutil.rmtree(first)
    assert train(config, tmp_path / "parts").finished
    assert_same(restored(config, tmp_path / "whole"), restored(config, tmp_path / "parts"))
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, init_from=""))
    with pytest.raises(CheckpointError, match=r"train\.init_from: .* \(cannot be changed\)"):
        train(other, tmp_path / "parts")
