"""The network: shapes at every size, and by gradient, what the image depends on."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecvae_jax.config import Config, ModelConfig
from ecvae_jax.gaussian import DiagGaussian
from ecvae_jax.images import to_float
from ecvae_jax.model import conditioning, cvae
from ecvae_jax.model.blocks import double, fold, unfold
from ecvae_jax.model.conditioning import Condition, Frozen, init_frozen
from ecvae_jax.model.cvae import init_params
from ecvae_jax.model.frames import FaceFrame, PictureFrame
from ecvae_jax.prior import GaussianPrior
from ecvae_jax.structure.scheme import get_scheme
from ecvae_jax.structure.warp import cell_centers

# One program each; eagerly every operation is one.
encode = jax.jit(cvae.encode, static_argnums=0)
decode = jax.jit(cvae.decode, static_argnums=0)
make_condition = jax.jit(conditioning.make_condition, static_argnums=0)


@pytest.fixture(scope="module")
def frozen(tiny_config: Config, tiny_batch: dict[str, np.ndarray]) -> Frozen:
    return init_frozen(jax.random.key(1), tiny_config, tiny_batch["landmarks"])


@pytest.fixture(scope="module")
def params(tiny_config: Config):
    return init_params(jax.random.key(0), tiny_config.architecture)


def test_unfold_undoes_fold() -> None:
    maps = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
    assert fold(maps, 4).shape == (2, 2, 3, 48)
    assert np.array_equal(unfold(fold(maps, 4), 4), maps)


def test_fold_keeps_each_square_together() -> None:
    maps = jnp.arange(16.0).reshape(1, 4, 4, 1)
    assert fold(maps, 2)[0, 0, 1].tolist() == [2.0, 3.0, 6.0, 7.0]


def test_double_repeats_pixels() -> None:
    assert double(jnp.arange(4.0).reshape(1, 2, 2, 1))[0, :, :, 0].tolist() == [
        [0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]
    ]  # fmt: skip


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize(("grid", "frame"), [(1, "picture"), (4, "picture"), (4, "face"), (8, "face")])
def test_the_config_sets_any_power_of_two_resolution(size: int, grid: int, frame: Literal["picture", "face"]) -> None:
    depth = {32: 2, 64: 3, 128: 4, 256: 5}[size]
    config = Config(model=ModelConfig(image_size=size, widths=(8,) * depth, z_dim=64, z_grid=grid, frame=frame))

    def both(key: jax.Array) -> tuple[DiagGaussian, jax.Array]:
        params = init_params(key, config.architecture)
        image, sketch = jnp.zeros((2, size, size, 3)), jnp.zeros((2, size, size, 15))
        reference = DiagGaussian(jnp.zeros((2, 64)), jnp.zeros((2, 64)))
        grids = jnp.zeros((2, size // 4, size // 4, 2))
        places = FaceFrame(grids, grids) if frame == "face" else PictureFrame()
        condition = Condition(sketch, jnp.ones((2, 1)), GaussianPrior(*reference), reference, places)
        posterior = encode(config.architecture, params, image, condition)
        return posterior, decode(config.architecture, params, posterior.mean, condition, jnp.ones(()))

    posterior, image = jax.eval_shape(both, jax.random.key(0))
    assert posterior.mean.shape == posterior.logvar.shape == (2, 64)
    assert image.shape == (2, size, size, 3)
    assert image.dtype == posterior.mean.dtype == jnp.float32


def test_bfloat16_computes_near_float32(tiny_config: Config, params, frozen, tiny_batch) -> None:
    half = dataclasses.replace(tiny_config, model=dataclasses.replace(tiny_config.model, dtype="bfloat16"))
    condition = make_condition(tiny_config.architecture, None, frozen, tiny_batch["landmarks"])
    z = condition.reference.mean
    full = decode(tiny_config.architecture, params, z, condition, frozen.z_scale)
    rounded = decode(half.architecture, params, z, condition, frozen.z_scale)
    assert rounded.dtype == jnp.float32
    assert 0 < float(jnp.abs(full - rounded).max()) < 0.1


@pytest.mark.parametrize("grid", [1, 4])
def test_image_depends_on_every_dimension_of_z(tiny_config: Config, frozen, tiny_batch, grid: int) -> None:
    config = dataclasses.replace(tiny_config, model=dataclasses.replace(tiny_config.model, z_grid=grid))
    params = init_params(jax.random.key(0), config.architecture)
    condition = make_condition(config.architecture, None, frozen, tiny_batch["landmarks"][:1])

    @jax.jit
    def image(z: jax.Array) -> jax.Array:
        return decode(config.architecture, params, z, condition, frozen.z_scale)

    z = condition.reference.mean
    jacobian = jax.jit(jax.jacrev(lambda z: image(z).reshape(32, 32, 3)[::5, ::5].sum(-1)))(z)
    assert (jnp.abs(jacobian).max(axis=(0, 1, 2)) > 1e-6).all()
    # Beyond derivatives: another z gives another picture.
    assert float(jnp.abs(image(z) - image(z + frozen.z_scale)).mean()) > 0.01


def test_image_depends_on_every_boundary_of_the_sketch(tiny_config: Config, params, frozen, tiny_batch) -> None:
    condition = make_condition(tiny_config.architecture, None, frozen, tiny_batch["landmarks"][:1])

    def probe(sketch: jax.Array) -> jax.Array:
        changed = condition._replace(sketch=sketch)
        image = decode(tiny_config.architecture, params, condition.reference.mean, changed, frozen.z_scale)
        return jnp.sum(image * jax.random.normal(jax.random.key(3), image.shape))

    gradient = jax.jit(jax.grad(probe))(condition.sketch)
    reach = jnp.abs(gradient).sum(axis=(0, 1, 2))
    names = get_scheme(98).names
    assert reach.shape == (len(names),)
    assert (reach > 1e-3).all(), dict(zip(names, reach.tolist(), strict=True))


def test_gradient_of_the_image_reaches_the_landmarks(tiny_config: Config, params, frozen, tiny_batch) -> None:
    def probe(landmarks: jax.Array) -> jax.Array:
        condition = make_condition(tiny_config.architecture, None, frozen, landmarks)
        return jnp.sum(
            decode(tiny_config.architecture, params, condition.reference.mean, condition, frozen.z_scale) ** 2
        )

    gradient = jax.jit(jax.grad(probe))(jnp.asarray(tiny_batch["landmarks"][:1]))
    assert jnp.isfinite(gradient).all()
    assert (jnp.abs(gradient).sum(axis=(0, 2)) > 0).mean() > 0.9


def test_relative_posterior_is_written_in_units_of_the_prior(tiny_config: Config, params, frozen, tiny_batch) -> None:
    image = to_float(jnp.asarray(tiny_batch["image"]))
    condition = make_condition(tiny_config.architecture, None, frozen, tiny_batch["landmarks"])
    plain = dataclasses.replace(tiny_config, model=dataclasses.replace(tiny_config.model, posterior="plain"))
    net = encode(plain.architecture, params, image, condition)
    relative = encode(tiny_config.architecture, params, image, condition)
    prior = condition.reference
    np.testing.assert_allclose(relative.mean, prior.mean + prior.stddev * net.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(relative.logvar, prior.logvar + net.logvar, rtol=1e-4, atol=1e-5)


def test_the_prior_changes_the_image_through_z(tiny_config: Config, params, frozen, tiny_batch) -> None:
    """All else equal, another prior mean Σ c_k μ_k gives another picture (relative posterior)."""
    image = to_float(jnp.asarray(tiny_batch["image"][:1]))
    condition = make_condition(tiny_config.architecture, None, frozen, tiny_batch["landmarks"][:1])

    def draw(prior_mean: jax.Array) -> jax.Array:
        reference = DiagGaussian(prior_mean, condition.reference.logvar)
        posterior = encode(tiny_config.architecture, params, image, condition._replace(reference=reference))
        return decode(tiny_config.architecture, params, posterior.mean, condition, frozen.z_scale)

    gradient = jax.jit(jax.grad(lambda prior_mean: draw(prior_mean).sum()))(condition.reference.mean)
    assert (jnp.abs(gradient) > 1e-6).all()


def test_the_texture_moves_with_the_face(tiny_config: Config, frozen, tiny_batch) -> None:
    """If the image is all texture, moving the face one cell right moves the image one cell right."""
    config = dataclasses.replace(tiny_config, model=dataclasses.replace(tiny_config.model, frame="face"))
    params = init_params(jax.random.key(0), config.architecture)
    constant = jax.tree.map(jnp.zeros_like, {name: params["structure"][name] for name in ("share", "flow")})
    constant["share"]["Conv_0"]["bias"] += 50.0  # sigmoid(50) is 1
    params = {**params, "structure": {**params["structure"], **constant}}
    condition = make_condition(config.architecture, None, frozen, tiny_batch["landmarks"][:1])
    assert isinstance(condition.frame, FaceFrame)
    cell = 1.0 / condition.frame.to_face.shape[1]
    here = jnp.broadcast_to(cell_centers(condition.frame.to_face.shape[1])[None], condition.frame.to_face.shape)
    z = frozen.z_scale * jax.random.normal(jax.random.key(1), condition.reference.mean.shape)

    @jax.jit
    def image(places: jax.Array) -> jax.Array:
        moved = condition._replace(frame=condition.frame._replace(to_face=places))
        return decode(config.architecture, params, z, moved, frozen.z_scale)

    images = [image(places) for places in (here, here - jnp.array([[[[cell, 0.0]]]]))]
    pixels = config.model.patch
    np.testing.assert_allclose(images[1][:, :, 2 * pixels :], images[0][:, :, pixels:-pixels], atol=1e-4)
    assert float(jnp.abs(images[1] - images[0]).mean()) > 0.01
