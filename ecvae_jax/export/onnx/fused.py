"""Functions of the package that ONNX has as one operator or two: `FUSED`, by the name of the jitted function.

One operator after another, they take several times as long: each is a pass over the maps. docs/measurements/page.md
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ecvae_jax.export.onnx.graph import Graph, Value, constant
from ecvae_jax.export.onnx.products import Params
from ecvae_jax.export.onnx.rules import Rule
from ecvae_jax.export.onnx.shapes import dims_of, expand, reshape, without_batch
from ecvae_jax.model.blocks import GROUP_CHANNELS
from ecvae_jax.model.normalization import EPSILON


def normalized_silu(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    """Returns `model.normalization.normalized_silu`: InstanceNormalization, whose instances are the groups, and SiLU.

    ONNX's own GroupNormalization is taken apart by ONNX Runtime, into more operators than these.
    """
    maps, scale, bias = inputs
    full = without_batch(maps, dims_of(params["_from"][0].shape))
    b, h, w, c = full
    groups, pixels = c // GROUP_CHANNELS, (b, c, h, w)
    maps = graph.op("Transpose", [expand(graph, maps, full)], pixels, perm=[0, 3, 1, 2])
    flat = (b, groups, math.prod((GROUP_CHANNELS, h, w)))
    ones, zeros = (constant(np.full(groups, value, np.float32)) for value in (1, 0))
    maps = graph.op("InstanceNormalization", [reshape(graph, maps, flat), ones, zeros], flat, epsilon=EPSILON)
    maps = graph.op("Mul", [reshape(graph, maps, pixels), reshape(graph, scale, (1, c, 1, 1))], pixels)
    maps = graph.op("Add", [maps, reshape(graph, bias, (1, c, 1, 1))], pixels)
    gate = graph.op("Sigmoid", [maps], pixels)
    return graph.op("Transpose", [graph.op("Mul", [maps, gate], pixels)], full, perm=[0, 2, 3, 1])


def resample(graph: Graph, inputs: list[Value], aval: Any, params: Params) -> Value:
    """Returns `structure.warp.resample`: GridSample, whose coordinates run from -1 to 1 over the maps."""
    maps, places = (
        expand(graph, value, without_batch(value, dims_of(source.shape)))
        for value, source in zip(inputs, params["_from"], strict=True)
    )
    b, rows, columns, c = dims_of(aval.shape)
    if maps.shape[0] == places.shape[0] == 1:
        b = 1
    maps = expand(graph, maps, (b, *maps.shape[1:]))
    places = expand(graph, places, (b, *places.shape[1:]))
    two, one = (constant(np.asarray(value, np.float32)) for value in (2, 1))
    grid = graph.op("Sub", [graph.op("Mul", [places, two], places.shape), one], places.shape)
    _, h, w, _ = maps.shape
    maps = graph.op("Transpose", [maps], (b, c, h, w), perm=[0, 3, 1, 2])
    settings = {"mode": "linear", "padding_mode": "border", "align_corners": 0}
    read = graph.op("GridSample", [maps, grid], (b, c, rows, columns), **settings)
    return graph.op("Transpose", [read], (b, rows, columns, c), perm=[0, 2, 3, 1])


FUSED: dict[str, Rule] = {"_normalized_silu": normalized_silu, "resample": resample}
