"""Progressive distillation: a copy of a denoising generator that takes one evaluation where its teacher takes two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from ubf_augment import seeding
from ubf_augment.generators._batches import Batches
from ubf_augment.seeding import derive_seed, per_sample
from ubf_augment.training import EMA, fit_loop, launch, make_fabric, warmup_cosine

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from ubf_augment.generators.denoising import DenoisingGenerator

_SCENES, _TRAINING = 1, 2  # independent streams of random numbers of one seed
_CHUNK = 32


def distill(
    teacher: DenoisingGenerator,
    evaluations: int = 2,
    *,
    maps: Shaped[Tensor, "n p h w"] | None = None,
    labels: Int64[Tensor, " n"] | None = None,
    begin: int = 8,
    scenes: int = 2048,
    guidance: float | None = None,
    steps: int = 500,
    batch_size: int = 32,
    lr: float = 2e-4,
    seed: int = 0,
    fabric: Fabric | None = None,
    checkpoint: Path | str | None = None,
    progress: bool = True,
) -> DenoisingGenerator:
    """Distil a generator to few evaluations, halving their number stage by stage.

    In each stage a student that begins as its teacher learns to reach in one step what the teacher reaches in two. From z_t,
    the teacher advances to z_m and z_s (`DenoisingGenerator.advance`); one step that ends there as well goes through

        ẑ₀ = (z_s − (σₛ/σₜ) z_t) / (αₛ − (σₛ/σₜ) αₜ),

    and the student's prediction is drawn towards the one that gives this ẑ₀, by least squares. Guidance goes into the first
    student. No training data are needed: the codes that noise is added to are those of scenes that the teacher draws.

    Args:
        teacher: stays as it is.
        evaluations: of the copy: 1, 2, 4, …
        maps: real maps instead of drawn ones, as for ``fit``.
        labels: their classes.
        begin: evaluations of the first teacher; raised to ``evaluations`` times a power of two.
        scenes: how many are drawn.
        guidance: of the first teacher; its own by default.
        steps: optimiser steps of each stage.
        batch_size: maps per step.
        lr: peak learning rate.
        seed: of the scenes and the training.
        fabric: devices and precision.
        checkpoint: file to go on from after an interruption; each stage writes one of its own beside it.
        progress: show progress bars.

    Returns:
        A generator whose samples take so many evaluations, no guidance, and no other number of steps; it cannot edit or
        be fitted further.

    Raises:
        ValueError: if ``evaluations`` or ``scenes`` is not positive, or the teacher was distilled before.
        ShapeError, SimplexError, MissingLabelError, LabelError: for maps and labels that do not fit.

    Source: Salimans and Ho 2022, progressive distillation, arXiv:2202.00512; Meng et al. 2023, guidance,
    doi:10.1109/CVPR52729.2023.01374.

    >>> from ubf_augment.generators import DDPM
    >>> ddpm = DDPM(3, (8, 8), num_classes=2, codec="unshuffle", factor=2, widths=(16, 16))
    >>> fast = ddpm.distill(1, begin=2, scenes=4, steps=1, batch_size=2, progress=False)
    >>> fast.steps, fast.sample([0, 1]).shape
    (1, torch.Size([2, 3, 8, 8]))
    """
    if teacher.times is not None:
        raise ValueError("this generator was distilled already: distil the one that it was made of")
    if evaluations < 1 or scenes < 1:
        raise ValueError(f"evaluations and scenes must be at least 1, got {evaluations} and {scenes}")
    halvings = max(1, math.ceil(math.log2(max(1.0, begin / evaluations))))
    times = teacher._times(evaluations << halvings)
    if len(times) != evaluations << halvings:
        raise ValueError(
            f"there are no {evaluations << halvings} different times: begin with fewer evaluations"
        )
    fabric = launch(make_fabric() if fabric is None else fabric)
    teacher.to(fabric.device).eval()
    if maps is None:
        maps, labels = _draw(teacher, scenes, derive_seed(seed, _SCENES), progress)
    teacher._check_maps(maps)
    batches = Batches(teacher, maps, teacher._check_labels(labels, len(maps)), fabric.device, augment=True)
    strength = teacher.guidance if guidance is None else guidance
    mark = teacher._identity(maps, labels) | {
        "guidance": strength,
        "evaluations": evaluations,
        "begin": begin,
    }
    present = teacher
    for left in reversed(range(halvings)):
        student = _student(teacher, present, times[:: 2 ** (halvings - left)])
        _stage(
            student, present, times[:: 2 ** (halvings - left - 1)], strength if present is teacher else 1.0, batches,
            steps=steps, batch_size=batch_size, lr=lr, seed=derive_seed(seed, _TRAINING, left), fabric=fabric,
            checkpoint=_beside(checkpoint, student.steps), mark=mark, progress=progress,
        )  # fmt: skip
        present = student
    return present.eval()


def _draw(model: DenoisingGenerator, scenes: int, seed: int, progress: bool) -> tuple[Tensor, Tensor | None]:
    """Scenes of all classes in turn, and their classes."""
    from tqdm.auto import tqdm

    y = None if model.num_classes is None else torch.arange(scenes) % model.num_classes
    parts = torch.split(torch.arange(scenes), _CHUNK)
    drawn = [
        model.sample(
            None if y is None else y[rows], n=len(rows), generator=per_sample(seed, rows.tolist())
        ).cpu()
        for rows in tqdm(parts, "drawing scenes", disable=not progress)
    ]
    return torch.cat(drawn), y


def _student(
    origin: DenoisingGenerator, present: DenoisingGenerator, times: Sequence[float]
) -> DenoisingGenerator:
    """A copy of ``present`` that knows these times, built as ``origin``."""
    config = origin.config | {"steps": len(times), "guidance": 1.0, "times": list(times)}
    made = type(origin)(**config)
    made.load_state_dict(present.state_dict())
    return made.to(present.device)


def _stage(
    student: DenoisingGenerator, teacher: DenoisingGenerator, times: Sequence[float], guidance: float, batches: Batches, *,
    steps: int, batch_size: int, lr: float, seed: int, fabric: Fabric, checkpoint: Path | None, mark: dict[str, Any],
    progress: bool,
) -> None:  # fmt: skip
    """Teach every second of ``times``, where the teacher knows all."""
    grid = torch.as_tensor(list(times), device=fabric.device)

    def loss(denoiser: nn.Module, rows: Tensor, rng: torch.Generator) -> Tensor:
        i = 2 * torch.randint(len(grid) // 2, (len(rows),), generator=rng).to(grid.device)
        with torch.no_grad():
            z0, y = student.codec.encode(batches(rows, rng)), batches.classes(rows)
            alpha, sigma = student.alpha_sigma(grid[i])
            z = alpha * z0 + sigma * seeding.randn(z0.shape, rng, z0.device)
            clean = two_steps(teacher, z, y, grid, i, guidance)
            wanted = student._target(clean, (z - alpha * clean) / sigma, grid[i])
        return F.mse_loss(student._predict(denoiser, z, grid[i], y), wanted)

    net = student.denoiser
    ema = EMA(net, 0.99)
    fit_loop(
        net, torch.optim.AdamW(net.parameters(), lr, weight_decay=0.0), loss, num_items=len(batches.maps), steps=steps,
        batch_size=batch_size, seed=seed, fabric=fabric, ema=ema, schedule=warmup_cosine(steps, steps // 20),
        checkpoint=checkpoint, identity={**mark, "times": grid.tolist()}, progress=progress,
        description=f"{student.steps} evaluation{'s' * (student.steps > 1)}",
    )  # fmt: skip
    ema.copy_to(net)


def two_steps(
    teacher: DenoisingGenerator,
    z: Float[Tensor, "b c hf wf"],
    y: Int64[Tensor, " b"] | None,
    grid: Shaped[Tensor, " t"],
    i: Int64[Tensor, " b"],
    guidance: float,
) -> Float[Tensor, "b c hf wf"]:
    """The estimate of z₀ by which one step from time ``grid[i]`` ends where two steps of the teacher do."""
    last = i + 2 >= len(grid)
    t, m, s = grid[i], grid[i + 1], grid[(i + 2).clamp_max(len(grid) - 1)]
    between = teacher.advance(z, teacher.predict_clean(z, t, y, guidance, True), t, m)
    clean = teacher.predict_clean(between, m, y, guidance, True)
    (alpha, sigma), (alpha_s, sigma_s) = teacher.alpha_sigma(t), teacher.alpha_sigma(s)
    ratio = sigma_s / sigma
    whole = (teacher.advance(between, clean, m, s) - ratio * z) / (alpha_s - ratio * alpha)
    return torch.where(last.view(-1, 1, 1, 1), clean, whole)


def _beside(checkpoint: Path | str | None, evaluations: int) -> Path | None:
    if checkpoint is None:
        return None
    path = Path(checkpoint)
    return path.with_name(f"{path.stem}.{evaluations}{path.suffix}")
