"""The one-way flow of the rooms, read from the imports of the source."""

import ast
import functools
from pathlib import Path

import pytest

import ecvae_jax

PACKAGE = Path(ecvae_jax.__file__).parent

# Lower layers first. A room is the longest name below that a module's path begins with; a module may import its own
# room and those in rows above it.
LAYERS = [
    {"agreement", "config", "files", "progress"},
    {"images", "folders"},
    {"gaussian"},
    {"prior"},
    {"structure"},
    {"model"},
    {"objective"},
    {"data/errors", "data/chunk_index"},
    {"data/host_tf", "data/prepare/options"},
    {"data/manifest", "data/chunks"},
    {"data/photos", "data/detect", "data/shards", "data/feature_weights"},
    {"data/records", "data/faces"},
    {"data/batches", "data/portraits", "data/morph", "data/prepare", "checkpoints"},
    {"training", "synthesis", "export"},
    {"evaluation"},
    {"comparison", "figures", "plan", "bench", "page"},
    {"video"},
    {"serve"},
    {"cli/completion"},
    {"cli/parsing", "cli/runtime", "cli/options", "cli/info", "cli/stopping", "cli/streams"},
    {"cli/results"},
    {"cli/commands"},
    {"cli/main"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

# Each of these libraries has one door into the package.
DOORS = {
    "flax": {"model"},
    "sklearn": {"structure/clusters.py"},
    "orbax": {"checkpoints", "export"},
    "tensorstore": {"checkpoints/readback.py"},
    "threadpoolctl": {"structure/clusters.py"},
    "optax": {"training", "synthesis/adapt.py"},
    "dlib": {"data/detect/dlib.py", "evaluation/faces.py"},
    "ai_edge_litert": {"data/detect/mediapipe/networks.py"},
    "apache_beam": {"data/prepare/beam.py"},
    "av": {"data/photos/sources/video.py", "video/write.py"},
    "onnx": {"export/onnx"},
    "safetensors": {"export/tensors.py"},
    "starlette": {"serve"},
    "uvicorn": {"serve/listen.py"},
    "pydantic": {"serve"},
    "skimage": {"evaluation"},
    "matplotlib": {"comparison/report.py", "figures"},
    "brotli": {"data/chunk_index.py"},
    "zstandard": {"data/chunk_index.py"},
    "tensorflow_datasets": {"data"},
    "tensorflow": {"data"},
}


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide from this test"
            assert node.module
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def room(path: str) -> str | None:
    """The room of a module, given as its path without suffix."""
    parts = path.split("/")
    names = ("/".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in LEVEL), None)


def own_modules(file: Path) -> set[str]:
    """Paths of our modules that a file imports."""
    ours = {name.removeprefix("ecvae_jax.").replace(".", "/") for name in imports(PACKAGE / file)
            if name.startswith("ecvae_jax.")}  # fmt: skip
    return {name for name in ours if (PACKAGE / f"{name}.py").is_file() or (PACKAGE / name / "__init__.py").is_file()}


FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
ROOMLESS = {"__init__", "data/__init__", "cli/__init__"}


@pytest.mark.parametrize("file", [f for f in FILES if str(f.with_suffix("")) not in ROOMLESS], ids=str)
def test_imports_go_one_way(file: Path) -> None:
    own = room(str(file.with_suffix("")))
    assert own, f"{file} is in no layer: give it one"
    used = {found for found in map(room, own_modules(file)) if found}
    higher = {name for name in used - {own} if LEVEL[name] >= LEVEL[own]}
    assert not higher, f"{file} imports {sorted(higher)}, which do not lie below {own}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {str(file.with_suffix("")): own_modules(file) for file in FILES}
    graph = {name.removesuffix("/__init__"): used for name, used in graph.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"import circle: {' -> '.join([*way, name])}"
        if name not in done:
            for other in graph.get(name, ()):
                if other != name:
                    visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_root_holds_at_most_ten_files() -> None:
    assert len([file for file in FILES if len(file.parts) == 1]) <= 10


@pytest.mark.parametrize("library", DOORS)
def test_each_library_has_its_door(library: str) -> None:
    users = {str(file) for file in FILES if any(name.split(".")[0] == library for name in imports(PACKAGE / file))}
    outside = {user for user in users if not any(user.startswith(door) for door in DOORS[library])}
    assert users, f"nothing imports {library}: the table is out of date"
    assert not outside


def test_no_drawer_of_odds_and_ends() -> None:
    drawers = {"utils", "util", "common", "helpers", "helper", "misc", "base"}
    assert not [str(file) for file in FILES if file.stem in drawers or file.stem.startswith("base_")]


def test_asserts_do_no_work() -> None:
    """`python -O` drops them: each may only compare, or narrow a type."""
    for file in FILES:
        for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
            if isinstance(node, ast.Assert):
                calls = [part for part in ast.walk(node.test) if isinstance(part, ast.Call | ast.NamedExpr | ast.Await)]
                assert all(isinstance(part, ast.Call) and ast.unparse(part.func) == "isinstance" for part in calls), (
                    f"{file}:{node.lineno}"
                )
