"""The page's JSON, drawn again: `ecvae transfer --replay FILE.json`.

The JSON may come from a stranger: it is read as data, and its sizes are checked before anything is computed.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.config import AdaptConfig
from ecvae_jax.data.errors import BadPhotoError, DataError, one_line
from ecvae_jax.data.photos.crop import CropBox, cut_crop
from ecvae_jax.data.photos.photo import read_photo
from ecvae_jax.export.formats import publishable
from ecvae_jax.files import UnsafePathError, check_output, read_regular
from ecvae_jax.images import enlarge as enlarged
from ecvae_jax.images import save_png, to_float, to_uint8
from ecvae_jax.model.model import Model
from ecvae_jax.page.functions import fine_size
from ecvae_jax.synthesis.adapt import transfer_adapted
from ecvae_jax.synthesis.batches import decode, encode, move
from ecvae_jax.synthesis.overlay import draw_over

_KIND, _FORMAT = "ecvae-replay", 1
_MOST_BYTES = 4_000_000
_LARGEST_PHOTO = 64_000_000
"""Bytes."""
_LARGEST_Z = 1e3
"""Magnitude of a number of z, whose prior has a deviation below 1."""
_WITHIN = (-1.0, 2.0)
"""Crop units in which a landmark may lie."""


@dataclass(frozen=True, eq=False)
class Replay:
    """What was done on the page: a face, by its crop or its z, drawn under other landmarks."""

    model: dict[str, Any]
    """`config_sha256`, `step` and `half` of the page's model."""
    landmarks: Float[np.ndarray, "p 2"]
    target: Float[np.ndarray, "q 2"]
    detail: float
    image: UInt8[np.ndarray, "h w 3"] | None
    """The crop at the model's size, as the page cut it."""
    fine: UInt8[np.ndarray, "a b 3"] | None
    """The crop whose own pixels are laid over, at the picture's size; None: `image`."""
    z: Float[np.ndarray, " d"] | None
    """Of a sampled or blended person, at `landmarks`; None: the mean of the image's posterior."""
    photo_sha256: str | None
    crop: CropBox | None


def read_replay(path: Path) -> Replay:
    """Returns the content of the page's JSON.

    Raises:
        DataError: the file is missing, too large, or no replay.
    """
    try:
        content = json.loads(read_regular(path, _MOST_BYTES))
    except UnsafePathError as error:
        raise DataError(f"replay: {error}; give the JSON saved by the page") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give the JSON saved by the page") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: is no JSON; give the file saved by the page") from None
    try:
        return _parsed(content)
    except BadPhotoError as error:
        raise DataError(f"{path}: image: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = one_line(error)
        raise DataError(f"{path}: is no replay of format {_FORMAT}: {reason}; save it again on the page") from None


def draw_replay(model: Model, replay: Replay) -> UInt8[np.ndarray, "side side 3"]:
    """Returns the replay's picture: at the size of `fine` if it has one, else at the model's.

    Raises:
        DataError: the replay was made with another model, or its arrays do not fit the model.
    """
    half = bool(replay.model.get("half"))
    if replay.model.get("config_sha256") not in _config_sums(model, half) or replay.model.get("step") != model.step:
        raise DataError(
            f"the page's model is of step {replay.model.get('step')}, this one of step {model.step}, or of another "
            "training; name the page's with --checkpoint"
        )
    model = _as_on_page(model, half)
    points, size = model.config.data.points, model.config.model.image_size
    if replay.landmarks.shape != (points, 2) or replay.target.shape != (points, 2):
        raise DataError(f"{len(replay.landmarks)} and {len(replay.target)} landmarks; the model reads {points}")
    landmarks, target = replay.landmarks[None], replay.target[None]
    if replay.z is not None:
        if replay.z.shape != (model.config.model.z_dim,):
            raise DataError(f"z has {replay.z.size} numbers; the model has {model.config.model.z_dim}")
        return decode(model, move(model, replay.z[None], landmarks, target), target)[0]
    if replay.image is None or replay.image.shape != (size, size, 3):
        found = None if replay.image is None else replay.image.shape
        raise DataError(f"the replay's crop is {found}; the model reads {size}×{size}")
    image = replay.image[None]
    if replay.fine is None or not replay.detail:
        return transfer_adapted(model, image, landmarks, target, True, AdaptConfig(detail=replay.detail))[0]
    if replay.fine.shape != (fine_size(model), fine_size(model), 3):
        raise DataError(f"the replay's fine crop is {replay.fine.shape}; must be {fine_size(model)} px")
    z, fine, share = (
        encode(model, image, landmarks).mean,
        to_float(jnp.asarray(replay.fine[None])),
        jnp.float32(replay.detail),
    )
    drawn = draw_over(model.architecture, model.params, model.frozen, z, fine, landmarks, target, share)
    return to_uint8(np.asarray(drawn))[0]


def write_replay(checkpoint: Path | None, path: Path, photo: Path | None, out: Path, factor: int) -> list[str]:
    """Writes the picture of a page's JSON as a PNG; returns notes.

    Args:
        checkpoint: of the page; None: face128, that of `ecvae page`.
        photo: the page's photo, from which the crop is cut again; None: the crop in the JSON.
        factor: integer factor by which the picture is enlarged.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        DataError: the JSON or the photo cannot be used, or the photo is not the page's.
        UnsafePathError: `out` is an input, or no regular file.
        OSError: the picture cannot be written.
    """
    check_output(out, [path, *([photo] if photo else [])])
    replay = read_replay(path)
    model = load_model(checkpoint or "face128")
    if photo is not None:
        replay = _with_photo(replay, photo, model)
    save_png(enlarged(draw_replay(model, replay), factor), out)
    return [f"replayed {path}: {out}"]


def _with_photo(replay: Replay, photo: Path, model: Model) -> Replay:
    """Returns the replay with crops cut from its photo."""
    if replay.photo_sha256 is None or replay.crop is None:
        raise DataError(f"{photo}: the replay names no photo; remove --source")
    try:
        data = read_regular(photo, _LARGEST_PHOTO)
        pixels, _ = read_photo(data)
    except UnsafePathError as error:
        raise DataError(f"photo: {error}; give the photo that was used on the page") from None
    except OSError as error:
        raise DataError(f"{photo}: {error.strerror}; give the photo that was used on the page") from None
    except BadPhotoError as error:
        raise DataError(f"{photo}: {error}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != replay.photo_sha256:
        raise DataError(
            f"{photo}: SHA-256 {found[:12]}…, the page's photo has {replay.photo_sha256[:12]}…; give that photo, or "
            "remove --source"
        )
    if not 1 <= replay.crop.side <= 4 * max(pixels.shape):
        raise DataError(f"{photo}: a crop of {replay.crop.side:g} px; must be between 1 and 4 times the photo")
    image = cut_crop(pixels, replay.crop, model.config.model.image_size)
    fine = None if replay.fine is None else cut_crop(pixels, replay.crop, fine_size(model))
    return dataclasses.replace(replay, image=image, fine=fine)


def _parsed(content: Any) -> Replay:
    if content["kind"] != _KIND or content["format"] != _FORMAT:
        raise ValueError(f"kind {content['kind']!r}, format {content['format']!r}")
    detail = float(content["detail"])
    if not 0 <= detail <= 1:
        raise ValueError(f"detail={detail}: must be between 0 and 1")
    photo, crop, z = (content.get(name) for name in ("photo", "crop", "z"))
    sha256 = None if photo is None else photo.get("sha256")
    if sha256 is not None and (not isinstance(sha256, str) or len(sha256) != 64):
        raise ValueError("photo.sha256: must have 64 digits")
    box = None if crop is None else CropBox(*(float(crop[name]) for name in CropBox._fields))
    if box is not None and not all(map(math.isfinite, box)):
        raise ValueError("crop: must be finite")
    model = dict(content["model"])
    if not isinstance(model.get("config_sha256"), str) or not isinstance(model.get("step"), int):
        raise ValueError("model: must have the text config_sha256 and the whole number step")
    return Replay(
        model=model,
        landmarks=_points(content["landmarks"], "landmarks"),
        target=_points(content["target_landmarks"], "target_landmarks"),
        detail=detail,
        image=_picture(content.get("image")),
        fine=_picture(content.get("fine")),
        z=None if z is None else _latent(z),
        photo_sha256=sha256,
        crop=box,
    )


def _picture(text: str | None) -> UInt8[np.ndarray, "h w 3"] | None:
    return None if text is None else read_photo(base64.b64decode(text, validate=True), max_megapixels=1.0)[0]


def _points(value: Any, name: str) -> Float[np.ndarray, "p 2"]:
    points = np.asarray(value, np.float32)
    if points.ndim != 2 or points.shape[1] != 2 or not ((points >= _WITHIN[0]) & (points <= _WITHIN[1])).all():
        raise ValueError(f"{name}: must be pairs of numbers between {_WITHIN[0]:g} and {_WITHIN[1]:g}")
    return points


def _latent(text: str) -> Float[np.ndarray, " d"]:
    z = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    if not (np.abs(z) <= _LARGEST_Z).all():
        raise ValueError(f"z: must be finite, each number between -{_LARGEST_Z:g} and {_LARGEST_Z:g}")
    return z


def _as_on_page(model: Model, half: bool) -> Model:
    """Returns the model with the page's rounded parameters, in float32."""
    model = publishable(model, half)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), model.params)
    config = model.config if not half else _in_float32(model)
    return dataclasses.replace(model, config=config, params=params)


def _config_sums(model: Model, half: bool) -> set[str]:
    """Returns the checksums of the model's config, as a page or a server states it."""
    model = publishable(model, half)
    return {hashlib.sha256(config.to_json().encode()).hexdigest() for config in (model.config, _in_float32(model))}


def _in_float32(model: Model) -> Any:
    return dataclasses.replace(model.config, model=dataclasses.replace(model.config.model, dtype="float32"))
