"""Adaptation to a photo: steps towards it, and its own pixels where they agree."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.cli.options.model import TransferOptions
from ecvae_jax.config import AdaptConfig, Config
from ecvae_jax.data.batches import load_faces
from ecvae_jax.images import to_float
from ecvae_jax.model.model import Model
from ecvae_jax.structure.warp import cell_centers, finer
from ecvae_jax.synthesis import batches as synthesis
from ecvae_jax.synthesis.adapt import transfer_adapted
from ecvae_jax.synthesis.cross import transfer_cross
from ecvae_jax.synthesis.photo import FIELD, lay_photo_over, photo_layers, trust_in_map, within_face
from ecvae_jax.synthesis.transfer import Drawing


@pytest.fixture(scope="module")
def model(tiny_workdir: Path) -> Model:
    return load_model(tiny_workdir)


@pytest.fixture(scope="module")
def faces(tiny_config: Config) -> tuple[np.ndarray, np.ndarray]:
    split = load_faces(tiny_config.data.records, "train")
    return split.images(range(6), 32), split.landmarks[:6]


def error(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(float) - second).mean())


def test_without_steps_and_detail_it_is_the_plain_transfer(model: Model, faces) -> None:
    images, landmarks = faces
    plain = synthesis.transfer_plain(model, images, landmarks, landmarks[::-1])
    nothing = AdaptConfig(steps=0, detail=0.0)
    assert np.array_equal(transfer_adapted(model, images, landmarks, landmarks[::-1], adaptation=nothing), plain)


def test_steps_bring_the_photo_nearer_and_leave_the_model_alone(model: Model, faces) -> None:
    images, landmarks = (array[:2] for array in faces)
    before = synthesis.reconstruct(model, images, landmarks)
    fitted = [
        transfer_adapted(model, images, landmarks, landmarks, adaptation=AdaptConfig(steps=steps, detail=0.0))
        for steps in (5, 30)
    ]
    assert error(before, images) > error(fitted[0], images) > error(fitted[1], images)
    assert np.array_equal(synthesis.reconstruct(model, images, landmarks), before)


def test_a_photo_under_its_own_landmarks_keeps_its_own_pixels(model: Model, faces) -> None:
    images, landmarks = faces
    kept = transfer_adapted(model, images, landmarks, landmarks, adaptation=AdaptConfig(detail=1.0))
    # The reconstruction agrees with the drawn image everywhere, so all but the border comes from the photo.
    assert error(kept[:, 3:-3, 3:-3], images[:, 3:-3, 3:-3]) < 2.0
    assert error(synthesis.reconstruct(model, images, landmarks), images) > 10.0


def test_the_model_image_stays_where_the_warped_reconstruction_disagrees(faces) -> None:
    images, landmarks = faces
    image, drawn = to_float(jnp.asarray(images)), jnp.zeros(images.shape)
    disagreeing = jnp.ones(images.shape)
    mixed = lay_photo_over(photo_layers(image, disagreeing), disagreeing, drawn, landmarks, landmarks)
    np.testing.assert_allclose(mixed, drawn, atol=1e-6)
    agreeing = lay_photo_over(photo_layers(image, drawn), drawn, drawn, landmarks, landmarks, share=0.5)
    middle = np.s_[:, 8:24, 8:24]
    np.testing.assert_allclose(agreeing[middle], 0.5 * image[middle], atol=0.02)


@pytest.mark.parametrize("within", [True, False])
def test_a_photos_texture_is_added_where_its_shapes_differ_a_little(faces, within: bool) -> None:
    """Where they differ by d, the weights are exp(-(d / t)²); the texture's t is larger within the face."""
    images, landmarks = faces
    own_tolerance, tolerance = 0.06, 0.24 if within else 0.12
    # The face is the whole picture, or lies in its corner. The map between the faces is the identity.
    landmarks = 1.6 * (landmarks - 0.5) + 0.5 if within else 0.2 * landmarks
    size = images.shape[1]
    stripes = jnp.broadcast_to(0.2 * (-1.0) ** jnp.arange(size)[None, None, :, None], images.shape)
    flat, drawn = jnp.zeros(images.shape), jnp.full(images.shape, 0.12)
    layers = photo_layers(flat + stripes, flat)
    # A deviation of 1/48 is two thirds of a pixel here: five cells.
    next_cell, last_cell = np.exp(-0.5 * 1.5**2), np.exp(-0.5 * 3.0**2)
    kept = 1 - (1 - 2 * next_cell + 2 * last_cell) / (1 + 2 * next_cell + 2 * last_cell)
    middle = np.s_[:, 12:20, 12:20]
    np.testing.assert_allclose(layers[..., 3:][middle], kept * stripes[middle], atol=1e-5)
    np.testing.assert_allclose(photo_layers(flat + 0.5, flat)[..., 3:], 0.0, atol=1e-6)
    mixed = np.asarray(lay_photo_over(layers, flat, drawn, landmarks, landmarks))[middle]
    own, both = np.exp(-((0.12 / own_tolerance) ** 2)), np.exp(-((0.12 / tolerance) ** 2))
    expected = drawn + own * (layers[..., :3] - drawn) + (both - own) * layers[..., 3:]
    np.testing.assert_allclose(mixed, expected[middle], atol=0.01)
    assert np.abs(np.diff(mixed, axis=2)).mean() > 0.05


def test_a_photo_counts_less_where_the_map_stretches_it() -> None:
    """The weight is the area of the photo that a pixel shows, in medians; folds have none, and the border is faded."""
    cell = np.arange(FIELD)
    steps = np.select([cell < 8, cell < 24], [0.5, 1.0], 1.5) / FIELD  # 1.0 is the median
    x = 0.2 + np.cumsum(0.5 * steps) - 0.25 * steps
    places = jnp.asarray(np.stack(np.meshgrid(x, 0.2 + 0.5 * np.asarray(cell_centers(FIELD))[:, 0, 1]), -1)[None])
    trust = np.asarray(trust_in_map(places, finer(places, 64)))[0, ..., 0]
    np.testing.assert_allclose(trust[:, :13], 0.5, atol=1e-4)
    np.testing.assert_allclose(trust[:, 19:], 1.0, atol=1e-4)
    assert trust_in_map(places[:, :, ::-1], finer(places, 64)).min() == 0


def test_the_face_is_what_its_landmarks_enclose() -> None:
    """For points on a circle the outline is the circle, and its edge has a width of 0.03."""
    angles = 2 * np.pi * np.arange(32) / 32
    circle = jnp.asarray(0.5 + 0.3 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)[None], jnp.float32)
    same = cell_centers(FIELD)[None]
    inside = np.asarray(within_face(same, circle, 64))[0, ..., 0]
    across = (np.arange(64) + 0.5) / 64 - 0.5
    depth = 0.3 - np.hypot(across[:, None], across[None])
    assert (inside[depth > 0.035] == 1).all()
    assert (inside[depth < -0.007] == 0).all()  # 16 straight sides leave 2% of the radius between them and the circle
    assert inside[(depth > 0.01) & (depth < 0.02)].min() > 0
    turned = same @ jnp.asarray([[0.6, 0.8], [-0.8, 0.6]])
    np.testing.assert_allclose(within_face(1.3 * turned, circle, 64)[0, ..., 0], inside, atol=1e-5)
    for squeezed, expected in ((0.8, 1.0), (0.5, (0.8 - 0.7) / 0.15), (0.3, 0.0), (-1.0, 0.0)):
        values = within_face(same @ jnp.diag(jnp.asarray([squeezed, 1.0])), circle, 64)
        np.testing.assert_allclose(values.max(), expected, atol=1e-4)


def test_equal_sources_are_fitted_once_and_alike(model: Model, faces, monkeypatch) -> None:
    images, landmarks = faces
    twice = np.repeat(images[:2], 2, axis=0), np.repeat(landmarks[:2], 2, axis=0)
    from ecvae_jax.synthesis import adapt as adaptation

    calls = []
    fit = adaptation._fit
    monkeypatch.setattr(adaptation, "_fit", lambda *args: calls.append(1) or fit(*args))
    drawn = transfer_adapted(model, *twice, landmarks[2:6], adaptation=AdaptConfig(steps=2))
    assert len(calls) == 2
    monkeypatch.undo()
    alone = transfer_adapted(model, images[1:2], landmarks[1:2], landmarks[5:6], adaptation=AdaptConfig(steps=2))
    assert np.abs(drawn[3].astype(int) - alone[0]).max() <= 1


@pytest.mark.parametrize(("name", "value"), [("steps", -1), ("detail", 1.5), ("learning_rate", 0.0)])
def test_settings_out_of_range_raise(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"adapt\.{name}={value}"):
        dataclasses.replace(AdaptConfig(), **{name: value})


@pytest.mark.usefixtures("unchecked_shapes")
def test_other_sizes_raise(model: Model, faces) -> None:
    images, landmarks = faces
    with pytest.raises(ValueError, match="the model reads uint8"):
        transfer_adapted(model, images[:, ::2, ::2], landmarks, landmarks)
    with pytest.raises(ValueError, match=r"the model reads \[n, 98, 2\]"):
        transfer_adapted(model, images, landmarks, landmarks[:, :68])


def test_transfer_has_the_defaults_of_the_command() -> None:
    """`transfer` and `interpolate` have no own ones: `Drawing` names all that they pass on."""
    defaults = {name: each.default for name, each in inspect.signature(transfer_cross).parameters.items()}
    command = {each.name: each for each in dataclasses.fields(TransferOptions)}
    assert Drawing.__annotations__.keys() == {"transport", "adaptation"}
    assert defaults["transport"] is command["transport"].default
    assert defaults["adaptation"] == command["adapt"].default_factory()
