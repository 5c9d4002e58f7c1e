"""The network of a config as a figure: levels, widths, z's grid and where z enters, from the config's own numbers."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ecvae_jax.config import Config
from ecvae_jax.model.conditioning import sketch_channels
from ecvae_jax.model.cvae import init_params

_WIDTH, _TOP, _ROW, _BOTTOM = 1200, 206, 66, 176  # px
_LABEL, _DOWN, _UP, _Z, _FACE, _DRAW, _SKETCH = 20, 150, 292, 448, 628, 812, 1080  # px: the columns' centers
_APPEARANCE, _CODE, _STRUCTURE, _PRIOR, _IMAGE, _INK = "#cfe3f5", "#f7d9a8", "#d5ead2", "#eadcf0", "#f1f1f1", "#333333"
_PRIORS = {
    "equilibrium": "N( Σ $c_k$ $μ_k$,  Σ $c_k^2$ $σ_k^2$ I )  (Eq. 4)",
    "mixture": "Σ $c_k$ N( $μ_k$,  $σ_k^2$ I )  (Eq. 3)",
    "standard": "N( 0, I )  (Eq. 2)",
    "covariance": "N( Σ $c_k$ $μ_k$ + b,  Σ $c_k^2$ $Σ_k$ ),  fitted $Σ_k$",
}


def draw_architecture(config: Config, below: str = "") -> Any:
    """Returns a Matplotlib figure, 1200 px wide, with every number from the config; `below` is a line under it."""
    return _Drawing(config).draw(below)


def parameter_counts(config: Config) -> dict[str, int]:
    """Returns the number of parameters of each branch, `appearance` and `structure`; no array is made."""
    shapes = jax.eval_shape(lambda key: init_params(key, config.architecture), jax.random.key(0))
    return {name: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(branch)) for name, branch in shapes.items()}


class _Drawing:
    def __init__(self, config: Config) -> None:
        from matplotlib.figure import Figure

        self.config, self.model = config, config.model
        self.levels = len(config.model.widths)
        self.height = _TOP + _ROW * self.levels + _BOTTOM
        self.figure = Figure(figsize=(_WIDTH / 100, self.height / 100), dpi=100)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, _WIDTH), ylim=(self.height, 0))
        self.axes.set_axis_off()
        grid = config.model.z_grid
        self.z_level = config.model.level_sides.index(grid) if grid > 1 else self.levels - 1
        """The level whose maps z is read from; a z without places is read from the coarsest."""
        self.face = config.model.frame == "face"

    def draw(self, below: str) -> Any:
        points, maps = self.config.data.points, sketch_channels(self.config.architecture)
        size, patch = self.model.image_size, self.model.patch
        millions = {name: f"{count / 1e6:.2f} M parameters" for name, count in parameter_counts(self.config).items()}
        self._text((_DOWN + _UP) / 2, 24, "Appearance encoder  q( z | x, c )", 13, bold=True)
        self._text((_DOWN + _UP) / 2, 46, millions["appearance"], 9.5)
        self._text((_DRAW + _SKETCH) / 2, 24, "Structure U-Net  p( x | c, z )", 13, bold=True)
        self._text((_DRAW + _SKETCH) / 2, 46, millions["structure"], 9.5)
        read, drawn = f"with its sketch, {maps} maps", ""
        if self.face:
            read, drawn = "warped to the mean face", "blended with the texture"
        self._input(_DOWN, "photo", f"{size} × {size} × 3", read)
        self._input(_SKETCH, "sketch", f"{size} × {size} × {maps}", f"drawn from {points} landmarks")
        self._input(_DRAW, "drawn image", f"{size} × {size} × 3", drawn)
        for x in (_DOWN, _SKETCH):
            self._arrow((x, _TOP - 64), (x, self._y(0) - 19))
            self._text(x + 8, _TOP - 30, f"fold {patch} × {patch}", 9, "left")
        self._arrow((_DRAW, self._y(0) - 19), (_DRAW, _TOP - 64))
        self._text(_DRAW + 8, _TOP - 30, f"unfold {patch} × {patch}", 9, "left")
        for level, side in enumerate(self.model.level_sides):
            self._text(_LABEL, self._y(level), f"{side} × {side}", 10, "left")
            self._line((_LABEL, self._y(level) + _ROW / 2), (_WIDTH - 20, self._y(level) + _ROW / 2), "0.92")
        self._encoder()
        self._unet()
        self._z()
        self._prior(points)
        self._text(_LABEL, self.height - 18, below, 9, "left")
        return self.figure

    def _encoder(self) -> None:
        for level in range(self.levels):
            self._level(_DOWN, level, _APPEARANCE)
            if level:
                self._arrow((_DOWN, self._y(level - 1) + 17), (_DOWN, self._y(level) - 17))
        last = self.levels - 1
        if self.z_level == last:
            self._arrow((self._edge(_DOWN, last, 1), self._y(last)), (_Z - 72, self._y(last)))
            return
        for level in range(self.z_level, last):
            self._level(_UP, level, _APPEARANCE, blocks=1)
            self._across(_DOWN, _UP, level)
            if level < last - 1:
                self._arrow((_UP, self._y(level + 1) - 17), (_UP, self._y(level) + 17))
        self._bend((self._edge(_DOWN, last, 1), self._y(last)), (_UP, self._y(last - 1) + 17))
        self._arrow((self._edge(_UP, self.z_level, 1), self._y(self.z_level)), (_Z - 72, self._y(self.z_level)))

    def _unet(self) -> None:
        for level in range(self.levels):
            for x in (_SKETCH, _DRAW):
                self._level(x, level, _STRUCTURE)
            self._across(_SKETCH, _DRAW, level)
            if level:
                self._arrow((_SKETCH, self._y(level - 1) + 17), (_SKETCH, self._y(level) - 17))
                self._arrow((_DRAW, self._y(level) - 17), (_DRAW, self._y(level - 1) + 17))
        self._text((_DRAW + _SKETCH) / 2 + 4, self._y(0) - 14, "skip connections", 9)

    def _z(self) -> None:
        y, grid = self._y(self.z_level), self.model.z_grid
        channels = self.model.z_dim // grid**2
        shape = f"{grid} × {grid} × {channels}" if grid > 1 else "one vector"
        self._box(_Z, y, 140, 46, _CODE, f"z,  d = {self.model.z_dim}\n{shape}")
        if self.face:
            for level in range(self.z_level + 1):
                self._level(_FACE, level, _CODE)
                self._across(_FACE, _DRAW, level)
                if level:
                    self._arrow((_FACE, self._y(level) - 17), (_FACE, self._y(level - 1) + 17))
            self._arrow((_Z + 71, y), (self._edge(_FACE, self.z_level, -1), y))
            self._text(_FACE, _TOP - 32, "z in the face frame,\nlaid over the landmarks", 9.5)
        elif grid > 1:
            self._arrow((_Z + 71, y), (self._edge(_DRAW, self.z_level, -1), y))
            self._text((_Z + _DRAW) / 2 + 20, y - 14, "grid", 9.5)
        # the code (and the unrolled z) leave z at its lower edge, beside the arrow to the prior
        last = self._y(self.levels - 1) + _ROW / 2 + 2
        ways = "code in every block" if self.face else "code in every block; unrolled over the coarsest maps"
        self._line((_Z + 40, y + 24), (_Z + 40, last), _INK)
        self._line((_Z + 40, last), (_DRAW, last), _INK)
        self._arrow((_DRAW, last), (_DRAW, self._y(self.levels - 1) + 17))
        self._text(_Z + 48, last - 13, ways, 9.5, "left")

    def _prior(self, points: int) -> None:
        y, prior = self.height - 84, self.config.prior
        self._box(_DOWN, y, 170, 56, _PRIOR, f"landmarks\n{points} × 2")
        given = f"K = {self.config.clusters.count}, {self.config.clusters.mode}"
        self._box(_Z - 10, y, 210, 56, _PRIOR, f"cluster weights  $c_k$\n{given}")
        means = f"$|μ_k|$ = {prior.mean_norm:g},  $σ_k$ = {prior.stddev:g}{', learned' if prior.learned else ''}"
        lines = [f"{prior.kind} prior  p( z | c )", _PRIORS[prior.kind]]
        self._box(_DRAW, y, 350, 76, _PRIOR, "\n".join(lines if prior.kind == "standard" else [*lines, means]))
        self._arrow((_DOWN + 86, y), (_Z - 116, y))
        self._arrow((_Z + 96, y), (_DRAW - 176, y))
        top = self._y(self.levels - 1) + _ROW / 2 + 34
        self._line((_Z - 20, self._y(self.z_level) + 24), (_Z - 20, top), _INK, dashed=True)
        self._line((_Z - 20, top), (_DRAW - 110, top), _INK, dashed=True)
        self._line((_DRAW - 110, top), (_DRAW - 110, y - 38), _INK, dashed=True)
        self._text(_Z - 12, top - 12, "KL( q ‖ p ), Eq. 5", 9.5, "left")
        blocks = f"Number in a box: channels.\n× {self.model.blocks}: residual blocks of the level."
        self._text(_DRAW + 190, y, f"{blocks}\nFor another structure z moves\nfrom prior to prior.", 8.6, "left")

    def _y(self, level: int) -> float:
        return _TOP + _ROW * (level + 0.5) - 10

    def _span(self, level: int) -> float:
        return 64 + 60 * self.model.widths[level] / max(self.model.widths)

    def _edge(self, x: float, level: int, sign: int) -> float:
        return x + sign * (self._span(level) / 2 + 1)

    def _level(self, x: float, level: int, color: str, blocks: int | None = None) -> None:
        text = f"{self.model.widths[level]}  × {self.model.blocks if blocks is None else blocks}"
        self._box(x, self._y(level), self._span(level), 32, color, text)

    def _input(self, x: float, name: str, shape: str, note: str) -> None:
        self._box(x, 102, 196, 78, _IMAGE, "\n".join(filter(None, (name, shape, note))))

    def _box(self, x: float, y: float, width: float, height: float, color: str, text: str) -> None:
        from matplotlib.patches import FancyBboxPatch

        corner = (x - width / 2, y - height / 2)
        style = "round,pad=0,rounding_size=6"
        box = FancyBboxPatch(corner, width, height, style, facecolor=color, edgecolor=_INK, linewidth=0.9)
        self.axes.add_patch(box)
        self._text(x, y, text, 10.5)

    def _text(self, x: float, y: float, text: str, size: float, align: str = "center", bold: bool = False) -> None:
        how = {"fontsize": size * 0.86, "weight": "bold" if bold else "normal", "linespacing": 1.4, "color": _INK}
        self.axes.text(x, y, text, ha=align, va="center", **how)

    def _line(self, start: tuple[float, float], end: tuple[float, float], color: str, dashed: bool = False) -> None:
        xs, ys = zip(start, end, strict=True)
        self.axes.plot(xs, ys, color=color, linewidth=1.1, linestyle="--" if dashed else "-", zorder=0)

    def _arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        arrow = {"arrowstyle": "-|>", "color": _INK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
        self.axes.annotate("", end, start, arrowprops=arrow)

    def _across(self, start: float, end: float, level: int) -> None:
        sign = 1 if end > start else -1
        y = self._y(level)
        self._arrow((self._edge(start, level, sign), y), (self._edge(end, level, -sign), y))

    def _bend(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self._line(start, (end[0], start[1]), _INK)
        self._arrow((end[0], start[1]), end)
