"""Exports: the same numbers as the package, without it, and files that are replaced only if they are exports."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.cli.main import main
from ecvae_jax.config import ClusterConfig, Config, PriorConfig
from ecvae_jax.data.faces import load_faces
from ecvae_jax.export.folder import FolderKind
from ecvae_jax.export.formats import ABOUT, ExportError, describe, publishable, write_export
from ecvae_jax.export.functions import Function, exported_functions
from ecvae_jax.files import UnsafePathError
from ecvae_jax.gaussian import LowRankGaussian
from ecvae_jax.model.blocks import GROUP_CHANNELS
from ecvae_jax.model.conditioning import add_learned_means, init_frozen
from ecvae_jax.model.cvae import init_params
from ecvae_jax.model.model import Model, condition_of
from ecvae_jax.model.normalization import EPSILON, normalized_silu
from ecvae_jax.prior import CovariancePrior, Covariances
from ecvae_jax.structure.scheme import get_scheme
from ecvae_jax.structure.sketch import draw_sketch
from ecvae_jax.structure.warp import resample
from ecvae_jax.synthesis.batches import decode, encode, transfer_plain

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
PARITY = 1e-4
"""Largest difference between an export and JAX, of images in [0, 1]."""


@pytest.fixture(scope="module")
def faces() -> tuple[np.ndarray, np.ndarray]:
    found = load_faces("rendered", "test")
    return found.images(range(6), 32), found.landmarks[:6].astype(np.float32)


def build(config: Config, rank: int | None = None) -> Model:
    landmarks = load_faces("rendered", "train").landmarks_as(config.data.points)[:60]
    frozen = init_frozen(jax.random.key(1), config, landmarks)
    params = add_learned_means(config, init_params(jax.random.key(0), config.architecture), frozen)
    axes = None if rank is None else 0.5 * jax.random.normal(jax.random.key(2), (rank, config.model.z_dim))
    density = None if axes is None else LowRankGaussian(jnp.zeros((config.model.z_dim,)), axes)
    return Model(config, params, frozen, records={"margin": 1.7}, density=density)


@pytest.fixture(scope="module")
def model(tiny_config: Config) -> Model:
    """A model in the face frame with a density: it uses every rule that the bundled model uses."""
    faced = dataclasses.replace(tiny_config, model=dataclasses.replace(tiny_config.model, frame="face"))
    return build(faced, rank=5)


def feeds(function: Function, faces: tuple[np.ndarray, np.ndarray], count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    images, landmarks = faces
    known = {
        "image": images[:count].astype(np.float32) / 255,
        "landmarks": landmarks[:count],
        "target_landmarks": landmarks[::-1][:count],
    }
    return {
        # Priors have a deviation of 0.1. At ten deviations the network amplifies float32's rounding beyond PARITY.
        name: known[name] if name in known else np.float32(0.1) * rng.normal(size=(count, *shape)).astype(np.float32)
        for name, shape in function.inputs.items()
    }


def check_parity(model: Model, out: Path, faces: tuple[np.ndarray, np.ndarray], counts: tuple[int, ...]) -> None:
    rounded = publishable(model, half=True)
    for function in exported_functions(rounded):
        session = ort.InferenceSession(out / f"{function.name}.onnx", providers=["CPUExecutionProvider"])
        for count in counts:
            given = feeds(function, faces, count)
            made, wanted = session.run(None, given), jax.jit(function.call)(*given.values())
            for name, one, other in zip(function.outputs, made, wanted, strict=True):
                assert one.shape == other.shape, (function.name, name)
                np.testing.assert_allclose(one, other, atol=PARITY, rtol=1e-4, err_msg=f"{function.name}: {name}")


@pytest.fixture(scope="module")
def exported(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "onnx"
    write_export(model, out, "onnx")
    return out


@pytest.mark.slow
def test_onnx_computes_what_jax_computes_at_any_batch_size(
    model: Model, exported: Path, faces: tuple[np.ndarray, np.ndarray]
) -> None:
    check_parity(model, exported, faces, (1, 3))


@pytest.mark.slow
def test_onnx_draws_the_pixels_of_the_package(
    model: Model, exported: Path, faces: tuple[np.ndarray, np.ndarray]
) -> None:
    images, landmarks = faces
    targets = landmarks[::-1]
    rounded = publishable(model, half=True)
    restored = dataclasses.replace(
        rounded, params=jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rounded.params), density=None
    )
    run = {name: ort.InferenceSession(exported / f"{name}.onnx").run for name in ("encode", "draw", "transfer")}
    floats = images.astype(np.float32) / 255
    (z,) = run["encode"](None, {"image": floats, "landmarks": landmarks})
    np.testing.assert_allclose(z, encode(restored, images, landmarks).mean, atol=PARITY)
    for name, drawn, wanted in (
        ("draw", run["draw"](None, {"z": z, "landmarks": landmarks})[0], decode(restored, z, landmarks)),
        (
            "transfer",
            run["transfer"](None, {"image": floats, "landmarks": landmarks, "target_landmarks": targets})[0],
            transfer_plain(restored, images, landmarks, targets),
        ),
    ):
        np.testing.assert_allclose(255 * drawn, wanted, atol=0.5 + 255 * PARITY, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["equilibrium", "mixture", "standard"])
@pytest.mark.parametrize("frame", ["picture", "face"])
def test_onnx_of_every_prior_frame_scheme_and_cluster_mode(
    kind: str, frame: str, tiny_config: Config, faces: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    other = frame == "picture"
    config = dataclasses.replace(
        tiny_config,
        data=dataclasses.replace(tiny_config.data, points=68 if other else 98),
        model=dataclasses.replace(tiny_config.model, frame=frame, posterior="plain" if other else "relative"),
        sketch=dataclasses.replace(tiny_config.sketch, channels="single" if other else "boundary"),
        clusters=ClusterConfig(count=4, mode="literal" if other else "centered", remove_roll=other),
        prior=PriorConfig(kind=kind, learned=other),  # type: ignore[arg-type]
    )
    model = build(config)
    write_export(model, tmp_path / "onnx", "onnx")
    images, _ = faces
    landmarks = load_faces("rendered", "test").landmarks_as(config.data.points)[:6].astype(np.float32)
    check_parity(model, tmp_path / "onnx", (images, landmarks), (2,))


def test_coincident_landmarks_are_drawn_as_in_jax(model: Model, exported: Path) -> None:
    function = next(each for each in exported_functions(publishable(model, half=True)) if each.name == "draw")
    landmarks = np.full((2, model.architecture.points, 2), 0.5, np.float32)
    landmarks[1] += np.float32(1e-4) * np.random.default_rng(0).normal(size=landmarks[1].shape).astype(np.float32)
    z = np.zeros((2, model.architecture.model.z_dim), np.float32)
    (drawn,) = ort.InferenceSession(exported / "draw.onnx").run(None, {"z": z, "landmarks": landmarks})
    np.testing.assert_allclose(drawn, jax.jit(function.call)(z, landmarks)[0], atol=PARITY)


@pytest.mark.parametrize("points", [98, 68])
@pytest.mark.parametrize("channels", ["boundary", "single"])
def test_the_sketch_without_a_loop_is_the_sketch(points: int, channels: str, tiny_config: Config) -> None:
    from ecvae_jax.export.onnx.alternatives import draw_sketch as draw_without_loop

    config = dataclasses.replace(
        tiny_config,
        data=dataclasses.replace(tiny_config.data, points=points),
        sketch=dataclasses.replace(tiny_config.sketch, channels=channels, samples_per_span=3),
    )
    landmarks = load_faces("rendered", "test").landmarks_as(points)[:3].astype(np.float32)
    landmarks[2, 4:9] = landmarks[2, 4]  # a curve that stands still
    settings = config.sketch
    wanted = draw_sketch(landmarks, get_scheme(points), 32, settings.sigma, 3, settings.channels)
    np.testing.assert_allclose(draw_without_loop(config.architecture, jnp.asarray(landmarks)), wanted, atol=2e-5)


@pytest.mark.parametrize("shape", [(5, 8), (1, 4), (16, 16)])
@pytest.mark.parametrize("constant", ["", "maps", "places"])
def test_maps_read_at_places_are_one_operator(
    shape: tuple[int, int], constant: str, tiny_config: Config, tmp_path: Path
) -> None:
    """Also beyond the edge, of maps that are not square, and where the maps or the places are those of every face."""
    rng = np.random.default_rng(0)
    maps, places = rng.normal(size=(3, *shape, 3)).astype(np.float32), rng.uniform(-0.3, 1.3, (3, 7, 9, 2))
    given = {"maps": maps, "places": places.astype(np.float32)}
    if constant:
        given[constant] = given[constant][:1]

    def read(*inputs: jax.Array) -> tuple[jax.Array, ...]:
        found = dict(zip([name for name in given if name != constant], inputs, strict=True))
        if constant:
            batch = inputs[0].shape[0]
            found[constant] = jnp.broadcast_to(given[constant], (batch, *given[constant].shape[1:]))
        return (resample(found["maps"], found["places"]),)

    kept = {name: array for name, array in given.items() if name != constant}
    (made,), kinds = run_onnx(tiny_config, read, kept, tmp_path)
    assert "GridSample" in kinds
    assert "GatherND" not in kinds
    np.testing.assert_allclose(made, read(*map(jnp.asarray, kept.values()))[0], atol=2e-5)


def test_normalization_is_one_operator_a_group(tiny_config: Config, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = (3 + 2 * rng.normal(size=(2, 6, 4, 24))).astype(np.float32)
    maps[1, ..., :8] = 5  # a group without variance
    scale, bias = (jnp.asarray(rng.normal(size=24), jnp.float32) for _ in range(2))
    norm = lambda maps: (normalized_silu(maps, scale, bias, 24 // GROUP_CHANNELS),)  # noqa: E731
    (made,), kinds = run_onnx(tiny_config, norm, {"maps": maps}, tmp_path)
    assert kinds.count("InstanceNormalization") == 1
    assert not {"ReduceSum", "Sqrt"} & set(kinds)
    groups = maps.astype(np.float64).reshape(2, 24, -1, GROUP_CHANNELS)
    mean, variance = (of(groups, axis=(1, 3), keepdims=True) for of in (np.mean, np.var))
    before = ((groups - mean) / np.sqrt(variance + EPSILON)).reshape(maps.shape) * np.asarray(scale) + np.asarray(bias)
    wanted = before / (1 + np.exp(-before))
    np.testing.assert_allclose(made, wanted, atol=1e-5)
    np.testing.assert_allclose(made, norm(jnp.asarray(maps))[0], atol=1e-3)  # its variance of a constant is rounding


def run_onnx(
    config: Config, call: Callable[..., tuple[jax.Array, ...]], inputs: dict[str, np.ndarray], folder: Path
) -> tuple[list[np.ndarray], list[str]]:
    """Returns the outputs of a function's ONNX graph, and the kinds of its nodes."""
    import onnx

    from ecvae_jax.export.onnx.write import onnx_files

    function = Function("f", call, {name: array.shape[1:] for name, array in inputs.items()}, ("made",), "")
    for name, data in onnx_files(config.architecture, [function], {}).items():
        (folder / name).write_bytes(data)
    made = ort.InferenceSession(folder / "f.onnx").run(None, inputs)
    return [np.asarray(each) for each in made], [node.op_type for node in onnx.load(folder / "f.onnx").graph.node]


def test_a_primitive_without_a_rule_is_refused() -> None:
    from ecvae_jax.export.onnx.graph import Graph, Weights
    from ecvae_jax.export.onnx.program import evaluate
    from ecvae_jax.export.onnx.shapes import UnsupportedError

    graph = Graph(Weights("w"))
    value = graph.input("x", (4,))
    with pytest.raises(UnsupportedError, match="no rule for the primitive 'cumsum'"):
        evaluate(graph, jax.make_jaxpr(jnp.cumsum)(jnp.zeros(4)), [value], {})


@pytest.mark.slow
def test_half_precision_halves_the_weights_and_is_optional(model: Model, exported: Path, tmp_path: Path) -> None:
    write_export(model, tmp_path / "full", "onnx", half=False)
    half, full = ((folder / "weights.bin").stat().st_size for folder in (exported, tmp_path / "full"))
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert 1.9 * count < full - half < 2.1 * count + 2 * model.frozen.cluster_means.size + 2 * 6 * 32


def test_every_file_is_listed_with_its_checksum_and_no_path_is_published(model: Model, exported: Path) -> None:
    about = json.loads((exported / ABOUT).read_text())
    assert {path.name for path in exported.iterdir()} == {ABOUT, *about["files"]}
    for name, facts in about["files"].items():
        data = (exported / name).read_bytes()
        assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert "/" not in about["config"]["data"]["records"]
    assert about["functions"]["transfer"]["inputs"]["target_landmarks"] == ["batch", 98, 2]
    session = ort.InferenceSession(exported / "draw.onnx")
    assert session.get_modelmeta().custom_metadata_map["config_sha256"] == about["config_sha256"]
    assert [value.shape for value in session.get_inputs()] == [["batch", 32], ["batch", 98, 2]]


def test_the_cluster_centers_are_faces_of_the_clusters(model: Model) -> None:
    about = describe(model, "onnx", exported_functions(model))
    from ecvae_jax.structure.align import align_landmarks

    centers = np.asarray(about["cluster_centers"], np.float32)
    assert 0 < centers.min() < centers.max() < 1
    wanted = align_landmarks(np.asarray(model.frozen.clusters.centers), get_scheme(98), False)
    np.testing.assert_allclose(align_landmarks(centers, get_scheme(98), False), wanted, atol=1e-3)


CLIENT = """
import sys, numpy as np, jax, jax.export, pathlib
out = pathlib.Path(sys.argv[1])
transfer = jax.export.deserialize(bytearray((out / "transfer.stablehlo").read_bytes()))
given = np.load(out.parent / "given.npz")
(drawn,) = transfer.call(given["image"], given["landmarks"], given["target_landmarks"])
np.save(out.parent / "drawn.npy", drawn)
assert set(transfer.platforms) == {"cpu", "cuda", "tpu"}
assert not [name for name in sys.modules if name.startswith("ecvae")]
"""


@pytest.mark.slow
def test_stablehlo_runs_without_this_package_at_any_batch_size(
    model: Model, faces: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    write_export(model, tmp_path / "out", "stablehlo")
    function = next(each for each in exported_functions(publishable(model, half=True)) if each.name == "transfer")
    for count in (1, 3):
        given = feeds(function, faces, count)
        np.savez(tmp_path / "given.npz", **given)  # type: ignore[arg-type]
        subprocess.run([sys.executable, "-c", CLIENT, tmp_path / "out"], check=True, cwd=tmp_path)
        wanted = jax.jit(function.call)(*given.values())[0]
        np.testing.assert_allclose(np.load(tmp_path / "drawn.npy"), wanted, atol=PARITY)


def test_safetensors_hold_every_array_and_the_config(model: Model, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    write_export(model, tmp_path / "out", "safetensors", half=False)
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        stored = {name: file.get_tensor(name) for name in list(file.keys())}
        metadata = file.metadata()
    assert dataclasses.asdict(Config.from_json(metadata["config"]).model) == dataclasses.asdict(model.config.model)
    np.testing.assert_array_equal(stored["frozen/cluster_means"], model.frozen.cluster_means)
    assert sum(array.size for name, array in stored.items() if name.startswith("params/")) == sum(
        leaf.size for leaf in jax.tree.leaves(model.params)
    )
    kernel = next(name for name in stored if name.startswith("params/structure/") and name.endswith("kernel"))
    at = model.params
    for key in kernel.split("/")[1:]:
        at = at[key]
    np.testing.assert_array_equal(stored[kernel], at)


def test_only_an_export_is_replaced(model: Model, exported: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    out = tmp_path / "out"
    write_export(model, out, "safetensors")
    with pytest.raises(ExportError, match="exists: give the name of a new folder"):
        write_export(model, out, "safetensors")
    write_export(model, out, "safetensors", half=False, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UnsafePathError, match="no export of ecvae"):
        write_export(model, out, "safetensors", overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"


def test_the_command_exports_a_checkpoint(
    tiny_workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("safetensors")
    out = str(tmp_path / "out")
    assert main(["export", str(tiny_workdir), out, "--format", "safetensors"]) == 0
    assert " MB" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / ABOUT).read_text())["step"] == load_model(tiny_workdir).step
    assert main(["export", str(tiny_workdir), out, "--format", "safetensors"]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["export", str(tiny_workdir), out, "--format", "safetensors", "--overwrite"]) == 0


def test_a_missing_package_is_named(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    monkeypatch.delitem(sys.modules, "ecvae_jax.export.tensors", raising=False)
    with pytest.raises(ExportError, match=r"pip install 'ecvae-jax\[safetensors\]'"):
        write_export(model, tmp_path / "out", "safetensors")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_bundled_model_fits_in_6_mb_and_agrees_with_jax(tmp_path: Path) -> None:
    assert main(["export", str(tmp_path / "out"), "--format", "onnx"]) == 0
    names = ("encode.onnx", "draw.onnx", "transfer.onnx", "weights.bin")
    assert sum((tmp_path / "out" / name).stat().st_size for name in names) < 6e6
    model, found = load_model(), load_faces("rendered", "test")
    images, landmarks = found.images(range(4), 128), found.landmarks_as(68)[:4].astype(np.float32)
    check_parity(model, tmp_path / "out", (images, landmarks), (2,))


@pytest.mark.parametrize("pooled", [True, False])
def test_functions_of_a_prior_with_covariances_move_and_sample_by_it(
    tiny_config: Config, faces: tuple[np.ndarray, np.ndarray], pooled: bool
) -> None:
    covariance = dataclasses.replace(tiny_config.prior, kind="covariance", rank=3)
    model = build(dataclasses.replace(tiny_config, prior=covariance))
    rng, (k, d) = np.random.default_rng(0), model.frozen.cluster_means.shape
    directions = np.linalg.qr(rng.normal(size=(d, 3)))[0]
    spikes = np.broadcast_to(rng.uniform(1, 50, 3), (k, 3)) if pooled else rng.uniform(1, 50, (k, 3))
    arrays = (rng.normal(size=d), directions, spikes, 0.4)
    fitted = Covariances(*(jnp.asarray(array, jnp.float32) for array in arrays))
    model = dataclasses.replace(model, frozen=model.frozen._replace(covariances=fitted))
    functions = {function.name: function for function in exported_functions(model)}
    landmarks, targets = faces[1][:3], faces[1][::-1][:3]
    here, there = (condition_of(model, marks).prior for marks in (landmarks, targets))
    assert isinstance(here, CovariancePrior)
    noise = rng.normal(size=(3, d)).astype(np.float32)
    z = np.asarray(here.gaussian.color(jnp.asarray(noise)))
    np.testing.assert_allclose(functions["sample"].call(noise, landmarks)[0], z, rtol=1e-4, atol=1e-4)
    wanted = here.transport(jnp.asarray(z), there)
    np.testing.assert_allclose(functions["move"].call(z, landmarks, targets)[0], wanted, rtol=1e-3, atol=1e-4)
    operations = str(jax.make_jaxpr(functions["move"].call)(z, landmarks, targets))
    assert (f"f32[{d},3]" in operations) is not pooled  # without the directions the graph is smaller


def client(language: str) -> str:
    """Returns the program of docs/export.md for a format."""
    text = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
    return text.split(f"```python {language}\n")[1].split("```")[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "stablehlo", "safetensors"])
def test_the_clients_of_the_guide_run(
    kind: Literal["onnx", "stablehlo", "safetensors"],
    model: Model,
    faces: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
) -> None:
    pytest.importorskip(kind if kind != "stablehlo" else "jax")
    images, landmarks = faces
    write_export(model, tmp_path / "out", kind)
    np.savez(tmp_path / "faces.npz", image=images, landmarks=landmarks)
    program, made = client(kind), tmp_path / "made.npy"
    assert len(program.splitlines()) <= 22
    subprocess.run([sys.executable, "-c", program, tmp_path / "out", tmp_path / "faces.npz", made], check=True)
    restored = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), publishable(model, half=True))
    if kind == "safetensors":
        wanted = condition_of(restored, landmarks).reference.mean
        np.testing.assert_allclose(np.load(made), wanted, atol=1e-5)
    else:
        wanted = transfer_plain(restored, images, landmarks, landmarks[::-1])
        np.testing.assert_allclose(np.load(made).astype(int), wanted, atol=1)


@pytest.mark.parametrize("kind", ["nested", "huge"])
def test_an_index_that_is_nested_or_huge_is_no_export(tmp_path: Path, kind: str) -> None:
    page = FolderKind("page", "page.json", "ecvae-page")
    with (tmp_path / "page.json").open("wb") as file:
        file.write(b"[" * 100_000)
        file.truncate(2**40 if kind == "huge" else 100_000)
    with pytest.raises(UnsafePathError, match="is no page of ecvae: only one is replaced"):
        page.check_replaceable(tmp_path, overwrite=True)
