"""Transfer with adaptation to one photo: steps on z and the decoder, and the photo's own pixels where they agree.

An autoencoder trained on other people loses a person's identity. Two remedies, neither in the paper. A few seconds of
training fit the model to the source photo before its structure changes. Where the photo, warped by its landmarks,
agrees with the model's image, its own pixels replace the model's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ecvae_jax.config import AdaptConfig, Architecture
from ecvae_jax.images import to_float, to_uint8
from ecvae_jax.model.conditioning import Frozen, make_condition
from ecvae_jax.model.cvae import decode, encode
from ecvae_jax.model.model import Model
from ecvae_jax.model.ssim import structural_similarity
from ecvae_jax.structure.warp import cell_centers, finer, resample, resample_cubic, smooth_map
from ecvae_jax.synthesis.batches import Images, Landmarks, check_faces, in_batches, transfer_plain
from ecvae_jax.synthesis.batches import encode as encode_faces

FIELD = 32
"""Side of the grid on which the map between two faces is computed."""
_SSIM_WEIGHT = 0.3
_Z_RATE = 10.0
"""Learning rate of z, in units of the prior's standard deviation, relative to that of the decoder."""
_EDGE = 0.04
"""Width of the source's border, in crop units, over which its pixels fade out."""
_NEIGHBORHOOD = 0.17
"""Side of the square, in crop units, over which agreement is averaged: an eye with its lids."""
_TOLERANCE = 0.06
"""Mean absolute difference (images in [-1, 1]) that lowers the weight of a photo's pixels to 1/e. Neighborhood and
tolerance were chosen on views of 12 people outside the bundled model's training set."""
_TEXTURE_TOLERANCE = 0.12, 0.24
"""The same for the photo's texture, which carries little of its shape: beyond the face, and within it. Beyond, 0.2
gives turned heads a second outline of hair and collar. These figures, and the next ones, were chosen on views of 3
validation people, on rendered heads of the validation split, and on photographs of 59 people in other light."""
_TEXTURE = 1 / 48
"""Standard deviation, in crop units, of the blur that separates texture from shape."""
_FACE_EDGE = 0.03
"""Width, in crop units, over which the tolerance changes, within the outline of the landmarks."""
_ALIKE = 0.7, 0.85
"""How alike the map must leave the shapes of a face for the tolerance within it to begin to rise, and to be reached
(`within_face`). Turns by 30° have 0.87 and more. From one side to the other, with 0.3 to 0.5, texture draws lines."""
_OUTLINE = np.stack([f(np.arange(16) * np.pi / 8) for f in (np.cos, np.sin)]).astype(np.float32)
"""Normals of the outline's sides, as columns."""


def transfer_adapted(
    model: Model,
    images: Images,
    landmarks: Landmarks,
    target_landmarks: Landmarks,
    transport: bool = True,
    adaptation: AdaptConfig = AdaptConfig(),  # noqa: B008
) -> Images:
    """Returns n source appearances under n target structures, row by row, with the model adapted to each source.

    Consecutive equal sources are fitted once. `landmarks` are the sources'.

    Raises:
        ValueError: the images or landmarks do not fit the model's size or scheme.
    """
    if not adaptation.steps and not adaptation.detail:
        return transfer_plain(model, images, landmarks, target_landmarks, transport)
    architecture, frozen, share = model.architecture, model.frozen, jnp.float32(adaptation.detail)
    check_faces(model.config, images, landmarks)
    check_faces(model.config, images, target_landmarks)
    if not adaptation.steps:
        draw = partial(_draw, architecture, transport, model.params, frozen, share, None)
        return to_uint8(in_batches(draw, images, landmarks, target_landmarks))
    drawn = np.empty_like(images)
    params, z = model.params, None
    for row in range(len(images)):
        one, before = slice(row, row + 1), slice(row - 1, row)
        if not row or any((array[one] != array[before]).any() for array in (images, landmarks)):
            params, z = _fit(architecture, adaptation, model.params, frozen, images[one], landmarks[one])
        faces = images[one], landmarks[one], target_landmarks[one]
        picture = _draw(architecture, transport, params, frozen, share, z, *faces)
        drawn[row] = to_uint8(np.asarray(picture))[0]
    return drawn


def fit_source(
    model: Model, images: Images, landmarks: Landmarks, adaptation: AdaptConfig
) -> tuple[PyTree, Float[Array, "1 d"]]:
    """Returns the parameters and z that draw one source: its posterior mean, or those adapted to it.

    Raises:
        ValueError: the image or the landmarks do not fit the model's size or scheme.
    """
    check_faces(model.config, images, landmarks)
    if adaptation.steps:
        return _fit(model.architecture, adaptation, model.params, model.frozen, images, landmarks)
    return model.params, encode_faces(model, images, landmarks).mean


def photo_layers(
    image: Float[Array, "b side side 3"], reconstruction: Float[Array, "b h w 3"]
) -> Float[Array, "b side side 6"]:
    """Returns a photo, in [-1, 1], and its texture: the fine detail that its reconstruction lacks.

    Depends on the source only. `reconstruction` is the model's, at its resolution.
    """
    side = image.shape[1]
    if side != reconstruction.shape[1]:
        reconstruction = jax.image.resize(reconstruction, image.shape, "cubic")
    lacking = image - reconstruction
    distance = np.abs(np.arange(side)[:, None] - np.arange(side)[None]) / (_TEXTURE * side)
    near = np.exp(-0.5 * np.square(distance)) * (distance <= 3.0)
    return jnp.concatenate([image, lacking - _averaged(lacking, near)], axis=-1)


def lay_photo_over(
    layers: Float[Array, "b side side 6"],
    reconstruction: Float[Array, "b h w 3"],
    drawn: Float[Array, "b h w 3"],
    landmarks: Float[Array, "b p 2"],
    target_landmarks: Float[Array, "b p 2"],
    share: Float[Array, "*_"] | float = 1.0,
) -> Float[Array, "b side side 3"]:
    """Returns drawn transfers, at the source photo's resolution, with its own pixels where these are reliable.

    The photo is warped to the target's landmarks (`structure.warp.smooth_map`), and so is the model's reconstruction of
    it. Where the warped reconstruction differs from the drawn image (a mouth that opens, the far cheek of a turned
    head, another light), the drawn image stays. Up to twice that difference, the photo's texture is added to it. The
    photo also fades beyond its border, and where the map stretches it.

    Args:
        layers: `photo_layers` of the sources, of any size; `reconstruction` and `drawn` are the model's.
        share: weight of the photo where it agrees fully, 0 to 1.
    """
    places, weight, texture_weight = photo_weights(reconstruction, drawn, landmarks, target_landmarks, share)
    count, side = layers.shape[:2]
    if side == drawn.shape[1]:  # of a finer photo, bilinear reading blurs less than a pixel of the model
        read = resample_cubic(layers, finer(places, side))
    else:
        drawn = jax.image.resize(drawn, (count, side, side, 3), "cubic")
        weight, texture_weight = (
            jax.image.resize(each, (count, side, side, 1), "linear") for each in (weight, texture_weight)
        )
        read = resample(layers, finer(places, side))
    photo, texture = read[..., :3], read[..., 3:]
    return drawn + weight * (photo - drawn) + texture_weight * texture


def photo_weights(
    reconstruction: Float[Array, "b h w 3"],
    drawn: Float[Array, "b h w 3"],
    landmarks: Float[Array, "b p 2"],
    target_landmarks: Float[Array, "b p 2"],
    share: Float[Array, "*_"] | float = 1.0,
) -> tuple[Float[Array, "b f f 2"], Float[Array, "b h w 1"], Float[Array, "b h w 1"]]:
    """Returns where each cell of a coarse grid over the drawn image lies in the photo, and two weights of pixels.

    The weights are those of the photo and of its texture. The arguments are those of `lay_photo_over`.
    """
    size = drawn.shape[1]
    places = smooth_map(target_landmarks, landmarks, FIELD, pinned=True)
    fine = finer(places, size)
    trust, inside = trust_in_map(places, fine), within_face(places, target_landmarks, size)
    weight, texture_weight = pixel_weights(trust, inside, resample(reconstruction, fine), drawn)
    return places, share * weight, share * texture_weight


def trust_in_map(places: Float[Array, "b f f 2"], fine: Float[Array, "b side side 2"]) -> Float[Array, "b side side 1"]:
    """Returns the weight of a photo's pixels by the map alone: lower where it stretches the photo or leaves it.

    Args:
        places: where each cell of a coarse grid over the drawn image lies in the photo, crop units.
        fine: the same for each pixel.
    """
    size = fine.shape[1]
    down, right = (jnp.asarray(jnp.gradient(places, 1 / FIELD, axis=axis)) for axis in (1, 2))
    area = right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]
    usual = jnp.abs(jnp.median(area, axis=(1, 2), keepdims=True)) + 1e-6
    here = jnp.broadcast_to(cell_centers(size)[None], (places.shape[0], size, size, 2))
    trust = resample(jnp.clip(area / usual, 0.0, 1.0)[..., None], here)
    # Channel by channel, as below: XLA's CPU code for reductions over 2 or 3 channels is slow.
    inside = jnp.minimum(fine, 1.0 - fine)
    return trust * jnp.clip(jnp.minimum(inside[..., :1], inside[..., 1:]) / _EDGE + 0.5, 0.0, 1.0)


def within_face(
    places: Float[Array, "b f f 2"], target_landmarks: Float[Array, "b p 2"], size: int
) -> Float[Array, "b size size 1"]:
    """Returns 1 within the outline of the target's landmarks, 0 beyond it, and between them near it.

    It is lower where the map shears and squeezes the face, down to 0 for a head that turns from side to side.

    Args:
        places: where each cell of a coarse grid over the drawn image lies in the photo, crop units.
    """
    down, right = (jnp.asarray(jnp.gradient(places, 1 / FIELD, axis=axis)) for axis in (1, 2))
    area = right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]
    stretch = (
        jnp.square(right[..., 0]) + jnp.square(right[..., 1]) + jnp.square(down[..., 0]) + jnp.square(down[..., 1])
    )
    # 1 where the map only turns and scales, 2 r / (1 + r²) where it squeezes by r, 0 where it folds.
    alike = jnp.clip(2.0 * area / (stretch + 1e-6), 0.0, 1.0)
    coarse = _within_outline(target_landmarks, FIELD)
    mean = jnp.sum(alike * coarse, axis=(1, 2)) / (jnp.sum(coarse, axis=(1, 2)) + 1e-6)
    least, full = _ALIKE
    share = jnp.clip((mean - least) / (full - least), 0.0, 1.0)
    return (share[:, None, None] * _within_outline(target_landmarks, size))[..., None]


def _within_outline(landmarks: Float[Array, "b p 2"], size: int) -> Float[Array, "b size size"]:
    """The same for any map. The outline is the landmarks' convex hull, with 16 sides of fixed directions."""
    sides = jnp.max(landmarks @ _OUTLINE, axis=1)
    across = cell_centers(size) @ _OUTLINE
    depth = jnp.min(sides[:, None, None] - across[None], axis=-1)
    return jnp.clip(depth / _FACE_EDGE, 0.0, 1.0)


def pixel_weights(
    trust: Float[Array, "b h w 1"],
    inside: Float[Array, "b h w 1"],
    warped: Float[Array, "b h w 3"],
    drawn: Float[Array, "b h w 3"],
) -> tuple[Float[Array, "b h w 1"], Float[Array, "b h w 1"]]:
    """Returns the weight of a photo's pixels, and that of its texture beyond it, 0 to 1.

    They are high where the warped reconstruction and the drawn image agree around a pixel. Within the face, texture may
    disagree more: there, a turned head shows the same skin, and features carry the person.

    Args:
        trust: `trust_in_map`, which both weights contain.
        inside: `within_face`.
    """
    size = drawn.shape[1]
    apart = jnp.abs(warped - drawn)
    mean = (apart[..., :1] + apart[..., 1:2] + apart[..., 2:]) / 3.0
    near = np.abs(np.arange(size)[:, None] - np.arange(size)[None]) <= _NEIGHBORHOOD * size / 2
    local = _averaged(trust * mean, near)
    beyond, within = _TEXTURE_TOLERANCE
    most = beyond + (within - beyond) * inside
    weight, textured = (trust * jnp.exp(-jnp.square(local / tolerance)) for tolerance in (_TOLERANCE, most))
    return weight, textured - weight


def _averaged(maps: Float[Array, "b h w c"], near: np.ndarray) -> Float[Array, "b h w c"]:
    """Returns the maps averaged over rows and columns with the weights `near`, side side."""
    # Two matrix products: with a window reduction, XLA spends most of a minute on constant folding.
    mean = jnp.asarray(near / near.sum(axis=1, keepdims=True), maps.dtype)
    return jnp.einsum("ih,bhwc,jw->bijc", mean, maps, mean, precision=jax.lax.Precision.HIGHEST)


@partial(jax.jit, static_argnums=(0, 1))
def _draw(
    architecture: Architecture,
    transport: bool,
    params: PyTree,
    frozen: Frozen,
    share: Array,
    z: Array | None,
    images: Array,
    landmarks: Array,
    target_landmarks: Array,
) -> Float[Array, "b h w 3"]:
    source, target = (make_condition(architecture, params, frozen, face) for face in (landmarks, target_landmarks))
    image = to_float(images)
    if z is None:
        z = encode(architecture, params, image, source).mean
    moved = source.prior.transport(z, target.prior) if transport else z
    drawn = decode(architecture, params, moved, target, frozen.z_scale)
    reconstruction = decode(architecture, params, z, source, frozen.z_scale)
    layers = photo_layers(image, reconstruction)
    return lay_photo_over(layers, reconstruction, drawn, landmarks, target_landmarks, share)


@partial(jax.jit, static_argnums=(0, 1))
def _fit(
    architecture: Architecture, adaptation: AdaptConfig, params: PyTree, frozen: Frozen, image: Array, landmarks: Array
) -> tuple[PyTree, Float[Array, "1 d"]]:
    """Returns parameters with a fitted decoder, and a fitted z, for the reconstruction of one photo."""
    import optax  # late: 0.4 s, and the default fits nothing

    true, condition = to_float(image), make_condition(architecture, params, frozen, landmarks)
    start = encode(architecture, params, true, condition).mean

    def place(free: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
        decoder, change = free
        return {**params, "structure": decoder}, start + _Z_RATE * frozen.z_scale * change

    def loss(free: tuple[PyTree, Array]) -> Array:
        drawn = decode(architecture, *place(free), condition, frozen.z_scale)
        return jnp.mean(jnp.abs(drawn - true)) + _SSIM_WEIGHT * (1.0 - structural_similarity(drawn, true)[0])

    optimizer = optax.adam(optax.cosine_decay_schedule(adaptation.learning_rate, adaptation.steps, 0.1))

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        free, state = carry
        updates, state = optimizer.update(jax.grad(loss)(free), state, free)
        return (optax.apply_updates(free, updates), state), None

    free = (params["structure"], jnp.zeros_like(start))
    (free, _), _ = jax.lax.scan(step, (free, optimizer.init(free)), length=adaptation.steps)
    return place(free)
