"""UBFAugment: synthetic hyperspectral images inside any training loop."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor, nn

from ubf_augment.errors import MissingLabelError, ShapeError
from ubf_augment.labels import ClassIndex, LabelPolicy, draw_labels, read_labels, relabel, same_label
from ubf_augment.radiometry import check_reflectance
from ubf_augment.seeding import derive_seed, process_rank
from ubf_augment.sources import (
    AbundanceSource,
    Bank,
    Draw,
    ImageSource,
    Pool,
    Reconstructor,
    open_bank,
    open_source,
    uncompiled,
)
from ubf_augment.strategies import (
    CLASS_STRATEGIES,
    SpectralVariation,
    append_rows,
    read_weights,
    warn_of_places,
)
from ubf_augment.synthesis import HSISynthesizer

Strategy = Literal["generate", "bank", "edit", "fuse", "vary", "auto"]


class _Result(NamedTuple):
    image: Tensor
    label: Any  # a tensor, where a strategy reads it
    synthetic: Tensor  # (B,) bool
    appended: Tensor  # rows whose synthetic siblings were appended


class UBFAugment(nn.Module):
    """Replace a share of each batch by synthetic images, or append them. Batch in, batch out.

    Images are reflectance (B, C, H, W) on the bands of ``synth``, in its units: put this module *before* any
    normalisation. Call it with a sample dict, ``augment({"image": x, "label": y})`` (the other keys pass
    through and ``"is_synthetic"``, bool (B,), is added), or with a pair, ``augment(x, y)`` or ``augment((x,
    y))``. Images keep their size, type and device; nothing that was passed in is written to; without a
    replacement the same tensors come back. Masks and boxes fit only what ``vary`` makes: others warn once.
    Autocast changes nothing. What is made is computed in float32 and rounded to the type of the batch: float16
    turns a spectrum by 0.02° at most, bfloat16 by 0.1° on average and 0.16° at most, in both packaged bundles.

    Strategies, each per image:

    - ``"generate"``: a new scene, drawn from the generator for the class, decoded, residual model added.
    - ``"bank"``: a labelled RGB picture of the class, unmixed and decoded, residual model added; or turned
      into an image by ``reconstructor``, as it is.
    - ``"edit"``: the image's own abundances, partly noised and denoised; its residual is kept.
    - ``"fuse"``: joined to another image of the same label in the batch under a smooth mask (see
      `strategies.fuse`).
    - ``"vary"``: the image with varied endmember spectra, in another light; its residual is kept. Needs no
      label.
    - a mapping of weights, ``{"vary": 0.7, "generate": 0.3}``: one strategy drawn per image.
    - ``"auto"``: all that ``synth`` and ``bank`` permit, ``vary`` twice as often as each of the others; with
      ``p="auto"`` what `automatic.choose` finds best on a part of the training set, which may be nothing at all.

    A strategy is drawn among those that can serve the image: ``generate`` and ``bank`` need a class they
    know, ``edit`` too if the generator is conditional, ``fuse`` needs a partner in the batch. An image that
    none can serve stays real.

    Soft labels (B, K) are read as class probabilities: ``generate`` and ``bank`` draw the class of a scene
    from them and the soft label is kept.

    Randomness follows torch's global generator, or with ``seed`` the module's own stream: the result then
    depends on the seed and the number of calls so far (kept by ``state_dict``), and inside a DataLoader
    worker on the worker's seed.

    The synthesizer is shared, not copied, and is no submodule: its weights appear neither in ``parameters()``
    nor in ``state_dict()``, ``train()`` and ``half()`` do not reach it; it follows the batch's device on
    first use.

    Args:
        synth: the source of images; see `HSISynthesizer.adapt` for a new sensor.
        p: probability of each image to be replaced (or, appended, to get a synthetic sibling); ``"auto"`` leaves it,
            and the strategy, to `automatic.choose`, which must be called before the first batch.
        strategy: see above.
        labels: ``"keep"`` draws each scene from the class of the image it stands for, so class counts stay
            exact; ``"balance"`` lets ``generate`` and ``bank`` draw whatever class was seen least so far; a
            tensor gives (K,) class probabilities.
        placement: ``"replace"``, or ``"append"``: the batch grows, real images first.
        classes: names of the user's classes in label order; None if labels are the synthesizer's own indices.
        class_map: user's name → synthesizer's name, where they differ. A class without counterpart stays
            real.
        strict: raise on a class without counterpart.
        bank: class → uint8 (N, 3, H, W) RGB pictures; or a data set of them with ``classes`` and ``targets``, such as
            `datasets.PictureFolder` or torchvision's ``ImageFolder``.
        bank_cache: folder that keeps what is made of the bank's pictures, see `sources.PictureBank`; in memory without one.
        reconstructor: makes images of the bank's pictures instead of unmixing, on the same bands, such as
            `baselines.MSTPlusPlus`.
        seed: of the module's own random stream.
        strength: of ``edit``, from 0 (nothing) to 1 (a new scene).
        endmember_std: of ``vary``, log-gain per endmember, smooth along the wavelength.
        illumination_std: of ``vary``, log-gain of an image, smooth along the wavelength.
        brightness_std: of ``vary``, log-gain of an image, the same in all bands.
        correlation_nm: of ``vary``, correlation length along the wavelength in nm.
        residual: add the residual model to ``generate`` and ``bank``.
        source: what ``generate`` draws from: ``"pool"``, maps that are slowly refreshed (`sources.Pool`); ``"live"``, the
            generator at every step (`sources.Live`); or any `sources.AbundanceSource`.
        sample_options: options of the generator for ``generate``, such as ``{"steps": 5}``.
        image_key: of the image in a sample dict.
        label_key: of the label.

    Raises:
        ValueError: if an option is out of range or contradicts another.
        UnknownClassError: if ``class_map`` or ``bank`` names an unknown class, or (strict) a class stays
            unmatched.

    >>> from ubf_augment import Endmembers, get_generator
    >>> E = Endmembers(torch.tensor([[0.1, 0.2, 0.4], [0.0, 0.0, 0.0]]), [490, 560, 665], ("soil", "shade"))
    >>> g = get_generator("ddpm", num_endmembers=2, size=(8, 8), num_classes=2, widths=(16, 16))
    >>> synth = HSISynthesizer(E, g, classes=["field", "forest"])
    >>> augment = UBFAugment(synth, 1.0, classes=["wood", "lake"], class_map={"wood": "forest"}, seed=0)
    >>> batch = augment({"image": torch.rand(2, 3, 8, 8), "label": torch.tensor([0, 1])})
    >>> batch["is_synthetic"].tolist()  # nothing here knows lakes
    [True, False]
    """

    def __init__(
        self,
        synth: HSISynthesizer,
        p: float | Literal["auto"] = 0.5,
        *,
        strategy: Strategy | Mapping[str, float] = "generate",
        labels: Literal["keep", "balance"] | Tensor | Sequence[float] = "keep",
        placement: Literal["replace", "append"] = "replace",
        classes: Sequence[str] | None = None,
        class_map: Mapping[str, str] | None = None,
        strict: bool = False,
        bank: Bank | None = None,
        bank_cache: str | PathLike[str] | None = None,
        reconstructor: Reconstructor | None = None,
        seed: int | None = None,
        strength: float = 0.5,
        endmember_std: float = 0.1,
        illumination_std: float = 0.2,
        brightness_std: float = 0.2,
        correlation_nm: float = 200.0,
        residual: bool = True,
        source: Literal["pool", "live"] | AbundanceSource = "pool",
        sample_options: Mapping[str, Any] | None = None,
        image_key: str = "image",
        label_key: str = "label",
    ) -> None:
        super().__init__()
        if isinstance(synth, str):
            raise TypeError(f"give a synthesizer: UBFAugment(HSISynthesizer.from_pretrained({synth!r}))")
        if p != "auto" and not (isinstance(p, int | float) and 0 <= p <= 1):
            raise ValueError(f"p must lie in [0, 1] or be 'auto', got {p!r}")
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must lie in [0, 1], got {strength}")
        if placement not in ("replace", "append"):
            raise ValueError(f"placement must be 'replace' or 'append', got {placement!r}")
        self.pending, self.p, self.placement, self.seed = (
            p == "auto",
            0.0 if p == "auto" else p,
            placement,
            seed,
        )
        self._options: dict[str, Any] = {
            "labels": labels, "placement": placement, "classes": classes, "class_map": class_map, "strict": strict,
            "bank": bank, "bank_cache": bank_cache, "reconstructor": reconstructor,
            "strength": strength, "endmember_std": endmember_std,
            "illumination_std": illumination_std, "brightness_std": brightness_std, "correlation_nm": correlation_nm,
            "residual": residual, "sample_options": sample_options, "image_key": image_key, "label_key": label_key,
        }  # fmt: skip
        self.image_key, self.label_key = image_key, label_key
        self.index = ClassIndex.match(synth.classes, classes, class_map, strict)
        # A plain object: the synthesizer is no submodule, see the class docstring.
        self.source = ImageSource(
            synth,
            open_source(source, synth, torch.initial_seed() if seed is None else seed, sample_options),
            open_bank(bank, self.index, synth, reconstructor, bank_cache),
            SpectralVariation(
                synth.wavelengths, endmember_std, illumination_std, brightness_std, correlation_nm
            ),
            strength,
            residual,
        )
        self.asked = strategy
        self.calls, self._told = 0, False
        self._use(strategy)
        self.possible = dict(self.weights)

    # ---- options -------------------------------------------------------------------------------------------

    def variant(self, p: float, strategy: Strategy | Mapping[str, float], seed: int | None) -> UBFAugment:
        """A new module with the same synthesizer, source and options but for these, for samples of ``image`` and ``label``."""
        options = {**self._options, "image_key": "image", "label_key": "label"}
        options |= {"source": self.source.scenes, "sample_options": None}
        return UBFAugment(self.synth, p, strategy=strategy, seed=seed, **options)

    def settle(self, p: float, strategy: Strategy | Mapping[str, float]) -> None:
        """Take a share and a strategy, as `automatic.choose` does for ``p="auto"``.

        Raises:
            ValueError: as the constructor.
        """
        if not 0 <= p <= 1:
            raise ValueError(f"p must lie in [0, 1], got {p}")
        counts = self.policy.counts
        self._use(strategy)
        self.p, self.pending, self.policy.counts = p, False, counts

    def _use(self, strategy: Strategy | Mapping[str, float]) -> None:
        """Prepare for a strategy."""
        self.weights = read_weights(strategy, self.source.impossible())
        self._can = {s: self.source.serves(s, self.index) for s in self.weights}
        self._free = torch.tensor([s in CLASS_STRATEGIES for s in self.weights] + [False])
        self.policy = LabelPolicy(
            self._options["labels"],
            self.index,
            {s: self._can[s] for s in self.weights if s in CLASS_STRATEGIES},
        )
        if (
            self.index.names
            and "fuse" not in self.weights
            and not any(can.any() for can in self._can.values())
        ):
            warnings.warn(
                f"no image will be replaced: {', '.join(self.weights)} can make none of your classes "
                f"{', '.join(self.index.names)}; class_map can match them with {', '.join(self.synth.classes)}",
                stacklevel=3,
            )

    # ---- call ----------------------------------------------------------------------------------------------

    @property
    def synth(self) -> HSISynthesizer:
        """The source of images."""
        return self.source.synth

    @uncompiled
    def forward(self, *inputs: Any) -> Any:
        """Augment a sample dict, a pair (image, label), or an image alone where only ``vary`` is used.

        Where the caller is compiled by `torch.compile`, this runs outside of its graphs.

        Raises:
            MissingLabelError: if a strategy needs labels and none are given.
            TypeError: if the input is none of these.
            ShapeError: if images are not (B, C, H, W), or labels do not fit them.
            BandCountError, NoDataError, RadiometryError: for images that the synthesizer cannot serve.
            LabelError: if a label is out of range.
        """
        sample = inputs[0] if len(inputs) == 1 else inputs
        if isinstance(sample, Mapping):
            return self._forward_dict(sample)
        if isinstance(sample, Tensor):
            return self._augment(sample, None).image
        values = list(sample) if isinstance(sample, list | tuple) else [sample]
        if not 1 <= len(values) <= 2 or not all(isinstance(v, Tensor) for v in values):
            raise TypeError(
                f"UBFAugment takes {{{self.image_key!r}: x, {self.label_key!r}: y}}, (x, y) or x, y; "
                f"got {', '.join(type(v).__name__ for v in values)}"
            )
        result = self._augment(values[0], values[1] if len(values) == 2 else None)
        pair = [result.image, result.label][: len(values)]
        return pair if isinstance(sample, list) else tuple(pair)

    def _forward_dict(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        x, y = sample.get(self.image_key), sample.get(self.label_key)
        if not isinstance(x, Tensor):
            raise TypeError(
                f"the sample has no tensor under {self.image_key!r}: set image_key to one of its keys "
                f"{', '.join(map(str, sample))}"
            )
        result = self._augment(x, y)
        if not self._told and set(self.weights) != {"vary"} and result.synthetic.any():
            self._told = True
            warn_of_places(sample, self.image_key, self.weights)
        out = dict(sample)
        if len(result.appended):
            out = {key: append_rows(value, result.appended, len(x)) for key, value in sample.items()}
        out[self.image_key], synthetic = result.image, result.synthetic
        if y is not None:
            out[self.label_key] = result.label
        if isinstance(before := sample.get("is_synthetic"), Tensor):  # from a data set with synthetic images
            synthetic = synthetic | append_rows(before.bool(), result.appended, len(x)).to(synthetic.device)
        return {**out, "is_synthetic": synthetic}

    @torch.no_grad()
    def _augment(self, x: Tensor, y: Any) -> _Result:
        if self.pending:
            raise RuntimeError(
                "p='auto' has not been decided: call ubf_augment.choose(augment, train_set) before training, or give p "
                "a number"
            )
        self._check_images(x)
        labels, rng = self._read_labels(y, len(x)), self._next_generator()
        hard = torch.full((len(x),), -1) if labels is None else draw_labels(labels, rng)
        partners = torch.zeros(len(x), len(x), dtype=torch.bool) if labels is None else same_label(labels)
        plan = self._plan(hard, partners, rng)
        target, rows = self._targets(hard, plan, rng), (plan >= 0).nonzero()[:, 0]
        if not len(rows):
            return _Result(x, y, (plan >= 0).to(x.device), rows)
        if append := self.placement == "append":
            image, at = torch.cat([x, x[rows.to(x.device)]]), torch.arange(len(x), len(x) + len(rows))
        else:
            image, at = x.clone(), rows
        with torch.autocast(x.device.type, enabled=False):
            self._synthesise(x, rows, plan[rows], target[rows], partners, rng, image, at)
        changed = self._free[plan[rows]] & (self.policy.mode != "keep")
        if append:
            synthetic = torch.arange(len(image), device=x.device) >= len(x)
            if y is not None:
                y = append_rows(y, rows, len(x))
            if y is not None and changed.any():
                y = relabel(y, torch.cat([hard, target[rows]]), torch.cat([torch.zeros(len(x)) > 0, changed]))
            return _Result(image, y, synthetic, rows)
        if y is not None and changed.any():
            here = rows.to(y.device)
            y = y.index_copy(0, here, relabel(y[here], target[rows], changed))
        return _Result(image, y, (plan >= 0).to(x.device), rows[:0])

    # ---- parameters ----------------------------------------------------------------------------------------

    def _next_generator(self) -> torch.Generator:
        """A CPU generator for this call."""
        seed, keys = self.seed, [self.calls]
        if seed is None:
            seed, keys = int(torch.randint(2**62, ())), []
        else:
            self.calls += 1
            if (worker := torch.utils.data.get_worker_info()) is not None:
                keys.append(worker.seed)  # the copies in the workers, and those of the next epoch, differ
        if (rank := process_rank()) is not None:
            keys.append(rank)
        return torch.Generator().manual_seed(derive_seed(seed, *keys))

    def _plan(self, hard: Tensor, partners: Tensor, rng: torch.Generator) -> Int64[Tensor, " b"]:
        """Which of ``self.weights`` each image undergoes, -1 for none."""
        serves = []
        for s in self.weights:
            if s == "fuse":
                serves.append(partners.any(1))
            else:
                serves.append(self._can[s][hard] if len(self._can[s]) and (hard >= 0).all() else hard >= hard)
        weight = torch.stack(serves, 1) * torch.tensor(list(self.weights.values()), dtype=torch.float64)
        chosen = (torch.rand(len(hard), generator=rng) < self.p) & (weight.sum(1) > 0)
        plan = torch.full_like(hard, -1)
        if chosen.any():
            plan[chosen] = torch.multinomial(weight[chosen], 1, generator=rng)[:, 0]
        return plan

    def _targets(self, hard: Tensor, plan: Tensor, rng: torch.Generator) -> Int64[Tensor, " b"]:
        """The class of each synthetic image."""
        target, free = hard.clone(), self._free[plan]
        if self.policy.mode == "keep":
            return target
        kept = hard[~free] if self.placement == "replace" else torch.cat([hard, hard[(plan >= 0) & ~free]])
        self.policy.count(kept)
        for i, s in enumerate(self.weights):
            rows = ((plan == i) & free).nonzero()[:, 0]
            target[rows] = self.policy.draw(len(rows), self._can[s], rng)
        return target

    def _synthesise(
        self, x: Tensor, rows: Tensor, plan: Tensor, target: Tensor, partners: Tensor, rng: torch.Generator,
        image: Tensor, at: Tensor,
    ) -> None:  # fmt: skip
        """Write the synthetic images of ``rows`` into ``image``, at ``at``."""
        for i, s in enumerate(self.weights):
            mine = (plan == i).nonzero()[:, 0]
            if len(mine):
                classes = target[mine]
                known = (classes >= 0) & bool(self.index.num_classes)
                source = torch.where(known, self.index.source[classes * known] if known.any() else -1, -1)
                self.source.make(s, Draw(rows[mine], classes, source, x, partners, rng), image, at[mine])

    # ---- checks and state ----------------------------------------------------------------------------------

    def _check_images(self, x: Tensor) -> None:
        if x.ndim != 4 or not x.shape[2] * x.shape[3]:
            raise ShapeError(
                f"images must be a batch (B, C, H, W) with H, W ≥ 1, got {tuple(x.shape)}: add a batch axis, x[None]"
            )
        check_reflectance(
            x, self.synth.num_bands, where="batch",
            expected=": bring the synthesizer to your sensor with synth.adapt(images, wavelengths=…), or resample the "
            "images to its bands",
        )  # fmt: skip

    def _read_labels(self, y: Any, batch: int) -> Shaped[Tensor, "b *k"] | None:
        """Checked labels on the CPU, or None where no strategy needs them."""
        needed = set(self.weights) != {"vary"}
        if y is None and needed:
            raise MissingLabelError(
                f"strategy {', '.join(self.weights)} needs the labels of the images: call "
                f"augment({{{self.image_key!r}: x, {self.label_key!r}: y}}) or augment(x, y). Kornia's "
                "containers hand on the image alone: put UBFAugment before them, "
                "nn.Sequential(augment, AugmentationSequential(…, data_keys=None))"
            )
        if y is None or not (needed or self.synth.class_endmembers):
            return None
        return read_labels(y, batch, self.index.num_classes)

    def get_extra_state(self) -> dict[str, Any]:
        """The state of the random stream, the class counts, the pool's counts, and what was chosen for ``p="auto"``."""
        state: dict[str, Any] = {"calls": self.calls, "counts": self.policy.counts.clone()}
        if isinstance(self.source.scenes, Pool):
            state["pool"] = self.source.scenes.state()
        return state if self.pending else {**state, "p": self.p, "weights": dict(self.weights)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: if it was saved with another number of classes.
        """
        if self.pending and "p" in state:
            self.settle(state["p"], state["weights"])
        counts = state["counts"]
        if counts.shape != self.policy.counts.shape:
            raise ValueError(
                f"the state is of {len(counts)} classes, this module has {len(self.policy.counts)}"
            )
        self.calls, self.policy.counts = int(state["calls"]), counts.clone().cpu()
        if "pool" in state and isinstance(self.source.scenes, Pool):
            self.source.scenes.resume(state["pool"])

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        weights = ", ".join(f"{s}: {w:g}" for s, w in self.weights.items())
        p = "auto" if self.pending else self.p
        return (
            f"p={p}, strategy={{{weights}}}, labels={self.policy.mode!r}, placement={self.placement!r}, "
            f"seed={self.seed}"
        )
