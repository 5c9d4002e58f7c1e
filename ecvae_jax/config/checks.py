"""Checks of settings: types, ranges, and one line for each refusal. All sections and the experiment use them."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args, get_origin, get_type_hints

_SMALLEST, _LARGEST = 1e-30, 1e30


def check(condition: bool, name: str, value: object, rule: str) -> None:
    """Raises ValueError with name, value and rule if the condition is false."""
    if not condition:
        raise ValueError(f"{name}={value!r}: {rule}")


def check_range(section: str, settings: object, names: str, least: float, most: float) -> None:
    """Raises ValueError if a field named in `names`, separated by spaces, is outside [least, most].

    Every number has an upper end: a checkpoint may come from a stranger, and a huge value would take all memory.
    """
    for name in names.split():
        value = getattr(settings, name)
        check(value >= least, f"{section}.{name}", value, f"must be at least {least}")
        check(value <= most, f"{section}.{name}", value, f"must be at most {most}")


def check_types(settings: object, section: str) -> None:
    """Raises ValueError if a value has another type than its field, or is a float outside the range of float32.

    No type checker sees the values of experiment files and JSON.
    """
    hints = get_type_hints(type(settings))
    for item in dataclasses.fields(settings):  # type: ignore[arg-type]
        value, hint = getattr(settings, item.name), hints[item.name]
        if get_origin(hint) is Literal:
            allowed = get_args(hint)
            check(value in allowed, f"{section}.{item.name}", value, f"must be one of {list(allowed)}")
            continue
        # An int is valid for a float field; a bool is not a number here.
        kinds = {bool: (bool,), str: (str,), int: (int,), float: (int, float), float | None: (int, float, type(None))}
        if hint in kinds:
            fine = isinstance(value, kinds[hint]) and (hint is bool or not isinstance(value, bool))
            check(fine, f"{section}.{item.name}", value, f"must be {getattr(hint, '__name__', hint)}")
            if hint in (float, float | None) and value:
                # The network computes in float32, where other values become 0 or infinite. NaN fails too.
                check(
                    _SMALLEST <= abs(value) <= _LARGEST,
                    f"{section}.{item.name}",
                    value,
                    f"must be finite, and 0 or between {_SMALLEST:g} and {_LARGEST:g} in size",
                )
        else:  # tuple[int, ...]
            fine = isinstance(value, tuple) and all(isinstance(one, int) and not isinstance(one, bool) for one in value)
            check(fine, f"{section}.{item.name}", value, "must be a tuple of ints")
