"""The codecs between abundance maps and the space of the denoiser."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ubf_augment import simplex
from ubf_augment.generators.codec import AbundanceAutoencoder, UnshuffleCodec, l1_and_gradients


def smooth_maps(n: int = 32, p: int = 4, size: int = 16) -> Tensor:
    g = torch.Generator().manual_seed(0)
    logits = torch.nn.functional.interpolate(torch.randn(n, p, 4, 4, generator=g), size, mode="bicubic")
    return torch.softmax(3 * logits, 1)


def test_unshuffle_is_inverted_exactly_and_standardises() -> None:
    maps = smooth_maps()
    codec = UnshuffleCodec(4, factor=4)
    codec.fit_linear([maps[:20], maps[20:]])
    z = codec.encode(maps)
    assert z.shape == (32, 64, 4, 4)
    torch.testing.assert_close(codec.linear(z), maps, atol=1e-6, rtol=0)
    torch.testing.assert_close(codec.decode(z), maps, atol=1e-6, rtol=0)
    per_endmember = z.view(32, 4, 16, 4, 4).transpose(0, 1).flatten(1)
    torch.testing.assert_close(per_endmember.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(per_endmember.std(1), torch.ones(4), atol=1e-3, rtol=0)


def test_projecting_a_code_is_projecting_its_maps() -> None:
    codec = UnshuffleCodec(4, factor=2)
    codec.fit_linear([smooth_maps()])
    z = 3 * torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(
        codec.linear(codec.project(z)), simplex.project(codec.linear(z)), atol=1e-5, rtol=0
    )


def test_the_latent_encoder_is_the_best_linear_one() -> None:
    maps = smooth_maps(64)
    codec = AbundanceAutoencoder(4, factor=4, channels=5, widths=(8, 8))
    codec.fit_linear(maps.split(10))
    patches = torch.nn.functional.pixel_unshuffle(maps, 4).movedim(1, -1).flatten(0, -2).double()
    singular = torch.linalg.svdvals(patches - patches.mean(0))
    bound = singular[5:].square().sum() / patches.numel()  # Eckart and Young
    error = (codec.linear(codec.encode(maps)) - maps).square().mean()
    assert float(error) == pytest.approx(float(bound), rel=1e-3)
    z = codec.encode(maps).movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(z.mean(0), torch.zeros(5), atol=1e-4, rtol=0)
    assert float(z.var(0).mean()) == pytest.approx(1.0, rel=1e-3)
    spread = z.std(0) / z.std(0)[0]
    natural = singular[:5] / singular[0]
    torch.testing.assert_close(spread.double(), natural.sqrt(), rtol=1e-3, atol=0)  # half whitened


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_every_latent_decodes_onto_the_simplex(factor: int) -> None:
    codec = AbundanceAutoencoder(3, factor=factor, channels=4, widths=(8, 8))
    a = codec.decode(5 * torch.randn(2, 4, 4, 2))
    assert a.shape == (2, 3, 4 * factor, 2 * factor)
    simplex.check(a)


def test_codecs_refuse_impossible_sizes() -> None:
    with pytest.raises(ValueError, match="2, 4 or 8"):
        AbundanceAutoencoder(3, factor=3)
    with pytest.raises(ValueError, match="1 to 12 components, not 13"):
        AbundanceAutoencoder(3, factor=2, channels=13)


def test_gradient_loss_by_hand() -> None:
    a, b = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    assert float(l1_and_gradients(b, a)) == pytest.approx(1 / 4 + 0.5 * (1 / 2 + 1 / 2))
    assert math.isclose(float(l1_and_gradients(b, b)), 0.0)
