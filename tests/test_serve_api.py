"""The interface of `serve --compute`: the pixels of the package, one line for what is refused, bounded work."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("pydantic")

import jax
from PIL import Image
from support.http import Answer, ask, post, send

import ecvae_jax
from ecvae_jax.cli.main import main
from ecvae_jax.data.detect.detector import DetectedFace
from ecvae_jax.data.errors import MissingExtraError
from ecvae_jax.data.faces import load_faces
from ecvae_jax.export.formats import describe
from ecvae_jax.export.functions import exported_functions
from ecvae_jax.model.model import Model
from ecvae_jax.page.replay import draw_replay, read_replay
from ecvae_jax.serve import bodies
from ecvae_jax.serve.api import make_app
from ecvae_jax.serve.engine import Engine
from ecvae_jax.serve.guard import Guard
from ecvae_jax.serve.static import Files
from ecvae_jax.synthesis.batches import move


@pytest.fixture(scope="module")
def model(tiny_workdir: Path) -> Model:
    return ecvae_jax.load_model(tiny_workdir)


@pytest.fixture(scope="module")
def engine(model: Model) -> Engine:
    return Engine(model)


@pytest.fixture(scope="module")
def app(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Guard:
    page = tmp_path_factory.mktemp("page")
    (page / "index.html").write_text("the page")
    return make_app(Files(page), "127.0.0.1", engine)


@pytest.fixture(scope="module")
def faces(model: Model, tiny_records: Path) -> ecvae_jax.Portraits:
    return ecvae_jax.load_portraits(model, [f"{tiny_records}:test:0,30"])


@pytest.fixture(scope="module")
def good(faces: ecvae_jax.Portraits, engine: Engine) -> dict[str, Any]:
    """A good value for every field of a body."""
    z = engine.encode(faces.images[:1], faces.landmarks[:1])
    return {
        "image": packed(faces.images[0]),
        "landmarks": faces.landmarks[0].tolist(),
        "target_landmarks": faces.landmarks[1].tolist(),
        "own_landmarks": faces.landmarks[0].tolist(),
        "z": bodies.write_latent(z),
        "detail": 1.0,
        "seed": 3,
    }


FIELDS = {
    "encode": ("image", "landmarks"),
    "move": ("z", "landmarks", "target_landmarks"),
    "draw": ("z", "landmarks"),
    "transfer": ("image", "landmarks", "target_landmarks"),
    "sample": ("landmarks",),
}


def packed(image: np.ndarray, kind: str = "PNG") -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind)
    return base64.b64encode(stream.getvalue()).decode()


def pixels(answer: Answer) -> np.ndarray:
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png"), answer.body
    return np.asarray(Image.open(io.BytesIO(answer.body)))


def test_encode_and_move_are_those_of_the_package(
    app: Guard, model: Model, faces: ecvae_jax.Portraits, good: dict[str, Any]
) -> None:
    source, target = faces[0], faces[1]
    z = np.asarray(ecvae_jax.encode(model, source.images, source.landmarks).mean)
    answer = post(app, "/api/encode", {name: good[name] for name in FIELDS["encode"]})
    np.testing.assert_array_equal(bodies.read_latent(answer.json["z"], z.size), z)
    answer = post(app, "/api/move", {name: good[name] for name in FIELDS["move"]})
    moved = move(model, z, source.landmarks, target.landmarks)
    np.testing.assert_array_equal(bodies.read_latent(answer.json["z"], z.size), moved)
    assert not np.array_equal(moved, z)


def test_transfer_is_the_picture_of_the_command(
    app: Guard, good: dict[str, Any], tiny_workdir: Path, tiny_records: Path, tmp_path: Path
) -> None:
    command = ["transfer", "--checkpoint", str(tiny_workdir), "--out", str(tmp_path / "grid.png")]
    command += ["--source", f"{tiny_records}:test:0", "--target", f"{tiny_records}:test:30"]
    body = {name: good[name] for name in FIELDS["transfer"]}
    seen = []
    for options, more in (
        ([], {}),
        (["--adapt.detail", "0.5"], {"detail": 0.5}),
        (["--no-transport"], {"transport": False}),
    ):
        assert main([*command, *options]) == 0
        grid = np.asarray(Image.open(tmp_path / "grid.png"))
        drawn = pixels(post(app, "/api/transfer", body | more))
        np.testing.assert_array_equal(drawn, grid[-34:-2, -34:-2])
        seen.append(drawn.tobytes())
    assert len(set(seen)) == 3


def test_the_smallest_weight_of_the_photo_is_none(app: Guard, good: dict[str, Any]) -> None:
    body = {name: good[name] for name in FIELDS["transfer"]}
    none, least = (pixels(post(app, "/api/transfer", body | {"detail": detail})) for detail in (0.0, 1e-40))
    np.testing.assert_array_equal(none, least)


def test_draw_is_decode_and_with_the_photo_transfer(
    app: Guard, model: Model, faces: ecvae_jax.Portraits, good: dict[str, Any]
) -> None:
    source, target = faces[0], faces[1]
    z = np.asarray(ecvae_jax.encode(model, source.images, source.landmarks).mean)
    body = {"z": good["z"], "landmarks": good["target_landmarks"]}
    moved = move(model, z, source.landmarks, target.landmarks)
    drawn = [pixels(post(app, "/api/draw", body | {n: good[n] for n in names})).astype(int)
             for names in ((), ("own_landmarks",), ("own_landmarks", "image"))]  # fmt: skip
    transferred = ecvae_jax.transfer(model, source, target)[0].astype(int)
    for image, wanted in zip(
        drawn,
        (
            ecvae_jax.decode(model, z, target.landmarks)[0],
            ecvae_jax.decode(model, moved, target.landmarks)[0],
            transferred,
        ),
        strict=True,
    ):
        assert np.abs(image - wanted).max() <= 1
    assert np.abs(drawn[0] - drawn[1]).max() > 1
    assert np.abs(drawn[1] - drawn[2]).max() > 1
    none = post(
        app, "/api/draw", body | {"own_landmarks": good["own_landmarks"], "image": good["image"], "detail": 0.0}
    )
    np.testing.assert_array_equal(pixels(none), drawn[1])


def test_draw_at_the_fine_size_is_the_replay_s_picture(
    app: Guard, model: Model, engine: Engine, good: dict[str, Any], tmp_path: Path
) -> None:
    """The page's picture with a server behind it: the photo's pixels at fine_size, as its JSON replays them."""
    about = ask(app, "/api/model").json
    fine = load_faces("rendered", "test").image(0, about["fine_size"])
    body = {name: good[name] for name in ("z", "own_landmarks")}
    body |= {"landmarks": good["target_landmarks"], "fine": packed(fine), "detail": 0.8}
    drawn = pixels(post(app, "/api/draw", body))
    assert drawn.shape == (about["fine_size"], about["fine_size"], 3)
    steps = {name: good[name] for name in ("image", "landmarks", "target_landmarks")}
    steps |= {"kind": "ecvae-replay", "format": 1, "fine": body["fine"], "detail": 0.8}
    steps |= {"model": {"config_sha256": about["config_sha256"], "step": about["step"], "half": False}}
    (tmp_path / "steps.json").write_text(json.dumps(steps))
    replayed = draw_replay(model, read_replay(tmp_path / "steps.json"))
    assert np.abs(drawn.astype(int) - replayed).max() <= 1
    none = pixels(post(app, "/api/draw", body | {"detail": 0.0}))
    assert none.shape == (32, 32, 3)
    for change, reason in (
        ({"image": good["image"]}, "fine: replaces image; send one of them"),
        ({"own_landmarks": None}, "fine: needs own_landmarks"),
        ({"fine": good["image"]}, f"fine: 32×32 px; the model reads a crop of {about['fine_size']}×"),
    ):
        answer = post(app, "/api/draw", body | change)
        assert answer.status == 422
        assert answer.error.startswith(reason)


def test_what_is_kept_of_a_drag_is_that_face_s(app: Guard, engine: Engine, good: dict[str, Any]) -> None:
    """Ten faces in turn, more than are kept: each picture is the one that a fresh engine draws."""
    body = {name: good[name] for name in ("landmarks", "own_landmarks", "image")}
    faces = [floats(*np.random.default_rng(seed).normal(0, 0.1, 32)) for seed in range(10)]
    first = [post(app, "/api/draw", body | {"z": z}).body for z in faces]
    again = [post(app, "/api/draw", body | {"z": z}).body for z in faces]
    fresh = Engine(engine.model)
    points, image = bodies.read_points(good["landmarks"], 98), bodies.read_crop(good["image"], 32)
    alone = [fresh.draw(bodies.read_latent(z, 32), points, points, image) for z in faces]
    for one, two, wanted in zip(first, again, alone, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(one))), wanted)
        assert one == two
    assert len(set(first)) == 10
    other = post(app, "/api/draw", body | {"z": faces[0], "own_landmarks": good["target_landmarks"]}).body
    assert other != first[0]


def test_the_pixels_come_as_png_or_as_bytes(app: Guard, good: dict[str, Any]) -> None:
    body = {name: good[name] for name in FIELDS["draw"]}
    raw = post(app, "/api/draw", body, "application/octet-stream")
    assert raw.headers["content-type"] == "application/octet-stream"
    shown = pixels(post(app, "/api/draw", body, "text/html, image/png;q=0.5"))
    np.testing.assert_array_equal(np.frombuffer(raw.body, np.uint8).reshape(shown.shape), shown)
    assert raw.headers["cache-control"] == "no-store"


def test_sample_is_the_sample_of_the_package(app: Guard, model: Model, faces: ecvae_jax.Portraits) -> None:
    body = {"landmarks": faces.landmarks[0].tolist(), "seed": 3}
    drawn = pixels(post(app, "/api/sample", body, "image/png"))
    wanted = ecvae_jax.sample(model, jax.random.key(3), faces.landmarks[:1], 1, model.density)[0, 0]
    assert np.abs(drawn.astype(int) - wanted).max() <= 1
    z = post(app, "/api/sample", body).json["z"]
    np.testing.assert_array_equal(pixels(post(app, "/api/draw", {"z": z, "landmarks": body["landmarks"]})), drawn)
    assert post(app, "/api/sample", body).json["z"] == z != post(app, "/api/sample", body | {"seed": 4}).json["z"]


def test_a_jpeg_and_a_png_with_transparency_are_read(app: Guard, good: dict[str, Any], faces: Any) -> None:
    image = faces.images[0]
    with_alpha = np.concatenate([image, np.full((32, 32, 1), 255, np.uint8)], axis=-1)
    first, second, jpeg = (
        post(app, "/api/encode", {"image": data, "landmarks": good["landmarks"]}).json["z"]
        for data in (good["image"], packed(with_alpha), packed(image, "JPEG"))
    )
    assert first == second != jpeg


def test_model_describes_as_an_export_does(app: Guard, model: Model) -> None:
    found = ask(app, "/api/model").json
    wanted = json.loads(json.dumps(describe(model, "onnx", exported_functions(model))))
    assert found["compute"] is True
    assert (found["image_size"], found["points"], found["z_dim"]) == (32, 98, 32)
    same = set(wanted) - {"format", "config", "config_sha256"}  # the records' folder is cut from the config
    assert {name: found[name] for name in same} == {name: wanted[name] for name in same}
    assert "/" not in found["config"]["data"]["records"]
    assert found["limits"] == {"bytes": 4 * 2**20, "photo_bytes": 16 * 2**20}


def test_the_document_names_every_path_and_body(app: Guard, good: dict[str, Any]) -> None:
    document = ask(app, "/api/openapi.json").json
    assert document["openapi"] == "3.1.0"
    posts = {path for path, methods in document["paths"].items() if "post" in methods}
    assert posts == {f"/api/{name}" for name in [*FIELDS, "landmarks"]}
    for name, fields in FIELDS.items():
        body = document["paths"][f"/api/{name}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        schema = document["components"]["schemas"][body["$ref"].split("/")[-1]]
        assert set(schema["required"]) == set(fields)
        assert post(app, f"/api/{name}", {field: good[field] for field in fields}).status == 200


def test_the_page_and_unknown_paths(app: Guard) -> None:
    assert ask(app, "/").body == b"the page"
    assert ask(app, "/api/nothing").status == ask(app, "/api").status == ask(app, "/api/").status == 404
    wrong = ask(app, "/api/draw")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert ask(app, "/api/model", "POST").status == 405
    assert "cross-origin-opener-policy" in ask(app, "/api/model").headers
    assert ask(app, "/api/model", headers={"origin": "http://evil.example"}).status == 403


def png_of_size(width: int, height: int) -> str:
    """A PNG of a few bytes that states a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )
    return base64.b64encode(data).decode()


def floats(*values: float) -> str:
    return base64.b64encode(np.resize(np.asarray(values, "<f4"), 32).tobytes()).decode()


@pytest.mark.parametrize(
    ("path", "change", "line"),
    [
        ("draw", {"landmarks": []}, "landmarks: list should have at least 68"),
        ("draw", {"landmarks": [[0.5, 0.5]] * 68}, "landmarks: 68 points; the model reads 98"),
        ("draw", {"landmarks": [[0.5, 0.5]] * 100000}, "landmarks: list should have at most 98"),
        ("draw", {"landmarks": [[0.5, 0.5]] * 97 + [[0.5]]}, "landmarks[97][1]: field required"),
        ("draw", {"landmarks": [[0.5, 0.5]] * 97 + [[0.5, 0.5, 0.5]]}, "landmarks[97]: tuple should have at most 2"),
        ("draw", {"landmarks": [[0.5, 0.5]] * 97 + [[0.5, 2.5]]}, "landmarks[97][1]: input should be less than or"),
        ("draw", {"landmarks": [[0.5, -9]] * 98}, "landmarks[0][1]: input should be greater than or"),
        ("draw", {"landmarks": [[0.5, float("nan")]] * 98}, "landmarks[0][1]: input should be a finite number"),
        ("draw", {"landmarks": [[0.5, float("inf")]] * 98}, "landmarks[0][1]: input should be "),
        ("draw", {"landmarks": [["0.5", 0.5]] * 98}, "landmarks[0][0]: input should be a valid number"),
        ("draw", {"landmarks": [[True, 0.5]] * 98}, "landmarks[0][0]: input should be a valid number"),
        ("draw", {"landmarks": None}, "landmarks: input should be a valid array"),
        ("draw", {"z": floats(1.0)[:-8]}, "z: "),
        ("draw", {"z": floats(float("nan"))}, "z: must be finite"),
        ("draw", {"z": floats(0.0, 1e30)}, "z: must be finite, each number between -1000 and 1000"),
        ("draw", {"z": "no Base64!"}, "z: is not Base64"),
        ("draw", {"z": "\ud800"}, ""),
        ("draw", {"z": 7}, "z: input should be a valid string"),
        ("draw", {"image": "GOOD"}, "image: needs own_landmarks"),
        ("draw", {"detail": 2}, "detail: input should be less than or equal to 1"),
        ("draw", {"extra\n\u2028" + "x" * 500: 1}, "extra\\n\\u2028xxx"),
        ("draw", {"\ud800": 1}, "body: invalid JSON"),
        ("encode", {"image": "no Base64!"}, "image: is not Base64"),
        ("encode", {"image": ""}, "image: no readable PNG or JPEG"),
        ("encode", {"image": "CUT"}, "image: no readable PNG or JPEG"),
        ("encode", {"image": "GIF"}, "image: no readable PNG or JPEG"),
        ("encode", {"image": "WIDE"}, "image: 33×32 px; the model reads a crop of 32×32"),
        ("encode", {"image": "DEEP"}, "image: mode I;16; send 8-bit RGB"),
        ("encode", {"image": png_of_size(60000, 60000)}, "image: "),
        ("encode", {"image": png_of_size(32, 32)}, "image: no readable PNG or JPEG"),
        ("sample", {"seed": -1}, "seed: input should be greater than or equal to 0"),
        ("sample", {"seed": 2**70}, "seed: input should be less than 4294967296"),
        ("sample", {"seed": 1.5}, "seed: input should be a valid integer"),
        ("transfer", {"target_landmarks": [[0.5, 0.5]] * 70}, "target_landmarks: 70 points; the model reads 98"),
        ("transfer", {"transport": "no"}, "transport: input should be a valid boolean"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_line(
    app: Guard, good: dict[str, Any], faces: Any, path: str, change: dict[str, Any], line: str
) -> None:
    image = faces.images[0]
    made = {
        "GOOD": good["image"],
        "CUT": base64.b64encode(base64.b64decode(good["image"])[:-300]).decode(),
        "GIF": packed(image, "GIF"),
        "WIDE": packed(np.pad(image, ((0, 0), (0, 1), (0, 0)))),
        "DEEP": packed(image[..., 0].astype(np.uint16)),
    }
    wanted = {name: good[name] for name in FIELDS[path]} | change
    if wanted.get("image") in made:
        wanted["image"] = made[wanted["image"]]
    answer = post(app, f"/api/{path}", wanted)
    assert answer.status == 422
    assert answer.error.startswith(line)
    assert answer.error.isprintable()


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{", b"\xff\xfe", b'"text"', b"[" * 100000, b'{"z": ' * 5000, b"1" * 10000,
     b'{"landmarks": [[' + b"9" * 5000 + b", 1]]}", b'{"z": "a", "z": "b", "landmarks": 1e999}'],
)  # fmt: skip
def test_what_is_no_object_is_refused(app: Guard, body: bytes) -> None:
    answer = post(app, "/api/draw", body)
    assert answer.status == 422
    assert answer.error


def test_a_missing_field_is_named(app: Guard, good: dict[str, Any]) -> None:
    for path, fields in FIELDS.items():
        for missing in fields:
            answer = post(app, f"/api/{path}", {name: good[name] for name in fields if name != missing})
            assert (answer.status, answer.error) == (422, f"{missing}: field required")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_only_json_is_read(app: Guard, kind: str) -> None:
    """A form of another page can send the other types without asking."""
    answer = ask(app, "/api/draw", "POST", {"content-type": kind}, [b"{}"])
    assert (answer.status, answer.error) == (415, "Content-Type: must be application/json")


def test_a_large_body_is_refused_before_it_is_read(app: Guard) -> None:
    json_type = {"content-type": "application/json"}
    read: list[bytes] = []

    class Counted(list):
        def pop(self, index: int = 0) -> bytes:
            read.append(piece := super().pop(index))
            return piece

    stated = ask(app, "/api/draw", "POST", json_type | {"content-length": str(4 * 2**20 + 1)}, [b"{}"])
    assert (stated.status, stated.error) == (413, "body: more than 4194304 bytes")
    pieces = [bytes(2**20)] * 64
    unstated = ask(app, "/api/draw", "POST", json_type, pieces)
    assert unstated.status == 413
    photo = ask(app, "/api/landmarks", "POST", json_type, pieces[:10])
    assert photo.status == 422  # the limit of a photo is higher
    assert ask(app, "/api/landmarks", "POST", json_type, pieces).status == 413


def test_a_crowd_is_refused_and_then_served_again(
    app: Guard, engine: Engine, good: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, draw = threading.Event(), engine.draw

    def wait(*arguments: Any) -> np.ndarray:
        assert gate.wait(60)
        return draw(*arguments)

    monkeypatch.setattr(engine, "draw", wait)
    body = json.dumps({name: good[name] for name in FIELDS["draw"]}).encode()

    def request() -> Any:
        return send(app, "POST", "/api/draw", {"content-type": "application/json"}, [body])

    async def crowd() -> tuple[list[Answer], Answer]:
        first = [asyncio.ensure_future(request()) for _ in range(16)]
        await asyncio.sleep(0)
        while not all(task.done() for task in first) and len(asyncio.all_tasks()) < 17:
            await asyncio.sleep(0.01)
        refused = await request()
        page = await send(app, "GET", "/")  # files are answered meanwhile
        assert page.body == b"the page"
        gate.set()
        return [await task for task in first], refused

    served, refused = asyncio.run(crowd())
    assert [answer.status for answer in served] == [200] * 16
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert refused.error == "busy: 16 requests are waiting; try again"
    assert post(app, "/api/draw", body).status == 200


def test_landmarks_of_a_photo(
    app: Guard, engine: Engine, faces: ecvae_jax.Portraits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The photo's largest face, as a crop that `encode` reads, with the landmarks in it."""
    points = faces.landmarks[0] * 120

    class Drawn:
        name, points = "drawn", 98

        def detect(self, image: np.ndarray) -> list[DetectedFace]:
            return [DetectedFace((0, 0, 120, 120), points + 40, 98)] if image.mean() > 50 else []

    monkeypatch.setitem(engine.reader.__dict__, "detector", Drawn())
    photo = np.random.default_rng(0).integers(90, 160, (200, 200, 3)).astype(np.uint8)
    answer = post(app, "/api/landmarks", {"photo": packed(photo, "PNG")})
    assert answer.status == 200, answer.body
    found = answer.json
    assert np.asarray(found["landmarks"]).shape == (98, 2)
    box = found["box"]
    np.testing.assert_allclose(
        np.asarray(found["landmarks"]) * box["side"] + [box["x0"], box["y0"]], points + 40, atol=1e-3
    )
    encoded = post(app, "/api/encode", {"image": found["image"], "landmarks": found["landmarks"]})
    assert encoded.status == 200
    dark = post(app, "/api/landmarks", {"photo": packed(photo // 9, "JPEG")})
    assert (dark.status, dark.error.split(";")[0]) == (422, "photo: drawn found no face")


def test_photos_have_limits(app: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg = base64.b64decode(packed(np.zeros((8, 8, 3), np.uint8), "JPEG"))
    scans = base64.b64encode(jpeg[:-2] + b"\xff\xda" * 70 + jpeg[-2:]).decode()
    for photo, line in (
        (scans, "photo: a JPEG of more than 64 scans"),
        (png_of_size(10000, 10000), "photo: too large: 10000×10000 = 100 megapixels, at most 50"),
        (packed(np.zeros((8, 8, 3), np.uint8), "GIF"), "photo: no JPEG, PNG or WebP"),
        (packed(np.zeros((8, 8, 3), np.uint8), "BMP"), "photo: no JPEG, PNG or WebP"),
        (base64.b64encode(jpeg[:40]).decode(), "photo: "),
        ("", "photo: no JPEG"),
        ("?", "photo: is not Base64"),
    ):
        answer = post(app, "/api/landmarks", {"photo": photo})
        assert answer.status == 422
        assert answer.error.startswith(line)


def test_a_detector_that_is_not_installed(app: Guard, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, video: bool) -> None:
        raise MissingExtraError("dlib is not installed: pip install 'ecvae-jax[dlib]'")

    monkeypatch.setattr("ecvae_jax.data.portraits.load_detector", missing)
    monkeypatch.delitem(engine.reader.__dict__, "detector", raising=False)
    answer = post(app, "/api/landmarks", {"photo": packed(np.zeros((8, 8, 3), np.uint8))})
    assert (answer.status, answer.error) == (501, "dlib is not installed: pip install 'ecvae-jax[dlib]'")
    assert engine.about()["detector"] is None


@pytest.mark.slow  # it clears JAX's caches, so that the tests after it would compile again
def test_warming_up_compiles_what_requests_run(
    app: Guard, engine: Engine, good: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    jax.clear_caches()  # the tests before have compiled them
    engine.warm_up()
    whole = {name: good[name] for name in ("z", "landmarks", "own_landmarks", "image", "detail")}
    requests = [(name, {field: good[field] for field in fields}) for name, fields in FIELDS.items()]
    requests += [("draw", whole), ("draw", whole | {"detail": 0.0}), ("draw", whole | {"detail": 0.3})]
    side = engine.fine_side
    requests.append(("draw", whole | {"image": None, "fine": packed(np.zeros((side, side, 3), np.uint8))}))
    requests += [("transfer", requests[3][1] | {"detail": detail}) for detail in (0.0, 0.3)]

    def compiled() -> list[str]:
        return [record.getMessage() for record in caplog.records if "ompil" in record.getMessage()]

    jax.config.update("jax_log_compiles", True)  # of all threads; jax.log_compiles() is of this one
    try:
        for name, body in requests:
            assert post(app, f"/api/{name}", body).status == 200
        assert not compiled()
        jax.clear_caches()
        assert post(app, "/api/draw", whole).status == 200
        assert compiled(), "a compilation would have been seen"
    finally:
        jax.config.update("jax_log_compiles", False)
