"""What a request of the interface may hold, as pydantic models, and its arrays and images, decoded."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from typing import Annotated

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ecvae_jax.data.errors import BadPhotoError
from ecvae_jax.data.photos.photo import read_photo
from ecvae_jax.serve.guard import RefusedError

MOST_BYTES = 4 * 2**20
"""Of a request, but for a photo: eight times what a crop of 256 px and its z need."""
MOST_PHOTO_BYTES = 16 * 2**20
"""Of a request with a photo: 12 MB of JPEG."""
_MOST_MEGAPIXELS = 50.0
_MOST_SCANS = 64
"""Of a JPEG: cameras write at most a dozen. Each pass over the photo costs time, and a few bytes of the file."""
_LARGEST_Z = 1e3
"""Of a number of z, whose prior has a deviation below 1: beyond, float32 overflows in the network."""
_LEAST_SHARE = 1e-6

Coordinate = Annotated[float, Field(ge=-1.0, le=2.0, allow_inf_nan=False)]
Points = Annotated[
    list[tuple[Coordinate, Coordinate]],
    Field(
        min_length=68,
        max_length=98,
        fail_fast=True,  # a body of a million wrong points has one error
        description="One (x, y) per point, in crop units: 0 to 1 across the crop.",
    ),
]
Crop = Annotated[str, Field(description="Base64 of a PNG or JPEG: the crop, as large as the model's images.")]
Latent = Annotated[str, Field(description="Base64 of z_dim numbers, float32, little endian.")]
Share = Annotated[
    float,
    Field(ge=0.0, le=1.0, allow_inf_nan=False),
    AfterValidator(lambda share: share if share > _LEAST_SHARE else 0.0),  # a config refuses the smallest floats
]


class Body(BaseModel):
    """A JSON object without unknown fields; numbers are numbers, not texts."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Encode(Body):
    """A face: its crop and its landmarks."""

    image: Crop
    landmarks: Points


class Draw(Body):
    """A face to draw: z, and the landmarks to draw it under."""

    z: Latent
    landmarks: Points
    own_landmarks: Annotated[
        Points | None, Field(description="Landmarks of the face that gave z: z is moved from their prior.")
    ] = None
    image: Annotated[
        Crop | None, Field(description="Crop that gave z, with own_landmarks: its own pixels are laid over.")
    ] = None
    fine: Annotated[
        Crop | None,
        Field(description="In place of image: the crop at fine_size of api/model, which the picture then has."),
    ] = None
    detail: Annotated[Share, Field(description="Weight of the image's own pixels.")] = 1.0


class Move(Body):
    """A z to move from the prior of its own landmarks to that of others."""

    z: Latent
    landmarks: Points
    target_landmarks: Points


class Transfer(Body):
    """A face, and the landmarks to draw it under, as `ecvae transfer` does."""

    image: Crop
    landmarks: Points
    target_landmarks: Points
    detail: Annotated[Share, Field(description="Weight of the image's own pixels; adapt.detail.")] = 1.0
    transport: Annotated[bool, Field(description="Move z between the priors of the two structures.")] = True


class Sample(Body):
    """Landmarks for which an appearance is drawn."""

    landmarks: Points
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class FindFace(Body):
    """A photo in which the largest face is found."""

    photo: Annotated[str, Field(description="Base64 of a JPEG, PNG or WebP file.")]


def read_points(points: list[tuple[float, float]], count: int, name: str = "landmarks") -> Float[np.ndarray, "1 p 2"]:
    """Returns landmarks as an array of one face.

    Raises:
        RefusedError: the model has another number of landmarks.
    """
    if len(points) != count:
        raise RefusedError(422, f"{name}: {len(points)} points; the model reads {count}")
    return np.asarray(points, np.float32)[None]


def read_latent(text: str, size: int) -> Float[np.ndarray, "1 d"]:
    """Returns z as an array of one row.

    Raises:
        RefusedError: the text is not the Base64 of `size` finite float32 numbers of magnitude 1000 or less.
    """
    data = _bytes(text, "z")
    if len(data) != 4 * size:
        raise RefusedError(422, f"z: {len(data)} bytes; must be {size} numbers of 4 bytes")
    z = np.frombuffer(data, "<f4").astype(np.float32)
    if not (np.abs(z) <= _LARGEST_Z).all():  # also where one is NaN
        raise RefusedError(422, f"z: must be finite, each number between -{_LARGEST_Z:g} and {_LARGEST_Z:g}")
    return z[None]


def write_latent(z: Float[np.ndarray, "1 d"]) -> str:
    """Returns the Base64 of z as float32, little endian."""
    return base64.b64encode(np.asarray(z[0], "<f4").tobytes()).decode()


def read_crop(text: str, side: int, name: str = "image") -> UInt8[np.ndarray, "1 side side 3"]:
    """Returns the pixels of a PNG or JPEG, as one image; its size is checked before it is decoded.

    Raises:
        RefusedError: the text is not the Base64 of such a file, or the image has another size.
    """
    data = _bytes(text, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of large images and odd metadata; the rules are here
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                if image.size != (side, side):
                    width, height = image.size
                    raise RefusedError(422, f"{name}: {width}×{height} px; the model reads a crop of {side}×{side}")
                if image.mode not in ("RGB", "RGBA", "L", "P"):
                    raise RefusedError(422, f"{name}: mode {image.mode}; send 8-bit RGB")
                return np.asarray(image.convert("RGB"))[None]
    except RefusedError:
        raise
    except Exception:  # Pillow's decoders raise many types for a damaged file
        raise RefusedError(422, f"{name}: no readable PNG or JPEG") from None


def read_whole_photo(text: str) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the pixels of a photo, upright and in sRGB.

    Raises:
        RefusedError: the text is not the Base64 of a JPEG, PNG or WebP within the limits.
    """
    data = _bytes(text, "photo")
    kinds = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WebP"}
    kind = next((kind for start, kind in kinds.items() if data.startswith(start)), None)
    if kind is None:
        raise RefusedError(422, "photo: no JPEG, PNG or WebP")
    if kind == "JPEG" and data.count(b"\xff\xda") > _MOST_SCANS:
        raise RefusedError(422, f"photo: a JPEG of more than {_MOST_SCANS} scans; store it again")
    try:
        return read_photo(data, _MOST_MEGAPIXELS)[0]
    except BadPhotoError as error:
        raise RefusedError(422, f"photo: {str(error).split(' (max_')[0]}") from None


def _bytes(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise RefusedError(422, f"{name}: is not Base64") from None
