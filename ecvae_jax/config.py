"""Every setting of an experiment, with its default: frozen dataclasses, checked when they are made.

This is the only place where defaults live. A `Config` is written as JSON into each checkpoint, so every command
that takes a trained model needs only the checkpoint. Importing this file costs nothing: no JAX, no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

_OLD_NAMES = {("data", "colour_jitter"): "color_jitter"}
"""Fields of stored configs that have since been renamed."""
_OLD_VALUES = {("clusters", "mode", "centred"): "centered"}
"""Values of stored configs that have since been renamed."""

PriorKind = Literal["equilibrium", "mixture", "standard"]

RENDERED = "rendered"
"""The value of `DataConfig.records` that names the rendered heads embedded in the package."""


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True)
class DataConfig:
    """Which faces are learned from, and how they reach the model."""

    records: str = RENDERED
    """Folder written by `ecvae prepare`, or "rendered" for the embedded heads; several joined by "+" are one set."""
    points: Literal[98, 68] = 98
    """Landmark scheme of the model: 98 (WFLW) or 68 (iBUG, dlib). Records with 98 points can train a 68-point model."""
    mirror: bool = True
    """Flip half of the training faces left to right, landmarks permuted with them."""
    pairs: float = 0.75
    """Fraction of a training batch where z comes from one view, and sketch and true image from another view of the same
    appearance group (one person under one light). 0 is the paper's self-reconstruction."""
    color_jitter: float = 0.0
    """Strength of random changes of exposure and color, the same for both views of an example: brightness and contrast
    by factors up to exp(±strength), each color by up to exp(±strength/3). For photos of few cameras and lights."""
    cache: bool = True
    """Keep decoded faces in host memory (uint8). Turn off where the data set is larger than the memory."""

    def __post_init__(self) -> None:
        check_types(self, "data")
        check(0.0 <= self.pairs <= 1.0, "data.pairs", self.pairs, "must lie between 0 and 1")
        check(0.0 <= self.color_jitter <= 1.0, "data.color_jitter", self.color_jitter, "must lie between 0 and 1")


@dataclass(frozen=True)
class SketchConfig:
    """How landmarks become the boundary sketch."""

    channels: Literal["boundary", "single"] = "boundary"
    """"boundary": one map per boundary; "single": all boundaries in one map."""
    sigma: float = 0.012
    """Width of the Gaussian around a line, as a fraction of the crop's width (0.012 is 3 px at 256, 0.8 px at 64)."""
    samples_per_span: int = 2
    """Straight pieces that stand for the smooth curve between two neighboring landmarks."""

    def __post_init__(self) -> None:
        check_types(self, "sketch")
        check(self.sigma > 0, "sketch.sigma", self.sigma, "must be positive")
        check(self.samples_per_span >= 1, "sketch.samples_per_span", self.samples_per_span, "must be at least 1")


@dataclass(frozen=True)
class ClusterConfig:
    """The structure clusters and the weights c_k of a face."""

    count: int = 32
    """K, the number of clusters."""
    mode: Literal["centered", "literal"] = "centered"
    """"literal": cosine similarity of aligned landmark vectors, divided by its sum (the paper's words). "centered": the
    mean shape is taken away first, negatives become 0, and a temperature sharpens the weights."""
    temperature: float = 0.2
    """Sharpness of "centered" weights: similarity ** (1 / temperature); smaller means fewer effective clusters."""
    remove_roll: bool = False
    """Take head roll out before clustering."""

    def __post_init__(self) -> None:
        check_types(self, "clusters")
        check(self.count >= 1, "clusters.count", self.count, "must be at least 1")
        check(self.temperature > 0, "clusters.temperature", self.temperature, "must be positive")


@dataclass(frozen=True)
class PriorConfig:
    """p(z | c), Eqs. (2), (3) and (4) of the paper."""

    kind: PriorKind = "equilibrium"
    """"equilibrium" (Eq. 4), "mixture" (Eq. 3) or "standard" (N(0, I), the vanilla baseline of Eq. 2)."""
    mean_norm: float = 1.0
    """Euclidean length of every frozen cluster mean."""
    stddev: float = 0.1
    """Standard deviation of every cluster, frozen."""
    learned: bool = False
    """Train the cluster means with the network, from where they would be fixed; the paper fixes them. Nothing to train
    with "standard"."""

    def __post_init__(self) -> None:
        check_types(self, "prior")
        check(self.mean_norm >= 0, "prior.mean_norm", self.mean_norm, "must not be negative")
        check(self.stddev > 0, "prior.stddev", self.stddev, "must be positive")


@dataclass(frozen=True)
class ModelConfig:
    """The two-branch U-Net conditional VAE."""

    image_size: int = 64
    """Side of the square image in pixels: 32, 64, 128 or 256 (the paper's)."""
    patch: int = 4
    """Side of the square of pixels that the first layer folds into channels (space to depth), and the last unfolds."""
    widths: tuple[int, ...] = (32, 64, 128)
    """Channels of each level; the resolution halves from one level to the next, from image_size / patch on."""
    blocks: int = 1
    """Residual blocks per level and branch."""
    z_dim: int = 256
    """d, the length of z."""
    z_grid: int = 8
    """z enters the decoder as a square grid of this side with z_dim / z_grid² channels; 1 makes it one vector."""
    frame: Literal["picture", "face"] = "picture"
    """Where z has its places. "picture": in the crop, as the paper's U-Net has it; "face": on the mean face, to which
    the source is warped by its landmarks, and from which what is drawn is laid over the target's structure."""
    posterior: Literal["relative", "plain"] = "relative"
    """"relative": the network's output is in units of the prior, mean = m(c) + σ(c)·net; "plain": taken as it is, so
    that it starts far outside a narrow prior."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the convolutions; parameters, KL and statistics are always float32."""

    def __post_init__(self) -> None:
        check_types(self, "model")
        size, patch = self.image_size, self.patch
        check(_is_power_of_two(size) and 32 <= size <= 256, "model.image_size", size, "must be 32, 64, 128 or 256")
        check(_is_power_of_two(patch) and patch <= 8, "model.patch", patch, "must be 1, 2, 4 or 8")
        check(len(self.widths) >= 2, "model.widths", self.widths, "needs at least two levels")
        check(min(self.widths) >= 8 and not any(w % 8 for w in self.widths), "model.widths", self.widths,
               "every width must be a positive multiple of 8")
        check(self.blocks >= 1, "model.blocks", self.blocks, "must be at least 1")
        bottom = size // patch >> (len(self.widths) - 1)
        check(bottom >= 2, "model.widths", self.widths,
               f"too many levels: image_size {size} / patch {patch} leaves {bottom} px at the last, at least 2 needed")
        check(self.z_dim >= 1, "model.z_dim", self.z_dim, "must be at least 1")
        sides = [1, *self.level_sides]
        check(self.z_grid in sides, "model.z_grid", self.z_grid, f"must be 1 or the side of a level, one of {sides}")
        check(self.frame == "picture" or self.z_grid > 1, "model.z_grid", self.z_grid,
               f"model.frame='face' needs a grid of places: one of {sides[1:]}")
        check(self.z_dim % self.z_grid**2 == 0, "model.z_dim", self.z_dim,
               f"must be a multiple of z_grid² = {self.z_grid**2}")

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
    """Scale of the likelihood in image units (the range is 2); none: its analytic optimum on each batch (sigma-VAE)."""
    ssim_weight: float = 0.3
    """Weight of 1 - SSIM: it is added to the absolute error of every pixel, in units of the scale (for a Gaussian
    likelihood too, whose own error is squared); 0 turns it off."""
    beta: float = 1.0
    """Weight of the KL after the ramp."""
    beta_ramp: float = 0.3
    """Fraction of the training over which the weight of the KL rises linearly from 0."""

    def __post_init__(self) -> None:
        check_types(self, "objective")
        check(self.scale is None or self.scale > 0, "objective.scale", self.scale, "must be positive or none")
        check(self.ssim_weight >= 0, "objective.ssim_weight", self.ssim_weight, "must not be negative")
        check(self.beta >= 0, "objective.beta", self.beta, "must not be negative")
        check(0 <= self.beta_ramp <= 1, "objective.beta_ramp", self.beta_ramp, "must lie between 0 and 1")


@dataclass(frozen=True)
class OptimConfig:
    """Adam, its schedule, clipping and the moving average."""

    learning_rate: float = 3e-3
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls to 0 after the warm-up, or stays."""
    warmup_steps: int = 50
    """Steps of linear rise from 0."""
    clip_norm: float = 1.0
    """Largest global norm of the gradient; 0 turns clipping off."""
    ema_decay: float = 0.998
    """Decay of the moving average of the parameters that synthesis and evaluation use; 0 follows the parameters."""

    def __post_init__(self) -> None:
        check_types(self, "optim")
        check(self.learning_rate > 0, "optim.learning_rate", self.learning_rate, "must be positive")
        check(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, "must not be negative")
        check(self.clip_norm >= 0, "optim.clip_norm", self.clip_norm, "must not be negative")
        check(0 <= self.ema_decay < 1, "optim.ema_decay", self.ema_decay, "must lie in [0, 1)")


@dataclass(frozen=True)
class TrainConfig:
    """Length, batch, devices and reporting of a training."""

    steps: int = 2000
    """Training steps."""
    batch_size: int = 16
    """Global batch size, over all devices and hosts."""
    seed: int = 0
    """Seed of parameters, clusters, data order and sampling."""
    parallel: Literal["shard_map", "pmap"] = "shard_map"
    """How the per-device step is mapped over devices."""
    log_every: int = 50
    """Steps between two lines of the log."""
    images_every: int = 500
    """Steps between two image grids in TensorBoard."""
    checkpoint_every: int = 500
    """Steps between two checkpoints; the last step is always kept."""
    keep_checkpoints: int = 3
    """How many of the latest checkpoints stay on disk."""
    max_skipped: int = 5
    """A step whose loss or gradient is not finite is skipped; so many in a row stop the training."""
    hang_after: float = 300.0
    """Seconds without a finished step (six times as many for the first, which compiles) after which a hang is reported
    with the stacks of all threads, once per hang; 0: never."""
    hang_exit: bool = False
    """After that report, leave with exit code 75, so that a launcher can start the training again."""

    def __post_init__(self) -> None:
        check_types(self, "train")
        for name in ("steps", "batch_size", "log_every", "images_every", "checkpoint_every", "keep_checkpoints",
                     "max_skipped"):
            check(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "must be at least 1")
        check(self.seed >= 0, "train.seed", self.seed, "must not be negative")
        check(self.hang_after >= 0, "train.hang_after", self.hang_after, "must not be negative; 0 turns it off")


@dataclass(frozen=True)
class AdaptConfig:
    """How far a model goes towards one source photo (`ecvae_jax.synthesis.adapt`); all zero: as the paper has it."""

    steps: int = 0
    """Adam's steps on z and the decoder for each source, towards its reconstruction."""
    learning_rate: float = 1e-3
    """Size of those steps."""
    detail: float = 1.0
    """Share of the source's own pixels, warped by the landmarks, where they agree with what the model draws: 0 to 1."""

    def __post_init__(self) -> None:
        check_types(self, "adapt")
        check(self.steps >= 0, "adapt.steps", self.steps, "must not be negative")
        check(self.learning_rate > 0, "adapt.learning_rate", self.learning_rate, "must be positive")
        check(0 <= self.detail <= 1, "adapt.detail", self.detail, "must lie between 0 and 1")


@dataclass(frozen=True)
class Architecture:
    """The settings that a compiled program depends on: its static argument.

    Two experiments of one architecture share their compiled programs, whatever their records, seed, schedule or length.
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
        """What compiled programs depend on.

        Settings that programs read from arrays (cluster means and deviations, beta) have their defaults here.
        """
        prior = dataclasses.replace(self.prior, mean_norm=PriorConfig.mean_norm, stddev=PriorConfig.stddev)
        objective = dataclasses.replace(
            self.objective, beta=ObjectiveConfig.beta, beta_ramp=ObjectiveConfig.beta_ramp
        )
        return Architecture(self.data.points, self.sketch, self.clusters, prior, self.model, objective)

    def to_json(self) -> str:
        """Returns the config as one JSON object, one section a key."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Returns the config that `to_json` wrote.

        Raises:
            ValueError: text is no JSON object, or a section or field is unknown or out of its range.
        """
        try:
            sections = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"config is no JSON: {error}") from None
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


def load_config(path: Path) -> Config:
    """Returns the `config` of an experiment file, or of a JSON file that `Config.to_json` wrote.

    Raises:
        ValueError: no such file, it cannot be run, or it defines no `config`.
    """
    if not path.is_file():
        raise ValueError(f"config {str(path)!r}: no such file; see configs/, or leave it out for the default")
    if path.suffix == ".json":
        return Config.from_json(path.read_text())
    try:
        config = runpy.run_path(str(path)).get("config")
    # It is the user's program: whatever it raises, the file's name is what they need.
    except (Exception, SystemExit) as error:
        raise ValueError(f"config {str(path)!r} cannot be run: {type(error).__name__}: {error}") from error
    if not isinstance(config, Config):
        raise ValueError(f"config {str(path)!r}: must define `config`, an ecvae_jax.config.Config; got {config!r}")
    return config


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
