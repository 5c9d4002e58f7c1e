"""The page's folder, its sliders and its functions, and replays of what was saved on it; no browser."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import os
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.cli.main import main
from ecvae_jax.config import AdaptConfig, Config
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import load_faces
from ecvae_jax.export.formats import ExportError, publishable
from ecvae_jax.files import UnsafePathError
from ecvae_jax.model.conditioning import add_learned_means, init_frozen
from ecvae_jax.model.cvae import init_params
from ecvae_jax.model.model import Model
from ecvae_jax.page.build import INDEX, LARGEST, write_page
from ecvae_jax.page.functions import fine_size, page_functions
from ecvae_jax.page.replay import draw_replay, read_replay
from ecvae_jax.page.sliders import SLIDERS, expression_facts, slider_facts
from ecvae_jax.structure.openings import inner_openings, without_crossing
from ecvae_jax.structure.scheme import get_scheme
from ecvae_jax.synthesis.adapt import transfer_adapted
from ecvae_jax.synthesis.batches import decode, encode, move
from ecvae_jax.synthesis.directions import fit_directions, in_frame
from ecvae_jax.synthesis.overlay import own_share

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "ecvae_jax" / "page" / "static"


@pytest.fixture(scope="module")
def model(tiny_config: Config) -> Model:
    landmarks = load_faces("rendered", "train").landmarks_as(tiny_config.data.points)[:60]
    frozen = init_frozen(jax.random.key(1), tiny_config, landmarks)
    params = add_learned_means(tiny_config, init_params(jax.random.key(0), tiny_config.architecture), frozen)
    return Model(tiny_config, params, frozen, records={"margin": 1.7})


@pytest.fixture(scope="module")
def page(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    out = tmp_path_factory.mktemp("page") / "out"
    write_page(model, out)
    return out


def test_every_file_is_listed_with_its_checksum(page: Path, model: Model) -> None:
    index = json.loads((page / INDEX).read_text())
    found = {str(path.relative_to(page)) for path in page.rglob("*") if path.is_file()}
    assert found == {INDEX, *index["files"]}
    for name, facts in index["files"].items():
        data = (page / name).read_bytes()
        assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}, name
    about = json.loads((page / "model.json").read_text())
    assert about["image_size"] == model.config.model.image_size
    assert index["margin"] == 1.7
    assert index["compute"] is False
    assert set(about["functions"]) == {"encode", "draw", "move", "sample", "overlay"}
    assert {f"model/{name}.onnx" for name in about["functions"]} <= set(index["files"])
    assert len([name for name in index["examples"] if name.startswith("examples/face")]) == 6


def test_the_runtime_is_the_one_whose_checksums_are_stored() -> None:
    lines = (STATIC / "vendor" / "SHA256SUMS").read_text().splitlines()
    stored = {name: checksum for checksum, name in (line.split() for line in lines)}
    assert stored == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (STATIC / "vendor").iterdir()
        if path.name != "SHA256SUMS"
    }
    assert set(stored) >= {"LICENSE", "ort.wasm.min.mjs", "ort-wasm-simd-threaded.wasm"}


def test_the_page_names_no_other_origin() -> None:
    """Scripts, styles and the policy: a URL may stand only in a comment of a license or as an XML namespace."""
    text = (STATIC / "index.html").read_text()
    policy = text.split('Content-Security-Policy" content="')[1].split('"')[0]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "unsafe-inline" not in policy
    assert " style=" not in text
    for path in [*STATIC.glob("*.js"), *STATIC.glob("*.css"), STATIC / "index.html"]:
        assert path.read_text().replace("http://www.w3.org/", "").count("://") == 0, path.name


def test_the_wheel_takes_every_file_of_the_page() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["ecvae_jax"]
    files = [str(path.relative_to(STATIC.parents[1])) for path in STATIC.rglob("*") if path.is_file()]
    assert len(files) > 25
    assert all(any(fnmatch(name, pattern) for pattern in patterns) for name in files)


def test_only_a_page_is_replaced(model: Model, page: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ExportError, match="exists: give the name of a new folder"):
        write_page(model, page)
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UnsafePathError, match="no page of ecvae"):
        write_page(model, out, overwrite=True)
    (out / INDEX).write_text((page / INDEX).read_text())
    with pytest.raises(UnsafePathError, match=r"notes\.txt is not of the page"):
        write_page(model, out, overwrite=True)
    (out / "notes.txt").unlink()
    write_page(model, out, overwrite=True)
    assert (out / "index.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_command_needs_onnx_and_says_so(
    tiny_workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [name for name in sys.modules if name.startswith("ecvae_jax.export.onnx.")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["page", str(tmp_path / "out"), "--checkpoint", str(tiny_workdir)]) == 1
    assert "pip install 'ecvae-jax[page]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_writes_the_bundled_models_page_below_30_mb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    assert main(["page", str(tmp_path / "out")]) == 0
    assert " MB; show it with" in capsys.readouterr().err
    size = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert 20e6 < size < LARGEST


@pytest.mark.parametrize("points", [68, 98])
def test_sliders_move_a_face_as_walks_do(points: int) -> None:
    facts = {fact["name"]: fact for fact in slider_facts(points)}
    face, scheme = load_faces("rendered", "test").landmarks_as(points)[3].astype(np.float64), get_scheme(points)
    assert list(facts) == [slider.name for slider in SLIDERS]
    for name, direction in (("smile", "smile"), ("turn", "yaw"), ("eyes", "closed")):
        moved = in_frame(np.asarray(facts[name]["direction"]), face, anchored=False)
        np.testing.assert_allclose(moved, in_frame(fit_directions(points)[direction], face, name != "turn"), atol=2e-5)
    brows = np.abs(np.asarray(facts["brows"]["direction"])).sum(axis=1) > 0
    assert set(np.flatnonzero(brows)) == {p for name, curve in scheme.boundaries if "brow" in name for p in curve}
    opened = without_crossing(face + in_frame(np.asarray(facts["open"]["direction"]), face, False), scheme)
    lips = dict(scheme.boundaries)
    gap = opened[list(lips["lip_lower_inner"])[2]] - opened[list(lips["lip_upper_inner"])[2]]
    assert gap[1] > 0.05 * np.ptp(face[:, 1])


def test_a_borrowed_expression_is_found_and_another_shape_is_not() -> None:
    facts = expression_facts(68)
    solve, directions = np.asarray(facts["solve"]), fit_directions(68)
    names = list(directions)
    for name in ("smile", "surprise", "closed"):
        amounts = solve @ directions[name].ravel()
        assert np.argmax(np.abs(amounts)) == names.index(name)
        assert amounts[names.index(name)] > 0.4
    assert np.abs(solve @ np.zeros(136)).max() == 0


def test_overlay_in_onnx_is_the_weight_of_the_package(page: Path, model: Model) -> None:
    ort = pytest.importorskip("onnxruntime")
    function = next(each for each in page_functions(publishable(model, half=True)) if each.name == "overlay")
    found = load_faces("rendered", "test")
    images, landmarks = found.images(range(4), 32).astype(np.float32) / 255, found.landmarks[:4].astype(np.float32)
    detail = np.array([[1.0], [0.4]], np.float32)
    given = (images[:2], images[2:], landmarks[:2], landmarks[2:], detail)
    session = ort.InferenceSession(page / "model" / "overlay.onnx")
    made = session.run(None, dict(zip(function.inputs, given, strict=True)))
    for one, other in zip(made, jax.jit(function.call)(*given), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert 0 < made[1][1].max() <= 0.4


@pytest.mark.parametrize("points", [68, 98])
def test_own_pixels_end_at_an_eye_that_closes(points: int) -> None:
    face, scheme = load_faces("rendered", "test").landmarks_as(points)[0].astype(np.float32), get_scheme(points)
    closed = face.copy()
    upper, lower = inner_openings(scheme)[0]
    closed[upper] = closed[lower] = (face[upper] + face[lower]) / 2
    detail = np.float32([0.8, 0.8])
    same, shut = np.asarray(own_share(np.stack([face, face]), np.stack([face, closed]), detail, 128))[..., 0]
    np.testing.assert_allclose(same, 0.8, atol=1e-6)
    left, right = ((128 * closed[list(eye)].mean(axis=0)).astype(int) for eye in scheme.eyes)
    assert shut[left[1], left[0]] < 0.02
    assert shut[right[1], right[0]] > 0.79
    assert shut[120, 64] > 0.79


# Replays -------------------------------------------------------------------------------------------------------------


def png(image: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


@pytest.fixture(scope="module")
def stored(tiny_workdir: Path) -> Model:
    return load_model(tiny_workdir)


def content(model: Model, /, **changes: Any) -> dict[str, Any]:
    """Returns what the page would save for the first test face under the second's structure."""
    faces, size = load_faces("rendered", "test"), model.config.model.image_size
    landmarks = faces.landmarks_as(model.config.data.points).astype(np.float32)
    config = publishable(model, half=True).config.to_json()
    made = {
        "kind": "ecvae-replay",
        "format": 1,
        "model": {
            "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
            "step": model.step,
            "half": True,
        },
        "photo": None,
        "crop": None,
        "image": png(faces.image(0, size)),
        "fine": None,
        "landmarks": landmarks[0].tolist(),
        "target_landmarks": landmarks[1].tolist(),
        "detail": 0.5,
        "z": None,
    }
    return {**made, **changes}


def saved(folder: Path, content: Any) -> Path:
    path = folder / "replay.json"
    path.write_text(json.dumps(content))
    return path


def test_a_replay_of_a_crop_is_the_transfer(stored: Model, tmp_path: Path) -> None:
    replay = read_replay(saved(tmp_path, content(stored)))
    rounded = publishable(stored, half=True)
    rounded = dataclasses.replace(rounded, params=jax.tree.map(lambda leaf: leaf.astype(np.float32), rounded.params))
    assert replay.image is not None
    faces = replay.image[None], replay.landmarks[None], replay.target[None]
    wanted = transfer_adapted(rounded, *faces, True, AdaptConfig(detail=0.5))[0]
    np.testing.assert_array_equal(draw_replay(stored, replay), wanted)


def test_a_replay_at_the_photos_size_has_its_pixels(stored: Model, tmp_path: Path) -> None:
    faces, side = load_faces("rendered", "test"), fine_size(stored)
    fine = png(faces.image(0, side))
    still = content(stored, fine=fine, detail=1.0)
    still["target_landmarks"] = still["landmarks"]
    drawn = draw_replay(stored, read_replay(saved(tmp_path, still)))
    assert drawn.shape == (side, side, 3)
    middle = slice(side // 4, 3 * side // 4)
    off = np.abs(drawn.astype(int) - faces.image(0, side))[middle, middle]
    assert off.mean() < 3  # nothing moved: nearly the photo
    plain = draw_replay(stored, read_replay(saved(tmp_path, {**still, "detail": 0.0})))
    assert plain.shape == (stored.config.model.image_size,) * 2 + (3,)


def test_a_replay_of_z_is_drawn_from_it(stored: Model, tmp_path: Path) -> None:
    faces = load_faces("rendered", "test")
    landmarks = faces.landmarks_as(stored.config.data.points)[:2].astype(np.float32)
    z = np.asarray(encode(stored, faces.images([5], stored.config.model.image_size), landmarks[:1]).mean)
    text = base64.b64encode(z.astype("<f4").tobytes()).decode()
    given = content(stored, image=None, z=text)
    given["model"]["half"] = False
    drawn = draw_replay(stored, read_replay(saved(tmp_path, given)))
    wanted = decode(stored, move(stored, z, landmarks[:1], landmarks[1:]), landmarks[1:])[0]
    assert np.abs(drawn.astype(int) - wanted).max() <= 1


def test_the_command_replays_with_and_without_the_photo(
    tiny_workdir: Path, stored: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = stored.config.model.image_size
    photo = tmp_path / "photo.png"
    Image.fromarray(load_faces("rendered", "test").image(0, size)).save(photo)
    given = content(
        stored,
        photo={"name": "photo.png", "sha256": hashlib.sha256(photo.read_bytes()).hexdigest()},
        crop={"x0": 0, "y0": 0, "side": size},
    )
    path, outs = saved(tmp_path, given), [tmp_path / name for name in ("one.png", "two.png")]
    command = ["transfer", "--replay", str(path), "--checkpoint", str(tiny_workdir), "--out"]
    assert main([*command, str(outs[0])]) == 0
    assert main([*command, str(outs[1]), "--source", str(photo)]) == 0
    one, two = (np.asarray(Image.open(out)) for out in outs)
    np.testing.assert_array_equal(one, two)
    assert one.std() > 1
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(photo)
    capsys.readouterr()
    assert main([*command, str(outs[1]), "--source", str(photo)]) == 1
    assert "the page's photo has" in capsys.readouterr().err
    assert main([*command, str(path)]) == 2  # no .png
    assert main([*command, str(outs[1]), "--target", "b.jpg"]) == 2
    assert "holds the target" in capsys.readouterr().err
    assert main([*command, str(outs[1]), "--adapt.detail", "0"]) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "other"}, "kind 'other'"),
        ({"detail": 2}, "between 0 and 1"),
        ({"landmarks": [[0, 0]]}, "1 and 98 landmarks"),
        ({"landmarks": [[0, float("nan")]]}, "between -1 and 2"),
        ({"photo": []}, "is no replay"),
        ({"crop": {"x0": 1}}, "is no replay of format 1: 'y0'"),
        ({"detail": 10**400}, "is no replay"),
        ({"image": "AAAA"}, "image: not an image"),
        ({"image": "?"}, "is no replay"),
        ({"image": None}, "the replay's crop is None"),
        ({"fine": png(np.zeros((8, 8, 3), np.uint8))}, "the replay's fine crop is"),
        ({"z": "AAAAAA=="}, "z has 1 numbers"),
        ({"z": base64.b64encode(np.float32([np.inf]).tobytes()).decode()}, "z: must be finite"),
        (
            {"model": {"config_sha256": ["0"], "step": 3}},
            "model: must have the text config_sha256 and the whole number",
        ),
        (
            {"model": {"config_sha256": "0", "step": "3"}},
            "model: must have the text config_sha256 and the whole number",
        ),
        ({"model": {"config_sha256": "0", "step": 3, "half": True}}, "name the page's with --checkpoint"),
    ],
)
def test_a_replay_that_does_not_fit_is_refused(
    changes: dict[str, Any], reason: str, stored: Model, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=reason):
        draw_replay(stored, read_replay(saved(tmp_path, content(stored, **changes))))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("fifo", "is a FIFO"), ("zero", "is a device"), ("sparse", "at most 4 MB are read"), ("folder", "is a folder")],
)
def test_a_replay_is_a_regular_file_of_bounded_size(tmp_path: Path, kind: str, reason: str) -> None:
    path = tmp_path / "replay.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(2**40)
    else:
        path.mkdir()
    with pytest.raises(DataError, match=f"{reason}.*; give the JSON saved by the page"):
        read_replay(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8), lambda part: st.lists(part, max_size=3), max_leaves=6
)


@settings(max_examples=60, deadline=None)
@given(key=st.sampled_from(["kind", "format", "model", "photo", "crop", "image", "fine", "landmarks", "detail", "z"]),
       value=JSON | st.dictionaries(st.sampled_from(["x0", "side", "sha256", "step"]), JSON))  # fmt: skip
def test_strange_values_are_refused_in_one_line(
    key: str, value: Any, stored: Model, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = saved(tmp_path_factory.getbasetemp(), {**content(stored), key: value})
    refusal = ""
    try:
        read_replay(path)
    except DataError as error:
        refusal = str(error)
    assert not refusal or (str(path) in refusal and "\n" not in refusal)
