"""The training stages of a `DenoisingGenerator`: codec (encoder in closed form, decoder by descent), then denoiser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from ubf_augment import seeding
from ubf_augment.files import OnDisk
from ubf_augment.generators._batches import Batches
from ubf_augment.generators.codec import AbundanceAutoencoder
from ubf_augment.seeding import derive_seed
from ubf_augment.training import (
    EMA,
    History,
    fit_loop,
    launch,
    make_fabric,
    read_checkpoint,
    warmup_constant,
    warmup_cosine,
)

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from ubf_augment.generators.denoising import DenoisingGenerator


def fit_denoiser(
    model: DenoisingGenerator,
    maps: Tensor | OnDisk,
    labels: Tensor | None,
    *,
    steps: int,
    batch_size: int,
    lr: float | None,
    seed: int,
    fabric: Fabric | None,
    checkpoint: Path | None,
    augment: bool,
    progress: bool,
    codec_steps: int | None = None,
    codec_lr: float = 2e-3,
    codec_batch_size: int = 32,
    warmup: int = 500,
    lr_schedule: Literal["cosine", "constant"] = "cosine",
    weight_decay: float = 0.01,
    ema_decay: float = 0.9995,
    save_every_s: float = 120.0,
) -> History:
    """Fit the codec's encoder (once), its decoder, then the denoiser; the last two resume on their own.

    A model that was fitted before keeps its encoder, so that its denoiser stays valid.

    Options of ``fit``:
        codec_steps: steps of the learned decoder; None: 1500 if it is new, 0 if it was fitted before.
        codec_lr, codec_batch_size: of the codec.
        warmup, lr_schedule, weight_decay, ema_decay: of the denoiser (lr defaults to 5e-4).
        save_every_s: seconds between checkpoints.

    Raises:
        TypeError: if the generator was distilled.
    """
    if model.times is not None:
        raise TypeError(
            "a distilled generator does not go on learning: fit the one that it was made of, and distil that again"
        )
    fabric = launch(make_fabric() if fabric is None else fabric)
    common: dict[str, Any] = {"fabric": fabric, "progress": progress, "save_every_s": save_every_s}
    model.to(fabric.device)
    batches = Batches(model, maps, labels, fabric.device, augment)
    new = not bool(model.codec.ready)
    if checkpoint is not None and checkpoint.exists():  # equal eigenvalues leave the basis open: take its own
        _restore_codec(model, checkpoint)
    elif new:
        model.codec.fit_linear(batches.sampled())
    extra: dict[str, Any] = {}
    if isinstance(model.codec, AbundanceAutoencoder):
        codec_steps = (1500 if new else 0) if codec_steps is None else codec_steps
        if codec_steps:
            path = None if checkpoint is None else codec_checkpoint(checkpoint)
            common.update(steps=codec_steps, batch_size=codec_batch_size, checkpoint=path)
            extra["codec"] = fit_decoder(
                model.codec, batches, lr=codec_lr, seed=derive_seed(seed, 10), **common
            ).to_dict()

    def loss_fn(denoiser: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            codes = model.codec.encode(batches(indices, generator))
        return model.denoising_loss(denoiser, codes, batches.classes(indices), generator)

    net = model.denoiser
    optimizer = torch.optim.AdamW(
        net.parameters(),
        lr=5e-4 if lr is None else lr,
        betas=(0.9, 0.99),
        weight_decay=weight_decay,
        fused=True,
    )
    ema = EMA(net, ema_decay)
    schedule = warmup_cosine(steps, warmup) if lr_schedule == "cosine" else warmup_constant(warmup)
    common.update(
        steps=steps, batch_size=batch_size, checkpoint=checkpoint, frozen=model.codec,
        identity=model._identity(maps, labels),
    )  # fmt: skip
    history = fit_loop(
        net, optimizer, loss_fn, num_items=len(maps), seed=seed, ema=ema, schedule=schedule,
        description="denoiser", **common,
    )  # fmt: skip
    ema.copy_to(net)
    model.eval()
    history.extra.update(extra)
    return history


def codec_checkpoint(path: Path) -> Path:
    """Where the codec's stage keeps its checkpoint, beside the denoiser's."""
    return path.with_name(f"{path.stem}.codec{path.suffix}")


def fit_decoder(
    codec: AbundanceAutoencoder,
    batches: Batches,
    *,
    steps: int,
    lr: float,
    seed: int,
    fabric: Fabric,
    **common: Any,
) -> History:
    """Train the codec's decoder on noisy codes; its averaged weights stay in ``codec``."""

    def loss_fn(module: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        a = batches(indices, generator)
        shape = (len(a), codec.channels, a.shape[2] // codec.factor, a.shape[3] // codec.factor)
        return cast(Tensor, module(a, seeding.randn(shape, generator, fabric.device)))

    optimizer = torch.optim.AdamW(codec.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    ema = EMA(codec, 0.998)
    schedule = warmup_cosine(steps, min(100, steps // 10))
    history = fit_loop(
        codec, optimizer, loss_fn, num_items=len(batches.maps), steps=steps, seed=seed, ema=ema, schedule=schedule,
        fabric=fabric, description="decoder", **common,
    )  # fmt: skip
    ema.copy_to(codec)
    return history


def _restore_codec(model: DenoisingGenerator, path: Path) -> None:
    state = read_checkpoint(path)
    try:
        model.codec.load_state_dict(state["frozen"])
    except (KeyError, AttributeError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"checkpoint {path} belongs to a model of another configuration: give another path, delete the "
            f"file, or build the model as it was ({error})"
        ) from error


def load_average(model: DenoisingGenerator, path: Path) -> int:
    """Write codec and averaged denoiser of a training checkpoint into ``model``."""
    state = read_checkpoint(path)
    average, codec = (state.get("ema") or {}).get("average", {}), state.get("frozen")
    parameters = dict(model.denoiser.named_parameters())
    if codec is None or {k: v.shape for k, v in average.items()} != {
        k: v.shape for k, v in parameters.items()
    }:
        raise ValueError(f"{path} is not a denoiser checkpoint of a model of this configuration")
    model.codec.load_state_dict(codec)
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(average[name])
    return int(state["step"])
