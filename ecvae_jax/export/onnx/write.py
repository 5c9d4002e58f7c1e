"""`onnx_files`: one ONNX graph per exported function, and the weights that they share."""

from __future__ import annotations

import jax
import jax.export

from ecvae_jax.config import Architecture
from ecvae_jax.export.functions import Function
from ecvae_jax.export.onnx.alternatives import alternatives
from ecvae_jax.export.onnx.graph import BATCH, Graph, Weights
from ecvae_jax.export.onnx.program import evaluate
from ecvae_jax.export.onnx.shapes import dims_of, expand

WEIGHTS, DENSITY = "weights.bin", "density.bin"
"""The tensors of the graphs, beside them (ONNX's external data); those that only `sample` reads are apart."""


def onnx_files(architecture: Architecture, functions: list[Function], metadata: dict[str, str]) -> dict[str, bytes]:
    """Returns NAME.onnx of every function, `WEIGHTS` and `DENSITY`, as bytes by file name.

    Large constants that float16 holds without loss are stored so; the graph casts them to float32. The size of the
    batch is free.

    Args:
        metadata: written into every graph.

    Raises:
        UnsupportedError: the model uses a primitive that the writer does not know.
    """
    (batch,) = jax.export.symbolic_shape(BATCH)
    weights, files = Weights(WEIGHTS), {}
    for function in functions:
        weights.location = DENSITY if function.name == "sample" else WEIGHTS
        traced = jax.make_jaxpr(function.call)(*function.specs(batch))
        graph = Graph(weights)
        inputs = [graph.input(name, (BATCH, *shape)) for name, shape in function.inputs.items()]
        made = evaluate(graph, traced, inputs, alternatives(architecture))
        shapes = [dims_of(aval.shape) for aval in traced.out_avals]
        outputs = [
            graph.output(expand(graph, value, shape), name, shape)
            for value, name, shape in zip(made, function.outputs, shapes, strict=True)
        ]
        model = graph.model(function.name, outputs, {**metadata, "function": function.about})
        files[f"{function.name}.onnx"] = model.SerializeToString(deterministic=True)
    return {**files, **{name: bytes(data) for name, data in weights.files.items()}}
