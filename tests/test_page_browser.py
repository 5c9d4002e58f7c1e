"""The page in Chromium, with the network cut: what a user sees, its numbers beside JAX, its replay by the command."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support.browser import CHROMIUM, ISOLATION, READY, Shown, opened, serving

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.cli.main import main
from ecvae_jax.data.photos.crop import CropBox, crop_box, cut_crop
from ecvae_jax.export.formats import publishable
from ecvae_jax.export.functions import exported_functions
from ecvae_jax.model.model import Model

pytest.importorskip("onnx", reason="needs the extra page")
play_api = pytest.importorskip("playwright.sync_api", reason="needs the extra browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]
PARITY = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "page"
    assert main(["page", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def play() -> Iterator[object]:
    with play_api.sync_playwright() as play:
        yield play


@pytest.fixture(scope="module")
def loaded(folder: Path, play: object) -> Iterator[Shown]:
    """The page with threads. Tests share it; each begins by resetting it."""
    with serving(folder, ISOLATION) as address, opened(play, address, viewport={"width": 1280, "height": 900}) as shown:
        yield shown


@pytest.fixture
def shown(loaded: Shown) -> Shown:
    loaded.tab.locator("#people button").nth(0).click()
    loaded.status("face1.jpg: face found")
    return loaded


def saved(shown: Shown, button: str, folder: Path) -> Path:
    with shown.tab.expect_download(timeout=READY) as download:
        shown.tab.locator(button).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_nothing_is_asked_of_another_address_and_the_policy_holds(shown: Shown) -> None:
    before = len(shown.requests)
    shown.context.set_offline(True)
    try:
        shown.slide("slider-smile", 0.5)
        shown.tab.locator("#people button").nth(1).click()
        shown.status("face2.jpg: face found")
        shown.tab.locator("#random").click()
        shown.status("new person")
    finally:
        shown.context.set_offline(False)
    assert shown.requests[before:] == []
    assert shown.refused == []
    assert shown.problems == []


def test_landmarks_and_crop_are_those_of_the_package(shown: Shown, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs the extra mediapipe")
    from ecvae_jax.data.detect import load_detector

    detector = load_detector("mediapipe-68")
    for number in (1, 3):
        shown.tab.locator("#people button").nth(number - 1).click()
        shown.status(f"face{number}.jpg: face found")
        replay = json.loads(saved(shown, "#saveJson", tmp_path).read_text())
        photo = np.asarray(Image.open(folder / "examples" / f"face{number}.jpg").convert("RGB"))
        (face,) = detector.detect(photo)
        box = CropBox(**replay["crop"])
        found = np.array(replay["landmarks"]) * box.side + [box.x0, box.y0]
        print(f"\nlandmarks: largest difference {np.abs(found - face.landmarks).max():.3f} of 480 px")
        assert np.abs(found - face.landmarks).max() < 0.1
        np.testing.assert_allclose(box, crop_box(found.astype(np.float32), 1.7), atol=1e-2)
        for name, size in (("image", 128), ("fine", 384)):
            crop = np.asarray(Image.open(io.BytesIO(base64.b64decode(replay[name]))).convert("RGB")).astype(int)
            assert np.abs(crop - cut_crop(photo, box, size)).max() <= 1, name  # Chromium decodes JPEGs as Pillow does


def test_a_drag_moves_the_face_there_and_reset_restores_it(shown: Shown) -> None:
    before, points = shown.pixels(), shown.points()
    area = shown.tab.locator("#points").bounding_box()
    x, y = (
        area[side] + at * area[size]
        for side, size, at in (("x", "width", points[48, 0]), ("y", "height", points[48, 1]))
    )
    shown.tab.mouse.move(x, y)
    shown.tab.mouse.down()
    for step in range(1, 9):
        shown.tab.mouse.move(x - 4 * step, y - 2 * step)
    shown.tab.mouse.up()
    shown.settle()
    after, moved = shown.pixels(), shown.points()
    step = np.array([-32 / area["width"], -16 / area["height"]])
    np.testing.assert_allclose(moved[48] - points[48], step, atol=2e-3)
    assert np.abs(moved[36:48] - points[36:48]).max() < 2e-3  # the eyes stay
    change = np.abs(after - before).mean(axis=2)
    side = len(change)
    row, column = (int(at * side) for at in points[48][::-1])
    near = change[row - side // 12 : row + side // 12, column - side // 12 : column + side // 12].mean()
    assert near > 4
    assert near > 2 * change[: side // 5].mean()  # hair and ground
    shown.tab.locator("#undo").click()
    shown.settle()
    np.testing.assert_array_equal(shown.pixels(), before)
    shown.slide("slider-turn", 15)
    shown.tab.locator("#reset").click()
    shown.settle()
    np.testing.assert_array_equal(shown.pixels(), before)
    np.testing.assert_allclose(shown.points(), points, atol=1e-6)


@pytest.mark.parametrize(("name", "value"), [("smile", 1), ("open", 1), ("eyes", 1), ("turn", 15), ("tilt", 10)])
def test_every_slider_moves_its_part(name: str, value: float, shown: Shown) -> None:
    before, points = shown.pixels(), shown.points()
    shown.slide(f"slider-{name}", value)
    moved = shown.points() - points
    assert np.abs(shown.pixels() - before).mean() > 0.5
    mouth, eyes = np.abs(moved[48:]).max(), np.abs(moved[36:48]).max()
    if name in ("smile", "open"):
        assert mouth > 2 * eyes
    if name == "eyes":
        opening = lambda face: (face[[41, 40]] - face[[37, 38]])[:, 1].mean()  # noqa: E731
        assert opening(points + moved) < 0.5 * opening(points)
        assert eyes > 2 * mouth
    if name == "tilt":
        start, end = ((face[45] - face[36]) for face in (points, points + moved))
        angle = np.degrees(np.arctan2(end[1], end[0]) - np.arctan2(start[1], start[0]))
        assert angle == pytest.approx(value, abs=0.1)


def test_the_picture_and_the_steps_are_saved_and_the_command_replays_them(shown: Shown, tmp_path: Path) -> None:
    shown.slide("slider-smile", 0.8)
    shown.slide("slider-turn", -9)
    shown.slide("slider-eyes", 0.6)
    for detail in (1, 0.4, 0):
        shown.slide("detail", detail)
        check_replay(shown, tmp_path)
    shown.tab.locator("#seconds button").nth(1).click()
    shown.status("Blended with face2.jpg")
    check_replay(shown, tmp_path)
    shown.tab.locator("#random").click()
    shown.status("new person")
    check_replay(shown, tmp_path)


def check_replay(shown: Shown, folder: Path) -> None:
    picture, steps = saved(shown, "#savePng", folder), saved(shown, "#saveJson", folder)
    out = folder / "replayed.png"
    assert main(["transfer", "--replay", str(steps), "--out", str(out)]) == 0
    made, wanted = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (out, picture))
    off = np.abs(made - wanted)
    print(f"\n{made.shape[0]} px: {(off > 0).mean():.2%} of the replay's values differ, by {off.max()} at most")
    assert made.std() > 10
    assert off.max() <= 1
    np.testing.assert_array_equal(wanted, shown.pixels())


def test_another_photos_expression_keeps_this_face(shown: Shown) -> None:
    points = shown.points()
    shown.tab.locator("#expressions button", has=shown.tab.locator("img[alt=laugh]")).click()
    shown.status("expression of laugh.jpg")
    kept = shown.points()
    opening = lambda face: float((face[66] - face[62])[1] / np.ptp(face[:, 1]))  # noqa: E731
    assert opening(kept) > opening(points) + 0.03
    jaw = lambda face: np.ptp(face[:17, 0]) / np.linalg.norm(face[45] - face[36])  # noqa: E731
    shown.tab.locator("#keep").uncheck()
    shown.tab.locator("#expressions button", has=shown.tab.locator("img[alt=laugh]")).click()
    shown.settle()
    whole = shown.points()
    shown.tab.locator("#keep").check()
    assert abs(jaw(kept) - jaw(points)) < abs(jaw(whole) - jaw(points))
    shown.tab.locator("#presets button").nth(3).click()
    shown.status("Cluster center")
    assert np.abs(shown.points() - kept).max() > 0.01


def test_points_move_with_the_keyboard(shown: Shown) -> None:
    points = shown.points()
    shown.tab.locator("circle.point").nth(0).focus()
    for key in ("End", "Home", "PageDown", "PageDown", "PageUp"):
        shown.tab.keyboard.press(key)
    assert shown.tab.evaluate("() => document.activeElement.getAttribute('aria-label')") == "jaw, point 2 of 68"
    shown.tab.keyboard.press("Shift+ArrowRight")
    shown.tab.keyboard.press("Alt+ArrowDown")
    shown.settle()
    moved = shown.points() - points
    np.testing.assert_allclose(moved[1], [0.02, 0.004], atol=1e-5)
    assert 0 < moved[2, 0] < 0.02  # a neighbor follows, but not with Alt
    assert moved[2, 1] == pytest.approx(0, abs=1e-6)
    shown.tab.keyboard.press("Control+z")
    shown.tab.keyboard.press("Control+z")
    shown.settle()
    np.testing.assert_allclose(shown.points(), points, atol=1e-6)


def example(folder: Path, number: int) -> bytes:
    return (folder / "examples" / f"face{number}.jpg").read_bytes()


def drop(shown: Shown, data: bytes, name: str, kind: str) -> None:
    """Drops a file on the picture, as a file manager does."""
    shown.tab.dispatch_event("#drop", "dragover")
    assert "dropping" in (shown.tab.locator("#drop").get_attribute("class") or "")
    transfer = shown.tab.evaluate_handle(
        """([text, name, type]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type }));
          return transfer;
        }""",
        [base64.b64encode(data).decode(), name, kind],
    )
    shown.tab.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    assert "dropping" not in (shown.tab.locator("#drop").get_attribute("class") or "")


def test_a_photo_is_dropped(shown: Shown, folder: Path) -> None:
    before = shown.pixels()
    shown.tab.locator("#people button").nth(1).click()
    shown.status("face2.jpg: face found")
    wanted, points = shown.pixels(), shown.points()
    shown.tab.locator("#people button").nth(0).click()
    shown.status("face1.jpg: face found")
    drop(shown, example(folder, 2), "Anna at the sea.JPG", "")  # file managers may state no type
    shown.status("Anna at the sea.JPG: face found")
    np.testing.assert_array_equal(shown.pixels(), wanted)
    np.testing.assert_allclose(shown.points(), points, atol=1e-6)
    assert not np.array_equal(wanted, before)
    drop(shown, b"words", "notes.txt", "text/plain")
    shown.tab.locator("#error", has_text="What was dropped is no picture").wait_for(timeout=READY)
    np.testing.assert_array_equal(shown.pixels(), wanted)
    shown.problems.clear()


def test_a_photo_is_pasted_from_the_clipboard(shown: Shown, folder: Path) -> None:
    """Through the browser's own clipboard and keys: a screenshot or a copied picture is a PNG there."""
    shown.context.grant_permissions(["clipboard-read", "clipboard-write"])
    photo, stream = Image.open(io.BytesIO(example(folder, 3))), io.BytesIO()
    photo.save(stream, "PNG")
    shown.tab.locator("#people button").nth(2).click()
    shown.status("face3.jpg: face found")
    wanted, points = shown.pixels(), shown.points()
    shown.tab.locator("#people button").nth(0).click()
    shown.status("face1.jpg: face found")
    shown.tab.evaluate(
        """async (text) => {
          const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          const picture = new Blob([bytes], { type: "image/png" });
          await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
        }""",
        base64.b64encode(stream.getvalue()).decode(),
    )
    shown.tab.keyboard.press("Control+v")
    shown.status("image.png: face found")
    np.testing.assert_allclose(shown.points(), points, atol=1e-5)
    assert np.abs(shown.pixels() - wanted).max() <= 1  # the same pixels, decoded from PNG
    before = shown.pixels()
    shown.tab.evaluate("() => navigator.clipboard.writeText('no picture')")
    shown.tab.keyboard.press("Control+v")
    shown.settle()
    np.testing.assert_array_equal(shown.pixels(), before)
    assert shown.tab.locator("#error").is_hidden()


def test_what_is_no_face_is_said_in_place(shown: Shown, tmp_path: Path) -> None:
    before = shown.pixels()
    Image.new("RGB", (300, 200), "gray").save(tmp_path / "wall.png")
    (tmp_path / "notes.png").write_text("no picture")
    for name, reason in (("wall.png", "no face was found"), ("notes.png", "cannot read this as a picture")):
        shown.tab.locator("#file").set_input_files(tmp_path / name)
        shown.tab.locator("#error", has_text=reason).wait_for(timeout=READY)
    np.testing.assert_array_equal(shown.pixels(), before)
    assert shown.tab.evaluate("() => document.getElementById('error').getAttribute('role')") == "alert"
    shown.problems.clear()  # errors are also written to the console


def test_the_camera_opens_and_its_picture_is_searched_for_a_face(shown: Shown) -> None:
    shown.tab.locator("#camera").click()
    shown.tab.locator("#shoot").wait_for(timeout=READY)
    shown.tab.locator("#shoot").click()
    shown.tab.locator("#error", has_text="camera.png: no face was found").wait_for(timeout=READY)  # a test pattern
    assert shown.tab.locator("#video").is_hidden()
    shown.problems.clear()


def test_numbers_in_the_browser_are_those_of_jax(shown: Shown) -> None:
    model = float_model()
    functions = {function.name: function for function in exported_functions(model)}
    rng, points = np.random.default_rng(0), shown.points().astype(np.float32)
    image = rng.integers(0, 256, (128, 128, 3), np.uint8)
    image[:] = np.asarray(Image.fromarray(image).resize((8, 8)).resize((128, 128), Image.Resampling.BICUBIC))
    target = points + np.float32([0.02, -0.01])
    made = shown.tab.evaluate(
        """async ([image, landmarks, target]) => {
          const worker = new Worker("worker.js", { type: "module" });
          const ask = (id, call, args) => new Promise((resolve, reject) => {
            worker.addEventListener("message", ({ data }) => {
              if (data.id === id) data.error ? reject(new Error(data.error)) : resolve(data.result);
            });
            worker.postMessage({ id, call, args });
          });
          await ask(1, "load", { compute: false });
          const flat = new Float32Array(landmarks), to = new Float32Array(target);
          const { z } = await ask(2, "encode", { image: new Uint8Array(image), landmarks: flat });
          const { drawn } = await ask(3, "drawFloats", { z, own: flat, landmarks: flat });
          const { drawn: moved } = await ask(4, "drawFloats", { z, own: flat, landmarks: to });
          worker.terminate();
          return [z, drawn, moved].map((array) => Array.from(array));
        }""",
        [image.ravel().tolist(), points.ravel().tolist(), target.ravel().tolist()],
    )
    z, drawn, moved = (np.asarray(array, np.float32) for array in made)
    floats, face, other = image[None].astype(np.float32) / 255, points[None], target[None]
    (moved_z,) = functions["move"].call(z[None], face, other)
    for name, one, given in (
        ("encode", z, (floats, face)),
        ("draw", drawn, (z[None], face)),
        ("draw", moved, (moved_z, other)),
        ("transfer", moved, (floats, face, other)),
    ):
        (wanted,) = functions[name].call(*given)
        difference = np.abs(one - np.asarray(wanted).ravel()).max()
        print(f"\n{name}: largest difference {difference:.1e}")
        assert difference < PARITY


def float_model() -> Model:
    rounded = publishable(load_model("face128"), half=True)
    return dataclasses.replace(rounded, params=jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rounded.params))


@pytest.mark.parametrize("threads", [1, 2])
def test_drags_are_measured(threads: int, folder: Path, play: object) -> None:
    """The page measures drags from the pointer's event to the painted frame; docs/measurements/page.md has figures."""
    options = {"query": f"?threads={threads}", "viewport": {"width": 1280, "height": 900}}
    with serving(folder, ISOLATION) as address, opened(play, address, **options) as shown:
        assert f"{threads} thread" in shown.tab.inner_text("#engine")
        waits = sorted(drag(shown))
        ninth = waits[int(0.9 * len(waits))]
        print(f"\n{shown.tab.inner_text('#engine')} {len(waits)} frames, {os.getloadavg()[0]:.1f} processes wait.")
        print(f"fastest {waits[0]:.0f} ms, median {statistics.median(waits):.0f} ms, 90% {ninth:.0f} ms")
        assert len(waits) >= 5
        assert waits[0] > 0


def drag(shown: Shown, seconds: float = 5.0) -> list[float]:
    """Returns the milliseconds from a move of the pointer to its painted frame, while a point is dragged about."""
    area, points = shown.tab.locator("#points").bounding_box(), shown.points()
    x, y = area["x"] + points[48, 0] * area["width"], area["y"] + points[48, 1] * area["height"]
    shown.tab.mouse.move(x, y)
    shown.tab.mouse.down()
    start = time.monotonic()
    while (now := time.monotonic() - start) < seconds:
        shown.tab.mouse.move(x + 20 * np.sin(3 * now), y + 10 * np.sin(2 * now))
        time.sleep(1 / 60)
    shown.tab.mouse.up()
    shown.settle()
    return shown.tab.evaluate("() => performance.getEntriesByName('drag').map((entry) => entry.duration)")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("phone", {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True}),
        ("dark", {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"}),
    ],
)  # fmt: skip
def test_it_fits_a_phone_and_follows_the_colors_of_the_system(
    name: str, options: dict, folder: Path, play: object, tmp_path: Path
) -> None:
    with serving(folder, {}) as address, opened(play, address, **options) as shown:
        shown.slide("slider-smile", 1)
        shown.tab.screenshot(path=str(tmp_path / f"{name}.png"), full_page=True)
        print(f"\n{tmp_path / name}.png")
        wide, high = shown.tab.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
        assert wide <= high
        ground = shown.tab.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(15, 17, 25)") == (name == "dark")
        assert shown.tab.locator("#after").bounding_box()["width"] > 250
        assert shown.problems == []
