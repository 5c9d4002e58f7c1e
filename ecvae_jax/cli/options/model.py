"""Options of the subcommands that take a trained model: transfer, sample, evaluate, figure, export, info."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ecvae_jax.cli.options.kinds import STDOUT, OptionalPath, OptionalText, check_json
from ecvae_jax.config import AdaptConfig
from ecvae_jax.files import check_output, lies_in
from ecvae_jax.video.options import OUT_SUFFIXES, VideoConfig, is_video

_IMAGE_FOLDERS = ("source", "target", "model", "plain", "copy", "warp", "reconstruction")
"""Folders of `evaluate --save-images`."""


def _check_picture(out: Path, enlarge: int, name: str = "out", inputs: Iterable[str | Path] = ()) -> None:
    if out.suffix.lower() != ".png":
        raise ValueError(f"{name}={str(out)!r}: must end in .png")
    if enlarge < 1:
        raise ValueError(f"enlarge={enlarge}: must be at least 1")
    check_output(out, inputs)


def _inputs(checkpoint: Path | None, *specs: str | None) -> list[str | Path]:
    """Returns the files and folders that a command reads: stored checkpoints, photos, records of RECORDS:SPLIT:INDICES.

    A working directory itself may hold outputs, such as reports.
    """
    found: list[str | Path] = []
    if checkpoint is not None:
        stored = checkpoint / "checkpoints"
        found.append(stored if stored.is_dir() else checkpoint)
    for spec in filter(None, specs):
        found += [spec, *spec.rsplit(":", 2)[0].split("+")]
    return found


@dataclass(frozen=True)
class TransferOptions:
    """Draws every source's appearance under every target's structure, as one PNG, or moves a source as a video.

    A video, if OUT ends in .mp4, .mov, .mkv or .gif: one source with the motion of one driver video, or on a walk. With
    --replay, the picture that was made on the page (`ecvae page`).
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
        inputs = _inputs(self.checkpoint, *self.source, *self.target)
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
        _check_picture(self.out, self.enlarge, inputs=inputs)
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
        _check_picture(self.out, self.enlarge, inputs=[*_inputs(self.checkpoint, *self.source), replay])

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
        _check_picture(self.out, self.enlarge, inputs=_inputs(self.checkpoint, *self.structure, self.data))
        if self.n < 1:
            raise ValueError(f"n={self.n}: must be at least 1")
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature}: must be 0 or more")
        if self.data is not None and self.source == "prior":
            raise ValueError(f"data={self.data!r}: only a density is fitted to records; add --from posterior")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must not be negative")


@dataclass(frozen=True)
class EvaluateOptions:
    """Scores reconstruction and transfer against true images of the same person, next to two baselines.

    The baselines copy or warp the source. The JSON has `model`, `copy` and `warp` (and `plain`, `reconstruction`).
    Each has `pairs`, `psnr` (dB), `ssim`, `identity` (distance of dlib's 128-d vectors; below 0.6 is the same person),
    `nme` (68-point error over the distance of the outer eye corners; 0.03 is 3%), `face_found` (a fraction), and
    `..._ci`, the 95% interval over people. docs/evaluation.md explains them.
    """

    checkpoint: OptionalPath = None
    """Working directory of a training, the folder of one step in it, or a bundled model.
    Default: the bundled face256 on a GPU or TPU, else face128."""
    data: str = "rendered"
    """Records folder, or "rendered"."""
    split: str = "test"
    """Split of the records. Its people should not be training people."""
    pairs: Annotated[tuple[Path, Path] | None, tyro.conf.arg(metavar="SOURCES TARGETS", help_behavior_hint="")] = None
    """Two folders of photos instead of records. Files of the same name show the same person."""
    video: Annotated[tuple[Path, Path] | None, tyro.conf.arg(metavar="VIDEO DRIVER", help_behavior_hint="")] = None
    """A video and its driver, instead of pairs: jitter at rest, lost or shifted frames, flicker, audio.
    --out writes them as JSON."""
    limit: int = 500
    """Largest number of pairs. A pair is two views of one person, in one sitting (light, background) where the records
    name sittings. Records of a photo folder do not: their pairs are two photos of one person."""
    source_view: Literal["any", "frontal"] = "any"
    """Source of a pair from records: any other view of the target's sitting, or its most frontal neutral one."""
    seed: int = 0
    """Seed of the pairs, the samples and the bootstrap."""
    transport: bool = True
    """Transport z between the priors of source and target."""
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    metrics: Literal["all", "pixels"] = "all"
    """pixels: only PSNR, SSIM, sharpness and fine detail, which need no dlib and take seconds."""
    features: OptionalText = None
    """MODULE:FUNCTION from uint8 "n h w 3" to "n d": a network (Inception, LPIPS) for the Fréchet and kernel distances.
    Default: dlib's 128-d vectors."""
    out: Annotated[OptionalPath, tyro.conf.arg(aliases=("--json",))] = None
    """JSON report to write; - prints it in place of the lines."""
    markdown: OptionalPath = None
    """Markdown table to write."""
    figure: OptionalPath = None
    """PNG to write: ten pairs with the output of each method."""
    save_images: OptionalPath = None
    """Folder for every image: FOLDER/model/NAME.png, and the same under source, target, copy, warp, reconstruction."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"limit={self.limit}: must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must not be negative")
        self._check_video()
        if self.pairs is not None and self.source_view != "any":
            raise ValueError(f"source_view={self.source_view!r}: is only for records; --pairs names the sources itself")
        for name in ("out", "markdown", "figure"):
            path = getattr(self, name)
            if path is not None and path != STDOUT and path.is_dir():
                raise ValueError(f"{name}={str(path)!r}: is a folder; give a file name")
        if self.figure is not None:
            _check_picture(self.figure, 1, "figure")
        if self.save_images is not None and self.save_images.is_file():
            raise ValueError(f"save_images={str(self.save_images)!r}: is a file; give a folder name")
        self._check_outputs()

    def _check_video(self) -> None:
        if self.video is None:
            return
        other = [n for n in ("pairs", "markdown", "figure", "save_images", "features") if getattr(self, n) is not None]
        if other:
            raise ValueError(f"{other[0]}={str(getattr(self, other[0]))!r}: is for pairs; --video writes only --out")

    def _check_outputs(self) -> None:
        from ecvae_jax.data.photos.photo import PHOTO_SUFFIXES  # late: NumPy

        photos = list(self.pairs or ())
        inputs = _inputs(self.checkpoint, None if photos else self.data, *map(str, self.video or ()))
        outputs = [path for path in (self.out, self.markdown, self.figure) if path not in (None, STDOUT)]
        if len({path.resolve() for path in outputs}) < len(outputs):
            raise ValueError("out, markdown and figure: two of them are one file; give three names")
        for path in outputs:
            # Other files in a folder of photos, such as an earlier report, are no input.
            check_output(path, [*inputs, *photos] if path.suffix.lower() in PHOTO_SUFFIXES else inputs)
        if self.save_images is None:
            return
        for folder in (self.save_images / name for name in _IMAGE_FOLDERS):
            for place in map(Path, [*inputs, *photos]):
                if folder.exists() and (lies_in(folder, place) or lies_in(place, folder)):
                    raise ValueError(
                        f"save_images={str(self.save_images)!r}: {folder} shares files with {place}, which this "
                        "command reads; give another folder"
                    )


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
        _check_picture(self.file, 1, inputs=_inputs(self.checkpoint, self.data))

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


@dataclass(frozen=True)
class InfoOptions:
    """Describes a checkpoint or a records folder."""

    path: Annotated[Path, tyro.conf.Positional]
    """Working directory of a training, one step's folder in its `checkpoints`, or a records folder."""
    json: OptionalPath = None
    """JSON file to write; - prints it in place of the lines."""

    def __post_init__(self) -> None:
        check_json(self.json)
