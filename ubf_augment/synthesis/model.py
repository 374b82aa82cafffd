"""`HSISynthesizer`: a sampler and unmixer that is fitted, adapted, taught, stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ubf_augment import bundle
from ubf_augment.spectra import Endmembers, Wavelengths
from ubf_augment.synthesis.base import Labels
from ubf_augment.synthesis.sampler import Sampler

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from matplotlib.figure import Figure

    from ubf_augment.io import HSI
    from ubf_augment.synthesis.pictures import Pictures
    from ubf_augment.synthesis.pipeline import FitSettings


class HSISynthesizer(Sampler):
    """A trained source of labelled hyperspectral images: a ~ p(a | y), x = mix(a, E) + ε.

    Abundance space is shared by every sensor; E and ε belong to a sensor (see `adapt`). The networks are
    always in evaluation mode. If you use this, please cite Yu et al. 2024, "Unmixing Before Fusion", CVPR,
    pp. 9297-9306.

    Attributes:
        generator: distribution of abundance maps.
        unmixing: encoders, or None (then exact least squares unmixes).
        classes: names of the K classes, in label order; empty for a generator without classes.
        rgb_scale: reflectance of white in displayed RGB pictures.
        rgb_gamma: exponent of their display curve, see `radiometry.to_reflectance`.
        card: JSON-able description: data, licence, seeds, figures.

    >>> from ubf_augment import generators, spectra
    >>> nm = torch.tensor([490.0, 560.0, 665.0])
    >>> E = spectra.Endmembers(torch.tensor([[0.1, 0.2, 0.4], [0.0, 0.0, 0.0]]), nm)
    >>> g = generators.DDPM(2, (8, 8), 2, codec="unshuffle", factor=2, widths=(16, 16), attention=())
    >>> synth = HSISynthesizer(E, g, classes=["field", "forest"])
    >>> synth.sample(["forest", "field"], seed=0, steps=2).shape
    torch.Size([2, 3, 8, 8])
    """

    def plot(
        self, y: Labels | None = None, *, per_class: int = 3, seed: int = 0, title: str = "", **options: Any
    ) -> Figure:
        """Samples with their abundance maps and spectra, below the endmembers: `report.sample_sheet`.

        Args:
            y: classes, a row each; by default up to 8, evenly chosen.
            per_class: samples per class.
            seed: of the samples, as for `sample`.
            title: of the figure; by default the sensor and its bands.
            options: of the generator, such as ``steps=10``.

        Raises:
            LabelError, UnknownClassError: for classes that the synthesizer does not have.
        """
        from ubf_augment.synthesis.drawing import sample_sheet

        few = list(self.classes[:: max(1, -(-self.num_classes // 8))]) or None
        return sample_sheet(
            self, few if y is None else y, per_class=per_class, seed=seed, title=title, **options
        )

    # ---- fitting, adapting, storing

    @classmethod
    def fit(
        cls,
        hsis: Sequence[HSI | tuple[Tensor, Wavelengths]] | Any,
        rgb: Pictures | None,
        settings: FitSettings | None = None,
        *,
        hsi_labels: Sequence[str | None] | None = None,
        endmembers: Endmembers | None = None,
        workdir: Path | str | None = None,
        fabric: Fabric | None = None,
        progress: bool = True,
        card: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> HSISynthesizer:
        """Unmixing, RGB pictures into the same abundance space, and a generator of both: the whole pipeline.

        The stages (endmembers, encoders, abundance maps, generator, residuals) are functions of
        `synthesis.pipeline`.

        Args:
            hsis: hyperspectral images, `HSI` or (image (C, H, W) in reflectance, wavelengths); or a data set with
                ``wavelengths``, such as `datasets.Chikusei`, or a list of some.
            rgb: class name → pictures, uint8 (N, 3, H, W) or a list of (3, H, W); or a data set of labelled
                pictures with ``classes``, such as `datasets.AID` or torchgeo's RESISC45; None for HSIs alone.
            settings: sizes, steps, seeds.
            hsi_labels: class of each HSI; one that is None makes a class of its own, by the name of its file.
            endmembers: E to begin with, shade last, instead of what is found in the HSIs: such as measured spectra
                (`unmixing.select`). Encoders refine it, unless ``unmixing_options={"learn_endmembers": False}``.
            workdir: where every stage leaves what it did; the same call goes on from there after an
                interruption.
            fabric: devices and precision.
            progress: show progress bars.
            card: facts for the model card, such as data and licence.
            changes: single settings, by name.

        Raises:
            WavelengthError, NoDataError, RadiometryError, ShapeError: for images that do not fit.
            ValueError: if ``workdir`` holds the work of other settings.
            UBFError: if another process is at work in ``workdir``.
        """
        from dataclasses import replace

        from ubf_augment.synthesis.pipeline import FitSettings, run
        from ubf_augment.training import alone, launch, make_fabric

        chosen = replace(settings or FitSettings(), **changes)
        fabric = launch(make_fabric() if fabric is None else fabric)
        work = None if workdir is None else Path(workdir)
        with alone(fabric, work):
            return run(
                cls, hsis, rgb, chosen, hsi_labels=hsi_labels, endmembers=endmembers, workdir=work, fabric=fabric,
                progress=progress, card=card,
            )  # fmt: skip

    def adapt(
        self,
        images: Any,
        *,
        wavelengths: Wavelengths,
        rgb_bands: tuple[int, int, int] | None = None,
        fwhm: Wavelengths | float | None = None,
        labels: Shaped[Tensor, " n"] | Sequence[int] | Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        class_map: Mapping[str, str] | None = None,
        rgb_scale: float | None = None,
        rank: int = 8,
        ridge: float = 1e-2,
        max_pixels: int = 200_000,
        seed: int = 0,
        sensor: str = "",
        regression: bool | None = None,
    ) -> HSISynthesizer:
        """A synthesizer for another sensor, in seconds: new E and ε from its images, the same generator.

        The images' red, green and blue bands are unmixed in the synthesizer's abundance space, and E follows
        by non-negative least squares (`adaptation.estimate_sensor` has the steps and what they were measured
        to gain). Zero endmembers (shade) stay zero. The result shares generator and RGB encoder with this
        object and has no HSI encoder: it unmixes by `fcls`. Its card records seconds and errors.

        Red, green and blue leave the infrared open. Where a sensor sees it, and enough images say what it can be, a regression
        learns the distribution of abundances given colour, surroundings and class: pictures and generated maps are then
        carried over by their colours, and get infrared drawn from it, instead of endmembers of their class.

        Args:
            images: reflectance (N, C, H, W), a list of (C, H, W), or a data set of ``{"image": …, "label":
                …}``.
            wavelengths: band centres in nm, ascending (`spectra.sort_bands` orders bands).
            rgb_bands: indices of red, green, blue; by wavelength if not given.
            fwhm: band widths in nm; by default the spacing of the bands.
            labels: one class per image: the regression takes it, or else the class gets endmembers of its own; a data set's
                items bring theirs.
            classes: the user's class names in label order (a data set's ``classes`` by default). Without
                names, integer labels are the synthesizer's own class indices.
            class_map: user's class name → synthesizer's class name, where they differ; others stay without
                class.
            rgb_scale: reflectance of white in RGB pictures for the new object, if it should differ.
            rank: of the residual model.
            ridge: weight of the present spectra in the new ones.
            max_pixels: how many pixels to use.
            seed: chooses them.
            sensor: name for the card.
            regression: whether to learn one (`unmixing.RGBRegression`). By default where the sensor sees beyond 750 nm and
                there are at least five images, or five parts of large ones.

        Raises:
            BandCountError, WavelengthError: if wavelengths do not fit the images, or no band is near red,
                green or blue.
            NoDataError, RadiometryError, ShapeError: for images that are no reflectance.
            LabelError, UnknownClassError: for labels or class names that do not fit.
        """
        from ubf_augment.synthesis.sensor import adapt

        return adapt(
            self, images, wavelengths=wavelengths, rgb_bands=rgb_bands, fwhm=fwhm, labels=labels, classes=classes,
            class_map=class_map, rgb_scale=rgb_scale, rank=rank, ridge=ridge, max_pixels=max_pixels, seed=seed,
            sensor=sensor, regression=regression,
        )  # fmt: skip

    def finetune(
        self,
        images: Float[Tensor, "n c h w"],
        labels: Shaped[Tensor, " n"] | Sequence[int],
        *,
        classes: Sequence[str],
        class_map: Mapping[str, str] | None = None,
        steps: int = 1000,
        batch_size: int = 32,
        lr: float = 2e-4,
        seed: int = 0,
        fabric: Fabric | None = None,
        checkpoint: Path | str | None = None,
        progress: bool = True,
        **options: Any,
    ) -> HSISynthesizer:
        """A synthesizer of the user's own classes: its generator goes on learning on the abundances of their images.

        Each class begins as the class that it is mapped to (by name or ``class_map``), or as a scene without class. E and ε
        stay: `adapt` to the sensor first. The images are unmixed, brought to the generator's size, flipped and turned; a few
        dozen of them are enough to shift a generator, and few enough to be learned by heart: check with
        `metrics.memorisation`, and take fewer steps.

        Args:
            images: reflectance on the synthesizer's bands.
            labels: (N,), indices into ``classes``.
            classes: the user's names in label order.
            class_map: user's class name → synthesizer's class name, where they differ.
            steps: of the generator.
            batch_size: maps per step.
            lr: peak learning rate.
            seed: of the training.
            fabric: devices and precision.
            checkpoint: file to go on from after an interruption.
            progress: show a progress bar.
            options: of the generator's ``fit``.

        Returns:
            A new synthesizer; this one stays as it is.

        Raises:
            TypeError: if the generator cannot be carried over to other classes.
            LabelError, UnknownClassError: for labels or names that do not fit.
            NoDataError, ShapeError, BandCountError, RadiometryError: for images that do not fit.
        """
        from ubf_augment.synthesis.finetuning import finetune

        path = None if checkpoint is None else Path(checkpoint)
        return finetune(
            self, images, labels, classes, class_map, steps, batch_size, lr, seed, fabric, path, progress, options
        )  # fmt: skip

    def distill(self, evaluations: int = 2, **options: Any) -> HSISynthesizer:
        """A synthesizer that draws the same scenes with fewer evaluations of its network, taught by this one.

        No training data are needed. What it can no longer do: another number of evaluations, guidance, ``edit``, `finetune`.

        Args:
            evaluations: of the network per sample: 1, 2, 4, …
            options: of `generators._distil.distill`: ``guidance`` (built in), ``scenes``, ``steps`` of each stage,
                ``batch_size``, ``lr``, ``seed``, ``fabric``, ``checkpoint``, ``progress``.

        Returns:
            A new synthesizer that shares endmembers, residual model and encoders with this one, which stays as it is.

        Raises:
            TypeError: if the generator is not one that denoises step by step.
            ValueError: if it was distilled before, or a number is out of range.

        Source: Salimans and Ho 2022, progressive distillation, arXiv:2202.00512.
        """
        from ubf_augment.synthesis.distillation import distill

        return distill(self, evaluations, options)

    def save_pretrained(
        self, directory: str | Path, *, dtype: str = "float32", overwrite: bool = True
    ) -> Path:
        """Write a bundle (JSON and safetensors, see `bundle`); one that stands there is replaced in one move.

        Args:
            directory: target; its name is the bundle's.
            dtype: storage of the networks' weights; "float16" halves the size. They are loaded as float32.
            overwrite: replace a bundle that stands there.

        Raises:
            BundleError: if the directory holds something else, or the generator is not registered by a name.
            FileExistsError: if a bundle stands there that is not to be replaced.
            OSError: if it cannot be written.
        """
        from ubf_augment.synthesis.storage import pack

        packed = pack(self, Path(directory).absolute().name)
        return bundle.write(packed, directory, dtype=dtype, overwrite=overwrite)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        licence: str | None = None,
        private: bool | None = None,
        revision: str | None = None,
        message: str | None = None,
        token: str | bool | None = None,
        dtype: str = "float32",
    ) -> str:
        """Upload the bundle to the Hugging Face Hub, from where `from_pretrained` loads it by its name.

        The repository is made if there is none; files of an older bundle in it are replaced in one commit. The model card gets
        the lines at its head that the Hub searches by.

        Args:
            repo_id: "your-name/name-of-the-bundle".
            licence: identifier of the Hub for the weights, such as "apache-2.0".
            private: whether only you may see a new repository.
            revision: branch; the main one by default.
            message: of the commit.
            token: of your account; by default the one that ``hf auth login`` has stored.
            dtype: storage of the networks' weights, see `save_pretrained`.

        Returns:
            Address of the commit.

        Raises:
            BundleError: if the name is none of a repository, or the Hub refuses.
        """
        from ubf_augment.synthesis.hub import push

        return push(
            self, repo_id, licence=licence, private=private, revision=revision, message=message, token=token,
            dtype=dtype,
        )  # fmt: skip

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, device: torch.device | str | None = None
    ) -> HSISynthesizer:
        """Load a bundle by packaged name (`list_pretrained`), directory or Hugging Face Hub id.

        Args:
            name: which one; the three meanings are tried in this order.
            revision: of a Hub id: branch, tag or commit.
            device: where to put it; the CPU by default.

        Raises:
            BundleError: if it is not found, incomplete or altered.
            BundleVersionError: if a newer version of this package wrote it.
        """
        from ubf_augment.synthesis.storage import unpack

        directory = bundle.locate(name, revision)
        synth = unpack(cls, bundle.read(directory), directory)
        return synth if device is None else synth.to(device)


def list_pretrained() -> list[str]:
    """Names of the bundles that ship with the package.

    >>> all(isinstance(name, str) for name in list_pretrained())
    True
    """
    return bundle.packaged()
