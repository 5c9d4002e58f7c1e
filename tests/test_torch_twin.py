"""The PyTorch twin of `benchmarks/torch_twin.py` computes what the package computes, from the same parameters."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecvae_jax.bench.workloads import random_state
from ecvae_jax.config import Config
from ecvae_jax.model.cvae import encode
from ecvae_jax.objective import loss_terms
from ecvae_jax.training.step import read_by_step, to_views

torch = pytest.importorskip("torch", reason="needs the extra bench: pip install torch")

BETA = 0.7
TOLERANCE = 1e-4


def relative(ours, theirs) -> float:
    """Norm of the difference over that of ours."""
    ours, theirs = np.asarray(ours, np.float64), theirs.detach().numpy()
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(ours))


@pytest.mark.parametrize("kind", ["pairs with SSIM", pytest.param("self with two blocks", marks=pytest.mark.slow)])
def test_forward_kl_loss_and_gradient_agree(tiny_config: Config, tiny_batch, kind: str) -> None:
    from benchmarks.torch_network import Twin, to_torch

    config = tiny_config
    if kind == "self with two blocks":
        model = dataclasses.replace(config.model, blocks=2, widths=(8, 16, 16), z_grid=8, z_dim=64)
        objective = dataclasses.replace(config.objective, ssim_weight=0.0)
        config = dataclasses.replace(
            config, model=model, objective=objective, data=dataclasses.replace(config.data, pairs=0.0)
        )
    state = jax.device_get(random_state(config))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + 0.05 * rng.standard_normal(leaf.shape).astype(np.float32), state.params
    )  # no bias is 0
    batch = {name: value[:3] for name, value in read_by_step(config, tiny_batch).items()}
    noise = rng.standard_normal((3, config.model.z_dim)).astype(np.float32)

    @functools.partial(jax.value_and_grad, has_aux=True)
    def objective_of(params):
        views = to_views({name: jnp.asarray(value) for name, value in batch.items()})
        keys = jax.random.split(jax.random.key(0), 3)
        terms, image, posterior, _ = loss_terms(config.architecture, params, state.frozen, views, noise, keys, BETA)
        return jnp.mean(terms.loss), (terms, image, posterior)

    (_, (terms, image, posterior)), gradient = jax.jit(objective_of)(params)
    twin = Twin(config, params, state.frozen)
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in batch.items()}
    theirs = twin.loss(twin.params, tensors, torch.from_numpy(noise), BETA)
    theirs.loss.mean().backward()

    assert relative(image, theirs.image.permute(0, 2, 3, 1)) < TOLERANCE
    for name in ("recon_nll", "kl", "loss"):
        assert relative(getattr(terms, name), getattr(theirs, name)) < TOLERANCE, name
    for name in ("mean", "logvar"):
        assert relative(getattr(posterior, name), getattr(theirs.posterior, name)) < TOLERANCE, name
    wanted = to_torch(jax.device_get(gradient))
    assert wanted.keys() == twin.params.keys()
    square = sum(float((twin.params[name].grad - value.detach()).square().sum()) for name, value in wanted.items())
    assert square**0.5 < 1e-3 * sum(float(value.detach().square().sum()) for value in wanted.values()) ** 0.5

    sketches = tuple(twin.sketch(tensors[name]) for name in ("source_landmarks", "landmarks") if name in tensors)
    given = twin.loss(twin.params, tensors, torch.from_numpy(noise), BETA, sketches=(sketches[0], sketches[-1]))
    assert torch.equal(given.loss, theirs.loss)
    before = [value.detach().clone() for value in twin.params.values()]
    twin.update()
    assert all(not torch.equal(old, new) for old, new in zip(before, twin.params.values(), strict=True))


def test_other_settings_are_refused(tiny_config: Config) -> None:
    from benchmarks.torch_network import Network

    face = dataclasses.replace(tiny_config, model=dataclasses.replace(tiny_config.model, frame="face"))
    with pytest.raises(ValueError, match=r"model\.frame='face': the PyTorch twin has only 'picture'"):
        Network(face)


def test_the_encoder_of_a_vector_z_agrees(tiny_config: Config, tiny_batch) -> None:
    from benchmarks.torch_network import Twin

    model = dataclasses.replace(tiny_config.model, z_grid=1, z_dim=24)
    config = dataclasses.replace(tiny_config, model=model)
    state = jax.device_get(random_state(config))
    twin = Twin(config, state.params, state.frozen)
    from ecvae_jax.model.conditioning import make_condition

    @jax.jit
    def ours(image, landmarks):
        condition = make_condition(config.architecture, state.params, state.frozen, landmarks)
        return encode(config.architecture, state.params, image / 127.5 - 1.0, condition), condition.sketch

    image, landmarks = tiny_batch["image"][:2].astype(np.float32), tiny_batch["landmarks"][:2]
    posterior, sketch = ours(image, landmarks)
    drawn = twin.sketch(torch.from_numpy(landmarks.copy()))
    assert relative(sketch, drawn.permute(0, 2, 3, 1)) < TOLERANCE
    pixels = torch.from_numpy(image.transpose(0, 3, 1, 2) / 127.5 - 1.0)
    mean, _ = twin.network.encode(twin.params, pixels, drawn)
    prior = twin.prior(torch.from_numpy(landmarks.copy()))
    assert relative(posterior.mean, prior.mean + torch.exp(0.5 * prior.logvar) * mean) < TOLERANCE
