"""`write_page`: a model as a folder of static files, which any web server shows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

from ecvae_jax import __version__
from ecvae_jax.data.detect.mediapipe.points import CURVES, POINTS_68
from ecvae_jax.data.portraits import DEFAULT_MARGIN
from ecvae_jax.export.folder import ExportError, FolderKind
from ecvae_jax.export.formats import ABOUT, describe, publishable
from ecvae_jax.model.model import Model
from ecvae_jax.page.functions import fine_size, page_functions
from ecvae_jax.page.sliders import expression_facts, slider_facts
from ecvae_jax.structure.openings import inner_openings
from ecvae_jax.structure.scheme import get_scheme

INDEX = "page.json"
"""File of every page with what its scripts need beside `model.json`, and with the checksums of all files."""
LARGEST = 30_000_000
"""Bytes of a page of the bundled model, at most; a test holds it."""
PAGE = FolderKind("page", INDEX, "ecvae-page")
_MODEL = "model"
"""Folder of the graphs and weights."""


def write_page(model: Model, out: Path, half: bool = True, overwrite: bool = False) -> int:
    """Writes the page of a model into a new folder, atomically; returns its size in bytes.

    Args:
        out: the folder.
        half: round the parameters to float16.
        overwrite: replace `out` if it is an earlier page.

    Raises:
        ExportError: `out` exists and is not to be replaced, or the package onnx is missing.
        UnsafePathError: `out` is to be replaced and is no page.
        UnsupportedError: a model that the ONNX writer does not know.
    """
    PAGE.check_replaceable(out, overwrite)
    return PAGE.write(page_files(model, half), out, overwrite)


def page_files(model: Model, half: bool = True) -> dict[str, bytes]:
    """Returns the files of a page by their path in it.

    Raises:
        ExportError: the package onnx is missing.
        UnsupportedError: a model that the ONNX writer does not know.
    """
    try:
        from ecvae_jax.export.onnx.write import onnx_files
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "onnx":
            raise
        raise ExportError("a page needs the package onnx: pip install 'ecvae-jax[page]'") from None
    model = publishable(model, half)
    config = dataclasses.replace(model.config, model=dataclasses.replace(model.config.model, dtype="float32"))
    model = dataclasses.replace(model, config=config)  # few runtimes have bfloat16
    functions = page_functions(model)
    about = describe(model, "onnx", functions)
    metadata = {name: str(about[name]) for name in ("version", "config_sha256", "license")}
    graphs = onnx_files(model.architecture, functions, metadata)
    files = {**_static_files(), **{f"{_MODEL}/{name}": data for name, data in graphs.items()}}
    about["files"] = {name: _facts(files[f"{_MODEL}/{name}"]) for name in graphs}
    files[ABOUT] = json.dumps(about).encode()
    index = _index(model, half, sorted(name for name in files if name.startswith("examples/")))
    index["files"] = {name: _facts(data) for name, data in sorted(files.items())}
    files[INDEX] = json.dumps(index).encode()
    return files


def _static_files() -> dict[str, bytes]:
    """Returns the files of `static/` by their path below it."""
    found: dict[str, bytes] = {}
    waiting = [("", resources.files("ecvae_jax.page") / "static")]
    while waiting:
        prefix, folder = waiting.pop()
        for entry in folder.iterdir():
            if entry.is_dir():
                waiting.append((f"{prefix}{entry.name}/", entry))
            else:
                found[f"{prefix}{entry.name}"] = entry.read_bytes()
    return found


def _index(model: Model, half: bool, examples: list[str]) -> dict[str, Any]:
    scheme = get_scheme(model.architecture.points)
    mesh = {"means": POINTS_68} if scheme.points == 68 else {"curves": CURVES, "pupils": [96, 97]}
    return {
        "kind": PAGE.kind,
        "version": __version__,
        "half": half,
        "compute": False,
        "fine_size": fine_size(model),
        "margin": float(model.records.get("margin", DEFAULT_MARGIN)),
        "eyes": [list(eye) for eye in scheme.eyes],
        "openings": inner_openings(scheme),
        "mesh": mesh,
        "sliders": slider_facts(scheme.points),
        "expressions": expression_facts(scheme.points),
        "examples": examples,
    }


def _facts(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
