"""The OpenAPI 3.1 document of the interface, from the models of its bodies."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from ecvae_jax.serve import bodies

_ERRORS = {
    "403": "Host or Origin is not this server.",
    "413": "The body has too many bytes.",
    "415": "The Content-Type is not application/json.",
    "422": "The body is no such object, or a value is out of range.",
    "503": "Too many requests wait.",
}
_BINARY = {"image/png": {}, "application/octet-stream": {}}
_OBJECT = {"type": "object"}
_LATENT = {"type": "object", "required": ["z"], "properties": {"z": {"type": "string", "contentEncoding": "base64"}}}
_FOUND = {
    "type": "object",
    "required": ["landmarks", "image", "box", "notes"],
    "properties": {
        "landmarks": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        "image": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"},
        "box": {
            "type": "object",
            "description": "The crop's square in pixels of the upright photo.",
            "properties": {name: {"type": "number"} for name in ("x0", "y0", "side")},
        },
        "notes": {"type": "array", "items": {"type": "string"}},
    },
}
_JSON_LATENT = {"application/json": {"schema": _LATENT}}
_POSTS: dict[str, tuple[type[bodies.Body], str, dict[str, Any]]] = {
    "encode": (bodies.Encode, "z of a crop: the mean of q(z | image, landmarks).", _JSON_LATENT),
    "move": (bodies.Move, "z moved from the prior of its landmarks to that of others.", _JSON_LATENT),
    "draw": (bodies.Draw, "The picture of a z under landmarks: PNG, or RGB bytes by the Accept header.", _BINARY),
    "transfer": (bodies.Transfer, "The pixels of `ecvae transfer`: PNG, or RGB bytes by the Accept header.", _BINARY),
    "sample": (
        bodies.Sample,
        "A new appearance for landmarks: z; its picture where the Accept header asks for one.",
        {**_JSON_LATENT, **_BINARY},
    ),
    "landmarks": (
        bodies.FindFace,
        "The largest face of a photo, by the server's detector.",
        {"application/json": {"schema": _FOUND}},
    ),
}


def document(version: str, side: int, points: int) -> dict[str, Any]:
    """Returns the OpenAPI document, as JSON's values."""
    kinds = [(kind, "validation") for kind, _, _ in _POSTS.values()]
    _, schemas = models_json_schema(kinds, ref_template="#/components/schemas/{model}")  # pyright: ignore[reportArgumentType]
    paths: dict[str, Any] = {
        "/api/model": {"get": _get("What the model reads and draws; the fields of an export's model.json.")},
        "/api/openapi.json": {"get": _get("This document.")},
    }
    for name, (kind, about, answers) in _POSTS.items():
        statuses = _ERRORS | ({"501": "The detector is not installed."} if name == "landmarks" else {})
        paths[f"/api/{name}"] = {
            "post": {
                "operationId": name,
                "summary": about,
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}},
                },
                "responses": {
                    "200": {"description": about, "content": answers},
                    **{status: _error(text) for status, text in statuses.items()},
                },
            }
        }
    text = f"Images have {side}×{side} px, faces {points} landmarks in crop units. docs/serve.md has examples."
    return {
        "openapi": "3.1.0",
        "info": {"title": "ecvae serve --compute", "version": version, "description": text},
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }


def _get(about: str) -> dict[str, Any]:
    answer = {"description": about, "content": {"application/json": {"schema": _OBJECT}}}
    return {"summary": about, "responses": {"200": answer, "403": _error(_ERRORS["403"])}}


def _error(text: str) -> dict[str, Any]:
    schema = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    return {"description": text, "content": {"application/json": {"schema": schema}}}
