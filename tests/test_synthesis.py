"""Batch synthesis: the laws between its functions, and the inputs that raise."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.config import AdaptConfig, Config, PriorConfig
from ecvae_jax.data.batches import load_faces
from ecvae_jax.images import to_uint8
from ecvae_jax.model.conditioning import make_condition
from ecvae_jax.model.model import Model
from ecvae_jax.synthesis import batches as synthesis
from ecvae_jax.synthesis.cross import transfer_cross
from ecvae_jax.synthesis.transfer import interpolate, transfer
from ecvae_jax.training.state import init_state
from ecvae_jax.training.step import to_views


def make_model(config: Config, batch: dict[str, np.ndarray]) -> Model:
    landmarks = load_faces(config.data.records, "train").landmarks
    state = init_state(config, landmarks, to_views({name: jnp.asarray(value) for name, value in batch.items()}))
    return Model(config, state.params, state.frozen, 0, {})


@pytest.fixture(scope="module")
def model(tiny_workdir: Path) -> Model:
    return load_model(tiny_workdir)


@pytest.fixture(scope="module")
def faces(tiny_config: Config):
    """Returns 40 faces: more than one compiled batch."""
    split = load_faces(tiny_config.data.records, "train")
    return split.images(range(40), 32), split.landmarks[:40]


def test_a_face_under_its_own_landmarks_is_its_reconstruction(model: Model, faces) -> None:
    images, landmarks = faces
    drawn = synthesis.transfer_plain(model, images, landmarks, landmarks)
    assert np.abs(drawn.astype(int) - synthesis.reconstruct(model, images, landmarks)).max() <= 1


def test_padding_and_batching_change_nothing(model: Model, faces) -> None:
    images, landmarks = faces
    whole = synthesis.encode(model, images, landmarks)
    alone = synthesis.encode(model, images[37:38], landmarks[37:38])
    assert whole.mean.shape == (40, model.config.model.z_dim)
    np.testing.assert_allclose(whole.mean[37:38], alone.mean, rtol=1e-4, atol=1e-5)


def test_move_keeps_the_place_in_the_prior(model: Model, faces) -> None:
    _, landmarks = faces
    z = np.random.default_rng(0).normal(size=(4, model.config.model.z_dim)).astype(np.float32)
    moved = synthesis.move(model, z, landmarks[:4], landmarks[4:8])
    parts = (landmarks[:4], landmarks[4:8])
    start, end = (make_condition(model.architecture, model.params, model.frozen, part).reference for part in parts)
    np.testing.assert_allclose((moved - end.mean) / end.stddev, (z - start.mean) / start.stddev, rtol=1e-3, atol=1e-3)
    back = synthesis.move(model, moved, landmarks[4:8], landmarks[:4])
    np.testing.assert_allclose(back, z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["equilibrium", "mixture", "standard"])
def test_samples_follow_the_prior_and_the_key(tiny_config: Config, tiny_batch, faces, kind: str) -> None:
    model = make_model(dataclasses.replace(tiny_config, prior=PriorConfig(kind=kind)), tiny_batch)
    _, landmarks = faces
    first = synthesis.sample(model, jax.random.key(0), landmarks[:2], 3)
    assert first.shape == (2, 3, 32, 32, 3)
    assert np.array_equal(first, synthesis.sample(model, jax.random.key(0), landmarks[:2], 3))
    assert not np.array_equal(first, synthesis.sample(model, jax.random.key(1), landmarks[:2], 3))
    assert not np.array_equal(first[0, 0], first[0, 1])


def test_drawn_z_has_the_moments_of_the_prior(model: Model, faces) -> None:
    _, landmarks = faces
    keys = jax.random.key_data(jax.random.split(jax.random.key(0), 4000))
    z = synthesis._sample(model.architecture, model.params, model.frozen, keys, np.repeat(landmarks[:1], 4000, axis=0))
    prior = make_condition(model.architecture, model.params, model.frozen, landmarks[:1]).reference
    u = (np.asarray(z) - prior.mean) / prior.stddev
    assert abs(u.mean()) < 5 / (u.size**0.5)
    assert abs(u.std() - 1) < 5 / ((2 * u.size) ** 0.5)


class Arrays(NamedTuple):
    """Faces as the input of `transfer`."""

    images: np.ndarray
    landmarks: np.ndarray


def some(faces, rows) -> Arrays:
    return Arrays(faces[0][rows], faces[1][rows])


def faces_of(arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    return arrays.images, arrays.landmarks


def test_a_path_starts_at_the_source_and_ends_at_the_target(model: Model, faces) -> None:
    plain = AdaptConfig(detail=0.0)
    walk = interpolate(model, some(faces, [0, 1]), some(faces, [9, 8]), 4, adaptation=plain)
    assert walk.shape == (2, 4, 32, 32, 3)
    ends = transfer(model, some(faces, [0, 0, 1, 1]), some(faces, [0, 9, 1, 8]), adaptation=plain)
    assert np.abs(walk[:, [0, 3]].astype(int) - ends.reshape(2, 2, 32, 32, 3)).max() <= 1
    one_target = interpolate(model, some(faces, [0, 1]), some(faces, [9]), 4, adaptation=plain)
    assert np.array_equal(one_target[0], walk[0])
    with pytest.raises(ValueError, match="at least 2"):
        interpolate(model, some(faces, [0]), some(faces, [9]), 1)
    with pytest.raises(ValueError, match="1 sources and 2 targets: give as many"):
        interpolate(model, some(faces, [0]), some(faces, [9, 8]), 4)


def test_one_source_or_one_target_broadcasts(model: Model, faces) -> None:
    one, two, three = some(faces, [0]), some(faces, [3, 4]), some(faces, [3, 4, 5])
    row, column = transfer(model, one, three), transfer(model, two, one)
    assert np.array_equal(row, transfer_cross(model, *faces_of(one), three.landmarks)[0])
    assert np.array_equal(column, transfer_cross(model, *faces_of(two), one.landmarks)[:, 0])
    # Equal numbers of either are drawn by the program of pairs, which may round a value to the next level.
    assert np.abs(row.astype(int) - transfer(model, some(faces, [0, 0, 0]), three)).max() <= 1
    assert np.abs(column.astype(int) - transfer(model, two, some(faces, [0, 0]))).max() <= 1
    with pytest.raises(ValueError, match="2 sources and 3 targets"):
        transfer(model, some(faces, [0, 1]), some(faces, [2, 3, 4]))


def test_a_model_is_a_pytree_with_a_static_config(model: Model, faces) -> None:
    halved = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), model)
    assert halved.config is model.config
    assert all(leaf.dtype == jnp.float16 for leaf in jax.tree.leaves(halved))
    drawn = jax.jit(lambda model, landmarks: make_condition(model.architecture, model.params, model.frozen, landmarks))(
        model, faces[1][:2]
    )
    assert drawn.sketch.shape == (2, 32, 32, 15)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda i, p: (i[:, :16], p), r"images uint8\[4, 16, 32, 3\]: the model reads uint8 \[n, 32, 32, 3\]"),
        (lambda i, p: (i.astype(np.float32), p), "images float32"),
        (lambda i, p: (i, p[:, :68]), r"landmarks \[4, 68, 2\]: the model reads \[n, 98, 2\]"),
        (lambda i, p: (i, np.where(p > 0.5, np.nan, p)), "a NaN or infinite value"),
        (lambda i, p: (i, p[:2]), "must have equal numbers"),
    ],
)
def test_wrong_arrays_raise(model: Model, faces, spoil, message: str) -> None:
    images, landmarks = spoil(faces[0][:4], faces[1][:4])
    with pytest.raises(ValueError, match=message):
        synthesis.encode(model, images, landmarks)


def test_images_are_8_bit_of_the_decoder(model: Model, faces) -> None:
    from ecvae_jax.model.cvae import decode

    _, landmarks = faces
    condition = make_condition(model.architecture, model.params, model.frozen, jnp.asarray(landmarks[:2]))
    expected = decode(model.config, model.params, condition.reference.mean, condition, model.frozen.z_scale)
    drawn = synthesis.decode(model, condition.reference.mean, landmarks[:2])
    assert np.abs(drawn.astype(int) - to_uint8(np.asarray(expected))).max() <= 1
