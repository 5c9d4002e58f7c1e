"""The U-Net CVAE, its objective and its step in PyTorch, with our parameters: the other side of `torch_twin`.

Maps are tensors b c h w in channels-last memory. Parameters keep Flax's names in one flat dictionary and have PyTorch's
layouts. float32, z in the picture frame, the equilibrium prior of fixed means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ecvae_jax.config import Config
from ecvae_jax.model.blocks import GROUP_CHANNELS
from ecvae_jax.model.conditioning import Frozen
from ecvae_jax.objective import MIN_SCALE
from ecvae_jax.structure.scheme import get_scheme
from ecvae_jax.structure.sketch import curve_matrix

Params = dict[str, Tensor]


def check_supported(config: Config) -> None:
    """Raises ValueError for a setting that the twin lacks."""
    wanted = {
        "model.frame": (config.model.frame, "picture"),
        "model.posterior": (config.model.posterior, "relative"),
        "model.dtype": (config.model.dtype, "float32"),
        "prior.kind": (config.prior.kind, "equilibrium"),
        "prior.learned": (config.prior.learned, False),
        "sketch.channels": (config.sketch.channels, "boundary"),
        "clusters.mode": (config.clusters.mode, "centered"),
        "clusters.remove_roll": (config.clusters.remove_roll, False),
        "objective.likelihood": (config.objective.likelihood, "laplace"),
        "objective.scale": (config.objective.scale, None),
        "objective.perceptual_weight": (config.objective.perceptual_weight, 0.0),
        "data.color_jitter": (config.data.color_jitter, 0.0),
    }
    for name, (value, only) in wanted.items():
        if value != only:
            raise ValueError(f"{name}={value!r}: the PyTorch twin has only {only!r}")


def to_torch(params: Any) -> Params:
    """Returns Flax's parameters as trainable tensors: convolutions o i h w in channels-last memory, dense ones o i."""
    found = {}
    for path, value in jax.tree_util.tree_flatten_with_path(params)[0]:
        array = np.array(value)
        if array.ndim == 4:
            tensor = torch.from_numpy(array.transpose(3, 2, 0, 1).copy()).contiguous(memory_format=torch.channels_last)
        else:
            tensor = torch.from_numpy(array.T.copy())
        found["/".join(part.key for part in path)] = tensor.requires_grad_()
    return found


def last(maps: Tensor) -> Tensor:
    """Returns a view b h w c."""
    return maps.permute(0, 2, 3, 1)


def first(maps: Tensor) -> Tensor:
    """Returns the inverse of `last`."""
    return maps.permute(0, 3, 1, 2)


def fold(maps: Tensor, patch: int) -> Tensor:
    """Returns b h/patch w/patch c of maps b c h w, with the package's order of channels."""
    b, c, h, w = maps.shape
    squares = last(maps).reshape(b, h // patch, patch, w // patch, patch, c)
    return squares.transpose(2, 3).reshape(b, h // patch, w // patch, -1)


def unfold(maps: Tensor, patch: int) -> Tensor:
    """Returns b c/patch² h·patch w·patch of maps b c h w."""
    b, c, h, w = maps.shape
    squares = last(maps).reshape(b, h, w, patch, patch, c // patch**2)
    return first(squares.transpose(2, 3).reshape(b, h * patch, w * patch, -1))


class Network:
    """Both branches, as functions of the parameters."""

    def __init__(self, config: Config) -> None:
        check_supported(config)
        self.config = config.model

    def dense(self, params: Params, name: str, x: Tensor) -> Tensor:
        """Returns a dense layer over the last axis."""
        return F.linear(x, params[f"{name}/kernel"], params[f"{name}/bias"])

    def mixed(self, params: Params, name: str, maps: Tensor) -> Tensor:
        """Returns a dense layer over the channels of maps."""
        return first(self.dense(params, f"{name}/Dense_0", last(maps)))

    def conv(self, params: Params, name: str, maps: Tensor) -> Tensor:
        """Returns a 3×3 convolution."""
        return F.conv2d(maps, params[f"{name}/Conv_0/kernel"], params[f"{name}/Conv_0/bias"], padding=1)

    def activate(self, params: Params, name: str, maps: Tensor) -> Tensor:
        """Returns SiLU of GroupNorm."""
        groups = maps.shape[1] // GROUP_CHANNELS
        return F.silu(F.group_norm(maps, groups, params[f"{name}/scale"], params[f"{name}/bias"], 1e-6))

    def residual(self, params: Params, name: str, maps: Tensor, code: Tensor | None = None) -> Tensor:
        """Returns a residual block, as `model.blocks.Residual`."""
        branch = self.conv(params, f"{name}/Conv_0", self.activate(params, f"{name}/GroupNorm_0", maps))
        if code is not None:
            branch = branch + self.dense(params, f"{name}/Dense_0", code)[:, :, None, None]
        branch = self.conv(params, f"{name}/Conv_1", self.activate(params, f"{name}/GroupNorm_1", branch))
        if maps.shape[1] != branch.shape[1]:
            maps = self.mixed(params, f"{name}/Conv_2", maps)
        return (maps + branch) * 0.5**0.5

    def down(self, params: Params, branch: str, inputs: Tensor) -> list[Tensor]:
        """Returns the maps of every level, finest first."""
        model = self.config
        maps, levels, number = first(self.dense(params, f"{branch}/stem/Dense_0", fold(inputs, model.patch))), [], 0
        for level in range(len(model.widths)):
            if level:
                maps = first(self.dense(params, f"{branch}/Down_{level - 1}/Conv_0/Dense_0", fold(maps, 2)))
            for _ in range(model.blocks):
                maps = self.residual(params, f"{branch}/Residual_{number}", maps)
                number += 1
            levels.append(maps)
        return levels

    def encode(self, params: Params, image: Tensor, sketch: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log-variance in units of the prior, b d."""
        model = self.config
        inputs = torch.cat([image, sketch], 1).contiguous(memory_format=torch.channels_last)
        levels = self.down(params, "appearance", inputs)
        maps, number = levels.pop(), len(model.widths) * model.blocks
        while model.z_grid > 1 and maps.shape[-1] < model.z_grid:
            joined = torch.cat([F.interpolate(maps, scale_factor=2, mode="nearest"), levels.pop()], 1)
            maps = self.residual(params, f"appearance/Residual_{number}", joined)
            number += 1
        code = last(maps).flatten(1) if model.z_grid == 1 else last(maps)
        mean, logvar = (self.dense(params, f"appearance/{name}", code).flatten(1) for name in ("mean", "logvar"))
        return mean, logvar

    def decode(self, params: Params, z: Tensor, sketch: Tensor) -> Tensor:
        """Returns the mean image, b 3 h w; z has unit scale."""
        model = self.config
        levels = self.down(params, "structure", sketch)
        code = F.silu(self.dense(params, "structure/code", z))
        side, number = model.level_sides[-1], len(model.widths) * model.blocks
        unrolled = first(self.dense(params, "structure/unrolled", z).reshape(len(z), side, side, -1))
        maps = torch.cat([levels.pop(), unrolled], 1)
        for level in reversed(range(len(model.widths))):
            if levels and level < len(model.widths) - 1:
                maps = torch.cat([F.interpolate(maps, scale_factor=2, mode="nearest"), levels.pop()], 1)
            if model.z_grid > 1 and model.level_sides[level] == model.z_grid:
                grid = first(z.reshape(len(z), model.z_grid, model.z_grid, -1))
                maps = self.mixed(params, "structure/grid", torch.cat([maps, grid], 1))
            for _ in range(model.blocks):
                maps = self.residual(params, f"structure/Residual_{number}", maps, code)
                number += 1
        return torch.tanh(unfold(self.conv(params, "structure/image", F.silu(maps)), model.patch))


class Prior(NamedTuple):
    """The equilibrium prior of each face."""

    mean: Tensor
    logvar: Tensor


class Outputs(NamedTuple):
    """What the twin computes of a batch; all but the image are one value per face."""

    image: Tensor
    recon_nll: Tensor
    kl: Tensor
    loss: Tensor
    posterior: Prior


class Twin:
    """The network with its frozen part, sketch and objective; `step` is Adam, clipping and the moving average."""

    def __init__(self, config: Config, params: Any, frozen: Frozen) -> None:
        self.config, self.network, self.params = config, Network(config), to_torch(params)
        tensors = jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)), frozen)
        self.clusters, self.means, self.stddev = tensors.clusters, tensors.cluster_means, tensors.cluster_stddev
        self.z_scale = tensors.z_scale
        self.curves = []
        for _, curve in get_scheme(config.data.points).boundaries:
            weights = curve_matrix(len(curve), config.sketch.samples_per_span).astype(np.float32)
            self.curves.append((torch.tensor(list(curve)), torch.from_numpy(weights)))
        window = np.exp(-((np.arange(7) - 3) ** 2) / (2 * 1.5**2))
        side = config.model.image_size
        banded = np.stack([np.pad(window / window.sum(), (row, side - 7 - row)) for row in range(side - 6)])
        self.window = torch.from_numpy(banded.astype(np.float32))
        values = list(self.params.values())
        self.ema = [value.detach().clone() for value in values]
        self.optimizer = torch.optim.Adam(values, lr=config.optim.learning_rate, fused=True)

    def sketch(self, landmarks: Tensor, pieces_at_once: int = 8) -> Tensor:
        """Returns b s h w; a compiler fuses the minimum, so it gets all pieces of a boundary at once."""
        size = self.config.model.image_size
        scale = 1 / (2**0.5 * self.config.sketch.sigma)
        centers = scale * (torch.arange(size) + 0.5) / size
        x, y = centers[None, None, None, :], centers[None, None, :, None]
        maps = []
        for points, weights in self.curves:
            samples = scale * (weights @ landmarks[:, points])
            nearest = None
            for begin in range(0, len(weights) - 1, pieces_at_once):
                ends = samples[:, begin : begin + pieces_at_once + 1, :, None, None]
                start, along = ends[:, :-1], ends[:, 1:] - ends[:, :-1]
                dx, dy = along[:, :, 0], along[:, :, 1]
                from_x, from_y = x - start[:, :, 0], y - start[:, :, 1]
                place = (from_x * dx + from_y * dy) / (dx * dx + dy * dy).clamp_min(1e-12)
                place = place.clamp(0.0, 1.0)
                square = ((from_x - place * dx).square() + (from_y - place * dy).square()).amin(1)
                nearest = square if nearest is None else torch.minimum(nearest, square)
            maps.append(nearest)
        return torch.exp(-torch.stack([each for each in maps if each is not None], 1))

    def prior(self, landmarks: Tensor) -> Prior:
        """Returns the equilibrium prior (Eq. 4)."""
        shapes = landmarks - landmarks[:, :1]
        shapes = shapes - shapes.mean(1, keepdim=True)
        shapes = shapes * torch.rsqrt(shapes.square().sum(-1, keepdim=True).mean(1, keepdim=True).clamp_min(1e-12))
        centers = self.clusters.centers - self.clusters.mean_shape
        faces, centers = (F.normalize(each.flatten(1), dim=1) for each in (shapes - self.clusters.mean_shape, centers))
        cosine = faces @ centers.T
        similar = cosine > 1e-6
        logits = torch.where(similar, cosine, 1.0).log() / self.config.clusters.temperature
        logits = torch.where(similar, logits, -torch.inf)
        weights = torch.where(similar.any(-1, keepdim=True), logits, 0.0).softmax(-1)
        variance = (weights * self.stddev).square().sum(-1, keepdim=True)
        mean = weights @ self.means
        return Prior(mean, variance.log().expand_as(mean))

    def loss(
        self,
        params: Params,
        batch: Mapping[str, Tensor],
        noise: Tensor,
        beta: float = 1.0,
        sketches: tuple[Tensor, Tensor] | None = None,
        pieces_at_once: int = 8,
    ) -> Outputs:
        """Returns the outputs for a batch of `data.batches`; without a source, both views are one.

        Args:
            batch: images uint8 b h w 3.
            sketches: of source and target, given instead of drawn.
        """
        pair = "source_image" in batch
        pixels = first(batch["image"].float() / 127.5 - 1.0)
        source_pixels = first(batch["source_image"].float() / 127.5 - 1.0) if pair else pixels
        target = self.prior(batch["landmarks"])
        source = self.prior(batch["source_landmarks"]) if pair else target
        if sketches is None:
            drawn = self.sketch(batch["landmarks"], pieces_at_once)
            sketches = (self.sketch(batch["source_landmarks"], pieces_at_once) if pair else drawn), drawn
        mean, logvar = self.network.encode(params, source_pixels, sketches[0])
        posterior = Prior(source.mean + torch.exp(0.5 * source.logvar) * mean, source.logvar + logvar)
        z = posterior.mean + torch.exp(0.5 * posterior.logvar) * noise
        kl = 0.5 * (torch.expm1(logvar) - logvar + mean.square()).sum(-1)
        moved = target.mean + torch.exp(0.5 * (target.logvar - source.logvar)) * (z - source.mean)
        image = self.network.decode(params, moved / self.z_scale, sketches[1])
        error, settings = (image - pixels).abs(), self.config.objective
        scale, values = error.detach().mean().clamp_min(MIN_SCALE), math.prod(error.shape[1:])
        nll = error.sum((1, 2, 3)) / scale + values * torch.log(2 * scale)
        loss = nll + beta * kl
        if settings.ssim_weight:
            loss = loss + settings.ssim_weight * values / scale * (1.0 - self.similarity(image, pixels))
        return Outputs(image, nll, kl, loss, posterior)

    def similarity(self, one: Tensor, other: Tensor) -> Tensor:
        """Returns the SSIM per image, as `model.ssim`."""
        stack = torch.stack([one, other, one * one + other * other, one * other])
        mean1, mean2, squares, product = self.window @ stack @ self.window.T
        c1, c2 = (0.01 * 2.0) ** 2, (0.03 * 2.0) ** 2
        means = mean1 * mean1 + mean2 * mean2
        covariance = product - mean1 * mean2
        top = (2 * mean1 * mean2 + c1) * (2 * covariance + c2)
        return (top / ((means + c1) * ((squares - means).clamp_min(0.0) + c2))).mean((1, 2, 3))

    def update(self) -> None:
        """Applies the gradient: clipping, Adam and the moving average."""
        values, optim = list(self.params.values()), self.config.optim
        norm = torch.nn.utils.clip_grad_norm_(values, optim.clip_norm or math.inf, foreach=True)
        self.optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            self.ema, [value.detach() for value in values], 1.0 - optim.ema_decay
        )
