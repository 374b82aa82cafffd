"""AlexNet registered with timm."""

from __future__ import annotations

import pytest
import timm
import torch

import ubf_augment.models  # noqa: F401 - registers alexnet
from ubf_augment.errors import ShapeError


def test_any_bands_and_classes() -> None:
    model = timm.create_model("alexnet", in_chans=13, num_classes=10).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 13, 64, 64)).shape == (2, 10)
        assert model(torch.rand(1, 13, 63, 80)).shape == (1, 10)
        assert model.forward_features(torch.rand(1, 13, 64, 64)).shape == (1, 256, 1, 1)
        features = model.forward_head(torch.rand(1, 256, 1, 1), pre_logits=True)
    assert features.shape == (1, model.head_hidden_size)
    assert model.get_classifier().out_features == 10
    assert model.default_cfg["classifier"] == "fc"
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), torch.nn.Identity)


def test_same_network_as_torchvisions() -> None:
    from torchvision.models import alexnet

    ours = timm.create_model("alexnet").eval()
    theirs = alexnet().eval()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        b.data.copy_(a.data)
    x = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_too_small_images_and_missing_weights() -> None:
    model = timm.create_model("alexnet", num_classes=2)
    with pytest.raises(ShapeError, match=r"63×63 pixels, got 62×64"):
        model(torch.rand(1, 3, 62, 64))
    with pytest.raises(ValueError, match="no pretrained weights"):
        timm.create_model("alexnet", pretrained=True)
