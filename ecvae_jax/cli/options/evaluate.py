"""Options of `ecvae evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ecvae_jax.cli.options.kinds import STDOUT, OptionalPath, OptionalText, check_picture, inputs_of
from ecvae_jax.config import AdaptConfig
from ecvae_jax.files import check_output, lies_in

_IMAGE_FOLDERS = ("source", "target", "model", "plain", "copy", "warp", "reconstruction")
"""Folders of `evaluate --save-images`."""


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
            check_picture(self.figure, 1, "figure")
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
        inputs = inputs_of(self.checkpoint, None if photos else self.data, *map(str, self.video or ()))
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
