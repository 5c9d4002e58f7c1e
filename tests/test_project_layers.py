"""The one-way flow of the rooms, read from the imports of the source."""

import ast
from pathlib import Path

import pytest

import ecvae_jax

PACKAGE = Path(ecvae_jax.__file__).parent

# Lower layers first; a module may import its own room and those in rows above it. `config` (with its
# `field_checks`), `cpu`, `compile_cache` and `pictures` import nothing of ours and may be imported by all.
FREE = {"compile_cache", "config", "cpu", "field_checks", "pictures"}
LAYERS = [
    {"gaussian"},
    {"prior"},
    {"structure"},
    {"model"},
    {"objective"},
    {"data"},
    {"training"},
    {"synthesis"},
    {"adaptation", "density"},
    {"evaluation"},
    {"comparison", "figures", "plan"},
    {"grids", "information", "experiments", "options"},
    {"command_line"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

# Each of these libraries has one door into the package.
DOORS = {
    "flax": {"model"},
    "sklearn": {"structure/clusters.py"},
    "orbax": {"training/checkpoint.py", "training/export.py", "training/facts.py"},
    "dlib": {"data/detect.py", "evaluation/face_meter.py"},
    "ai_edge_litert": {"data/mediapipe/networks.py"},
    "apache_beam": {"data/beam/pipelines.py"},
    "av": {"data/sources/video.py"},
    "skimage": {"evaluation"},
    "matplotlib": {"comparison/figure.py", "figures"},
    "moderngl": {"data/heads"},
    "tensorflow_datasets": {"data"},
    "tensorflow": {"data"},
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide from this test"
            assert node.module
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "ecvae_jax" and len(parts) > 1 else None


FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", [f for f in FILES if f != Path("__init__.py")], ids=str)
def test_imports_go_one_way(file: Path) -> None:
    own = file.with_suffix("").parts[0]
    used = {name for name in map(room, imports(PACKAGE / file)) if name and (name in LEVEL or name in FREE)}
    if own in FREE:
        assert not used - {own, "field_checks"}
        return
    assert own in LEVEL, f"{file} is in no layer: give it one"
    higher = {name for name in used - FREE - {own} if LEVEL[name] >= LEVEL[own]}
    assert not higher, f"{file} imports {sorted(higher)}, which do not lie below {own}"


@pytest.mark.parametrize("library", DOORS)
def test_each_library_has_its_door(library: str) -> None:
    users = {str(file) for file in FILES if any(name.split(".")[0] == library for name in imports(PACKAGE / file))}
    outside = {user for user in users if not any(user.startswith(door) for door in DOORS[library])}
    assert users, f"nothing imports {library}: the table is out of date"
    assert not outside


def test_no_drawer_of_odds_and_ends() -> None:
    drawers = {"utils", "util", "common", "helpers", "helper", "misc", "base"}
    assert not [str(file) for file in FILES if file.stem in drawers or file.stem.startswith("base_")]
