"""An ONNX graph under construction: nodes, constants, folding, and tensors outside the file."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

OPSET = 21
IR_VERSION = 10
"""Of opset 21; older runtimes refuse a newer one."""
BATCH = "batch"
"""Name of the symbolic first axis."""
_OUTSIDE = 512  # bytes; smaller constants stay inside the graph's file
_HALF = 256  # elements; smaller constants stay float32

_LARGEST_FOLDED = 65536  # bytes; a larger result that grew from smaller constants is computed when the graph is loaded

Dims = tuple[Any, ...]
"""Integers, and `BATCH`."""


@dataclass(frozen=True)
class Value:
    """A tensor of the graph: a constant, or the output of a node.

    An axis of length 1 stands for any length: broadcasts are not carried out before an operator needs them.
    """

    shape: Dims
    dtype: np.dtype
    name: str = ""
    array: np.ndarray | None = None


@dataclass
class Weights:
    """The tensors that several graphs share, in files beside the graphs; equal tensors are stored once."""

    location: str
    """Name of the file to which new tensors go."""
    files: dict[str, bytearray] = field(default_factory=dict)
    places: dict[bytes, tuple[str, int, int]] = field(default_factory=dict)
    """File, offset and length of the tensors by their SHA-256."""

    def put(self, tensor: TensorProto) -> None:
        """Moves the tensor's bytes into a file."""
        raw = tensor.raw_data
        key = hashlib.sha256(raw).digest()
        if key not in self.places:
            data = self.files.setdefault(self.location, bytearray())
            data.extend(bytes(-len(data) % 16))
            self.places[key] = self.location, len(data), len(raw)
            data.extend(raw)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for name, value in zip(("location", "offset", "length"), self.places[key], strict=True):
            tensor.external_data.add(key=name, value=str(value))


class Graph:
    """Collects nodes. Equal nodes are one; a node of constants is computed now."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self.unshaped: dict[str, Value] = {}
        """What was reshaped, by the name of the result: a reshape of a reshape is one."""
        self._made: dict[Any, str] = {}

    def input(self, name: str, shape: Dims) -> Value:
        """Returns a float32 input of the graph."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return Value(shape, np.dtype(np.float32), name)

    def op(
        self, kind: str, inputs: list[Value], shape: Dims, dtype: Any = None, unused: int = 0, **attributes: Any
    ) -> Value:
        """Returns the output of one node; the caller gives its shape, and its type if it is not the first input's.

        Args:
            unused: number of further outputs that the operator has.
        """
        dtype = np.dtype(dtype or inputs[0].dtype)
        size = dtype.itemsize * (0 if BATCH in shape else math.prod(shape))
        given = sum(value.array.nbytes for value in inputs if value.array is not None)
        constants = not unused and all(value.array is not None for value in inputs)
        if constants and size <= max(_LARGEST_FOLDED, given):
            return constant(_fold(kind, [np.asarray(value.array) for value in inputs], attributes).astype(dtype))
        names = [self._named(value) for value in inputs]
        key = (kind, *names, repr(sorted(attributes.items())))
        if key not in self._made:
            self._made[key] = f"v{len(self._made)}"
            made = [self._made[key], *(f"{self._made[key]}_{k}" for k in range(unused))]
            self.nodes.append(helper.make_node(kind, names, made, **attributes))
        return Value(shape, dtype, self._made[key])

    def _named(self, value: Value) -> str:
        if value.array is None:
            return value.name
        array = np.ascontiguousarray(value.array)
        key = (str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._made:
            name = self._made[key] = f"v{len(self._made)}"
            half = _as_half(array)
            stored = name if half is None else f"{name}h"
            tensor = numpy_helper.from_array(array if half is None else half, stored)
            if len(tensor.raw_data) >= _OUTSIDE:
                self.weights.put(tensor)
            self.initializers[stored] = tensor
            if half is not None:
                self.nodes.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
        return self._made[key]

    def output(self, value: Value, name: str, shape: Dims) -> onnx.ValueInfoProto:
        """Names a value as an output of the graph."""
        self.nodes.append(helper.make_node("Identity", [self._named(value)], [name]))
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))

    def model(self, name: str, outputs: list[onnx.ValueInfoProto], metadata: dict[str, str]) -> onnx.ModelProto:
        """Returns the checked model, with only the nodes that the outputs need."""
        needed, kept = {output.name for output in outputs}, []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        tensors = [tensor for key, tensor in self.initializers.items() if key in needed]
        graph = helper.make_graph(kept[::-1], name, self.inputs, outputs, tensors)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ecvae_jax")
        helper.set_model_props(model, metadata)
        return model


def cast(graph: Graph, value: Value, dtype: Any) -> Value:
    """Returns the value in another type."""
    dtype = np.dtype(dtype)
    if value.dtype == dtype:
        return value
    return graph.op("Cast", [value], value.shape, dtype, to=helper.np_dtype_to_tensor_dtype(dtype))


def constant(array: Any) -> Value:
    """Returns a constant of the graph."""
    array = np.asarray(array)
    return Value(array.shape, array.dtype, array=array)


def _as_half(array: np.ndarray) -> np.ndarray | None:
    """Returns a large float32 array as float16 where that loses nothing, else None."""
    if array.dtype != np.float32 or array.size < _HALF or np.abs(array).max() > np.finfo(np.float16).max:
        return None
    half = array.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), array) else None


def _fold(kind: str, arrays: list[np.ndarray], attributes: dict[str, Any]) -> np.ndarray:
    names = [f"i{k}" for k in range(len(arrays))]
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, arrays, strict=True)
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, names, ["o"], **attributes)], "fold", infos, [onnx.ValueInfoProto(name="o")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    (made,) = list(ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True))))
    return np.asarray(made)
