"""Training of an `UnmixingModel`: what a batch is, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ubf_augment import simplex
from ubf_augment.errors import BandCountError, LabelError, NoDataError, ShapeError
from ubf_augment.files import strided
from ubf_augment.losses import charbonnier, endmember_tv, spectral_angle
from ubf_augment.mixing import mix
from ubf_augment.training import History, digest, fit_loop, warmup_cosine

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from ubf_augment.unmixing.model import UnmixingModel

_PICTURE_WEIGHT = 0.5
_ABUNDANCE_WEIGHT = 0.1
_FORGOTTEN = 0.1
Pictures = Tensor | Sequence[Tensor]
BRIGHTNESS = 0.3
"""Largest absolute logarithm of the scale of a training crop."""


class _Objective(nn.Module):
    """The loss of one batch as a module, so that precision and several devices apply to it."""

    def __init__(
        self, model: UnmixingModel, scale: float, angle_weight: float, variation_weight: float
    ) -> None:
        super().__init__()
        self.model, self.scale = model, scale
        self.angle_weight, self.variation_weight = angle_weight, variation_weight

    def reconstruction(self, a: Tensor, spectra: Tensor, x: Tensor) -> Tensor:
        """Charbonnier (in units of the sensor's brightness) + weighted spectral angle."""
        made = mix(a.float(), spectra)
        return charbonnier(made / self.scale, x / self.scale) + self.angle_weight * spectral_angle(made, x)

    def forward(self, x: Tensor, y: Tensor | None, rgb: Tensor | None, rgb_y: Tensor | None) -> Tensor:
        """Full-spectrum reconstruction by both encoders, agreement of their abundances, reproduction of RGB pictures."""
        m = self.model
        spectra, bands = m.spectra, list(m.rgb_index)
        a = m.unmix(x)
        loss = self.reconstruction(a, spectra, x) + self.variation_weight * endmember_tv(spectra / self.scale)
        fixed = spectra.detach()
        mean, log_std = m.rgb_encoder.logits(x[:, bands], y, m.rgb_start(x[:, bands]))
        target = a.detach()
        loss = loss + self.reconstruction(simplex.from_logits(mean.float()), fixed, x)
        if log_std is None:
            loss = loss + _ABUNDANCE_WEIGHT * (simplex.from_logits(mean.float()) - target).abs().sum(1).mean()
        else:
            centred = mean - mean.mean(1, keepdim=True)
            z = (simplex.to_logits(target, eps=1e-3) - centred) * torch.exp(-log_std)
            loss = loss + _ABUNDANCE_WEIGHT * (0.5 * z.square() + log_std).mean()
        if rgb is not None:
            made = mix(m.rgb_encoder(rgb, rgb_y, start=m.rgb_start(rgb)).float(), fixed[:, bands])
            loss = loss + _PICTURE_WEIGHT * charbonnier(made / self.scale, rgb / self.scale)
        return loss


def fit_unmixing(
    model: UnmixingModel, hsis: Sequence[Tensor], rgb: Pictures | None, labels: Tensor | None, rgb_labels: Tensor | None, *,
    steps: int, batch_size: int, crop: int, lr: float, endmember_lr: float, learn_endmembers: bool, angle_weight: float,
    variation_weight: float, seed: int, fabric: Fabric | None, checkpoint: Path | None, progress: bool,
) -> History:  # fmt: skip
    """See `UnmixingModel.fit`."""
    sizes, areas = _check(model, hsis, rgb, labels, rgb_labels)
    spectra = (h.flatten(1).T for h in hsis)
    pixels = strided(spectra, max(1, sum(sizes) // 200_000), sum(sizes))
    device = next(model.parameters()).device
    model.hsi_encoder.set_statistics(pixels)
    shown = () if rgb is None else (p.flatten(1).T for p in rgb)
    colours = [] if rgb is None else [strided(shown, max(1, sum(areas) // 200_000), sum(areas))]
    model.rgb_encoder.set_statistics(torch.cat([pixels[:, list(model.rgb_index)], *colours]))
    model.set_regression(pixels.T[None, :, :, None].float().to(device))
    scale = float(pixels.mean(1).quantile(0.95)) if len(pixels) < 2**24 else 1.0
    objective = _Objective(model, max(scale, 1e-6), angle_weight, variation_weight)
    # Brightness is free where shade is an endmember: scaled pixels are valid training pixels. Wider scales serve other
    # scenes and cost accuracy on these.
    spread = BRIGHTNESS if model.shade else 0.0

    def loss_fn(module: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        x, y = scaled_crops(hsis, labels, len(indices), crop, generator, spread)
        other: tuple[Any, Any] = (None, None)
        if rgb is not None:
            other = _crops(rgb, rgb_labels, len(indices), crop, generator)
        unknown = model.rgb_encoder.num_classes
        other = (other[0], _forget(other[1], unknown, generator))
        y = _forget(y, unknown, generator)
        target = next(module.parameters()).device
        batch = [None if v is None else v.to(target) for v in (x, y, *other)]
        return module(*batch)  # type: ignore[no-any-return]

    model.theta.requires_grad_(learn_endmembers)
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in model.named_parameters() if n != "theta"], "lr": lr}
    ]
    if learn_endmembers:
        groups.append({"params": [model.theta], "lr": endmember_lr})
    history = fit_loop(
        objective, torch.optim.Adam(groups, betas=(0.9, 0.99)), loss_fn, steps=steps, num_items=max(steps, batch_size),
        batch_size=batch_size, seed=seed, fabric=fabric, schedule=warmup_cosine(steps, min(50, steps // 10)),
        checkpoint=checkpoint, identity={"pixels": digest(pixels), "areas": sum(areas)}, progress=progress,
        description="unmixing",
    )  # fmt: skip
    model.theta.requires_grad_(True)
    model.to(device).eval()
    return history


def scaled_crops(
    images: Sequence[Tensor] | Tensor, labels: Tensor | None, n: int, size: int, generator: torch.Generator,
    spread: float = BRIGHTNESS,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Cut ``n`` random crops, flipped and turned; half of them are scaled by exp(u), u uniform in ±``spread``."""
    x, y = _crops(images, labels, n, size, generator)
    gain = torch.exp((torch.rand(len(x), 1, 1, 1, generator=generator) * 2 - 1) * spread)
    keep = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    return x * torch.where(keep, torch.ones_like(gain), gain).to(x.device), y


def _crops(
    images: Sequence[Tensor] | Tensor, labels: Tensor | None, n: int, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Cut ``n`` random crops, flipped and turned at random."""
    which = torch.randint(len(images), (n,), generator=generator)
    side = min(size, *(min(images[int(i)].shape[1:]) for i in which))
    out = []
    for i in which.tolist():
        h, w = images[i].shape[1:]
        top, left = (int(torch.randint(v - side + 1, (1,), generator=generator)) for v in (h, w))
        flips = torch.rand(3, generator=generator) < 0.5
        x = images[i][:, top : top + side, left : left + side]
        x = x.flip([d + 1 for d in range(2) if flips[d]])
        out.append(x.transpose(1, 2) if flips[2] else x)
    return torch.stack(out).float(), None if labels is None else labels[which]


def _forget(y: Tensor | None, unknown: int | None, generator: torch.Generator) -> Tensor | None:
    """Replace a tenth of the classes by "unknown", so that the encoder learns what to do without a class."""
    if y is None or unknown is None:
        return y
    return torch.where(torch.rand(len(y), generator=generator) < _FORGOTTEN, unknown, y)


def _check(
    model: UnmixingModel,
    hsis: Sequence[Tensor],
    rgb: Pictures | None,
    labels: Tensor | None,
    rgb_labels: Tensor | None,
) -> tuple[list[int], list[int]]:
    """Look once at every image; gives the pixels of each HSI and picture."""
    if not len(hsis):
        raise ShapeError("unmixing needs at least one hyperspectral image")
    if rgb is not None and not len(rgb):
        raise ShapeError("there are no RGB pictures: give at least one, or None")
    bands = len(model.wavelengths)
    sizes = [_check_image(hsis[i], bands, f"hyperspectral image {i}") for i in range(len(hsis))]
    areas = [] if rgb is None else [_check_image(rgb[i], 3, f"RGB picture {i}") for i in range(len(rgb))]
    _check_labels(model, labels, len(hsis), "hyperspectral images")
    _check_labels(model, rgb_labels, len(areas), "RGB pictures")
    return sizes, areas


def _check_image(x: Tensor, bands: int, what: str) -> int:
    """Give the number of pixels of a sound image."""
    if x.ndim != 3:
        raise ShapeError(f"{what} must be (C, H, W), got {tuple(x.shape)}")
    if len(x) != bands and what.startswith("RGB"):
        raise ShapeError(f"{what} must be (3, H, W), got {tuple(x.shape)}")
    if len(x) != bands:
        raise BandCountError(f"{what} has {len(x)} bands, the endmembers {bands}")
    if not torch.isfinite(x).all():
        raise NoDataError(f"{what} holds NaN or infinite pixels: crop or fill them before training")
    return x.shape[1] * x.shape[2]


def _check_labels(model: UnmixingModel, labels: Tensor | None, count: int, what: str) -> None:
    if labels is None:
        return
    classes = model.rgb_encoder.num_classes
    if classes is None:
        raise LabelError(f"labels of the {what} are of no use: build the model with num_classes")
    if labels.shape != (count,):
        raise LabelError(f"labels of shape {tuple(labels.shape)} for {count} {what}")
    if count and not 0 <= int(labels.min()) <= int(labels.max()) <= classes:
        raise LabelError(f"labels of the {what} must be integers from 0 to {classes} ({classes}: unknown)")
