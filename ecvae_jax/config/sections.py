"""The sections of an experiment: every setting and its default, on one page. Frozen dataclasses with checks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ecvae_jax.config.checks import check, check_range, check_types

PriorKind = Literal["equilibrium", "mixture", "standard", "covariance"]
PriorNoise = Literal["independent", "shared"]

RENDERED = "rendered"
"""The value of `DataConfig.records` for the rendered heads embedded in the package."""

_MOST_STEPS = 2**31 - 1  # steps are counted in int32


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
    cache: Literal["host", "device", "off"] = "host"
    """Where decoded faces (uint8) are kept: in host memory, or with a copy in the memory of every device. "off": they
    are decoded on demand."""

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
    """"equilibrium" (Eq. 4), "mixture" (Eq. 3), "standard" (N(0, I), the vanilla baseline of Eq. 2) or "covariance":
    Eq. (4) with fitted covariances along `rank` directions (not in the paper), from which faces can be drawn."""
    mean_norm: float = 1.0
    """Euclidean norm of every cluster mean, before training."""
    stddev: float = 0.1
    """Standard deviation of every cluster; never trained."""
    learned: bool = False
    """Train the cluster means with the network; the paper keeps them at their random initial values. No effect on
    "standard"."""
    rank: int = 64
    """Directions of "covariance" along which the faces vary more than Eq. (4) allows; z_dim of them if
    it has fewer."""
    fit_every: int = 100
    """Steps between two fits of "covariance" to the posteriors."""
    fit_decay: float = 0.999
    """Decay per step, in [0, 1), of the posteriors' moments that "covariance" is fitted to."""
    least_floor: float = 0.01
    """Least variance of "covariance" across its directions, in units of Eq. (4)'s, which is the largest. 1: not
    fitted."""
    noise: PriorNoise = "independent"
    """Of the clusters' z_k of "covariance", whose sum with weights c_k is z. "independent", as in Eq. (4): the prior is
    wider for a face of few clusters. "shared": one noise for all, so that every face has the same width."""
    pooling: float = 1e9
    """Faces by which a cluster's variances of "covariance" are drawn to those of all faces. Large: one covariance for
    all clusters. At least 1."""

    def __post_init__(self) -> None:
        check_types(self, "prior")
        check_range("prior", self, "mean_norm", 0, 1e6)
        check_range("prior", self, "stddev", 1e-6, 1e6)
        check_range("prior", self, "rank", 1, 1024)
        check_range("prior", self, "fit_every", 1, _MOST_STEPS)
        check(0 <= self.fit_decay < 1, "prior.fit_decay", self.fit_decay, "must be in [0, 1)")
        check_range("prior", self, "pooling", 1, 1e12)
        check_range("prior", self, "least_floor", 1e-6, 1)


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
    remat: bool = False
    """Compute each residual block again for the gradient instead of keeping its maps: less memory, more time."""

    def __post_init__(self) -> None:
        check_types(self, "model")
        size, patch = self.image_size, self.patch

        def require(name: str, condition: bool, rule: str) -> None:
            check(condition, f"model.{name}", getattr(self, name), rule)

        require("image_size", _is_power_of_two(size) and 32 <= size <= 256, "must be 32, 64, 128 or 256")
        require("patch", _is_power_of_two(patch) and patch <= 8, "must be 1, 2, 4 or 8")
        require("widths", len(self.widths) >= 2, "needs at least two levels")
        multiples = min(self.widths) >= 8 and max(self.widths) <= 8192 and not any(w % 8 for w in self.widths)
        require("widths", multiples, "every width must be a positive multiple of 8, at most 8192")
        check_range("model", self, "blocks", 1, 64)
        bottom = size // patch >> (len(self.widths) - 1)
        levels = f"too many levels: image_size {size} / patch {patch} leaves {bottom} px at the last; at least 2 needed"
        require("widths", bottom >= 2, levels)
        check_range("model", self, "z_dim", 1, 65536)
        sides = [1, *self.level_sides]
        require("z_grid", self.z_grid in sides, f"must be 1 or the side of a level, one of {sides}")
        grid = self.frame == "picture" or self.z_grid > 1
        require("z_grid", grid, f"model.frame='face' needs a grid: one of {sides[1:]}")
        require("z_dim", self.z_dim % self.z_grid**2 == 0, f"must be a multiple of z_grid² = {self.z_grid**2}")

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
    perceptual_weight: float = 0.0
    """Weight of LPIPS on VGG16's features, added in the same units. 0 turns it off. Needs the extra lpips."""
    perceptual_taps: tuple[int, ...] = (1, 2, 3, 4)
    """Layers of VGG16 that LPIPS reads: 1 to 5 for relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3. Layers after the
    last one are not computed."""
    perceptual_resolution: int = 0
    """Side in pixels to which images are resized for LPIPS, 32 to 512. 0: their own."""
    perceptual_every: int = 1
    """Steps between those with the LPIPS term. Its weight is multiplied by this number, so that its mean is equal."""
    perceptual_features: Literal["lpips-0.1-vgg16-2ecbe4ce"] = "lpips-0.1-vgg16-2ecbe4ce"
    """Identity of the weights that LPIPS uses: version, network, first digits of the file's SHA-256."""
    beta: float = 1.0
    """Weight of the KL after the ramp, at least 0."""
    beta_ramp: float = 0.3
    """Fraction of the training, 0 to 1, over which the weight of the KL rises linearly from 0."""

    def __post_init__(self) -> None:
        check_types(self, "objective")
        check(self.scale is None or self.scale > 0, "objective.scale", self.scale, "must be positive or none")
        check(self.ssim_weight >= 0, "objective.ssim_weight", self.ssim_weight, "must not be negative")
        check_range("objective", self, "perceptual_weight", 0, 1e6)
        taps = self.perceptual_taps
        check(
            len(taps) > 0 and set(taps) <= {1, 2, 3, 4, 5} and list(taps) == sorted(set(taps)),
            "objective.perceptual_taps",
            taps,
            "must be increasing numbers from 1 to 5",
        )
        if self.perceptual_resolution:
            check_range("objective", self, "perceptual_resolution", 32, 512)
        check_range("objective", self, "perceptual_every", 1, 1000)
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
    init_from: str = ""
    """Checkpoint whose averaged parameters, clusters and cluster means begin the training: the workdir of a training or
    a bundled model (face128, face256). Empty: random parameters. Read once, at step 0."""
    parallel: Literal["shard_map", "pmap"] = "shard_map"
    """Transformation that maps the per-device step over devices."""
    steps_per_call: int = 1
    """Most steps that one call of a compiled program runs. More than 1 spares an accelerator the host's work between
    steps; on CPUs it is over ten times slower. Rounding then differs from that of 1, but not
    with how steps are grouped."""
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
        check_range("train", self, "steps_per_call", 1, 1000)
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
    """Weight, 0 to 1, of the source's own pixels and texture, warped by the landmarks, where they agree with the
    model's image."""

    def __post_init__(self) -> None:
        check_types(self, "adapt")
        check_range("adapt", self, "steps", 0, 1_000_000)
        check(self.learning_rate > 0, "adapt.learning_rate", self.learning_rate, "must be positive")
        check(0 <= self.detail <= 1, "adapt.detail", self.detail, "must be between 0 and 1")


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
