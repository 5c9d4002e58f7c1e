"""The generated parts of the reference: every setting, and every command as its --help prints it. Without Sphinx."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.util
import inspect
import io
import os
import re
import textwrap
import types
import typing
from collections.abc import Collection

import ecvae_jax
from ecvae_jax.cli.commands import COMMANDS
from ecvae_jax.cli.parsing import parse
from ecvae_jax.config import AdaptConfig, Config

_MARKER = re.compile(r"<!-- generated: (\w+) -->")
_WIDTH = 80
"""Columns of a command's help."""


def fill_in(page: str) -> str:
    """Returns a page with its markers, `<!-- generated: settings -->`, replaced by the generated text."""
    return _MARKER.sub(lambda marker: GENERATED[marker[1]](), page)


def missing_names(documented: Collection[str]) -> list[str]:
    """Returns the public names of the package that `documented`, full names such as `ecvae_jax.train`, lacks."""
    # `dir` also has the rooms that were imported meanwhile.
    names = (f"ecvae_jax.{name}" for name in dir(ecvae_jax) if not name.startswith("_"))
    public = {name for name in names if importlib.util.find_spec(name) is None}
    return sorted(public - {*documented})


def settings() -> str:
    """Returns Markdown with every field of an experiment: name, type, default, meaning."""
    sections: dict[str, type] = {field.name: field.default_factory for field in dataclasses.fields(Config)}  # type: ignore[misc]
    sections["adapt"] = AdaptConfig
    return "\n".join(_section(name, kind) for name, kind in sections.items())


def commands() -> str:
    """Returns Markdown with the help of every command."""
    return "\n".join(f"## ecvae {name}\n\n```text\n{_help(name)}```\n" for name in COMMANDS)


GENERATED = {"settings": settings, "commands": commands}


def _section(name: str, kind: type) -> str:
    lines = [f"## {name}\n", f"{inspect.getdoc(kind)} In Python: `{kind.__name__}`.\n"]
    hints, texts = typing.get_type_hints(kind), _field_docstrings(kind)
    for field in dataclasses.fields(kind):
        default = "none" if field.default is None else f"`{field.default!r}`"
        lines.append(f"### {name}.{field.name}\n")
        lines.append(f"{_type_name(hints[field.name])}, default {default}\n")
        lines.append(f": {texts[field.name]}\n")
    return "\n".join(lines)


def _field_docstrings(kind: type) -> dict[str, str]:
    """Returns the string below each field of a dataclass, on one line.

    Raises:
        ValueError: a field has none.
    """
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, str] = {}
    for statement, following in zip(body.body, [*body.body[1:], ast.Pass()], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        value = following.value if isinstance(following, ast.Expr) else None
        if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
            raise ValueError(f"{kind.__name__}.{statement.target.id}: has no docstring; write one below the field")
        texts[statement.target.id] = " ".join(value.value.split())
    return texts


def _type_name(hint: typing.Any) -> str:
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f"`{part!r}`" for part in parts)
    if isinstance(hint, types.UnionType):
        return " or ".join("none" if part is types.NoneType else _type_name(part) for part in parts)
    return f"`{hint}`" if parts else f"`{hint.__name__}`"


def _help(command: str) -> str:
    """Returns what `ecvae COMMAND --help` prints; of bench, compare and plan without the settings that train lists."""
    printed = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(_WIDTH)
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            parse(COMMANDS[command].options, command, ["--help"])
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue())
    text = "\n".join(line.rstrip() for line in text.splitlines())
    if command in ("bench", "compare", "plan"):
        first = dataclasses.fields(Config)[0].name
        text = text.partition(f"\n {first} options\n")[0].rstrip() + "\n\nand the settings of `ecvae train`"
    lines = text.rstrip().splitlines()  # tyro wraps no description
    return "\n".join(textwrap.fill(line, _WIDTH) if len(line) > _WIDTH else line for line in lines) + "\n"
