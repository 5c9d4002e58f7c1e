"""The rules of products, gathers and convolutions (see `rules`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ecvae_jax.export.onnx.graph import BATCH, Dims, Graph, Value, cast
from ecvae_jax.export.onnx.shapes import UnsupportedError, dims_of, expand, ints, joined, reshape, without_batch

Params = dict[str, Any]


def dot_general(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    """Returns a product of tensors as one MatMul."""
    (sum_left, sum_right), (batch_left, batch_right) = params["dimension_numbers"]
    left = _Factor.of(graph, inputs[0], params["_from"][0].shape, batch_left, sum_left)
    right = _Factor.of(graph, inputs[1], params["_from"][1].shape, batch_right, sum_right)
    if BATCH not in right.free:
        return _product(graph, left, right)
    made, b, m = _product(graph, right, left), len(left.batch), len(right.free)  # MatMul's free batch is on its left
    order = [*range(b), *range(b + m, len(made.shape)), *range(b, b + m)]
    return graph.op("Transpose", [made], tuple(made.shape[axis] for axis in order), perm=order)


@dataclass(frozen=True)
class _Factor:
    """A factor of a product, and its sides: of the axes common to both factors, free, and summed."""

    value: Value
    batch: Dims
    free: Dims
    summed: Dims
    axes: tuple[tuple[int, ...], ...]
    """Its axes of each kind."""

    @classmethod
    def of(cls, graph: Graph, value: Value, shape: Dims, batch: tuple[int, ...], summed: tuple[int, ...]) -> _Factor:
        dims = without_batch(value, dims_of(shape))
        free = tuple(axis for axis in range(len(dims)) if axis not in (*summed, *batch))
        axes = tuple(tuple(int(axis) for axis in kind) for kind in (batch, free, summed))
        common, others, sums = (tuple(dims[axis] for axis in kind) for kind in axes)
        return cls(expand(graph, value, dims), common, others, sums, axes)

    def arranged(self, graph: Graph, *kinds: int) -> Value:
        """Returns the tensor with its axes in the order of these kinds."""
        order = [axis for kind in kinds for axis in self.axes[kind]]
        if order == sorted(order):
            return self.value
        dims = tuple(self.value.shape[axis] for axis in order)
        return graph.op("Transpose", [self.value], dims, perm=order)


def _product(graph: Graph, left: _Factor, right: _Factor) -> Value:
    """Returns the product with axes (common, free of left, free of right), as one MatMul."""
    total, columns = math.prod(left.summed), math.prod(right.free)
    rows = left.free
    if left.batch and len(rows) != 1:
        rows = (math.prod(rows),)  # the batch is a common axis, so these are numbers
    elif not rows:
        rows = (1,)
    common = joined([left.batch, right.batch])
    first = reshape(graph, left.arranged(graph, 0, 1, 2), (*left.batch, *rows, total))
    second = reshape(graph, right.arranged(graph, 0, 2, 1), (*right.batch, total, columns))
    made = graph.op("MatMul", [first, second], (*common, *rows, columns))
    return reshape(graph, made, (*common, *left.free, *right.free))


def gather(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    """Returns rows of each face by computed indices, or parts of all faces by constant ones."""
    value, index = inputs
    numbers, source = params["dimension_numbers"], params["_from"][0].shape
    collapsed = [int(axis) for axis in numbers.collapsed_slice_dims]
    start_axes = [int(axis) for axis in numbers.start_index_map]
    if params["mode"] != jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS:
        raise UnsupportedError(f"ONNX export: gather in mode {params['mode']}; only promise_in_bounds is known")
    if list(numbers.operand_batching_dims) == [0] and collapsed == start_axes == [1] and len(source) == 3:
        value = expand(graph, value, dims_of(source))
        index = expand(graph, index, dims_of(params["_from"][1].shape))
        index = cast(graph, index, np.int64)
        return graph.op("GatherND", [value, index], dims_of(aval.shape), value.dtype, batch_dims=1)
    if index.array is not None and not numbers.operand_batching_dims:
        sizes = [side if isinstance(side, int) else None for side in params["slice_sizes"]]
        if index.array.ndim == 1:
            for axis, at in zip(start_axes, index.array.tolist(), strict=True):
                if value.shape[axis] != 1:
                    dims = (*value.shape[:axis], sizes[axis], *value.shape[axis + 1 :])
                    value = graph.op("Slice", [value, ints(at), ints(at + sizes[axis]), ints(axis)], dims)
            return reshape(graph, value, tuple(s for axis, s in enumerate(value.shape) if axis not in collapsed))
        if index.array.ndim == 2 and len(start_axes) == 1 and collapsed == start_axes:
            (axis,) = start_axes
            kept = tuple(axis for axis in range(len(aval.shape)) if axis not in numbers.offset_dims)
            if kept == (axis,) and value.shape[axis] != 1:
                dims = (*value.shape[:axis], len(index.array), *value.shape[axis + 1 :])
                return graph.op("Gather", [value, ints(*index.array[:, 0].tolist())], dims, value.dtype, axis=axis)
    raise UnsupportedError(f"ONNX export: gather with {numbers}")


def convolution(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    """Returns an NHWC convolution; the runtime removes transposes that cancel."""
    numbers = params["dimension_numbers"]
    plain = (
        tuple(numbers.lhs_spec) == (0, 3, 1, 2)
        and tuple(numbers.rhs_spec) == (3, 2, 0, 1)
        and tuple(numbers.out_spec) == (0, 3, 1, 2)
        and {*params["window_strides"], *params["lhs_dilation"], *params["rhs_dilation"]} == {1}
        and params["feature_group_count"] == params["batch_group_count"] == 1
    )
    if not plain:
        raise UnsupportedError("ONNX export: convolution with strides, dilation, groups or another layout than NHWC")
    maps, kernel = inputs
    full = without_batch(maps, dims_of(params["_from"][0].shape))
    b, h, w, c = full
    maps = graph.op("Transpose", [expand(graph, maps, full)], (b, c, h, w), perm=[0, 3, 1, 2])
    height, width, _, features = kernel.shape
    kernel = graph.op("Transpose", [kernel], (features, c, height, width), perm=[3, 2, 0, 1])
    (top, bottom), (left, right) = params["padding"]
    pads = [int(side) for side in (top, left, bottom, right)]
    _, h, w, _ = dims_of(aval.shape)
    made = graph.op("Conv", [maps, kernel], (b, features, h, w), pads=pads, kernel_shape=[height, width])
    return graph.op("Transpose", [made], (b, h, w, features), perm=[0, 2, 3, 1])
