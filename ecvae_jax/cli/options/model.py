"""Options of the subcommands that take a trained model: transfer, sample, evaluate, figure, export, info."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ecvae_jax.config import AdaptConfig


def _check_picture(out: Path, enlarge: int, name: str = "out") -> None:
    if out.suffix.lower() != ".png":
        raise ValueError(f"{name}={str(out)!r}: the name must end in .png")
    if enlarge < 1:
        raise ValueError(f"enlarge={enlarge}: must be at least 1")


@dataclass(frozen=True)
class TransferOptions:
    """Draws every source's appearance under every target's structure, as one PNG."""

    source: tuple[str, ...]
    """Appearances: photos, or faces of records as RECORDS:SPLIT:INDICES (rendered:test:0,24)."""
    target: tuple[str, ...]
    """Structures, given like the sources."""
    checkpoint: Path | None = None
    """Working directory of a training, or one step's folder in it; left out: the model that is shipped."""
    out: Path = Path("transfer.png")
    """PNG to be written: targets and their sketches above, sources with their sketches at the left."""
    transport: bool = True
    """Move z along from the prior of the source's structure to that of the target's."""
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    enlarge: int = 1
    """Repeat every pixel so many times, for looking at small faces."""

    def __post_init__(self) -> None:
        """Refuses what cannot be drawn or written, before anything is loaded."""
        _check_picture(self.out, self.enlarge)


@dataclass(frozen=True)
class SampleOptions:
    """Draws appearances from the prior, or like the training faces', under given structures, as one PNG."""

    structure: tuple[str, ...]
    """Structures: photos, or faces of records as RECORDS:SPLIT:INDICES."""
    checkpoint: Path | None = None
    """Working directory of a training, or one step's folder in it; left out: the model that is shipped."""
    n: int = 8
    """Samples per structure."""
    seed: int = 0
    """Seed of the draws."""
    source: Annotated[Literal["prior", "posterior"], tyro.conf.arg(name="from")] = "prior"
    """prior: as the paper has it. posterior: from a density fitted to the posteriors of the training faces, after the
    training (Ghosh et al. 2020): faces like those of the training people, and far more often faces."""
    data: str | None = None
    """Records to fit that density on (split train); by default it is the one stored with the model, or fitted on the
    records of the training."""
    temperature: float = 1.0
    """How far from the mean it is drawn, as a factor: below 1 draws are more alike and more average."""
    out: Path = Path("sample.png")
    """PNG to be written: a structure a row, its sketch first."""
    enlarge: int = 1
    """Repeat every pixel so many times, for looking at small faces."""

    def __post_init__(self) -> None:
        """Refuses what cannot be drawn or written, before anything is loaded."""
        _check_picture(self.out, self.enlarge)
        if self.n < 1:
            raise ValueError(f"n={self.n}: must be at least 1")
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature}: must be 0 or more")
        if self.data is not None and self.source == "prior":
            raise ValueError(f"data={self.data!r}: a prior is fitted to no faces; give --from posterior too")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must not be negative")


@dataclass(frozen=True)
class EvaluateOptions:
    """Measures reconstruction, and transfer to true images of the same person beside copying and warping the source.

    The JSON has `model`, `copy` and `warp` (and `plain`, `reconstruction`), each with `pairs`, `psnr` (dB), `ssim`,
    `identity` (distance of dlib's 128-d vectors to the true person; below 0.6 is the same one), `nme` (68-point error
    over the distance of the outer eye corners, a fraction: 0.03 is 3%), `face_found` (a fraction), and `..._ci`, the
    95% interval over people. docs/evaluation.md tells all of it.
    """

    checkpoint: Path | None = None
    """Working directory of a training, or one step's folder in it; left out: the model that is shipped."""
    data: str = "rendered"
    """Records folder, or "rendered"."""
    split: str = "test"
    """Split of the records; its people should not have been trained on."""
    pairs: tuple[Path, Path] | None = None
    """Two folders of photos instead of records, SOURCES TARGETS: files of the same name are the same person."""
    limit: int = 500
    """At most so many pairs: two views of one person in one sitting (light, background), where the records know
    sittings; of photo folders they know only the person, and copy and transfer are then scored across photos."""
    source_view: Literal["any", "frontal"] = "any"
    """Of records: any other view of the target's sitting, or its most frontal neutral one."""
    seed: int = 0
    """Seed of the choice of pairs, of the samples and of the bootstrap."""
    transport: bool = True
    """Move z along between priors."""
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    metrics: Literal["all", "pixels"] = "all"
    """pixels: PSNR and SSIM only, which needs no dlib and takes seconds."""
    features: str | None = None
    """MODULE:FUNCTION from uint8 n h w 3 to n d: a network of yours (Inception, LPIPS) for the Fréchet and kernel
    distances, which are measured on dlib's 128-d vectors otherwise."""
    out: Path | None = None
    """JSON report to be written as well."""
    markdown: Path | None = None
    """Markdown table to be written as well."""
    figure: Path | None = None
    """PNG to be written: ten pairs with what each method made of them."""
    save_images: Path | None = None
    """Folder for every output: FOLDER/model/NAME.png, and source, target, copy, warp, reconstruction beside it."""

    def __post_init__(self) -> None:
        """Refuses what cannot be measured or written, before anything is loaded."""
        if self.limit < 1:
            raise ValueError(f"limit={self.limit}: must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must not be negative")
        if self.pairs is not None and self.source_view != "any":
            raise ValueError(f"source_view={self.source_view!r}: is for records; SOURCES are the sources of pairs")
        for name in ("out", "markdown", "figure"):
            path = getattr(self, name)
            if path is not None and path.is_dir():
                raise ValueError(f"{name}={str(path)!r}: is a folder; give the name of a file")
        if self.figure is not None:
            _check_picture(self.figure, 1, "figure")
        if self.save_images is not None and self.save_images.is_file():
            raise ValueError(f"save_images={str(self.save_images)!r}: is a file; give the name of a folder")


@dataclass(frozen=True)
class FigureOptions:
    """Draws a figure of the paper: 2 latent space, 3a emotion transfer, 3b conditional pose generation."""

    which: Annotated[Literal["2", "3a", "3b", "model"], tyro.conf.Positional]
    """The number of the figure in the paper."""
    checkpoint: Path | None = None
    """Working directory of a training, or one step's folder in it; left out: the model that is shipped."""
    out: Path | None = None
    """PNG to be written; figure2.png, figure3a.png or figure3b.png by default."""
    data: str = "rendered"
    """Records folder, or "rendered"; its faces are chosen by their tags yaw and expression."""
    split: str = "test"
    """Split of the records; its people should not have been trained on."""

    def __post_init__(self) -> None:
        """Refuses what cannot be written, before anything is loaded."""
        _check_picture(self.file, 1)

    @property
    def file(self) -> Path:
        """The PNG to be written."""
        return self.out or Path(f"figure{self.which}.png")


@dataclass(frozen=True)
class ExportOptions:
    """Writes what synthesis needs of a checkpoint as a small one: parameters in half precision, no optimizer."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """Working directory of a training, or one step's folder in its `checkpoints`."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder to be written; --checkpoint takes it."""
    half: bool = True
    """Store float16 instead of float32; what is read is float32 again."""
    density: int = 0
    """Store a density of the training faces' appearances with the model, of this rank (64), for `ecvae sample --from
    posterior` where the records are not at hand. 0: keep the one that is there, if any."""
    data: str | None = None
    """Records to fit it on; those of the training by default."""

    def __post_init__(self) -> None:
        """Refuses what cannot be fitted, before anything is loaded."""
        if self.density < 0:
            raise ValueError(f"density={self.density}: must be 0 (none) or a rank of at least 1")
        if self.data is not None and not self.density:
            raise ValueError(f"data={self.data!r}: is for a density; give its rank too, --density 64")


@dataclass(frozen=True)
class InfoOptions:
    """Tells what a checkpoint or a records folder holds."""

    path: Annotated[Path, tyro.conf.Positional]
    """Working directory of a training, one step's folder in its `checkpoints`, or a records folder."""
