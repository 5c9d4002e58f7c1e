"""A traced JAX program, written into an ONNX graph one primitive after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ecvae_jax.export.onnx.fused import FUSED
from ecvae_jax.export.onnx.graph import Graph, Value, constant
from ecvae_jax.export.onnx.rules import RULES
from ecvae_jax.export.onnx.shapes import UnsupportedError


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
        types = [atom.aval for atom in equation.invars]
        fused = FUSED.get(params.get("name", ""))
        if fused is not None:
            made = [fused(graph, given, equation.outvars[0].aval, {**params, "_from": types})]
        elif name in ("jit", "pjit", "custom_jvp_call", "custom_vjp_call", "closed_call"):
            other = alternatives.get(params.get("name", ""))
            if other is not None:
                specs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in types]
                inner = jax.make_jaxpr(other)(*specs)
            made = evaluate(graph, inner, given, alternatives)
        elif name in RULES:
            made = [RULES[name](graph, given, equation.outvars[0].aval, {**params, "_from": types})]
        else:
            raise UnsupportedError(
                f"ONNX export: no rule for the primitive {name!r}; this model's configuration cannot be exported to "
                "ONNX: use --format stablehlo"
            )
        values.update(zip(equation.outvars, made, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
