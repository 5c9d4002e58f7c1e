"""One rule per JAX primitive of the model: which ONNX operators compute it. `RULES` is the whole set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from onnx import helper

from ecvae_jax.export.onnx.graph import BATCH, Dims, Graph, Value, constant

Params = dict[str, Any]
Rule = Callable[[Graph, list[Value], Any, Params], Value]
"""Takes the graph, the inputs, the output's type in JAX (`aval`) and the parameters of the primitive."""


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
    if value.shape == dims:
        return value
    target = [-1 if side == BATCH else side for side in dims]
    return graph.op("Reshape", [value, ints(*target)], dims)


def elementwise(kind: str, dtype: Any = None) -> Rule:
    """Returns the rule of a primitive that is one ONNX operator with broadcasting."""

    def rule(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
        return graph.op(kind, inputs, joined([value.shape for value in inputs]), dtype)

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
    (value,), dtype = inputs, np.dtype(params["new_dtype"])
    if value.dtype == dtype:
        return value
    return graph.op("Cast", [value], value.shape, dtype, to=helper.np_dtype_to_tensor_dtype(dtype))


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


def _reduce(kind: str) -> Rule:
    def rule(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
        value, axes = inputs[0], [int(axis) for axis in params["axes"]]
        full = dims_of(params["_from"][0].shape)
        dims = tuple(side for axis, side in enumerate(value.shape) if axis not in axes)
        repeats = math.prod(full[axis] for axis in axes if value.shape[axis] == 1)
        dtype = value.dtype
        if dtype == np.bool_:
            value = graph.op(
                "Cast", [value], value.shape, np.int32, to=helper.np_dtype_to_tensor_dtype(np.dtype(np.int32))
            )
        made = graph.op(kind, [value, ints(*axes)], dims, keepdims=0)
        if kind == "ReduceSum" and repeats != 1:
            made = graph.op("Mul", [made, constant(np.asarray(repeats, value.dtype))], dims)
        if dtype == np.bool_:
            made = graph.op("Cast", [made], dims, np.bool_, to=helper.np_dtype_to_tensor_dtype(np.dtype(np.bool_)))
        return made

    return rule


def _dot_general(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
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


def _gather(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    value, index = inputs
    numbers, source = params["dimension_numbers"], params["_from"][0].shape
    collapsed = [int(axis) for axis in numbers.collapsed_slice_dims]
    start_axes = [int(axis) for axis in numbers.start_index_map]
    if list(numbers.operand_batching_dims) == [0] and collapsed == start_axes == [1] and len(source) == 3:
        value = expand(graph, value, dims_of(source))
        index = expand(graph, index, dims_of(params["_from"][1].shape))
        index = graph.op("Cast", [index], index.shape, np.int64, to=helper.np_dtype_to_tensor_dtype(np.dtype(np.int64)))
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


def _conv(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
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


RULES: dict[str, Rule] = {
    **{
        name: elementwise(kind)
        for name, kind in {
            "add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min",
            "neg": "Neg", "abs": "Abs", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh", "floor": "Floor",
            "logistic": "Sigmoid", "and": "And", "or": "Or", "not": "Not",
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
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_or": _reduce("ReduceMax"),
    "reduce_and": _reduce("ReduceMin"),
    "dot_general": _dot_general,
    "gather": _gather,
    "conv_general_dilated": _conv,
}  # fmt: skip


def evaluate(
    graph: Graph, closed: Any, inputs: list[Value], alternatives: dict[str, Callable[..., Any]]
) -> list[Value]:
    """Writes a traced program into the graph and returns its outputs.

    Args:
        closed: `jax.core.ClosedJaxpr`, traced with `BATCH` as the symbolic batch size.
        alternatives: functions to trace instead of jitted ones, by their name.

    Raises:
        UnsupportedError: the program has a primitive without a rule.
    """
    values: dict[Any, Value] = {}
    jaxpr = closed.jaxpr
    values.update(zip(jaxpr.constvars, (constant(np.asarray(array)) for array in closed.consts), strict=True))
    values.update(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Value:
        return constant(np.asarray(atom.val, atom.aval.dtype)) if hasattr(atom, "val") else values[atom]

    for equation in jaxpr.eqns:
        name, params, given = equation.primitive.name, equation.params, [read(atom) for atom in equation.invars]
        inner = params.get("jaxpr") or params.get("call_jaxpr")
        if name in ("jit", "pjit", "custom_jvp_call", "closed_call"):
            other = alternatives.get(params.get("name", ""))
            if other is not None:
                specs = [jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype) for atom in equation.invars]
                inner = jax.make_jaxpr(other)(*specs)
            made = evaluate(graph, inner, given, alternatives)
        elif name in RULES:
            types = [atom.aval for atom in equation.invars]
            made = [RULES[name](graph, given, equation.outvars[0].aval, {**params, "_from": types})]
        else:
            raise UnsupportedError(
                f"ONNX export: no rule for the primitive {name!r}; this model's configuration cannot be exported to "
                "ONNX: use --format stablehlo"
            )
        values.update(zip(equation.outvars, made, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
