"""The interface of `ecvae serve --compute`: paths below api/, their bodies and answers, and the OpenAPI document."""

from __future__ import annotations

import base64
import io
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from ecvae_jax.data.errors import DataError, MissingExtraError
from ecvae_jax.data.photos.crop import cut_crop
from ecvae_jax.serve import bodies
from ecvae_jax.serve.engine import Engine, Worker
from ecvae_jax.serve.guard import Guard, RefusedError, one_of, refused
from ecvae_jax.serve.openapi import document
from ecvae_jax.serve.static import Files

PNG, RAW, JSON = "image/png", "application/octet-stream", "application/json"

_WAITING, _WAITING_PHOTOS = 16, 2
"""Requests that may wait for the model and for the detector."""

_Body = TypeVar("_Body", bound=bodies.Body)


def make_app(page: ASGIApp | Files, bound: str, engine: Engine | None = None) -> Guard:
    """Returns the application: the page's files, and with an engine the interface below /api.

    Args:
        bound: name or address that the server listens on, which requests must name.
    """
    if engine is None:
        return Guard(page, bound)
    routes = [Mount("/api", routes=Interface(engine).routes()), Mount("/", app=page)]
    handlers: dict[Any, Any] = {
        RefusedError: lambda request, refusal: _refused(refusal),
        HTTPException: lambda request, error: refused(error.status_code, error.detail, error.headers),
        ClientDisconnect: lambda request, error: Response(status_code=400),
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, bound)


class Interface:
    """The paths of the interface, as functions of requests."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.computing = Worker("compute", _WAITING)
        self.detecting = Worker("detect", _WAITING_PHOTOS)
        self._about = {**engine.about(), "limits": {"bytes": bodies.MOST_BYTES, "photo_bytes": bodies.MOST_PHOTO_BYTES}}

    def routes(self) -> list[Route]:
        """Returns the routes below /api."""
        posts = {
            "encode": self.encode,
            "draw": self.draw,
            "move": self.move,
            "transfer": self.transfer,
            "sample": self.sample,
            "landmarks": self.landmarks,
        }
        described = document(self._about["version"], self._about["image_size"], self._about["points"])
        return [
            Route("/model", lambda request: _json(self._about)),
            Route("/openapi.json", lambda request: _json(described)),
            *(Route(f"/{name}", _answering(call), methods=["POST"]) for name, call in posts.items()),
        ]

    async def encode(self, request: Request) -> Response:
        """Answers with the z of a crop."""
        body = await _read(request, bodies.Encode)

        def compute() -> str:
            face = bodies.read_points(body.landmarks, self.engine.points)
            return bodies.write_latent(self.engine.encode(bodies.read_crop(body.image, self.engine.side), face))

        return _json({"z": await self.computing.run(compute)})

    async def move(self, request: Request) -> Response:
        """Answers with z moved from the prior of one structure to that of another."""
        body = await _read(request, bodies.Move)

        def compute() -> str:
            pairs = (body.landmarks, "landmarks"), (body.target_landmarks, "target_landmarks")
            faces = (bodies.read_points(points, self.engine.points, name) for points, name in pairs)
            return bodies.write_latent(self.engine.move(bodies.read_latent(body.z, self.engine.z_dim), *faces))

        return _json({"z": await self.computing.run(compute)})

    async def draw(self, request: Request) -> Response:
        """Answers with the picture of a z under landmarks."""
        body, raw = await _read(request, bodies.Draw), _wants_raw(request)
        photos = [name for name in ("image", "fine") if getattr(body, name) is not None]
        if photos and body.own_landmarks is None:
            raise RefusedError(422, f"{photos[0]}: needs own_landmarks, the landmarks of that image")
        if len(photos) > 1:
            raise RefusedError(422, "fine: replaces image; send one of them")

        def compute() -> bytes:
            engine = self.engine
            z = bodies.read_latent(body.z, engine.z_dim)
            face, own, image, fine = bodies.read_points(body.landmarks, engine.points), None, None, None
            if body.own_landmarks is not None:
                own = bodies.read_points(body.own_landmarks, engine.points, "own_landmarks")
            if body.image is not None:
                image = bodies.read_crop(body.image, engine.side)
            if body.fine is not None:
                fine = bodies.read_crop(body.fine, engine.fine_side, "fine")
            return _packed(engine.draw(z, face, own, image, body.detail, fine), raw)

        return _picture(await self.computing.run(compute), raw)

    async def transfer(self, request: Request) -> Response:
        """Answers with the pixels of `ecvae transfer`."""
        body, raw = await _read(request, bodies.Transfer), _wants_raw(request)

        def compute() -> bytes:
            engine = self.engine
            face = bodies.read_points(body.landmarks, engine.points)
            target = bodies.read_points(body.target_landmarks, engine.points, "target_landmarks")
            image = bodies.read_crop(body.image, engine.side)
            return _packed(engine.transfer(image, face, target, body.detail, body.transport), raw)

        return _picture(await self.computing.run(compute), raw)

    async def sample(self, request: Request) -> Response:
        """Answers with a new appearance for landmarks: z, or its picture where an Accept header asks for one."""
        body = await _read(request, bodies.Sample)
        kind = one_of(request.headers.get("accept", ""), (PNG, RAW)) or JSON

        def compute() -> str | bytes:
            face = bodies.read_points(body.landmarks, self.engine.points)
            z = self.engine.sample(face, body.seed)
            return bodies.write_latent(z) if kind == JSON else _packed(self.engine.draw(z, face), kind == RAW)

        answer = await self.computing.run(compute)
        return _json({"z": answer}) if isinstance(answer, str) else _picture(answer, kind == RAW)

    async def landmarks(self, request: Request) -> Response:
        """Answers with the largest face of a photo: landmarks in crop units, the crop, and where it was cut."""
        body = await _read(request, bodies.FindFace, bodies.MOST_PHOTO_BYTES)

        def detect() -> dict[str, Any]:
            found = self.engine.find_face(bodies.read_whole_photo(body.photo))
            crop = cut_crop(found.photo, found.box, self.engine.side)
            return {
                "landmarks": found.landmarks.tolist(),
                "image": base64.b64encode(_packed(crop, raw=False)).decode(),
                "box": found.box._asdict(),
                "notes": found.notes,
            }

        try:
            return _json(await self.detecting.run(detect))
        except DataError as error:
            raise RefusedError(501 if isinstance(error, MissingExtraError) else 422, str(error)) from None


async def _read(request: Request, kind: type[_Body], most: int = bodies.MOST_BYTES) -> _Body:
    """Returns the body of a request; reads no byte more than it may have.

    Raises:
        RefusedError: the body is too large, no JSON, or not of its kind.
    """
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media != JSON:
        raise RefusedError(415, f"Content-Type: must be {JSON}")
    stated = request.headers.get("content-length", "0")
    large = RefusedError(413, f"body: more than {most} bytes")
    if stated.isdigit() and int(stated) > most:
        raise large
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > most:
            raise large
    try:
        return kind.model_validate_json(bytes(data))
    except ValidationError as error:
        raise RefusedError(422, _first_fault(error)) from None


def _first_fault(error: ValidationError) -> str:
    """Returns the first fault in one line, without the sender's text but for the name of a field."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else ascii(part)[1:-1][:40] for part in fault["loc"])
    return f"{place or 'body'}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"[:200]


def _answering(call: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:  # Starlette inspects it: a bound method is not enough
        return await call(request)

    return endpoint


def _refused(refusal: RefusedError) -> Response:
    return refused(refusal.status, refusal.line, {"retry-after": "1"} if refusal.status == 503 else None)


def _wants_raw(request: Request) -> bool:
    return one_of(request.headers.get("accept", ""), (PNG, RAW)) == RAW


def _packed(picture: UInt8[np.ndarray, "h w 3"], raw: bool) -> bytes:
    """Returns the pixels, row by row, or a PNG."""
    if raw:
        return picture.tobytes()
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", compress_level=1)  # three times as fast as the default
    return stream.getvalue()


def _picture(data: bytes, raw: bool) -> Response:
    return Response(data, media_type=RAW if raw else PNG, headers={"cache-control": "no-store"})


def _json(content: Any) -> Response:
    return JSONResponse(content, headers={"cache-control": "no-store"})
