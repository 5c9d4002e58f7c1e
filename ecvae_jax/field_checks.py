"""Checks of a settings' dataclass: each field of its type, each value within its rule."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args, get_origin, get_type_hints


def check(condition: bool, name: str, value: object, rule: str) -> None:
    """Raises ValueError with name, value and rule where the condition does not hold."""
    if not condition:
        raise ValueError(f"{name}={value!r}: {rule}")


def check_types(settings: object, section: str) -> None:
    """Raises ValueError for a value of another type than its field's.

    Values from experiment files and JSON are checked by nobody else.
    """
    hints = get_type_hints(type(settings))
    for item in dataclasses.fields(settings):  # type: ignore[arg-type]
        value, hint = getattr(settings, item.name), hints[item.name]
        if get_origin(hint) is Literal:
            allowed = get_args(hint)
            check(value in allowed, f"{section}.{item.name}", value, f"must be one of {list(allowed)}")
            continue
        # A whole number may stand for a float; True and False are no numbers.
        kinds = {bool: (bool,), str: (str,), int: (int,), float: (int, float), float | None: (int, float, type(None))}
        if hint in kinds:
            fine = isinstance(value, kinds[hint]) and (hint is bool or not isinstance(value, bool))
            check(fine, f"{section}.{item.name}", value, f"must be {getattr(hint, '__name__', hint)}")
        else:  # tuple[int, ...]
            fine = isinstance(value, tuple) and all(isinstance(one, int) and not isinstance(one, bool) for one in value)
            check(fine, f"{section}.{item.name}", value, "must be whole numbers")
