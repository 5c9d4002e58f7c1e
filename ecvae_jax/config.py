"""Every setting of an experiment and its default: frozen dataclasses, checked when created.

Defaults live only here. Each checkpoint stores its `Config` as JSON, so a command on a trained model needs only the
checkpoint. This module imports neither JAX nor TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import runpy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

_OLD_NAMES = {("data", "colour_jitter"): "color_jitter"}
"""Old names of fields in stored configs."""
_OLD_VALUES = {("clusters", "mode", "centred"): "centered"}
"""Old names of values in stored configs."""

PriorKind = Literal["equilibrium", "mixture", "standard"]

_MOST_JSON = 2**20  # bytes: a config may come from a stranger

RENDERED = "rendered"
"""The value of `DataConfig.records` for the rendered heads embedded in the package."""


_SMALLEST, _LARGEST = 1e-30, 1e30
_MOST_STEPS = 2**31 - 1  # steps are counted in int32


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


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True)
class DataConfig:
    """The training faces and how they reach the model."""

    records: str = RENDERED
    """Folder written by `ecvae prepare`, or "rendered" for the embedded heads. Join several with "+"."""
    points: Literal[98, 68] = 98
    """Landmark scheme: 98 (WFLW) or 68 (iBUG, dlib). Records with 98 points can also train a 68-point model."""
    mirror: bool = True
    """Flip half of the training faces left to right, and their landmarks with them."""
    pairs: float = 0.75
    """Fraction of a training batch, 0 to 1, that takes z from one view and sketch and true image from another view of
    the same person under the same light. 0 is the paper's self-reconstruction."""
    color_jitter: float = 0.0
    """Strength of random color changes, 0 to 1, equal for both views of an example. Brightness and contrast change by
    factors up to exp(±strength), each color by up to exp(±strength/3). For photos from few cameras and lights."""
    cache: bool = True
    """Keep decoded faces in host memory (uint8). Turn off if the data set exceeds it."""

    def __post_init__(self) -> None:
        check_types(self, "data")
        check(0.0 <= self.pairs <= 1.0, "data.pairs", self.pairs, "must be between 0 and 1")
        check(0.0 <= self.color_jitter <= 1.0, "data.color_jitter", self.color_jitter, "must be between 0 and 1")


@dataclass(frozen=True)
class SketchConfig:
    """The boundary sketch drawn from the landmarks."""

    channels: Literal["boundary", "single"] = "boundary"
    """"boundary": one map per boundary; "single": all boundaries in one map."""
    sigma: float = 0.012
    """Standard deviation of the Gaussian around a line, as a fraction of the crop's width: 0.012 is 3 px at 256 px."""
    samples_per_span: int = 2
    """Straight segments that approximate the curve between two neighboring landmarks."""

    def __post_init__(self) -> None:
        check_types(self, "sketch")
        check_range("sketch", self, "sigma", 1e-4, 10)
        check_range("sketch", self, "samples_per_span", 1, 64)


@dataclass(frozen=True)
class ClusterConfig:
    """The structure clusters and the weights c_k of a face."""

    count: int = 32
    """K, the number of clusters, at least 1."""
    mode: Literal["centered", "literal"] = "centered"
    """"literal" (the paper): cosine similarities of aligned landmark vectors, divided by their sum. "centered": first
    subtract the mean shape, clip negatives to 0, and sharpen by the temperature."""
    temperature: float = 0.2
    """Sharpness of "centered" weights, similarity ** (1 / temperature). Smaller gives fewer effective clusters."""
    remove_roll: bool = False
    """Remove head roll before clustering."""

    def __post_init__(self) -> None:
        check_types(self, "clusters")
        check_range("clusters", self, "count", 1, 4096)
        check_range("clusters", self, "temperature", 1e-6, 1e6)


@dataclass(frozen=True)
class PriorConfig:
    """p(z | c), Eqs. (2), (3) and (4) of the paper."""

    kind: PriorKind = "equilibrium"
    """"equilibrium" (Eq. 4), "mixture" (Eq. 3) or "standard" (N(0, I), the vanilla baseline of Eq. 2)."""
    mean_norm: float = 1.0
    """Euclidean norm of every cluster mean, before training."""
    stddev: float = 0.1
    """Standard deviation of every cluster; never trained."""
    learned: bool = False
    """Train the cluster means with the network; the paper keeps them at their random initial values. No effect on
    "standard"."""

    def __post_init__(self) -> None:
        check_types(self, "prior")
        check_range("prior", self, "mean_norm", 0, 1e6)
        check_range("prior", self, "stddev", 1e-6, 1e6)


@dataclass(frozen=True)
class ModelConfig:
    """The two-branch U-Net conditional VAE."""

    image_size: int = 64
    """Side of the square image in pixels: 32, 64, 128 or 256 (as in the paper)."""
    patch: int = 4
    """Side in pixels of the squares that the first layer folds into channels and the last unfolds: 1, 2, 4 or 8."""
    widths: tuple[int, ...] = (32, 64, 128)
    """Channels of each level, multiples of 8. Resolution starts at image_size / patch and halves at each level."""
    blocks: int = 1
    """Residual blocks per level and branch, at least 1."""
    z_dim: int = 256
    """d, the length of z; a multiple of z_grid²."""
    z_grid: int = 8
    """Side of the grid of z in the decoder: 1 (a vector) or the side of a level. It has z_dim / z_grid² channels."""
    frame: Literal["picture", "face"] = "picture"
    """Where z has its cells. "picture": in the crop, as in the paper. "face": on the mean face; landmarks warp the
    source onto it, and warp its features onto the target."""
    posterior: Literal["relative", "plain"] = "relative"
    """"relative": the network's output is in units of the prior, mean = m(c) + σ(c)·net. "plain": the output is the
    posterior itself, which starts far outside a narrow prior."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the convolutions. Parameters, KL and statistics stay float32."""

    def __post_init__(self) -> None:
        check_types(self, "model")
        size, patch = self.image_size, self.patch
        check(_is_power_of_two(size) and 32 <= size <= 256, "model.image_size", size, "must be 32, 64, 128 or 256")
        check(_is_power_of_two(patch) and patch <= 8, "model.patch", patch, "must be 1, 2, 4 or 8")
        check(len(self.widths) >= 2, "model.widths", self.widths, "needs at least two levels")
        check(
            min(self.widths) >= 8 and max(self.widths) <= 8192 and not any(w % 8 for w in self.widths),
            "model.widths",
            self.widths,
            "every width must be a positive multiple of 8, at most 8192",
        )
        check_range("model", self, "blocks", 1, 64)
        bottom = size // patch >> (len(self.widths) - 1)
        check(
            bottom >= 2,
            "model.widths",
            self.widths,
            f"too many levels: image_size {size} / patch {patch} leaves {bottom} px at the last; at least 2 needed",
        )
        check_range("model", self, "z_dim", 1, 65536)
        sides = [1, *self.level_sides]
        check(self.z_grid in sides, "model.z_grid", self.z_grid, f"must be 1 or the side of a level, one of {sides}")
        check(
            self.frame == "picture" or self.z_grid > 1,
            "model.z_grid",
            self.z_grid,
            f"model.frame='face' needs a grid: one of {sides[1:]}",
        )
        check(
            self.z_dim % self.z_grid**2 == 0,
            "model.z_dim",
            self.z_dim,
            f"must be a multiple of z_grid² = {self.z_grid**2}",
        )

    @property
    def level_sides(self) -> tuple[int, ...]:
        """Side of the feature maps at each level, finest first."""
        return tuple(self.image_size // self.patch >> level for level in range(len(self.widths)))


@dataclass(frozen=True)
class ObjectiveConfig:
    """recon_nll + beta · kl, nats per image (Eqs. 1 and 2)."""

    likelihood: Literal["laplace", "gaussian"] = "laplace"
    """p(x | c, z) per pixel and color."""
    scale: float | None = None
    """Scale of the likelihood in image units (range 2). None: the analytic optimum of each batch (sigma-VAE)."""
    ssim_weight: float = 0.3
    """Weight of 1 - SSIM, added to the error of every value in units of the likelihood's scale. 0 turns it off."""
    beta: float = 1.0
    """Weight of the KL after the ramp, at least 0."""
    beta_ramp: float = 0.3
    """Fraction of the training, 0 to 1, over which the weight of the KL rises linearly from 0."""

    def __post_init__(self) -> None:
        check_types(self, "objective")
        check(self.scale is None or self.scale > 0, "objective.scale", self.scale, "must be positive or none")
        check(self.ssim_weight >= 0, "objective.ssim_weight", self.ssim_weight, "must not be negative")
        check(self.beta >= 0, "objective.beta", self.beta, "must not be negative")
        check(0 <= self.beta_ramp <= 1, "objective.beta_ramp", self.beta_ramp, "must be between 0 and 1")


@dataclass(frozen=True)
class OptimConfig:
    """Adam, schedule, clipping and moving average."""

    learning_rate: float = 3e-3
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning rate after the warm-up: falls to 0 along a cosine or a line, or stays constant."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises linearly from 0."""
    clip_norm: float = 1.0
    """Maximum global norm of the gradient. 0 turns clipping off."""
    ema_decay: float = 0.998
    """Decay per step, in [0, 1), of the moving average of the parameters that synthesis and evaluation use."""

    def __post_init__(self) -> None:
        check_types(self, "optim")
        check(self.learning_rate > 0, "optim.learning_rate", self.learning_rate, "must be positive")
        check_range("optim", self, "warmup_steps", 0, _MOST_STEPS)
        check(self.clip_norm >= 0, "optim.clip_norm", self.clip_norm, "must not be negative")
        check(0 <= self.ema_decay < 1, "optim.ema_decay", self.ema_decay, "must be in [0, 1)")


@dataclass(frozen=True)
class TrainConfig:
    """Length, batch, devices, reports and checkpoints of a training."""

    steps: int = 2000
    """Number of training steps."""
    batch_size: int = 16
    """Global batch size, over all devices and hosts; a multiple of the number of devices."""
    seed: int = 0
    """Seed of parameters, clusters, data order and sampling."""
    parallel: Literal["shard_map", "pmap"] = "shard_map"
    """Transformation that maps the per-device step over devices."""
    log_every: int = 50
    """Steps between lines of the log."""
    images_every: int = 500
    """Steps between image grids in TensorBoard."""
    checkpoint_every: int = 500
    """Steps between checkpoints. The last step is always stored."""
    keep_checkpoints: int = 3
    """Number of latest checkpoints kept on disk."""
    max_skipped: int = 5
    """Stop after this many consecutive skipped steps. A step with a NaN or infinite loss or gradient is skipped."""
    hang_after: float = 300.0
    """Seconds without a finished step before a hang is reported with the stacks of all threads, once per hang. The
    first step compiles and has six times as long. 0: never report. At most a week."""
    hang_exit: bool = False
    """After that report, exit with code 75, so that a launcher can restart the training."""

    def __post_init__(self) -> None:
        check_types(self, "train")
        every = "log_every images_every checkpoint_every keep_checkpoints max_skipped"
        check_range("train", self, f"steps {every}", 1, _MOST_STEPS)
        check_range("train", self, "batch_size", 1, 65536)
        check_range("train", self, "seed", 0, 2**32 - 1)
        check_range("train", self, "hang_after", 0, 604_800)


@dataclass(frozen=True)
class AdaptConfig:
    """Adaptation of a model to one source photo (`ecvae_jax.synthesis.adapt`). steps=0 and detail=0: the paper."""

    steps: int = 0
    """Adam steps on z and the decoder per source, to fit its reconstruction. 0: none."""
    learning_rate: float = 1e-3
    """Initial learning rate of those steps."""
    detail: float = 1.0
    """Weight, 0 to 1, of the source's own pixels, warped by the landmarks, where they agree with the model's image."""

    def __post_init__(self) -> None:
        check_types(self, "adapt")
        check_range("adapt", self, "steps", 0, 1_000_000)
        check(self.learning_rate > 0, "adapt.learning_rate", self.learning_rate, "must be positive")
        check(0 <= self.detail <= 1, "adapt.detail", self.detail, "must be between 0 and 1")


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
            sections = json.loads(text)
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
        name: _OLD_VALUES.get((section, name, value), value) if isinstance(value, str) else value
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


class Span(NamedTuple):
    """Training steps to trace, both ends included; the first step is 1."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str, steps: int) -> Span:
        """Returns the span written as A:B.

        Raises:
            ValueError: the text is not A:B, or not within 1 to `steps`, the length of the training.
        """
        match = re.fullmatch(r"([0-9]+):([0-9]+)", text)
        if match is None:
            raise ValueError(f"profile={text!r}: must be two steps with a colon between them, such as 10:15")
        span = cls(int(match[1]), int(match[2]))
        if not 1 <= span.first <= span.last <= steps:
            raise ValueError(f"profile={text!r}: must be A:B with 1 <= A <= B <= {steps} (train.steps)")
        return span
