"""Options of the subcommands that take a trained model: transfer, sample, figure, export."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ecvae_jax.cli.options.kinds import OptionalPath, OptionalText, check_picture, inputs_of
from ecvae_jax.config import AdaptConfig
from ecvae_jax.files import check_output
from ecvae_jax.video.options import OUT_SUFFIXES, VideoConfig, is_video


@dataclass(frozen=True)
class TransferOptions:
    """Draws every source's appearance under every target's structure, as one PNG, or moves a source as a video.

    A video, if OUT ends in .mp4, .mov, .mkv, .webm or .gif: one source with the motion of one driver video, or on a
    walk. With --replay, the picture that was made on the page (`ecvae page`).
    """

    source: tuple[str, ...] = ()
    """Appearances: photos, or faces of records as RECORDS:SPLIT:INDICES (rendered:test:0,24)."""
    target: tuple[str, ...] = ()
    """Structures: photos or faces of records, as above; for a video, one driver video."""
    checkpoint: OptionalPath = None
    """Working directory of a training, the folder of one step in it, or a bundled model.
    Default: the bundled face256 on a GPU or TPU, else face128."""
    out: Path = Path("transfer.png")
    """PNG to write: targets and their sketches at the top, sources and their sketches at the left. Or a video."""
    video: Annotated[VideoConfig, tyro.conf.arg(name="")] = field(default_factory=VideoConfig)
    transport: bool = True
    """Transport z from the prior of the source's structure to that of the target's."""
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    enlarge: int = 1
    """Integer factor by which the picture is enlarged."""
    replay: OptionalPath = None
    """JSON saved by the page, whose picture is drawn again. With --source PHOTO, the crop is cut from that photo, which
    must be the page's."""

    def __post_init__(self) -> None:
        """Checks the options before anything is loaded."""
        inputs = inputs_of(self.checkpoint, *self.source, *self.target)
        if self.replay is not None:
            self._check_replay(self.replay)
            return
        if not self.source:
            raise ValueError("--source is required: photos, or faces of records as RECORDS:SPLIT:INDICES")
        if is_video(self.out):
            self._check_video()
            check_output(self.out, inputs)
            return
        if self.video != VideoConfig():
            raise ValueError(f"out={str(self.out)!r}: a video ends in {', '.join(OUT_SUFFIXES)}; give such a name")
        check_picture(self.out, self.enlarge, inputs=inputs)
        if not self.target:
            raise ValueError("target=(): name a photo, a face of records, or a driver video with --out FILE.mp4")
        self._check_pictures()

    def _check_replay(self, replay: Path) -> None:
        if self.target or len(self.source) > 1:
            raise ValueError(f"replay={str(replay)!r}: holds the target; give at most the photo, as --source")
        if is_video(self.out) or self.video != VideoConfig():
            raise ValueError(f"replay={str(replay)!r}: draws one picture; give --out FILE.png and no option of a video")
        if self.adapt != AdaptConfig() or not self.transport:
            raise ValueError(f"replay={str(replay)!r}: holds the settings; remove --adapt.* and --no-transport")
        check_picture(self.out, self.enlarge, inputs=[*inputs_of(self.checkpoint, *self.source), replay])

    def _check_pictures(self) -> None:
        from ecvae_jax.data.photos.sources.video import VIDEO_SUFFIXES  # late: NumPy

        videos = [name for name in self.target if Path(name).suffix.lower() in VIDEO_SUFFIXES]
        if videos:
            raise ValueError(
                f"target={videos[0]!r}: a driver video needs --out FILE.mp4 (or {', '.join(OUT_SUFFIXES)})"
            )

    def _check_video(self) -> None:
        several = len(self.source) != 1 or len(self.target) > 1
        if several:
            raise ValueError(f"{len(self.source)} sources, {len(self.target)} targets: a video has one of each")
        if bool(self.target) == (self.video.path is not None):
            raise ValueError("a video needs either --target DRIVER.mp4 or --path smile; give one of them")
        if self.enlarge < 1:
            raise ValueError(f"enlarge={self.enlarge}: must be at least 1")
        if self.video.paste and self.enlarge > 1:
            raise ValueError(f"enlarge={self.enlarge}: a pasted video has the photo's size; remove one of both")


@dataclass(frozen=True)
class SampleOptions:
    """Draws appearances sampled from the prior, or from a fitted density, under given structures, as one PNG."""

    structure: tuple[str, ...]
    """Structures: photos, or faces of records as RECORDS:SPLIT:INDICES."""
    checkpoint: OptionalPath = None
    """Working directory of a training, the folder of one step in it, or a bundled model.
    Default: the bundled face256 on a GPU or TPU, else face128."""
    n: int = 8
    """Samples per structure."""
    seed: int = 0
    """Seed of the draws."""
    source: Annotated[Literal["prior", "posterior"], tyro.conf.arg(name="from")] = "prior"
    """prior: as in the paper. posterior: a density fitted to the posteriors of the training faces after training
    (Ghosh et al. 2020); its samples resemble the training people and are far more often faces."""
    data: OptionalText = None
    """Records to fit the density on (split train). Default: the density stored with the model, or one fitted on the
    records of the training."""
    temperature: float = 1.0
    """Scales the deviation of z from its mean. Below 1, samples are more alike and more average."""
    out: Path = Path("sample.png")
    """PNG to write: one row per structure, its sketch first."""
    enlarge: int = 1
    """Integer factor by which the PNG is enlarged."""

    def __post_init__(self) -> None:
        check_picture(self.out, self.enlarge, inputs=inputs_of(self.checkpoint, *self.structure, self.data))
        if self.n < 1:
            raise ValueError(f"n={self.n}: must be at least 1")
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature}: must be 0 or more")
        if self.data is not None and self.source == "prior":
            raise ValueError(f"data={self.data!r}: only a density is fitted to records; add --from posterior")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must not be negative")


@dataclass(frozen=True)
class FigureOptions:
    """Draws a figure: 2 latent space, 3a emotion transfer, 3b conditional pose generation, model the network."""

    which: Annotated[Literal["2", "3a", "3b", "model"], tyro.conf.Positional]
    """Number of the figure in the paper, or model: the network of the checkpoint."""
    checkpoint: OptionalPath = None
    """Working directory of a training, the folder of one step in it, or a bundled model.
    Default: the bundled face256 on a GPU or TPU, else face128."""
    out: OptionalPath = None
    """PNG to write. Default: figure2.png, figure3a.png, figure3b.png or figuremodel.png."""
    data: str = "rendered"
    """Records folder, or "rendered". The tags yaw and expression choose the faces."""
    split: str = "test"
    """Split of the records. Its people should not be training people."""

    def __post_init__(self) -> None:
        check_picture(self.file, 1, inputs=inputs_of(self.checkpoint, self.data))

    @property
    def file(self) -> Path:
        """PNG to write."""
        return self.out or Path(f"figure{self.which}.png")


@dataclass(frozen=True)
class ExportOptions:
    """Writes a model for other programs: a small checkpoint, StableHLO, ONNX or safetensors."""

    paths: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[CHECKPOINT] OUT", help_behavior_hint="")
    ]
    """CHECKPOINT: working directory of a training, or one step's folder in its `checkpoints`; default: the bundled
    model. OUT: folder to write."""
    format: Literal["small", "stablehlo", "onnx", "safetensors"] = "small"
    """small: a checkpoint without optimizer, which --checkpoint reads. stablehlo: for JAX without this package. onnx:
    for onnxruntime, also in a browser; needs the extra onnx. safetensors: parameters and config; needs the extra
    safetensors."""
    half: bool = True
    """Store the parameters as float16 instead of float32; all formats compute in float32."""
    overwrite: bool = False
    """Replace OUT if it is an earlier export as stablehlo, onnx or safetensors."""
    density: int = 0
    """Rank of a density to fit to the training faces' appearances and store with the model (64). `ecvae sample --from
    posterior` then needs no records. 0: keep the stored density, if any."""
    data: OptionalText = None
    """Records to fit the density on. Default: those of the training."""

    def __post_init__(self) -> None:
        """Checks the options before anything is loaded."""
        if not 1 <= len(self.paths) <= 2:
            raise ValueError(f"{len(self.paths)} paths: give [CHECKPOINT] OUT")
        if self.density < 0:
            raise ValueError(f"density={self.density}: must be 0 (none) or a rank of at least 1")
        if self.data is not None and not self.density:
            raise ValueError(f"data={self.data!r}: only a density is fitted to records; add --density 64")
        if self.overwrite and self.format == "small":
            raise ValueError("overwrite: a checkpoint is not replaced; give the name of a new folder")

    @property
    def checkpoint(self) -> Path | None:
        """Checkpoint to export; None: the bundled model."""
        return self.paths[0] if len(self.paths) == 2 else None

    @property
    def out(self) -> Path:
        """Folder to write."""
        return self.paths[-1]
