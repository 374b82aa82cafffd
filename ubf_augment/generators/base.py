"""The contract of a generator of abundance maps, and the part of it that any generator of maps has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from ubf_augment import simplex
from ubf_augment.errors import LabelError, MissingLabelError, ShapeError
from ubf_augment.files import OnDisk
from ubf_augment.generators.maps import as_abundances
from ubf_augment.generators.stored import write_network
from ubf_augment.precision import full_precision
from ubf_augment.seeding import Generators, derive_seed
from ubf_augment.training import History, digest

if TYPE_CHECKING:
    from lightning.fabric import Fabric

Labels = Tensor | Sequence[int] | int | None
_CHUNK = 1024


class MapGenerator(nn.Module, ABC):
    """Distribution p(v | y) of maps v (channels, H, W) of real values, given a scene class y.

    A subclass writes `_sample`, `_fit`, `loss` and, if it can, `_edit` (then ``can_edit = True``), and says
    by `_read` and `_close` which values are maps; all checks live here. Abundance maps are
    `AbundanceGenerator`; other spaces serve comparison (`baselines`).

    Attributes:
        channels: number of channels of a map.
        size: (H, W) of a map.
        num_classes: K, or None where the generator takes no class.
        networks: methods of its parts that take the time of a sample, such as "denoiser.forward"; for `torch.compile`.
    """

    name: ClassVar[str] = ""
    networks: ClassVar[tuple[str, ...]] = ()
    can_edit: bool = False
    _counts: ClassVar[str] = "channel count"

    def __init__(self, channels: int, size: Sequence[int], num_classes: int | None = None) -> None:
        """Keep the sizes.

        Raises:
            ValueError: if a size is not positive.
        """
        super().__init__()
        height, width = (int(s) for s in size)
        if min(channels, height, width) < 1 or (num_classes is not None and num_classes < 1):
            raise ValueError(
                "need at least one channel, a positive size and at least one class, got "
                f"{channels} channels, size={(height, width)}, K={num_classes}"
            )
        self.channels, self.size, self.num_classes = channels, (height, width), num_classes

    def _keep(self, arguments: Mapping[str, Any]) -> None:
        """Remember the constructor's arguments as `config`; call it with ``locals()`` before there are others."""
        kept = {k: v for k, v in arguments.items() if k not in ("self", "__class__")}
        self._config: dict[str, Any] = {
            k: list(v) if isinstance(v, Sequence) and not isinstance(v, str) else v for k, v in kept.items()
        }
        self._config["size"] = list(self.size)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON-able values."""
        return dict(self._config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @abstractmethod
    def _read(self, maps: Tensor, check: bool = False) -> Tensor:
        """Give stored maps as float32; with ``check``, raise if they are no maps."""

    @abstractmethod
    def _close(self, maps: Tensor) -> Tensor:
        """Check drawn maps, and remove rounding."""

    @abstractmethod
    def _sample(self, y: Tensor | None, n: int, generator: list[torch.Generator], **options: Any) -> Tensor:
        """Draw n maps, sample i from ``generator[i]`` alone; called in eval mode without gradients."""

    @abstractmethod
    def _fit(self, maps: Tensor | OnDisk, labels: Tensor | None, **options: Any) -> History:
        """Train on checked maps (uint8 or float; see `as_abundances`) and labels."""

    @abstractmethod
    def loss(
        self, maps: Float[Tensor, "b p h w"], labels: Int64[Tensor, "b"] | None, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Compute the whole training objective on one batch; its gradient reaches every parameter."""

    def _edit(
        self, a: Tensor, y: Tensor | None, strength: float, generator: list[torch.Generator], **options: Any
    ) -> Tensor:
        """Partly renew maps; only called where ``can_edit``."""
        raise AssertionError(f"{type(self).__name__} sets can_edit but has no _edit")

    def for_classes(self, start: Sequence[int | None]) -> Self:
        """A copy for other classes, to be fitted further; see `HSISynthesizer.finetune`.

        Args:
            start: one entry per new class: the present class that it begins as, or None for one that is new.

        Raises:
            TypeError: if this generator cannot be carried over to other classes.
            LabelError: if a present class does not exist.
        """
        raise TypeError(
            f"{type(self).__name__} cannot be carried over to other classes: choose one that can, such as 'ddpm' or 'flow'"
        )

    @final
    def fit(
        self,
        maps: Shaped[Tensor, "n p h w"] | OnDisk,
        *,
        labels: Int64[Tensor, "n"] | None = None,
        steps: int,
        batch_size: int = 32,
        lr: float | None = None,
        seed: int = 0,
        fabric: Fabric | None = None,
        checkpoint: Path | str | None = None,
        augment: bool = True,
        progress: bool = True,
        **options: Any,
    ) -> History:
        """Train, or go on training, on abundance maps.

        Args:
            maps: (N,P,H,W) on the simplex, float, or uint8 holding 255·a (closed again when read: compact
                storage); in memory, or in a file of which the maps of a step alone are read.
            labels: (N,) classes in [0, K); needed if the generator has classes.
            steps: optimiser steps in total; with ``checkpoint`` those before an interruption count.
            batch_size: maps per step over all devices.
            lr: peak learning rate; the generator's own default if None.
            seed: of data order and noise.
            fabric: devices and precision (`training.make_fabric`).
            checkpoint: file to resume from and save to.
            augment: flip and rotate maps at random (labels are kept).
            progress: show progress bars.
            options: of the generator at hand.

        Raises:
            ShapeError: if P, H or W differ from the generator's, or labels from maps.
            SimplexError: if maps are not on the simplex.
            MissingLabelError: if labels are needed but missing.
            LabelError: if a label is out of range.
        """
        self._check_maps(maps)
        labels = self._check_labels(labels, len(maps))
        options.update(steps=steps, batch_size=batch_size, lr=lr, seed=seed, fabric=fabric, augment=augment)
        return self._fit(
            maps,
            labels,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            progress=progress,
            **options,
        )

    @final
    def sample(
        self,
        y: Labels = None,
        *,
        n: int | None = None,
        generator: Generators = None,
        batch_size: int = 64,
        **options: Any,
    ) -> Float[Tensor, "b p h w"]:
        """Draw maps; do not override: checks y, draws in micro-batches, checks what was drawn (ANC and ASC).

        Args:
            y: classes, (B,) or one integer; needed if and only if the generator has classes.
            n: number of maps; implied by a list of classes, and repeats a single class.
            generator: one generator, or a list with one per sample: then sample i depends on its own
                alone. With one generator or None, each sample gets a generator seeded from it, so
                ``batch_size`` never matters.
            batch_size: maps per micro-batch (memory, not meaning).
            options: of the generator at hand.

        Returns:
            (B,P,H,W) float32 on the generator's device, a ≥ 0 and abs(Σₚ aₚ − 1) ≤ 1e-5.

        Raises:
            MissingLabelError: if classes are needed but missing.
            LabelError: if a class is out of range, or given to a generator without classes.
        """
        labels, count = self._check_request(y, n)
        return self._draw(
            count, generator, batch_size,
            lambda s, g: self._sample(_part(labels, s, self.device), len(g), g, **options),
        )  # fmt: skip

    @final
    def edit(
        self,
        a: Shaped[Tensor, "b p h w"],
        y: Labels = None,
        *,
        strength: float = 0.5,
        generator: Generators = None,
        batch_size: int = 64,
        **options: Any,
    ) -> Float[Tensor, "b p h w"]:
        """Renew maps in part: 0 gives them back (up to the codec's error), 1 draws new ones.

        Args:
            a: (B,P,H,W) maps on the simplex, float or stored as for `fit`.
            y: their classes.
            strength: share of the way to noise, in [0, 1].
            generator: as for `sample`.
            batch_size: maps per micro-batch.
            options: of the generator at hand.

        Raises:
            TypeError: if this generator cannot edit (``can_edit``).
            ValueError: if ``strength`` is outside [0, 1].
        """
        if not self.can_edit:
            raise TypeError(
                f"{type(self).__name__} cannot edit maps: choose a generator with can_edit, such as 'ddpm'"
            )
        if not 0.0 <= strength <= 1.0:
            raise ValueError(f"strength must lie in [0, 1], got {strength}")
        self._check_maps(a)
        labels, count = self._check_request(y, len(a))
        return self._draw(
            count, generator, batch_size,
            lambda s, g: self._edit(
                self._read(a[s]).to(self.device), _part(labels, s, self.device), strength, g, **options
            ),
        )  # fmt: skip

    def _identity(self, maps: Tensor | OnDisk, labels: Tensor | None) -> dict[str, Any]:
        """What a training checkpoint must agree on, besides its seed and batch size."""
        return {"generator": type(self).__name__, "config": self.config, "data": digest(maps, labels)}

    def _check_maps(self, maps: Tensor | OnDisk) -> None:
        want = (self.channels, *self.size)
        if maps.ndim != 4 or tuple(maps.shape[1:]) != want or not len(maps):
            raise ShapeError(
                f"maps have shape {tuple(maps.shape)}, this generator needs (N, P, H, W) with N ≥ 1 and "
                f"(P, H, W) = {want}: build it with the same {self._counts} and size, or crop the maps"
            )
        for start in range(0, len(maps), _CHUNK):
            self._read(maps[start : start + _CHUNK], check=True)

    def _check_labels(self, labels: Tensor | None, count: int) -> Tensor | None:
        if self.num_classes is None:
            if labels is not None:
                raise LabelError(
                    "this generator has no classes: build it with num_classes, or give no labels"
                )
            return None
        if labels is None:
            raise MissingLabelError(f"this generator has {self.num_classes} classes: give one label per map")
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise LabelError(f"labels must be integers, got {labels.dtype}")
        if labels.ndim != 1 or len(labels) != count:
            raise ShapeError(f"{tuple(labels.shape)} labels for {count} maps: give shape ({count},)")
        labels = labels.detach().to("cpu", torch.int64)
        bad = (labels < 0) | (labels >= self.num_classes)
        if bad.any():
            i = int(bad.nonzero()[0])
            raise LabelError(f"label {int(labels[i])} at position {i} is outside 0..{self.num_classes - 1}")
        return labels

    def _check_request(self, y: Labels, n: int | None) -> tuple[Tensor | None, int]:
        if n is not None and n < 0:
            raise ValueError(f"n must not be negative, got {n}")
        if y is None:
            count = 1 if n is None else n
            return self._check_labels(None, count), count
        labels = torch.as_tensor(y)
        if labels.ndim == 0:
            labels = labels.expand(1 if n is None else n)
        elif not labels.numel():
            labels = labels.to(torch.int64)
        if n is not None and n != len(labels):
            raise ShapeError(f"n={n}, but {len(labels)} classes were given: leave n out, or give one class")
        return self._check_labels(labels, len(labels)), len(labels)

    def _draw(
        self,
        count: int,
        generator: Generators,
        batch_size: int,
        draw: Callable[[slice, list[torch.Generator]], Tensor],
    ) -> Tensor:
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        sources = _split(generator, count)
        out = torch.empty(count, self.channels, *self.size, device=self.device)
        with _eval_mode(self), torch.no_grad(), full_precision(out):
            for start in range(0, count, batch_size):
                part = slice(start, min(start + batch_size, count))
                out[part] = self._close(draw(part, sources[part]).float())
        return out


class AbundanceGenerator(MapGenerator):
    """Distribution p(a | y) of abundance maps a (P,H,W) on the simplex, given a scene class y.

    Every generator gives maps with a ≥ 0 (ANC) and abs(Σₚ aₚ − 1) ≤ 1e-5 (ASC): a subclass ends on the
    simplex, and this class removes what rounding leaves.

    Generators are the fusion step of Unmixing Before Fusion (Yu et al., CVPR 2024, pp. 9297-9306).

    Attributes:
        num_endmembers: P.
        size: (H, W) of a map.
        num_classes: K, or None where the generator takes no class.
    """

    _counts = "endmember count"

    def __init__(self, num_endmembers: int, size: Sequence[int], num_classes: int | None = None) -> None:
        """Keep the sizes.

        Raises:
            ValueError: if a size is not positive, or P < 2.
        """
        if num_endmembers < 2:
            raise ValueError(f"need at least two endmembers, got P={num_endmembers}")
        super().__init__(num_endmembers, size, num_classes)
        self.num_endmembers = num_endmembers

    def _read(self, maps: Tensor, check: bool = False) -> Tensor:
        return as_abundances(maps, check=check)

    def _close(self, maps: Tensor) -> Tensor:
        simplex.check(maps, atol=1e-4)
        a = simplex.closure(maps.clamp_min(0))
        simplex.check(a, atol=1e-5)
        return a

    def save(self, directory: Path | str) -> Path:
        """Write ``config.json`` and ``model.safetensors``; `load_generator` reads them back."""
        return write_network(directory, self, self.name, self.config)


def _part(labels: Tensor | None, part: slice, device: torch.device) -> Tensor | None:
    return None if labels is None else labels[part].to(device)


def _split(generator: Generators, count: int) -> list[torch.Generator]:
    """One generator per sample: the list as it is, or generators seeded from one draw."""
    if generator is not None and not isinstance(generator, torch.Generator):
        if len(generator) != count:
            raise ValueError(f"{len(generator)} generators for {count} samples: give one per sample")
        return list(generator)
    device = "cpu" if generator is None else generator.device
    base = int(torch.randint(2**62, (), generator=generator, device=device))
    return [torch.Generator().manual_seed(derive_seed(base, i)) for i in range(count)]


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, mode in modes:
            m.training = mode
