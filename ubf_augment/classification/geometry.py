"""Geometric augmentation of classifiers' images."""

from __future__ import annotations

from torch import nn


def affine(strength: float = 1.0) -> nn.Module:
    """Flips, quarter turns, and small rotations, shifts and scalings: the baseline that everything is measured by.

    Args:
        strength: multiplies 10°, a tenth of the side, and a tenth of the scale.

    Returns:
        A kornia module for ``{"image": (B, C, H, W), "label": …}`` that draws from torch's global generator and repeats
        edges; 0 leaves flips and quarter turns.
    """
    from kornia import augmentation as k

    s = strength
    moved = k.RandomAffine(
        10.0 * s, (0.1 * s, 0.1 * s), (1 - 0.1 * s, 1 + 0.1 * s), padding_mode="border", p=0.5
    )
    return k.AugmentationSequential(
        k.RandomHorizontalFlip(p=0.5),
        k.RandomVerticalFlip(p=0.5),
        k.RandomRotation90((0, 3), p=0.75),
        moved,
        data_keys=None,
    )
