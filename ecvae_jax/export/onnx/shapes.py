"""Shapes in the graph: the batch as one free size, and broadcasts that are carried out only where needed."""

from __future__ import annotations

import numpy as np

from ecvae_jax.export.onnx.graph import BATCH, Dims, Graph, Value, constant


class UnsupportedError(ValueError):
    """A primitive, or a use of one, that the writer does not know; the message names it."""


def dims_of(shape: Dims) -> Dims:
    """Returns a shape of JAX with `BATCH` for the symbolic size."""
    found = tuple(int(side) if isinstance(side, (int, np.integer)) else str(side) for side in shape)
    strange = [side for side in found if isinstance(side, str) and side != BATCH]
    if strange:
        raise UnsupportedError(f"ONNX export: the size {strange[0]} of {found} is no plain batch; keep the batch apart")
    return found


def ints(*values: int) -> Value:
    """Returns a constant of int64 numbers, such as axes."""
    return constant(np.asarray(values, np.int64))


def expand(graph: Graph, value: Value, dims: Dims) -> Value:
    """Returns the value with its axes of length 1 repeated to `dims`."""
    if value.shape == dims:
        return value
    if BATCH not in dims:
        return graph.op("Expand", [value, ints(*dims)], dims)
    source = Value((BATCH,), np.dtype(np.float32), graph.inputs[0].name)
    batch = graph.op("Shape", [source], (1,), np.int64, start=0, end=1)
    at = dims.index(BATCH)
    parts = [part for part in (ints(*dims[:at]), batch, ints(*dims[at + 1 :])) if part.shape != (0,)]
    target = graph.op("Concat", parts, (len(dims),), axis=0)
    return graph.op("Expand", [value, target], dims)


def without_batch(value: Value, dims: Dims) -> Dims:
    """Returns `dims` with 1 for the batch where the value is the same for the whole batch."""
    at = dims.index(BATCH) if BATCH in dims else None
    if at is None or value.shape[at] != 1:
        return dims
    return (*dims[:at], 1, *dims[at + 1 :])


def joined(shapes: list[Dims]) -> Dims:
    """Returns the shape to which all broadcast."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(next((side for side in sides if side != 1), 1) for sides in zip(*padded, strict=True))


def reshape(graph: Graph, value: Value, dims: Dims) -> Value:
    """Returns the value in another shape; the batch, if any, is the one free size."""
    value = graph.unshaped.get(value.name, value)
    if value.shape == dims:
        return value
    target = [-1 if side == BATCH else side for side in dims]
    made = graph.op("Reshape", [value, ints(*target)], dims)
    if made.array is None:
        graph.unshaped[made.name] = value
    return made
