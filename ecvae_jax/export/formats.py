"""`write_export`: a model as StableHLO, ONNX or safetensors, with `model.json`, which describes it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from ecvae_jax import __version__
from ecvae_jax.checkpoints.format import versions
from ecvae_jax.export.folder import ExportError, FolderKind
from ecvae_jax.export.functions import Function, exported_functions
from ecvae_jax.model.frames import FACE_SCALE
from ecvae_jax.model.model import Model
from ecvae_jax.structure.scheme import get_scheme

Format = Literal["onnx", "stablehlo", "safetensors"]

ABOUT = "model.json"
"""File of every export that describes it and lists the other files."""
PLATFORMS = ("cpu", "cuda", "tpu")
"""Where a StableHLO export runs."""
EXPORT = FolderKind("export", ABOUT, "ecvae-export")


def write_export(model: Model, out: Path, kind: Format, half: bool = True, overwrite: bool = False) -> int:
    """Writes a model into a new folder, atomically; returns its size in bytes.

    Args:
        out: the folder.
        half: round the parameters to float16.
        overwrite: replace `out` if it is an earlier export.

    Raises:
        ExportError: `out` exists and is not to be replaced, or an optional package is missing.
        UnsupportedError: a model that the ONNX writer does not know.
    """
    EXPORT.check_replaceable(out, overwrite)
    model = publishable(model, half)
    if kind == "onnx":  # few runtimes have bfloat16
        config = dataclasses.replace(model.config, model=dataclasses.replace(model.config.model, dtype="float32"))
        model = dataclasses.replace(model, config=config)
    functions = exported_functions(model)
    about = describe(model, kind, functions)
    files = _files(model, kind, functions, {name: str(about[name]) for name in ("version", "config_sha256", "license")})
    about["files"] = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    }
    files[ABOUT] = json.dumps(about, indent=1).encode()
    return EXPORT.write(files, out, overwrite)


def publishable(model: Model, half: bool) -> Model:
    """Returns the model with parameters and density in float16, if `half`, and the records' folders as bare names."""
    names = "+".join(Path(part).name for part in model.config.data.records.split("+"))
    config = dataclasses.replace(model.config, data=dataclasses.replace(model.config.data, records=names))
    if not half:
        return dataclasses.replace(model, config=config)
    to_half = lambda leaf: leaf.astype(jnp.float16)  # noqa: E731
    params, density = jax.tree.map(to_half, (model.params, model.density))
    return dataclasses.replace(model, config=config, params=params, density=density)


def describe(model: Model, kind: Format, functions: list[Function]) -> dict[str, Any]:
    """Returns what a program needs to use an export: inputs, ranges, boundaries, cluster centers, provenance.

    The centers are landmarks in crop units, as large as the faces of `ecvae prepare`'s crops.
    """
    scheme, clusters, config = get_scheme(model.architecture.points), model.frozen.clusters, model.config
    text = config.to_json()

    def placed(shapes: Any) -> list[Any]:
        return np.round(0.5 + FACE_SCALE * np.asarray(shapes, np.float64), 5).tolist()

    return {
        "kind": EXPORT.kind,
        "format": kind,
        "version": __version__,
        "versions": versions(),
        "license": "Apache-2.0; the weights are under the license of their training data",
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "step": model.step,
        "image_size": config.model.image_size,
        "points": scheme.points,
        "z_dim": config.model.z_dim,
        "prior": config.prior.kind,
        "image": "float32, batch × height × width × 3 (RGB), 0 to 1; 8-bit = round(255 · image)",
        "landmarks": "float32, batch × points × 2, (x, y) in crop units: 0 to 1 across the crop, y downwards",
        "crop_margin": model.records.get("margin"),
        "boundaries": {name: list(curve) for name, curve in scheme.boundaries},
        "mirror": list(scheme.mirror),
        "mean_face": placed(clusters.mean_shape),
        "cluster_centers": placed(clusters.centers),
        "functions": {
            function.name: {
                "about": function.about,
                "inputs": {name: ["batch", *shape] for name, shape in function.inputs.items()},
                "outputs": list(function.outputs),
            }
            for function in functions
        },
        "records": dict(model.records),
        "config": json.loads(text),
    }


def _files(model: Model, kind: Format, functions: list[Function], metadata: dict[str, str]) -> dict[str, bytes]:
    if kind == "onnx":
        try:
            from ecvae_jax.export.onnx.write import onnx_files
        except ModuleNotFoundError as error:
            raise _missing(error, "onnx") from None
        return onnx_files(model.architecture, functions, metadata)
    if kind == "stablehlo":
        return {f"{function.name}.stablehlo": _stablehlo(function) for function in functions}
    try:
        from ecvae_jax.export.tensors import safetensors_file
    except ModuleNotFoundError as error:
        raise _missing(error, "safetensors") from None
    return {"model.safetensors": safetensors_file(model, metadata)}


def _stablehlo(function: Function) -> bytes:
    """Returns a serialized `jax.export.Exported` for `PLATFORMS`, with a free batch size."""
    (batch,) = jax.export.symbolic_shape("batch")
    exported = jax.export.export(jax.jit(function.call), platforms=PLATFORMS)(*function.specs(batch))
    return bytes(exported.serialize())


def _missing(error: ModuleNotFoundError, extra: str) -> Exception:
    if error.name is None or error.name.split(".")[0] != extra:
        return error
    return ExportError(f"--format {extra} needs the package {extra}: pip install 'ecvae-jax[{extra}]'")
