"""`write_page`: a model as a folder of static files, which any web server shows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from ecvae_jax import __version__
from ecvae_jax.data.detect.mediapipe.points import CURVES, POINTS_68
from ecvae_jax.data.portraits import DEFAULT_MARGIN
from ecvae_jax.export.formats import ABOUT, ExportError, describe, publishable
from ecvae_jax.files import UnsafePathError, irregular, temporary_folder
from ecvae_jax.model.model import Model
from ecvae_jax.page.functions import fine_size, page_functions
from ecvae_jax.page.sliders import expression_facts, slider_facts
from ecvae_jax.structure.openings import inner_openings
from ecvae_jax.structure.scheme import get_scheme

INDEX = "page.json"
"""File of every page with what its scripts need beside `model.json`, and with the checksums of all files."""
LARGEST = 30_000_000
"""Bytes of a page of the bundled model, at most; a test holds it."""
_KIND = "ecvae-page"
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
    check_page_replaceable(out, overwrite)
    files = page_files(model, half)
    with temporary_folder(out) as work:
        for name, data in files.items():
            path = work / "new" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if os.path.lexists(out):
            out.rename(work / "old")
        (work / "new").rename(out)
    return sum(map(len, files.values()))


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


def check_page_replaceable(out: Path, overwrite: bool) -> None:
    """Refuses an `out` that exists, unless it is to be replaced and holds only files of a page.

    Raises:
        ExportError: `out` exists and `overwrite` is false.
        UnsafePathError: `out` is no page.
    """
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise ExportError(f"{out} exists: give the name of a new folder, or --overwrite to replace an earlier page")
    refusal = f"{out} is no page of ecvae: only one is replaced; give the name of a new folder"
    if irregular(out) != "a folder" or irregular(out / INDEX) or not (out / INDEX).is_file():
        raise UnsafePathError(refusal)
    try:
        index = json.loads((out / INDEX).read_text())
        listed = {INDEX, *index["files"]} if index["kind"] == _KIND else set()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UnsafePathError(refusal) from None
    found = {str(path.relative_to(out)) for path in out.rglob("*") if irregular(path) != "a folder"}
    if found - listed:
        raise UnsafePathError(f"{refusal} ({sorted(found - listed)[0]} is not of the page)")


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
        "kind": _KIND,
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
