"""The type checker of the tests: beartype on every annotation with a jaxtyping shape, and on no other."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

import beartype
import numpy as np
from jaxtyping import AbstractArray

# Other annotations are left to pyright: tests call functions with wrong values, and pass stand-ins for objects.
_SHAPE = re.compile(r"\b(Float|Int|UInt8|Bool|Num|Shaped|Key|Integer|Inexact|Real)\[")


def check_shapes(function: Callable[..., Any], *_: object, **__: object) -> Callable[..., Any]:
    """Returns `function` with its shape annotations checked at each call; jaxtyping's import hook calls this.

    Where a JAX array is annotated, a NumPy array of that shape and dtype passes too, as it does in JAX.
    """
    function.__annotations__ = {
        name: _with_numpy(hint) for name, hint in function.__annotations__.items() if _SHAPE.search(repr(hint))
    }
    return beartype.beartype(function) if function.__annotations__ else function


def _with_numpy(hint: Any) -> Any:
    import jax  # not earlier: conftest.py sets its flags after this module is imported

    if isinstance(hint, type) and issubclass(hint, AbstractArray) and hint.array_type is jax.Array:
        return hint.dtype[jax.Array | np.ndarray, hint.dim_str]
    if get_origin(hint) in (Union, types.UnionType):
        return Union[tuple(map(_with_numpy, get_args(hint)))]  # noqa: UP007 # of a tuple of types
    if get_origin(hint) in (tuple, dict, list):
        return get_origin(hint)[tuple(map(_with_numpy, get_args(hint)))]
    return hint
