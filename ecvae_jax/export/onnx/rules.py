"""One rule per JAX primitive of the model: which ONNX operators compute it. `RULES` is the whole set."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ecvae_jax.export.onnx.graph import BATCH, Graph, Value, cast, constant
from ecvae_jax.export.onnx.products import Params, convolution, dot_general, gather
from ecvae_jax.export.onnx.shapes import UnsupportedError, dims_of, expand, ints, joined, reshape, without_batch

Rule = Callable[[Graph, list[Value], Any, Params], Value]
"""Takes the graph, the inputs, the output's type in JAX (`aval`) and the parameters of the primitive.

`params["_from"]` holds the inputs' types in JAX, whose axes may be longer than those of the values.
"""


def elementwise(kind: str, dtype: Any = None) -> Rule:
    """Returns the rule of a primitive that is one ONNX operator with broadcasting."""

    def rule(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
        dims = joined([value.shape for value in inputs])
        # ONNX Runtime broadcasts value by value where all inputs end with an axis of length 1: five times slower.
        kept = len(dims)
        while kept and dims[kept - 1] == 1:
            kept -= 1
        if not kept or kept == len(dims) or len(inputs) == 1:
            return graph.op(kind, inputs, dims, dtype)
        cut = len(dims) - kept
        inputs = [reshape(graph, value, value.shape[: max(len(value.shape) - cut, 0)]) for value in inputs]
        return reshape(graph, graph.op(kind, inputs, dims[:kept], dtype), dims)

    return rule


def _square(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    return graph.op("Mul", [inputs[0], inputs[0]], inputs[0].shape)


def _rsqrt(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    return graph.op("Reciprocal", [graph.op("Sqrt", inputs, inputs[0].shape)], inputs[0].shape)


def _not_equal(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    shape = joined([value.shape for value in inputs])
    return graph.op("Not", [graph.op("Equal", inputs, shape, np.bool_)], shape)


def _integer_pow(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    if params["y"] != 2:
        raise UnsupportedError(f"ONNX export: integer_pow with exponent {params['y']}; only 2 is known")
    return _square(graph, inputs, aval, params)


def _select(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    which, if_false, if_true = inputs
    if which.dtype != np.bool_:
        raise UnsupportedError("ONNX export: select_n by a number; only by a boolean is known")
    return graph.op("Where", [which, if_true, if_false], joined([v.shape for v in inputs]), if_true.dtype)


def _clamp(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    low, value, high = inputs
    above = graph.op("Max", [value, low], joined([value.shape, low.shape]))
    return graph.op("Min", [above, high], joined([above.shape, high.shape]))


def _cast(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    return cast(graph, inputs[0], params["new_dtype"])


def _identity(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    return inputs[0]


def _broadcast(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    value, dims = inputs[0], [1] * len(aval.shape)
    for axis, side in zip(params["broadcast_dimensions"], value.shape, strict=True):
        dims[axis] = side
    return reshape(graph, value, tuple(dims))


def _reshape(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    value, full, dims = inputs[0], dims_of(params["_from"][0].shape), dims_of(aval.shape)
    partial = without_batch(value, full)
    if partial != full:
        dims = tuple(1 if side == BATCH else side for side in dims)
    return reshape(graph, expand(graph, value, partial), dims)


def _squeeze(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    dims = tuple(side for axis, side in enumerate(inputs[0].shape) if axis not in params["dimensions"])
    return reshape(graph, inputs[0], dims)


def _transpose(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    order = [int(axis) for axis in params["permutation"]]
    return graph.op("Transpose", inputs, tuple(inputs[0].shape[axis] for axis in order), perm=order)


def _concatenate(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    axis, target = params["dimension"], list(joined([value.shape for value in inputs]))
    parts = []
    for value, source in zip(inputs, params["_from"], strict=True):
        target[axis] = dims_of(source.shape)[axis]
        parts.append(expand(graph, value, tuple(target)))
    target[axis] = dims_of(aval.shape)[axis]
    return graph.op("Concat", parts, tuple(target), axis=axis)


def _stack(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    axis, shape = params["axis"], joined([value.shape for value in inputs])
    unit = (*shape[:axis], 1, *shape[axis:])
    parts = [reshape(graph, expand(graph, value, shape), unit) for value in inputs]
    return graph.op("Concat", parts, (*shape[:axis], len(parts), *shape[axis:]), axis=axis)


def _slice(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    value, dims = inputs[0], list(inputs[0].shape)
    strides = params["strides"] or (1,) * len(dims)
    starts, ends, axes, steps = [], [], [], []
    bounds = zip(params["start_indices"], params["limit_indices"], strides, params["_from"][0].shape, strict=True)
    for axis, (start, end, step, side) in enumerate(bounds):
        if dims[axis] == 1 or (start == 0 and step == 1 and end == side):
            continue
        starts, ends, axes, steps = [*starts, start], [*ends, end], [*axes, axis], [*steps, step]
        dims[axis] = -(-(end - start) // step)
    if not axes:
        return value
    return graph.op("Slice", [value, ints(*starts), ints(*ends), ints(*axes), ints(*steps)], tuple(dims))


def _tile(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    value, repeats = inputs[0], list(params["reps"])
    if all(side == 1 or repeat == 1 for side, repeat in zip(value.shape, repeats, strict=True)):
        dims = dims_of(aval.shape)
        return expand(
            graph, value, tuple(d if r != 1 else s for d, r, s in zip(dims, repeats, value.shape, strict=True))
        )
    raise UnsupportedError(f"ONNX export: tile {repeats} of {value.shape}; only axes of length 1 are repeated")


def _iota(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    axis, dims = params["dimension"], dims_of(aval.shape)
    if dims[axis] == BATCH:
        raise UnsupportedError("ONNX export: iota over the batch")
    shape = [1] * len(dims)
    shape[axis] = dims[axis]
    return constant(np.arange(dims[axis], dtype=aval.dtype).reshape(shape))


def _sort(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    axis, full = params["dimension"], dims_of(params["_from"][0].shape)
    if len(inputs) != 1 or full[axis] == BATCH:
        raise UnsupportedError("ONNX export: sort of several arrays, or along the batch")
    value = expand(graph, inputs[0], without_batch(inputs[0], full))
    return graph.op("TopK", [value, ints(full[axis])], value.shape, unused=1, axis=axis, largest=0, sorted=1)


def _reduce(kind: str) -> Rule:
    def rule(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
        value, axes = inputs[0], [int(axis) for axis in params["axes"]]
        full = dims_of(params["_from"][0].shape)
        dims = tuple(side for axis, side in enumerate(value.shape) if axis not in axes)
        repeats = math.prod(full[axis] for axis in axes if value.shape[axis] == 1)
        dtype = value.dtype
        value = cast(graph, value, np.int32 if dtype == np.bool_ else dtype)
        made = graph.op(kind, [value, ints(*axes)], dims, keepdims=0)
        if kind == "ReduceSum" and repeats != 1:
            made = graph.op("Mul", [made, constant(np.asarray(repeats, value.dtype))], dims)
        return cast(graph, made, dtype)

    return rule


RULES: dict[str, Rule] = {
    **{
        name: elementwise(kind)
        for name, kind in {
            "add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min",
            "neg": "Neg", "abs": "Abs", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh", "floor": "Floor",
            "ceil": "Ceil", "logistic": "Sigmoid", "and": "And", "or": "Or", "not": "Not",
        }.items()
    },
    **{
        name: elementwise(kind, np.bool_)
        for name, kind in {
            "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "eq": "Equal",
        }.items()
    },
    "ne": _not_equal,
    "square": _square,
    "integer_pow": _integer_pow,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "clamp": _clamp,
    "convert_element_type": _cast,
    "stop_gradient": _identity,
    "copy": _identity,
    "name": _identity,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "stack": _stack,
    "slice": _slice,
    "tile": _tile,
    "iota": _iota,
    "sort": _sort,
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_or": _reduce("ReduceMax"),
    "reduce_and": _reduce("ReduceMin"),
    "dot_general": dot_general,
    "gather": gather,
    "conv_general_dilated": convolution,
}  # fmt: skip
