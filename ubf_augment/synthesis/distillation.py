"""`HSISynthesizer.distill`: the same scenes with fewer evaluations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ubf_augment.synthesis.model import HSISynthesizer

_RECORDED = ("guidance", "begin", "scenes", "steps", "batch_size", "lr", "seed")


def distill(synth: HSISynthesizer, evaluations: int, options: Mapping[str, Any]) -> HSISynthesizer:
    """See `HSISynthesizer.distill`."""
    start, generator = time.monotonic(), synth.generator
    teach: Any = getattr(generator, "distill", None)
    if teach is None:
        raise TypeError(
            f"{type(generator).__name__} does not denoise step by step: distil a bundle whose generator is ddpm or flow"
        )
    fast = teach(evaluations, **options)
    facts = {"evaluations": evaluations, **{k: options[k] for k in _RECORDED if k in options}}
    return type(synth)(
        synth.endmembers, fast.to(synth.device), unmixing=synth.unmixing, regression=synth.regression,
        residual=synth.residual, classes=synth.classes, class_endmembers=synth.class_endmembers,
        rgb_endmembers=synth.rgb_endmembers if synth.unmixing is None else None, rgb_scale=synth.rgb_scale,
        rgb_gamma=synth.rgb_gamma,
        card=synth.card | {"distillation": facts | {"seconds": round(time.monotonic() - start, 1)}},
    )  # fmt: skip
