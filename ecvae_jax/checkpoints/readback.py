"""Reading a written checkpoint back, before it gets its final name: structure, chunks and checksums."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore
from jaxtyping import PyTree

from ecvae_jax.checkpoints.integrity import find_damage

_ARRAY = "/.zarray"

Structure = Mapping[str, tuple[tuple[int, ...], str]]
"""Shape and dtype of each array by its name in the format: the keys of its path, joined by dots."""


def structure(tree: PyTree) -> Structure:
    """Returns the structure of a tree of arrays."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): (tuple(leaf.shape), np.dtype(leaf.dtype).name)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def find_fault(folder: Path, items: Mapping[str, Structure]) -> str | None:
    """Returns the first fault of a written checkpoint in a few words, or None.

    Every chunk of every array is read: an array without its chunks would be restored as zeros, without an error.
    `items` holds the structure that was to be written, by item.
    """
    for item, wanted in items.items():
        try:
            fault = _fault_of_item(folder / item, wanted)
        except Exception as error:  # TensorStore raises many kinds; the caller needs one line
            fault = f"cannot be read ({(str(error).splitlines() or [type(error).__name__])[0]})"
        if fault is not None:
            return f"{item} {fault}"
    return find_damage(folder)


def _fault_of_item(folder: Path, wanted: Structure) -> str | None:
    base = {"driver": "file", "path": f"{folder}/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    sizes = {key.decode(): len(store[key]) for key in store.list().result()}
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for name in (key.removesuffix(_ARRAY) for key in sizes if key.endswith(_ARRAY)):
        array: dict[str, Any] = json.loads(store[f"{name}{_ARRAY}"])
        found[name] = tuple(array["shape"]), np.dtype(array["dtype"]).name
        chunks = math.prod(-(-side // chunk) for side, chunk in zip(array["shape"], array["chunks"], strict=True))
        stored = sum(size > 0 for key, size in sizes.items() if key.rpartition("/")[0] == name) - 1
        if stored != chunks:
            return f"has {stored} of the {chunks} chunks of {name}"
    if found != wanted:
        names = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
        return f"has {len(found)} arrays, expected {len(wanted)}; the first that differs is {names[0]}"
    return None
