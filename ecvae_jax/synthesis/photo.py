"""A photo's own pixels over a drawn face: where its reconstruction, warped by the landmarks, agrees with the drawing.

Not in the paper. An autoencoder trained on other people loses a person's detail; the photo has it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ecvae_jax.structure.warp import cell_centers, finer, resample, resample_cubic, smooth_map

FIELD = 32
"""Side of the grid on which the map between two faces is computed."""
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
    _, _, area = _steps(places)
    usual = jnp.abs(_median(area)) + 1e-6
    shape = (places.shape[0], size, size, 1)
    trust = jax.image.resize(jnp.clip(area / usual, 0.0, 1.0)[..., None], shape, "linear", antialias=False)
    # Channel by channel, as below: XLA's CPU code for reductions over 2 or 3 channels is slow.
    inside = jnp.minimum(fine, 1.0 - fine)
    return trust * jnp.clip(jnp.minimum(inside[..., :1], inside[..., 1:]) / _EDGE + 0.5, 0.0, 1.0)


def _median(area: Float[Array, "b f f"]) -> Float[Array, "b 1 1"]:
    """Returns the median of each map, to 1e-6."""
    # XLA's CPU code sorts integers 7 times as fast as floats.
    ordered = jnp.sort((area * 2.0**20).astype(jnp.int32).reshape(-1, FIELD * FIELD), axis=1)
    middle = FIELD * FIELD // 2
    return (jnp.mean(ordered[:, middle - 1 : middle + 1], axis=1) / 2.0**20)[:, None, None]


def within_face(
    places: Float[Array, "n f f 2"], target_landmarks: Float[Array, "b p 2"], size: int
) -> Float[Array, "n size size 1"]:
    """Returns 1 within the outline of the target's landmarks, 0 beyond it, and between them near it.

    It is lower where the map shears and squeezes the face, down to 0 for a head that turns from side to side. n may be
    a multiple of b: map i then has target i % b, and each target's outline is drawn once.

    Args:
        places: where each cell of a coarse grid over the drawn image lies in the photo, crop units.
    """
    down, right, area = _steps(places)
    stretch = (
        jnp.square(right[..., 0]) + jnp.square(right[..., 1]) + jnp.square(down[..., 0]) + jnp.square(down[..., 1])
    )
    # 1 where the map only turns and scales, 2 r / (1 + r²) where it squeezes by r, 0 where it folds.
    alike = jnp.clip(2.0 * area / (stretch + 1e-6), 0.0, 1.0)
    times = places.shape[0] // target_landmarks.shape[0]
    coarse, fine = (jnp.tile(_within_outline(target_landmarks, side), (times, 1, 1)) for side in (FIELD, size))
    mean = jnp.sum(alike * coarse, axis=(1, 2)) / (jnp.sum(coarse, axis=(1, 2)) + 1e-6)
    least, full = _ALIKE
    share = jnp.clip((mean - least) / (full - least), 0.0, 1.0)
    return (share[:, None, None] * fine)[..., None]


def _steps(places: Float[Array, "b f f 2"]) -> tuple[Array, Array, Float[Array, "b f f"]]:
    """Returns the map's derivatives down and to the right, b f f 2, and the area that they span: 0 or less in folds."""
    down, right = (jnp.asarray(jnp.gradient(places, 1 / FIELD, axis=axis)) for axis in (1, 2))
    return down, right, right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]


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
