"""The training step: the same on any number of devices and by both maps; frozen means frozen; golden metrics."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh
from support.training import assert_same

from ecvae_jax.config import Config, ObjectiveConfig, PriorConfig
from ecvae_jax.data.batches import load_faces, training_batches
from ecvae_jax.model.conditioning import make_condition
from ecvae_jax.model.model import Model
from ecvae_jax.synthesis.batches import encode
from ecvae_jax.training import parallel
from ecvae_jax.training import step as step_module
from ecvae_jax.training.state import (
    TrainState,
    count_params,
    global_norm,
    hyperparameters,
    init_state,
    kl_weight,
    learning_rate,
    row_major,
)
from ecvae_jax.training.step import AXIS, jitter_colors, make_train_step, to_views

STEPS = 5


@pytest.fixture(scope="module")
def fresh_state(tiny_config: Config, tiny_batch: dict[str, np.ndarray]):
    """Returns a function that makes a new state: a step consumes the one it is given."""
    landmarks = load_faces(tiny_config.data.records, "train").landmarks

    def make(config: Config = tiny_config) -> TrainState:
        views = to_views({name: jnp.asarray(value) for name, value in tiny_batch.items()})
        return init_state(config, landmarks, views)

    return make


def run(config: Config, state: TrainState, batch, kind: str, monkeypatch: pytest.MonkeyPatch, devices: int):
    """A few steps on the first `devices` devices."""
    chosen = jax.devices()[:devices]
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    monkeypatch.setattr(jax, "local_device_count", lambda: devices)
    mesh = Mesh(np.array(chosen), (AXIS,), axis_types=(AxisType.Auto,))
    monkeypatch.setattr(parallel, "make_mesh", lambda: mesh)
    pmap = jax.pmap
    monkeypatch.setattr(jax, "pmap", lambda f, **kw: pmap(f, devices=chosen, **kw))
    step = parallel.map_step(make_train_step(config), kind)
    state = parallel.replicate(state)
    assert len(state.step.devices()) == devices
    history = []
    for _ in range(STEPS):
        state, metrics = step(state, batch)
        history.append({name: float(value) for name, value in metrics.items()})
    assert len(state.step.devices()) == devices
    monkeypatch.undo()
    return jax.device_get(state), history


@pytest.fixture(scope="module")
def everything_else(tiny_config: Config) -> Config:
    """Options of a step that `tiny_config` lacks."""
    model = dataclasses.replace(tiny_config.model, frame="face")
    return dataclasses.replace(tiny_config, model=model, data=dataclasses.replace(tiny_config.data, color_jitter=0.2))


@pytest.mark.devices
@pytest.mark.parametrize(
    ("prior", "other"),
    [
        ("equilibrium", False),  # its programs are those of other tests, so it is fast
        pytest.param("equilibrium", True, marks=pytest.mark.slow),
        pytest.param("mixture", False, marks=pytest.mark.slow),
    ],
)
def test_several_devices_give_the_losses_of_one_by_both_maps(
    tiny_config: Config, everything_else: Config, tiny_batch, fresh_state, monkeypatch: pytest.MonkeyPatch, prior: str,
    other: bool,
) -> None:  # fmt: skip
    """Each prior; `other`: in the face frame and with jittered colors."""
    assert jax.device_count() > 1
    config = dataclasses.replace(everything_else if other else tiny_config, prior=PriorConfig(kind=prior))
    _, one = run(config, fresh_state(config), tiny_batch, "shard_map", monkeypatch, 1)
    for kind in ("shard_map", "pmap"):
        _, several = run(config, fresh_state(config), tiny_batch, kind, monkeypatch, jax.device_count())
        for step, (a, b) in enumerate(zip(one, several, strict=True)):
            for name in a:
                # Rounding is all that differs; Adam's division by √v lets it grow from step to step.
                np.testing.assert_allclose(b[name], a[name], rtol=1e-5 * 10**step, atol=1e-6, err_msg=f"{kind} {name}")
    assert one[-1]["recon_nll"] < one[0]["recon_nll"]


def test_frozen_part_is_bitwise_unchanged_while_parameters_move(
    tiny_config: Config, tiny_batch, fresh_state, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = jax.device_get(fresh_state())
    after, _ = run(tiny_config, fresh_state(), tiny_batch, "shard_map", monkeypatch, jax.device_count())
    assert_same(before.frozen, after.frozen)
    for tree in ("params", "ema_params"):
        for path, a in jax.tree_util.tree_leaves_with_path(getattr(before, tree)):
            b = getattr(after, tree)
            for key in path:
                b = b[key.key]
            assert not np.array_equal(a, b), f"{tree} {jax.tree_util.keystr(path)} did not move"


def test_nothing_of_the_optimizer_knows_the_frozen_part(tiny_config: Config, fresh_state) -> None:
    state = fresh_state()
    trained = {leaf.shape for leaf in jax.tree.leaves(state.params)} | {()}
    assert {leaf.shape for leaf in jax.tree.leaves(state.opt_state)} <= trained
    assert (6, tiny_config.model.z_dim) not in trained


def test_average_of_parameters_follows_them(tiny_config: Config, tiny_batch, fresh_state, monkeypatch) -> None:
    config = dataclasses.replace(tiny_config, optim=dataclasses.replace(tiny_config.optim, ema_decay=0.0))
    state, _ = run(config, fresh_state(config), tiny_batch, "shard_map", monkeypatch, 1)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(state.ema_params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_loss_falls_on_one_batch(tiny_config: Config, tiny_batch, fresh_state) -> None:
    step = parallel.map_step(make_train_step(dataclasses.replace(
        tiny_config, train=dataclasses.replace(tiny_config.train, steps=60)
    )), "shard_map")  # fmt: skip
    state, losses = parallel.replicate(fresh_state()), []
    for _ in range(60):
        state, metrics = step(state, tiny_batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 500


def test_trained_posterior_mean_follows_the_prior_mean(tiny_config: Config, tiny_batch, fresh_state) -> None:
    """Regressed on Σ c_k μ_k over the faces, the posterior mean of a relative posterior has slope 1 after training."""
    train_config = dataclasses.replace(tiny_config.train, steps=40)
    config = dataclasses.replace(tiny_config, train=train_config)
    faces = load_faces(config.data.records, "train")
    batches = training_batches(faces, config.data, 32, 8, seed=0)
    step = parallel.map_step(make_train_step(config), "shard_map")
    state = parallel.replicate(fresh_state(config))
    for _ in range(40):
        state, _ = step(state, next(batches))
    model = Model(config, state.params, state.frozen, 40, {})
    posterior = encode(model, faces.images(range(len(faces)), 32), faces.landmarks)
    prior = make_condition(config.architecture, None, state.frozen, jnp.asarray(faces.landmarks)).reference
    spread = np.asarray(prior.mean) - np.asarray(prior.mean).mean(axis=0)
    slope = (spread * np.asarray(posterior.mean)).sum() / (spread**2).sum()
    assert slope == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("batch_size", [4, 12])
def test_batch_that_does_not_fit_the_devices_is_refused(batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    with pytest.raises(ValueError, match=rf"batch_size={batch_size}: must be a multiple of the 8 devices; take 8"):
        parallel.check_batch_size(batch_size)


def test_learning_rate_rises_then_falls_to_zero(tiny_config: Config) -> None:
    for schedule in ("cosine", "linear"):
        optim = dataclasses.replace(tiny_config.optim, schedule=schedule, warmup_steps=10)
        train = dataclasses.replace(tiny_config.train, steps=100)
        hyper = hyperparameters(dataclasses.replace(tiny_config, optim=optim, train=train))
        values = np.asarray(learning_rate(hyper, schedule, jnp.arange(101)))
        fall = {
            "cosine": optax.cosine_decay_schedule,
            "linear": lambda rate, steps: optax.linear_schedule(rate, 0, steps),
        }
        rising = optax.linear_schedule(0.0, optim.learning_rate, 10)
        expected = optax.join_schedules([rising, fall[schedule](optim.learning_rate, 90)], [10])
        np.testing.assert_allclose(values, [expected(step) for step in range(101)], rtol=1e-6, atol=1e-9)
        assert values[0] == 0.0
        assert values[10] == pytest.approx(tiny_config.optim.learning_rate)
        assert all(a < b for a, b in pairwise(values[:11]))
        assert all(a > b for a, b in pairwise(values[10:]))
        assert values[100] == pytest.approx(0.0, abs=1e-9)


def test_kl_weight_rises_over_its_part_of_the_training(tiny_config: Config) -> None:
    config = dataclasses.replace(
        tiny_config,
        objective=ObjectiveConfig(beta=0.5, beta_ramp=0.3),
        train=dataclasses.replace(tiny_config.train, steps=100),
    )
    hyper = hyperparameters(config)
    assert [float(kl_weight(hyper, jnp.asarray(step))) for step in (0, 15, 30, 99)] == pytest.approx(
        [0.0, 0.25, 0.5, 0.5]
    )


def test_params_are_counted() -> None:
    assert count_params({"a": jnp.zeros((3, 4)), "b": {"c": jnp.zeros(5)}}) == 17


GOLDEN = {
    "loss": 5248.105, "recon_nll": 3684.168, "kl": 51.1602, "ssim": -0.0017187, "elbo": -3735.329,
    "effective_clusters": 1.988589, "gradient_norm": 1621.303,
}  # fmt: skip


def test_the_first_step_has_its_golden_metrics(
    tiny_config: Config, tiny_batch, fresh_state, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Golden metrics of step 0: any change of data, initialization, model or loss shows here.

    After an intended change, state it in the commit and take the numbers that the failure prints.
    """
    _, history = run(tiny_config, fresh_state(), tiny_batch, "shard_map", monkeypatch, 1)
    assert {name: history[0][name] for name in GOLDEN} == pytest.approx(GOLDEN, rel=1e-3)


def test_colors_of_both_views_change_alike(tiny_batch) -> None:
    views = to_views({name: jnp.asarray(value) for name, value in tiny_batch.items()})
    one = jax.tree.map(lambda array: array[0], views)
    same = one._replace(source_image=one.image)
    changed = jitter_colors(jax.random.key(3), same, 0.3)
    assert np.array_equal(changed.image, changed.source_image)
    assert 0.01 < float(jnp.abs(changed.image - one.image).mean()) < 0.5
    assert float(jnp.abs(changed.image).max()) <= 1.0
    assert np.array_equal(changed.landmarks, one.landmarks)
    other = jitter_colors(jax.random.key(4), same, 0.3)
    assert not np.array_equal(other.image, changed.image)
    np.testing.assert_allclose(jitter_colors(jax.random.key(3), same, 0.0).image, one.image, atol=1e-6)


def test_the_step_jitters_colors_when_asked(
    tiny_config: Config, tiny_batch, fresh_state, monkeypatch: pytest.MonkeyPatch
) -> None:
    jitters = dataclasses.replace(tiny_config, data=dataclasses.replace(tiny_config.data, color_jitter=0.2))
    (_, jittered), (_, unjittered) = (
        run(config, fresh_state(config), tiny_batch, "shard_map", monkeypatch, 1) for config in (jitters, tiny_config)
    )
    assert unjittered[0]["recon_nll"] != jittered[0]["recon_nll"]


@pytest.fixture
def forget_programs():
    """Forgets the compiled steps, now and at the end, for a test that changes what they call."""

    def forget() -> None:
        for cached in (step_module.step_function, parallel.shard_step, parallel._pmap_step):
            cached.cache_clear()

    yield forget
    forget()


@pytest.mark.devices
@pytest.mark.parametrize(("place", "kind"), [("batch", "shard_map"), ("batch", "pmap"), ("gradient", "shard_map")])
def test_a_nan_step_changes_nothing_on_any_device(
    tiny_config: Config,
    tiny_batch,
    fresh_state,
    monkeypatch: pytest.MonkeyPatch,
    forget_programs,
    place: str,
    kind: str,
) -> None:
    """One example, on one device, is bad: in its landmarks, or only in the gradient of its loss."""
    bad = {name: value.copy() for name, value in tiny_batch.items()}
    bad["landmarks"][5] = np.nan
    if place == "gradient":
        bad["landmarks"][5] = 7.0  # marks the example
        loss_terms = step_module.loss_terms

        def without_slope(architecture, params, frozen, views, *rest):
            terms, *others = loss_terms(architecture, params, frozen, views, *rest)
            marked = (views.landmarks == 7.0).all(axis=(1, 2))
            weight = jax.tree.leaves(params)[0].reshape(-1)[0]
            # The root at 0 has the value 0 and an infinite slope.
            root = jnp.sqrt(jnp.where(marked, weight - jax.lax.stop_gradient(weight), 1.0))
            return terms._replace(loss=terms.loss + jnp.where(marked, root, 0.0)), *others

        monkeypatch.setattr(step_module, "loss_terms", without_slope)
        forget_programs()
    step = parallel.map_step(make_train_step(tiny_config), kind)
    state, metrics = step(parallel.replicate(fresh_state()), tiny_batch)
    assert float(metrics["skipped"]) == 0.0
    before = jax.device_get(state)
    state, metrics = step(state, bad)
    assert float(metrics["skipped"]) == 1.0
    assert np.isnan(metrics["recon_nll"]) == (place == "batch")
    assert not np.isfinite(metrics["gradient_norm"])
    for name, old, new in zip(TrainState._fields, before, state, strict=True):
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(old), jax.tree.leaves(new), strict=True):
            copies = [np.asarray(shard.data) for shard in b.addressable_shards]
            moved = name == "step" or (name == "opt_state" and _is_schedule(old, path))
            assert len(copies) == jax.device_count()
            assert all(np.array_equal(copy, a + 1 if moved else a) for copy in copies), (name, path)
    state, metrics = step(state, tiny_batch)
    assert float(metrics["skipped"]) == 0.0
    changed = [not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before.params), jax.tree.leaves(state.params),
                                                        strict=True)]  # fmt: skip
    assert all(changed)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.ema_params))


def _is_schedule(opt_state, path) -> bool:
    """Whether a leaf of the optimizer's state is the learning rate's schedule counter, which every step advances."""
    for key in path:
        if isinstance(opt_state, optax.ScaleByScheduleState):
            return True
        opt_state = opt_state[key.idx] if hasattr(key, "idx") else getattr(opt_state, getattr(key, "name", ""), None)
    return False


GRADIENT = {"kernel": np.arange(12.0, dtype=np.float32).reshape(3, 4), "bias": np.full(2, -5.0, np.float32)}


@pytest.mark.parametrize(("platform", "laid_out"), [("cuda", 2), ("rocm", 2), ("tpu", 0), ("cpu", 0)])
def test_gpus_alone_get_row_major_gradients_and_one_sum(platform: str, laid_out: int) -> None:
    def both(gradient):
        return row_major(gradient), global_norm(gradient)

    text = jax.jit(both).trace(GRADIENT).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("LayoutConstraint") == laid_out
    assert ("result_layouts = [dense<[1, 0]>" in text) == bool(laid_out)  # minor axis first
    assert text.count("stablehlo.reduce(") == (1 if laid_out else len(GRADIENT))


def test_on_gpus_norm_and_gradient_are_those_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = optax.tree.norm(GRADIENT)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arguments, cuda, **others: cuda(*arguments))
    np.testing.assert_allclose(jax.jit(global_norm)(GRADIENT), norm, rtol=1e-6)
    assert_same(jax.jit(row_major)(GRADIENT), GRADIENT)
