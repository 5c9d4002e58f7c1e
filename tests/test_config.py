"""Config: round trip, old names, the compiled part, and the values that raise."""

import dataclasses
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ecvae_jax.config import (
    AdaptConfig,
    ClusterConfig,
    Config,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    PriorConfig,
    SketchConfig,
    TrainConfig,
    load_config,
)


def test_json_round_trip() -> None:
    config = Config(model=ModelConfig(image_size=128, widths=(16, 32, 64, 64)), objective=ObjectiveConfig(scale=0.2))
    assert Config.from_json(config.to_json()) == config
    assert hash(config) == hash(Config.from_json(config.to_json()))


def test_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().train.steps = 3  # type: ignore[misc]


SECTIONS = [type(getattr(Config(), field.name)) for field in dataclasses.fields(Config)] + [AdaptConfig]
NUMBERS = [
    (section, field.name, field.type)
    for section in SECTIONS
    for field in dataclasses.fields(section)
    if field.type in ("int", "float", "float | None") and field.name not in ("points", "image_size", "patch")
]


@pytest.mark.parametrize(("section", "name", "kind"), NUMBERS)
def test_every_number_has_both_ends(section: Any, name: str, kind: str) -> None:
    """A stranger's checkpoint must not fill memory or time; infinite settings would fail far from their cause."""
    bad = [10**9 * 10**9, -(10**18)] if kind == "int" else [math.inf, -math.inf, math.nan, 1e300, 1e-300, -1.0, 10**400]
    for value in bad:
        with pytest.raises(ValueError, match=rf"^\w+\.{name}=\S+: (must|needs) ") as caught:
            section(**{name: value})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ModelConfig(blocks=10**9), "model.blocks=1000000000: must be at most 64"),
        (lambda: ModelConfig(widths=(8, 80_000)), "at most 8192"),
        (lambda: ModelConfig(z_dim=2**40), "must be at most 65536"),
        (lambda: TrainConfig(batch_size=10**9), "train.batch_size=1000000000: must be at most 65536"),
        (lambda: ClusterConfig(count=10**9), "clusters.count=1000000000: must be at most 4096"),
        (lambda: SketchConfig(samples_per_span=10**9), "must be at most 64"),
    ],
)
def test_upper_ends_name_their_rule(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ModelConfig(image_size=48), "image_size=48"),
        (lambda: ModelConfig(image_size=512), "image_size=512"),
        (lambda: ModelConfig(patch=3), "patch=3"),
        (lambda: ModelConfig(widths=(32,)), "widths"),
        (lambda: ModelConfig(widths=(30, 60)), "multiple of 8"),
        (lambda: ModelConfig(image_size=32, widths=(8,) * 5), "too many levels"),
        (lambda: ModelConfig(z_grid=32), "z_grid=32"),
        (lambda: ModelConfig(z_dim=100), "multiple of z_grid"),
        (lambda: ModelConfig(frame="face", z_grid=1), "z_grid=1: model.frame='face' needs a grid"),
        (lambda: PriorConfig(stddev=0.0), "stddev=0.0"),
        (lambda: ClusterConfig(count=0), "count=0"),
        (lambda: ClusterConfig(temperature=-1.0), "temperature=-1.0"),
        (lambda: SketchConfig(sigma=0.0), "sigma=0.0"),
        (lambda: DataConfig(pairs=1.5), "pairs=1.5"),
        (lambda: ObjectiveConfig(beta=-1.0), "beta=-1.0"),
        (lambda: ObjectiveConfig(beta_ramp=2.0), "beta_ramp=2.0"),
        (lambda: OptimConfig(learning_rate=0.0), "learning_rate=0.0"),
        (lambda: OptimConfig(ema_decay=1.0), "ema_decay=1.0"),
        (lambda: TrainConfig(steps=0), "steps=0"),
        (lambda: TrainConfig(batch_size=0), "batch_size=0"),
        (lambda: TrainConfig(hang_after=-1.0), "hang_after=-1.0"),
        (lambda: ObjectiveConfig(likelihood="Laplace"), r"objective.likelihood='Laplace': must be one of"),
        (lambda: TrainConfig(parallel="shardmap"), "train.parallel='shardmap'"),
        (lambda: ModelConfig(posterior="Plain"), "model.posterior='Plain'"),
        (lambda: OptimConfig(schedule="cos"), "optim.schedule='cos'"),
        (lambda: DataConfig(points=70), "data.points=70"),
        (lambda: TrainConfig(steps="5"), "train.steps='5': must be int"),
        (lambda: TrainConfig(steps=True), "train.steps=True: must be int"),
        (lambda: DataConfig(cache="yes"), r"data.cache='yes': must be one of \['host', 'device', 'off'\]"),
        (lambda: ObjectiveConfig(scale="1"), "objective.scale='1'"),
        (lambda: ModelConfig(widths=[32, 64]), "model.widths"),
        (lambda: ModelConfig(widths=(32.0, 64.0)), "model.widths"),
    ],
)
def test_values_out_of_range_raise_with_their_name(make, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", "\\(")):
        make()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        ('{"train": {"steps": 1}, "train": {"steps": 2}}', "config has 'train' twice; keep one"),
        ('{"train": {"steps": 1, "steps": 2}}', "config has 'steps' twice; keep one"),
        (json.dumps({"modle": {}}), "unknown; the sections are"),
        (json.dumps({"model": {"z_dims": 3}}), "unknown; the fields are"),
        (json.dumps({"model": {"image_size": 48}}), "image_size=48"),
        (json.dumps({"train": {"steps": "5"}}), "train.steps='5'"),
        (json.dumps({"prior": {"kind": "flat"}}), "prior.kind='flat'"),
    ],
)
def test_invalid_json_raises(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Config.from_json(text)


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_level_sides_halve(size: int) -> None:
    assert ModelConfig(image_size=size, z_grid=1).level_sides == (size // 4, size // 8, size // 16)


def test_an_int_is_valid_for_a_float() -> None:
    assert ObjectiveConfig(beta=1, scale=None).beta == 1


def test_stored_configs_with_old_names_still_read() -> None:
    current = Config(data=DataConfig(color_jitter=0.2), clusters=ClusterConfig(mode="centered", temperature=0.3))
    stored = json.loads(current.to_json())
    stored["data"]["colour_jitter"] = stored["data"].pop("color_jitter")
    stored["clusters"]["mode"] = "centred"
    assert Config.from_json(json.dumps(stored)) == current


def changed(section: str, **values: Any) -> Config:
    """Returns the default config with some fields of one section replaced."""
    return dataclasses.replace(Config(), **{section: dataclasses.replace(getattr(Config(), section), **values)})


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("data", {"records": "elsewhere"}),
        ("train", {"seed": 7}),
        ("train", {"steps": 3}),
        ("train", {"log_every": 1}),
        ("objective", {"beta": 0.5}),
        ("objective", {"beta_ramp": 0.0}),
        ("optim", {"learning_rate": 1e-4}),
        ("prior", {"mean_norm": 4.0}),
        ("prior", {"stddev": 0.3}),
    ],
)
def test_configs_that_differ_only_in_data_share_their_architecture(section: str, values: dict[str, Any]) -> None:
    other = changed(section, **values)
    assert other != Config()
    assert other.architecture == Config().architecture
    assert hash(other.architecture) == hash(Config().architecture)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("data", {"points": 68}),
        ("model", {"z_dim": 512}),
        ("model", {"frame": "face"}),
        ("prior", {"kind": "mixture"}),
        ("prior", {"learned": True}),
        ("sketch", {"sigma": 0.02}),
        ("clusters", {"count": 8}),
        ("objective", {"likelihood": "gaussian"}),
    ],
)
def test_configs_of_other_programs_differ_in_their_architecture(section: str, values: dict[str, Any]) -> None:
    assert changed(section, **values).architecture != Config().architecture


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("name", ["a.json", "A.JSON", "a.py", "A.PY"])
def test_files_with_a_byte_order_mark_are_read(tmp_path: Path, name: str, mark: bytes) -> None:
    config = Config(train=TrainConfig(steps=7))
    program = "from ecvae_jax.config import Config, TrainConfig\nconfig = Config(train=TrainConfig(steps=7))\n"
    text = config.to_json() if "json" in name.lower() else program
    (tmp_path / name).write_bytes(mark + text.encode())
    assert load_config(tmp_path / name) == config


@pytest.mark.parametrize("package", [False, True], ids=["module", "package"])
def test_an_experiment_file_imports_the_modules_beside_it(
    tmp_path: Path, package: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two folders may hold two modules of one name."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for steps in (7, 8):
        folder = tmp_path / str(steps)
        base = folder / "base_exp" / "__init__.py" if package else folder / "base_exp.py"
        base.parent.mkdir(parents=True)
        base.write_text(
            f"from ecvae_jax.config import Config, TrainConfig\nbase = Config(train=TrainConfig(steps={steps}))\n"
        )
        (folder / "experiment.py").write_text("from base_exp import base\nconfig = base\n")
    before = list(sys.path)
    monkeypatch.chdir(tmp_path)
    assert load_config(tmp_path / "7" / "experiment.py").train.steps == 7
    assert load_config(Path("8", "experiment.py")).train.steps == 8
    assert sys.path == before
    assert "base_exp" not in sys.modules


BAD_FILES = {
    "missing.json": (None, "no such file"),
    "a.yaml": (b"model: {}", "must be an experiment file, .py or .json"),
    "noending": (b"config = 1", "must be an experiment file, .py or .json"),
    "list.json": (b"[]", "must be a JSON object"),
    "cut.json": (b'{"model": {"z_di', "config is not JSON"),
    "utf16.json": ("{}".encode("utf-16"), "codec can't decode"),
    "deep.json": (b"[" * 200_000, "nested too deeply"),
    "long.json": (b" " * 2**21, "longer than 1,048,576 bytes"),
    "digits.json": (b'{"train": {"steps": ' + b"9" * 5000 + b"}}", "integer string conversion"),
    "nul.py": (b"config = 1\0", "cannot be run: "),
    "import.py": (b"import no_such_module_here", "cannot be run: ModuleNotFoundError"),
    "deep.py": (b"def f(): f()\nf()", "cannot be run: RecursionError"),
    "nothing.py": (b"", "must define `config`"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_experiment_raises_with_its_name(tmp_path: Path, name: str) -> None:
    data, words = BAD_FILES[name]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=name) as raised:
        load_config(tmp_path / name)
    assert words in str(raised.value)


def test_folders_and_pipes_are_no_experiments(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path, tmp_path / "pipe.json", Path("/dev/zero")):
        with pytest.raises(ValueError, match=r"is not a regular file; give a \.py or \.json file"):
            load_config(path)
