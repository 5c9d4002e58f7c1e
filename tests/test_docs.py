"""The documentation names what exists: settings, commands, public names, messages; its Python blocks run."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import ecvae_jax
from ecvae_jax.cli.commands import COMMANDS
from ecvae_jax.config import AdaptConfig, Config

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))  # tests/test_public_names.py runs the README's block
SLOW = {"evaluation"}


def load_reference_pages() -> ModuleType:
    """The module beside the pages: docs/ is no package."""
    spec = importlib.util.spec_from_file_location("reference_pages", DOCS / "reference_pages.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference_pages = load_reference_pages()


# --- The reference


def test_every_field_of_an_experiment_is_documented() -> None:
    page = reference_pages.fill_in((DOCS / "reference" / "settings.md").read_text())
    sections = {**{name: kind for name, kind in vars(Config()).items()}, "adapt": AdaptConfig()}
    for section, values in sections.items():
        for name, value in vars(values).items():
            entry = page.partition(f"### {section}.{name}\n")[2].partition("\n#")[0]
            assert f"default `{value!r}`" in entry or (value is None and "default none" in entry), f"{section}.{name}"
            assert len(entry.partition(": ")[2].split()) >= 3, f"{section}.{name} has no text"


def test_a_field_without_docstring_is_refused() -> None:
    class Silent:
        """A section."""

        value: int = 1

    with pytest.raises(ValueError, match=r"Silent\.value: has no docstring"):
        reference_pages._field_docstrings(Silent)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented_with_its_options(command: str) -> None:
    page = reference_pages.fill_in((DOCS / "reference" / "commands.md").read_text())
    entry = page.partition(f"## ecvae {command}\n")[2].partition("\n## ")[0]
    assert entry.strip().startswith(f"```text\nusage: ecvae {command}")
    summary = " ".join((COMMANDS[command].summary).split())
    assert summary in " ".join(entry.split())
    assert "\x1b" not in entry
    assert max(map(len, entry.splitlines())) <= 80
    # compare and plan repeat none of the settings, and keep their own options
    assert ("--model.image-size" in entry) == (command == "train")
    if command == "plan":
        assert "--topology" in entry


def test_the_page_of_commands_leaves_the_terminal_as_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "123")
    before = reference_pages._help("info")
    monkeypatch.setenv("COLUMNS", "40")
    assert reference_pages._help("info") == before
    assert reference_pages.os.environ["COLUMNS"] == "40"


def test_every_public_name_is_documented() -> None:
    named = re.findall(r"^\.\. auto\w+:: (ecvae_jax\.\w+)$", (DOCS / "reference" / "api.md").read_text(), re.MULTILINE)
    assert len(named) == len(set(named)) > 20
    assert reference_pages.missing_names(named) == []
    assert reference_pages.missing_names(set(named) - {"ecvae_jax.train"}) == ["ecvae_jax.train"]
    for name in named:
        assert name.removeprefix("ecvae_jax.") in dir(ecvae_jax), name


# --- Messages


def messages_of_the_source() -> list[str]:
    """Every string of the package, with … for its inserted values."""
    found = []
    for path in (ROOT / "ecvae_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


SOURCE = messages_of_the_source()
QUOTED = re.findall(r"^### `(.+)`$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)


def quoted_in(message: str, source: str) -> bool:
    """Whether the parts between the … of a quoted message are in one string of the source, in order."""
    parts = [part for part in message.split("…") if part.strip(" .:;,()×")]
    return bool(parts) and re.search(".*".join(map(re.escape, parts)), source, re.DOTALL) is not None


@pytest.mark.parametrize("message", QUOTED)
def test_the_quoted_message_is_in_the_source(message: str) -> None:
    assert any(quoted_in(message, source) for source in SOURCE), message


def test_a_changed_message_would_be_noticed() -> None:
    assert len(QUOTED) >= 20
    assert not any(quoted_in("no such photo; give a picture file", source) for source in SOURCE)
    assert not quoted_in("… exists: give another folder", "give another folder, it exists: no")


def test_every_message_has_a_cause_and_a_remedy() -> None:
    entries = (DOCS / "troubleshooting.md").read_text().split("\n### ")[1:]
    assert all(entry.count("**Cause.**") == entry.count("**Do.**") == 1 for entry in entries)


# --- Python blocks

BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n\n?)?```python\n(?P<code>.*?)```", re.DOTALL)
BLOCKS = [
    pytest.param(
        match["code"],
        id=f"{page.stem}:{page.read_text().count(chr(10), 0, match.start('code'))}",
        marks=[pytest.mark.skip(reason=match["reason"])] * bool(match["reason"])
        + [pytest.mark.slow] * (page.stem in SLOW),
    )
    for page in PAGES
    for match in BLOCK.finditer(page.read_text())
]


@pytest.mark.parametrize("code", BLOCKS)
def test_the_python_block_runs(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_workdir: Path, tiny_records: Path
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "run").symlink_to(tiny_workdir)
    (tmp_path / "OUT").symlink_to(tiny_records)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    assert len(names) > 1


def test_blocks_are_found() -> None:
    assert len(BLOCKS) >= 3


# --- The build


@pytest.mark.parametrize("code", [0, 3])
def test_the_script_fails_where_the_build_fails(tmp_path: Path, code: int) -> None:
    python, site = tmp_path / "python", tmp_path / "site"
    python.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/ran\nmkdir -p {site}\nexit {code}\n')
    python.chmod(0o755)
    environment = {**os.environ, "ECVAE_READY_PYTHON": str(python), "ECVAE_DOCS": str(site)}
    script = ROOT / "launch" / "docs.sh"
    shown = subprocess.run(["bash", str(script)], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == code, shown.stderr
    (ran,) = (tmp_path / "ran").read_text().splitlines()
    assert ran.startswith("-m sphinx")
    assert "--fail-on-warning" in ran
    assert "--fresh-env" in ran
    assert (site / "index.html").exists() == (code == 0)


def test_ci_builds_the_documentation_and_runs_its_notebooks() -> None:
    assert "bash launch/docs.sh" in (ROOT / ".ci" / "run").read_text()
    settings = (DOCS / "conf.py").read_text()
    assert 'os.environ.get("ECVAE_DOCS_NOTEBOOKS", "force")' in settings
    assert "nb_execution_raise_on_error = True" in settings


def test_every_page_is_reached_from_the_index() -> None:
    index = (DOCS / "index.md").read_text()
    assert re.search(r"^\[a-z\]\*$", index, re.MULTILINE), "new guides need no edit"
    assert re.search(r"^measurements/\*$", index, re.MULTILINE), "new measurements need no edit"
    for page in [*DOCS.glob("notebooks/*.md"), *DOCS.glob("reference/*.md")]:
        assert str(page.relative_to(DOCS).with_suffix("")) in index, page
