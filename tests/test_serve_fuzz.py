"""Requests made from the OpenAPI document, and good ones damaged: no answer is a server's error, all are documented."""

from __future__ import annotations

import base64
import collections
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("schemathesis")

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.http import post

import ecvae_jax
from ecvae_jax.serve import bodies
from ecvae_jax.serve.api import make_app
from ecvae_jax.serve.engine import Engine
from ecvae_jax.serve.guard import Guard
from ecvae_jax.serve.static import Files

pytestmark = pytest.mark.slow

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)
POSTS = ("encode", "move", "draw", "transfer", "sample", "landmarks")
bounded = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])


@pytest.fixture(scope="module")
def engine(tiny_workdir: Path) -> Engine:
    return Engine(ecvae_jax.load_model(tiny_workdir))


@pytest.fixture(scope="module")
def app(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Guard:
    return make_app(Files(tmp_path_factory.mktemp("page")), "testserver", engine)


@pytest.fixture(scope="module")
def local(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Guard:
    return make_app(Files(tmp_path_factory.mktemp("page")), "127.0.0.1", engine)


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("path", POSTS)
def test_generated_requests_are_answered_as_documented(app: Guard, path: str, mode: str) -> None:
    operation = schemathesis.openapi.from_asgi("/api/openapi.json", app)[f"/api/{path}"]["POST"]
    seen: list[int] = []

    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    @bounded
    def requests(case: Any) -> None:
        answer = case.call_and_validate(checks=[schemathesis.checks.CHECKS.get_one(name) for name in CHECKS])
        seen.append(answer.status_code)

    requests()
    assert len(seen) >= 100
    assert max(seen) < 500 or path == "landmarks"  # 501: no detector is installed


def packed(image: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind)
    return stream.getvalue()


def damage(draw: st.DrawFn, data: bytes) -> bytes:
    """Returns the bytes with a few changed, some cut off, or some inserted."""
    found = bytearray(data)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        place = draw(st.integers(0, len(found)))
        kind = draw(st.sampled_from(["change", "cut", "insert"]))
        if kind == "insert":
            found[place:place] = draw(st.binary(max_size=40))
        elif kind == "cut":
            del found[place : place + draw(st.integers(0, 60))]
        elif place < len(found):
            found[place] = draw(st.integers(0, 255))
    return bytes(found)


@pytest.mark.parametrize("path", POSTS)
def test_damaged_requests_are_one_line(local: Guard, engine: Engine, tiny_records: Path, path: str) -> None:
    """Photos with damaged bytes, numbers of any bits, landmarks anywhere: an answer, or a refusal in one line."""
    faces = ecvae_jax.load_portraits(engine.model, [f"{tiny_records}:test:0,30"])
    first, second = (face.tolist() for face in faces.landmarks)
    photos = [packed(faces.images[0], kind) for kind in ("PNG", "JPEG")] + [packed(faces.images[0], "WEBP")]
    large = np.asarray(Image.fromarray(faces.images[0]).resize((engine.fine_side, engine.fine_side)))
    fine = [packed(large, kind) for kind in ("PNG", "JPEG")]
    z = np.asarray(engine.encode(faces.images[:1], faces.landmarks[:1]), "<f4").tobytes()
    statuses: collections.Counter[int] = collections.Counter()

    @st.composite
    def any_points(draw: st.DrawFn) -> list[list[float]]:
        points = [list(point) for point in draw(st.sampled_from([first, second]))]
        for _ in range(draw(st.integers(0, 5))):
            points[draw(st.integers(0, 97))] = draw(st.lists(st.floats(-1, 2), min_size=2, max_size=2))
        beyond = draw(st.sampled_from([None] * 15 + [-1.1, 2.1, float("nan"), 1e300, 10**30]))
        if beyond is not None:
            points[draw(st.integers(0, 97))][0] = beyond
        return [points[0]] * 98 if draw(st.integers(0, 9)) == 0 else points  # all in one place

    @st.composite
    def any_body(draw: st.DrawFn) -> bytes:
        def text(data: bytes) -> str:
            return base64.b64encode(damage(draw, data)).decode()

        kinds = photos if path == "landmarks" else photos[:2]
        made = {
            "image": lambda: text(draw(st.sampled_from(kinds))),
            "fine": lambda: text(draw(st.sampled_from(fine))),
            "photo": lambda: text(draw(st.sampled_from(kinds))),
            "z": lambda: text(z),
            "landmarks": lambda: draw(any_points()),
            "target_landmarks": lambda: draw(any_points()),
            "own_landmarks": lambda: draw(st.one_of(any_points(), any_points(), st.none())),
            "detail": lambda: draw(st.floats(0, 1)),
            "transport": lambda: draw(st.booleans()),
            "seed": lambda: draw(st.integers(0, 2**32)),
        }
        kind = {"encode": bodies.Encode, "move": bodies.Move, "draw": bodies.Draw, "transfer": bodies.Transfer,
                "sample": bodies.Sample, "landmarks": bodies.FindFace}[path]  # fmt: skip
        left_out = draw(st.sampled_from(["fine", "fine", "image", "image", None])) if path == "draw" else None
        data = json.dumps({name: made[name]() for name in kind.model_fields if name != left_out}).encode()
        return damage(draw, data) if draw(st.integers(0, 9)) == 0 else data

    @given(any_body())
    @bounded
    def requests(body: bytes) -> None:
        answer = post(local, f"/api/{path}", body, "image/png")
        statuses[answer.status] += 1
        assert answer.status in (200, 422, 501)
        if answer.status != 200:
            assert answer.error.isprintable()
        elif path in ("draw", "transfer", "sample"):
            assert Image.open(io.BytesIO(answer.body)).size in ((32, 32), large.shape[:2])

    requests()
    assert statuses[422] or path == "landmarks"
    assert statuses[200] > 20 or path == "landmarks"
