"""The model behind the interface: compiled programs for one face, in one thread with a bounded queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from ecvae_jax.config import AdaptConfig, Architecture
from ecvae_jax.data.errors import MissingExtraError
from ecvae_jax.data.portraits import FoundPortrait, PortraitReader
from ecvae_jax.export.formats import describe, publishable
from ecvae_jax.export.functions import exported_functions
from ecvae_jax.gaussian import LowRankGaussian
from ecvae_jax.images import to_float, to_uint8
from ecvae_jax.model.conditioning import Frozen, make_condition
from ecvae_jax.model.cvae import decode
from ecvae_jax.model.model import Model
from ecvae_jax.page.functions import fine_size
from ecvae_jax.serve.guard import RefusedError
from ecvae_jax.synthesis.batches import encode, move
from ecvae_jax.synthesis.cross import transfer_cross
from ecvae_jax.synthesis.overlay import draw_over

Face = Float[np.ndarray, "1 p 2"]
Latent = Float[np.ndarray, "1 d"]
Picture = UInt8[np.ndarray, "h w 3"]
_KEPT = 8
"""Reconstructions that are kept."""
_P = ParamSpec("_P")
_R = TypeVar("_R")


class Engine:
    """Encode, draw, move, transfer and sample for one face at a time, and the detector of the model's landmarks."""

    def __init__(self, model: Model) -> None:
        self.model, self.reader = model, PortraitReader.of_model(model)
        self.side, self.points = model.config.model.image_size, model.config.data.points
        self.z_dim = model.config.model.z_dim
        self.fine_side = fine_size(model)
        self._kept: dict[tuple[bytes, bytes], Array] = {}

    def about(self) -> dict[str, Any]:
        """Returns `model.json` of an export, with `compute` true, `fine_size`, and the detector's name or None."""
        plain = publishable(self.model, half=False)
        found = describe(plain, "onnx", exported_functions(plain))
        detector = self.reader.detector.name if self.has_detector() else None
        return {**found, "format": "compute", "compute": True, "fine_size": self.fine_side, "detector": detector}

    def has_detector(self) -> bool:
        """Returns whether the model's detector is installed; loads it."""
        try:
            return bool(self.reader.detector)
        except MissingExtraError:
            return False

    def encode(self, image: UInt8[np.ndarray, "1 h w 3"], landmarks: Face) -> Latent:
        """Returns the mean of q(z | image, landmarks)."""
        return np.asarray(encode(self.model, image, landmarks).mean)

    def move(self, z: Latent, landmarks: Face, target_landmarks: Face) -> Latent:
        """Returns z moved from the prior of one structure to that of another."""
        return move(self.model, z, landmarks, target_landmarks)

    def draw(
        self,
        z: Latent,
        landmarks: Face,
        own_landmarks: Face | None = None,
        image: UInt8[np.ndarray, "1 h w 3"] | None = None,
        detail: float = 1.0,
        fine: UInt8[np.ndarray, "1 a b 3"] | None = None,
    ) -> Picture:
        """Returns z drawn under landmarks; moved from its own ones, and under its photo's pixels, where given.

        With `fine`, the crop at `fine_side`, the picture has that size, and eyes that close are the model's alone.
        """
        model, photo = self.model, image if fine is None else fine
        constants = model.architecture, model.params, model.frozen
        if own_landmarks is None or photo is None or not detail:
            return to_uint8(np.asarray(_draw(*constants, z, landmarks, own_landmarks)))[0]
        faces = (
            z,
            to_float(jnp.asarray(photo)),
            own_landmarks,
            landmarks,
            jnp.float32(detail),
            self._reconstruction(z, own_landmarks),
        )
        return to_uint8(np.asarray(draw_over(*constants, *faces, keep_closed=fine is not None)))[0]

    def _reconstruction(self, z: Latent, landmarks: Face) -> Array:
        """Returns z drawn under its own landmarks; kept, as a drag asks for it at every step."""
        key = z.tobytes(), landmarks.tobytes()
        if key not in self._kept:
            model = self.model
            self._kept[key] = _draw(model.architecture, model.params, model.frozen, z, landmarks, None)
            if len(self._kept) > _KEPT:
                self._kept.pop(next(iter(self._kept)))
        return self._kept[key]

    def transfer(
        self,
        image: UInt8[np.ndarray, "1 h w 3"],
        landmarks: Face,
        target_landmarks: Face,
        detail: float = 1.0,
        transport: bool = True,
    ) -> Picture:
        """Returns the pixels of `ecvae transfer` for one source and one target."""
        adaptation = AdaptConfig(detail=detail)
        return transfer_cross(self.model, image, landmarks, target_landmarks, transport, adaptation)[0, 0]

    def sample(self, landmarks: Face, seed: int) -> Latent:
        """Returns z of `ecvae sample --n 1`: by the density stored with the model, or the prior where there is none."""
        model, key = self.model, jax.random.split(jax.random.key(seed), 1)[0]
        return np.asarray(_sample(model.architecture, model.params, model.frozen, key, landmarks, model.density))

    def find_face(self, photo: UInt8[np.ndarray, "h w 3"]) -> FoundPortrait:
        """Returns the largest face of a photo.

        Raises:
            DataError: the detector is not installed, or finds no face.
        """
        return self.reader.find_in(photo, "photo")

    def warm_up(self) -> None:
        """Compiles the programs of every request, so that the first one is answered at once."""
        face = np.full((1, self.points, 2), 0.5, np.float32)
        face += np.random.default_rng(0).uniform(-0.3, 0.3, face.shape).astype(np.float32)  # no two points in one place
        image = np.zeros((1, self.side, self.side, 3), np.uint8)
        z = self.encode(image, face)
        self.move(z, face, face)
        self.draw(z, face)
        self.draw(z, face, face)
        self.draw(z, face, face, image)
        self.draw(z, face, face, fine=np.zeros((1, self.fine_side, self.fine_side, 3), np.uint8))
        self.transfer(image, face, face)
        self.transfer(image, face, face, detail=0.0)
        self.sample(face, 0)


@partial(jax.jit, static_argnums=0)
def _draw(
    architecture: Architecture,
    params: PyTree,
    frozen: Frozen,
    z: Array,
    landmarks: Array,
    own_landmarks: Array | None,
) -> Float[Array, "1 h w 3"]:
    target = make_condition(architecture, params, frozen, landmarks)
    if own_landmarks is not None:
        z = make_condition(architecture, params, frozen, own_landmarks).prior.transport(z, target.prior)
    return decode(architecture, params, z, target, frozen.z_scale)


@partial(jax.jit, static_argnums=0)
def _sample(
    architecture: Architecture,
    params: PyTree,
    frozen: Frozen,
    key: Array,
    landmarks: Array,
    density: LowRankGaussian | None,
) -> Float[Array, "1 d"]:
    condition = make_condition(architecture, params, frozen, landmarks)
    if density is None:
        return condition.prior.sample(key)
    return condition.reference.mean + condition.reference.stddev * density.sample(key, 1.0)[None]


class Worker:
    """One thread that runs calls in order; more than `most` at once are refused, so that a crowd cannot pile up."""

    def __init__(self, name: str, most: int) -> None:
        self._pool, self._most = ThreadPoolExecutor(1, name), most
        self._pending, self._lock = 0, threading.Lock()

    async def run(self, call: Callable[_P, _R], *args: _P.args, **named: _P.kwargs) -> _R:
        """Returns what the call returns.

        Raises:
            RefusedError: the queue is full.
        """
        with self._lock:
            if self._pending >= self._most:
                raise RefusedError(503, f"busy: {self._most} requests are waiting; try again")
            self._pending += 1
        future = self._pool.submit(call, *args, **named)
        future.add_done_callback(self._count_down)
        return await asyncio.wrap_future(future)

    def _count_down(self, _: Future[Any]) -> None:
        with self._lock:
            self._pending -= 1

    def close(self) -> None:
        """Drops the calls that wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)
