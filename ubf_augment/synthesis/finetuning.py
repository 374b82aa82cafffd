"""`HSISynthesizer.finetune`: the generator goes on learning, on the user's own images and classes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ubf_augment import simplex
from ubf_augment.errors import LabelError, NoDataError
from ubf_augment.labels import ClassIndex
from ubf_augment.synthesis.maps import quantise
from ubf_augment.unmixing import RGBRegression

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from ubf_augment.synthesis.model import HSISynthesizer

_CHUNK = 32


def finetune(
    synth: HSISynthesizer,
    images: Tensor,
    labels: Tensor | Sequence[int],
    classes: Sequence[str],
    class_map: Mapping[str, str] | None,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    fabric: Fabric | None,
    checkpoint: Path | None,
    progress: bool,
    options: Mapping[str, Any],
) -> HSISynthesizer:
    """See `HSISynthesizer.finetune`."""
    begin = time.monotonic()
    y = torch.as_tensor(labels, dtype=torch.int64).cpu()
    if not len(images):
        raise NoDataError("there are no images to fine-tune on")
    if len(y) != len(images) or not 0 <= int(y.min()) <= int(y.max()) < len(classes):
        raise LabelError(f"one label in 0..{len(classes) - 1} for each of {len(images)} images is needed")
    index = ClassIndex.match(synth.classes, classes, class_map)
    start = [None if k < 0 else int(k) for k in index.source.tolist()]
    generator = synth.generator.for_classes(start)
    maps = abundance_maps(synth, images, torch.tensor([-1 if k is None else k for k in start])[y])
    generator.fit(
        maps, labels=y, steps=steps, batch_size=batch_size, lr=lr, seed=seed, fabric=fabric,
        checkpoint=checkpoint, progress=progress, **options,
    )  # fmt: skip
    own = {
        i: synth.class_endmembers[k]
        for i, k in enumerate(start)
        if k is not None and k in synth.class_endmembers
    }
    facts = {
        "images": len(images), "steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed,
        "began as": {c: None if k is None else synth.classes[k] for c, k in zip(index.names, start, strict=True)},
        "seconds": round(time.monotonic() - begin, 1),
    }  # fmt: skip
    # The generator has learned maps of the sensor itself, and is in the regression's abundance space now.
    encoder = synth.unmixing if synth.regression is None else synth.regression
    if isinstance(encoder, RGBRegression):
        encoder = encoder.for_classes(start) if encoder.num_classes else encoder
    elif encoder is not None and encoder.config.get("num_classes") is not None:
        encoder = None  # an RGB encoder that takes the former classes
    return type(synth)(
        synth.endmembers,
        generator.cpu().to(synth.device),
        unmixing=encoder,
        residual=synth.residual,
        classes=index.names,
        class_endmembers=own,
        rgb_endmembers=synth.rgb_endmembers if encoder is None else None,
        rgb_scale=synth.rgb_scale,
        rgb_gamma=synth.rgb_gamma,
        card=synth.card | {"finetuning": facts},
    )


@torch.no_grad()
def abundance_maps(
    synth: HSISynthesizer, images: Float[Tensor, "n c h w"], known: Int64[Tensor, " n"]
) -> UInt8[Tensor, "n p i j"]:
    """Unmix images and bring them to the generator's size: uint8 (N, P, H, W) that sum to 255.

    Args:
        synth: unmixes them.
        images: (N, C, H, W) reflectance.
        known: (N,) the synthesizer's class of each, -1 for none: classes with endmembers of their own are unmixed by them.
    """
    out = []
    for x, k in zip(torch.split(images, _CHUNK), torch.split(known, _CHUNK), strict=True):
        a = synth.unmix(x)
        for slot in set(k.tolist()) & set(synth.class_endmembers):
            rows = k == slot
            a[rows.to(a.device)] = synth.unmix(x[rows], k[rows])
        out.append(quantise(simplex.resize(a, synth.generator.size)).cpu())
    return torch.cat(out)
