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

from ecvae_jax.checkpoints.integrity import CheckpointError, find_damage

_ARRAY = "/.zarray"
_FITTED_FLOOR = "frozen.covariances.floor"

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
        fault = find_fault_of_item(folder / item, wanted)
        if fault is not None:
            return f"{item} {fault}"
    return find_damage(folder)


def find_fault_of_item(folder: Path, wanted: Structure, any_dtype: bool = False) -> str | None:
    """Returns the first fault of an item of a checkpoint in a few words, or None; no array is decoded.

    Orbax 0.12.8 reports damage that it meets itself by tracebacks of its threads, and restores what has other shapes.

    Args:
        any_dtype: accept every dtype: an exported checkpoint has half precision.
    """
    try:
        return _fault_of_item(folder, wanted, any_dtype)
    except Exception as error:  # TensorStore raises many kinds; the caller needs one line
        return f"cannot be read ({(str(error).splitlines() or [type(error).__name__])[0]})"


def check_inference(step: Path, folder: Path, wanted: Structure, any_dtype: bool = False) -> None:
    """Raises an error if the item `inference` of a stored checkpoint has other arrays than this version reads.

    Args:
        step: the checkpoint, as messages name it.
        folder: the item, under a path without characters of patterns.
        any_dtype: accept every dtype.

    Raises:
        CheckpointError: an earlier version wrote it.
        ValueError: it has another fault.
    """
    fault = find_fault_of_item(folder, wanted, any_dtype)
    if fault is None:
        return
    if fault.endswith(_FITTED_FLOOR):  # only trainings of 26 November 2026 lack it
        raise CheckpointError(
            f"checkpoint {step} was written by an earlier version of ecvae_jax: its covariances have no floor and an "
            "offset in other units; use the version that wrote it, or train again"
        )
    raise ValueError(f"inference {fault}")


def _fault_of_item(folder: Path, wanted: Structure, any_dtype: bool) -> str | None:
    base = {"driver": "file", "path": f"{folder}/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    sizes = {key.decode(): len(store[key]) for key in store.list().result()}
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for name in (key.removesuffix(_ARRAY) for key in sizes if key.endswith(_ARRAY)):
        array: dict[str, Any] = json.loads(store[f"{name}{_ARRAY}"])
        dtype = wanted[name][1] if any_dtype and name in wanted else np.dtype(array["dtype"]).name
        found[name] = tuple(array["shape"]), dtype
        chunks = math.prod(-(-side // chunk) for side, chunk in zip(array["shape"], array["chunks"], strict=True))
        stored = sum(size > 0 for key, size in sizes.items() if key.rpartition("/")[0] == name) - 1
        if stored != chunks:
            return f"has {stored} of the {chunks} chunks of {name}"
    if found != wanted:
        names = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
        return f"has {len(found)} arrays, expected {len(wanted)}; the first that differs is {names[0]}"
    return None
