"""An experiment: all sections, what compiled programs depend on, JSON, and experiment files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import runpy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ecvae_jax.config.checks import check
from ecvae_jax.config.sections import (
    ClusterConfig,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    PriorConfig,
    SketchConfig,
    TrainConfig,
)

_OLD_NAMES = {("data", "colour_jitter"): "color_jitter"}
"""Old names of fields in stored configs."""
_OLD_VALUES = {
    ("clusters", "mode", "centred"): "centered",
    ("data", "cache", True): "host",
    ("data", "cache", False): "off",
}
"""Old names of values in stored configs."""
_MOST_JSON = 2**20  # bytes: a config may come from a stranger


@dataclass(frozen=True)
class Architecture:
    """The settings that a compiled program depends on: its static argument.

    Experiments with equal architectures share compiled programs. Records, seed, schedule and length may differ.
    """

    points: int
    """Landmarks of a face, 98 or 68."""
    sketch: SketchConfig
    clusters: ClusterConfig
    prior: PriorConfig
    model: ModelConfig
    objective: ObjectiveConfig


@dataclass(frozen=True)
class Config:
    """One experiment."""

    data: DataConfig = field(default_factory=DataConfig)
    sketch: SketchConfig = field(default_factory=SketchConfig)
    clusters: ClusterConfig = field(default_factory=ClusterConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check(
            self.prior.kind != "covariance" or self.model.posterior == "relative",
            "prior.kind",
            self.prior.kind,
            "needs model.posterior='relative': a plain posterior starts far outside the prior",
        )

    @cached_property
    def architecture(self) -> Architecture:
        """The static argument of compiled programs.

        Settings that programs read from arrays (cluster means and deviations, beta) keep their defaults here.
        """
        prior = dataclasses.replace(self.prior, mean_norm=PriorConfig.mean_norm, stddev=PriorConfig.stddev)
        objective = dataclasses.replace(self.objective, beta=ObjectiveConfig.beta, beta_ramp=ObjectiveConfig.beta_ramp)
        return Architecture(self.data.points, self.sketch, self.clusters, prior, self.model, objective)

    def to_json(self) -> str:
        """Returns the config as a JSON object with one key per section."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Returns the config that `to_json` wrote, under old or current names.

        Raises:
            ValueError: text is not a JSON object, or a section or field is unknown or out of range.
        """
        try:
            sections = json.loads(text, object_pairs_hook=_without_twins)
        except json.JSONDecodeError as error:
            raise ValueError(f"config is not JSON: {error}") from None
        check(isinstance(sections, dict), "config", type(sections).__name__, "must be a JSON object")
        known: dict[str, Any] = {f.name: f.default_factory for f in dataclasses.fields(cls)}
        built: dict[str, Any] = {}
        for name, values in sections.items():
            check(name in known, "config section", name, f"unknown; the sections are {sorted(known)}")
            section = known[name]
            fields = {f.name for f in dataclasses.fields(section)}
            check(isinstance(values, dict), f"config section {name}", values, "must be a JSON object")
            values = rename_old(name, values)
            unknown = sorted(set(values) - fields)
            check(not unknown, f"config.{name}", unknown, f"unknown; the fields are {sorted(fields)}")
            built[name] = section(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        return cls(**built)


def rename_old(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns one section of a stored config under the current names of its fields and values."""
    renamed = {_OLD_NAMES.get((section, name), name): value for name, value in values.items()}
    return {
        name: _OLD_VALUES.get((section, name, value), value) if isinstance(value, (str, bool)) else value
        for name, value in renamed.items()
    }


def load_config(path: Path) -> Config:
    """Returns the `config` of an experiment file, or of a JSON file that `Config.to_json` wrote.

    An experiment file is run. It may import the modules beside it, as a script does.

    Raises:
        ValueError: the file does not exist, is neither .py nor .json, fails to run, or defines no `config`.
    """
    name, suffix = f"config {str(path)!r}", path.suffix.lower()
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "no such file"
        raise ValueError(f"{name}: {what}; give a .py or .json file, see configs/, or omit it for the defaults")
    if suffix == ".json":
        return _load_json(path)
    if suffix != ".py":
        raise ValueError(f"{name}: must be an experiment file, .py or .json")
    try:
        with _siblings_importable(path.absolute().parent):
            config = runpy.run_path(str(path)).get("config")
    # The user's program may raise anything; the message needs the name of the file.
    except (Exception, SystemExit) as error:
        raise ValueError(f"{name} cannot be run: {type(error).__name__}: {error}") from error
    if not isinstance(config, Config):
        raise ValueError(f"{name}: must define `config`, an ecvae_jax.config.Config; got {config!r}")
    return config


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"config has {twin!r} twice; keep one")
    return found


def _load_json(path: Path) -> Config:
    with path.open("rb") as file:
        data = file.read(_MOST_JSON + 1)
    if len(data) > _MOST_JSON:
        raise ValueError(f"config {str(path)!r}: longer than {_MOST_JSON:,} bytes; a config has some 2,000")
    try:
        return Config.from_json(data.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError(f"config {str(path)!r}: nested too deeply; a config has two levels") from None
    except ValueError as error:
        raise ValueError(f"config {str(path)!r}: {error}") from None


@contextlib.contextmanager
def _siblings_importable(folder: Path) -> Iterator[None]:
    """Puts the folder first on the path of imports inside the block, and forgets the modules imported from it."""
    if sys.flags.safe_path:
        yield
        return
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the file itself may have removed it
            sys.path.remove(str(folder))
        # Another folder may hold another module of the same name.
        for name in set(sys.modules) - before:
            top = sys.modules.get(name.partition(".")[0])
            file = Path(getattr(top, "__file__", None) or "/")
            if folder in (file.parent, file.parent.parent if file.stem == "__init__" else None):
                del sys.modules[name]
