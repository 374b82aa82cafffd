"""AlexNet for timm, which has none; importing this registers it: ``timm.create_model("alexnet", …)``."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from ubf_augment.errors import ShapeError

_MIN_SIZE = 63


class AlexNet(nn.Module):
    """AlexNet in its one-column form, for any number of bands and classes.

    Five convolutions with three max poolings, 6×6 average pooling, two hidden layers of 4096 units. If you
    use it, please cite Krizhevsky 2014, arXiv:1404.5997, and Krizhevsky et al. 2012, doi:10.1145/3065386.

    Args:
        num_classes: K; 0 gives the features of the last hidden layer.
        in_chans: bands C.
        drop_rate: dropout before each hidden layer.
        global_pool: kept for timm; ``"avg"`` is the only one.

    Attributes:
        num_features: 256, channels of the last feature map.
        head_hidden_size: 4096.

    Raises:
        ShapeError: for images smaller than 63×63, whose feature map would be empty.

    >>> import timm
    >>> model = timm.create_model("alexnet", in_chans=4, num_classes=3)
    >>> model(torch.zeros(1, 4, 64, 64)).shape
    torch.Size([1, 3])
    """

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.5, global_pool: str = "avg"
    ) -> None:
        super().__init__()
        if global_pool not in ("avg", ""):
            raise ValueError(f"AlexNet pools by averaging, got global_pool={global_pool!r}")
        self.num_classes, self.in_chans = num_classes, in_chans
        self.num_features, self.head_hidden_size = 256, 4096
        self.features = nn.Sequential(
            nn.Conv2d(in_chans, 64, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(6)
        self.hidden = nn.Sequential(
            nn.Dropout(drop_rate), nn.Linear(256 * 36, 4096), nn.ReLU(inplace=True),
            nn.Dropout(drop_rate), nn.Linear(4096, 4096), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.fc: nn.Module
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new last layer for ``num_classes`` classes; none for 0."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 256 i j"]:
        """The last feature map."""
        if min(x.shape[-2:]) < _MIN_SIZE:
            raise ShapeError(
                f"AlexNet needs images of at least {_MIN_SIZE}×{_MIN_SIZE} pixels, got "
                f"{x.shape[-2]}×{x.shape[-1]}: enlarge them, or take a network such as resnet18"
            )
        features: Tensor = self.features(x)
        return features

    def forward_head(self, x: Float[Tensor, "b 256 i j"], pre_logits: bool = False) -> Float[Tensor, "b k"]:
        """Class scores of a feature map, or the last hidden layer."""
        hidden = self.hidden(torch.flatten(self.pool(x), 1))
        out: Tensor = hidden if pre_logits else self.fc(hidden)
        return out

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Class scores."""
        return self.forward_head(self.forward_features(x))


@register_model
def alexnet(pretrained: bool = False, **kwargs: Any) -> AlexNet:
    """AlexNet, see the class; it has no pretrained weights."""
    if pretrained:
        raise ValueError("alexnet has no pretrained weights here: leave pretrained=False")
    config = {
        "num_classes": 1000, "input_size": (3, 224, 224), "pool_size": None, "crop_pct": 0.875,
        "interpolation": "bilinear", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225),
        "first_conv": "features.0", "classifier": "fc",
    }  # fmt: skip
    kwargs["pretrained_cfg"] = kwargs.get("pretrained_cfg") or config  # timm passes None
    model: AlexNet = build_model_with_cfg(AlexNet, "alexnet", False, **kwargs)
    return model


__all__ = ["AlexNet", "alexnet"]  # after the decorator, which sets it to the function alone
