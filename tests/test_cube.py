"""Generation without unmixing: the free diffusion and the free latent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ubf_augment.baselines import CubeDiffusion, SpectralAutoencoder
from ubf_augment.errors import BandCountError, LabelError, NoDataError, ShapeError
from ubf_augment.generators import DDPM, list_generators
from ubf_augment.generators.codec import StandardCodec
from ubf_augment.seeding import per_sample
from ubf_augment.training import make_fabric

SMALL = {"factor": 2, "widths": (16, 32), "head_dim": 16}


def cubes(n: int = 64, bands: int = 5) -> tuple[Tensor, Tensor]:
    """Two classes: reflectance rising, or falling, with wavelength; smooth in space."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    ramp = torch.linspace(0.1, 0.6, bands)
    spectra = torch.stack([ramp, ramp.flip(0)])[labels][:, :, None, None]
    light = torch.nn.functional.interpolate(torch.rand(n, 1, 2, 2, generator=g), (8, 8), mode="bilinear")
    return spectra * (0.7 + 0.6 * light), labels


def test_the_codec_is_exact_and_leaves_codes_alone() -> None:
    x, _ = cubes()
    codec = StandardCodec(5, factor=2)
    codec.fit_linear([x[:32], x[32:]])
    z = codec.encode(x)
    assert z.shape == (64, 20, 4, 4)
    torch.testing.assert_close(codec.decode(z), x, atol=1e-6, rtol=1e-5)
    whole = torch.nn.functional.pixel_shuffle(z, 2)
    torch.testing.assert_close(whole.mean((0, 2, 3)), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.var((0, 2, 3), correction=0), torch.ones(5), atol=1e-4, rtol=0)
    free = 9 * torch.randn(2, 20, 4, 4)
    assert codec.project(free) is free


def test_the_classes_show_in_generated_cubes(tmp_path: Path) -> None:
    x, y = cubes()
    model = CubeDiffusion(5, (8, 8), 2, **SMALL)  # type: ignore[arg-type]
    history = model.fit(
        x, labels=y, steps=200, batch_size=16, lr=2e-3, fabric=make_fabric(accelerator="cpu"), warmup=10,
        ema_decay=0.98, progress=False, checkpoint=tmp_path / "cube.pt",
    )  # fmt: skip
    assert history.loss[-1] < history.loss[0]
    made = model.sample(torch.arange(16) % 2, generator=per_sample(0, range(16)), steps=8)
    slope = (made[:, -1] - made[:, 0]).mean((1, 2))
    assert float(slope[0::2].min()) > 0.1
    assert float(slope[1::2].max()) < -0.1
    again = model.sample([0, 1], generator=per_sample(0, range(2)), steps=8, batch_size=1)
    torch.testing.assert_close(again, made[:2], atol=1e-4, rtol=0)


def test_it_is_the_same_network_as_ddpm_but_for_the_code_s_channels() -> None:
    cube = CubeDiffusion(6, (16, 16), 3, factor=2, widths=(16, 32))
    ddpm = DDPM(6, (16, 16), 3, codec="unshuffle", factor=2, widths=(16, 32))
    shapes = [{k: v.shape for k, v in m.denoiser.named_parameters()} for m in (cube, ddpm)]
    assert shapes[0] == shapes[1]
    torch.testing.assert_close(cube.alpha_bar, ddpm.alpha_bar)


def test_nothing_is_closed_or_clamped() -> None:
    made = CubeDiffusion(5, (8, 8), None, **SMALL).sample(n=4, steps=2)  # type: ignore[arg-type]
    assert float(made.min()) < 0
    assert float((made.sum(1) - 1).abs().max()) > 0.1


def test_it_is_no_generator_of_abundances() -> None:
    assert not {"cube", ""} & set(list_generators())


def test_bad_cubes_are_refused() -> None:
    x, y = cubes(4)
    model = CubeDiffusion(5, (8, 8), 2, **SMALL)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="band count"):
        model.fit(x[:, :3], labels=y, steps=1)
    with pytest.raises(NoDataError, match="NaN"):
        model.fit(x / 0 * 0, labels=y, steps=1)
    with pytest.raises(ShapeError, match="floating point"):
        model.fit((255 * x).to(torch.uint8), labels=y, steps=1)
    with pytest.raises(LabelError):
        model.sample([2])
    with pytest.raises(ValueError, match="at least one channel"):
        CubeDiffusion(0, (8, 8))


def test_a_free_latent_of_two_numbers_holds_two_factors() -> None:
    """The made cubes have two factors, class and light; one linear number cannot hold them."""
    x, _ = cubes(64)
    model = SpectralAutoencoder(5, 2, width=32)
    before = float((model(x) - x).abs().mean())
    model.fit(x, steps=400, batch_size=16, lr=5e-3, fabric=make_fabric(accelerator="cpu"), progress=False)
    with torch.no_grad():
        error = float((model(x) - x).abs().mean())
        z = model.encode(x)
    assert error < 0.02 < 0.5 * before
    assert z.shape == (64, 2, 8, 8)
    assert float(z.min()) < 0  # free, not abundances


def test_the_autoencoder_refuses_bad_images() -> None:
    model = SpectralAutoencoder(5, 2)
    with pytest.raises(BandCountError, match="5"):
        model.encode(torch.rand(1, 4, 8, 8))
    with pytest.raises(BandCountError):
        model.fit(torch.rand(2, 4, 8, 8), steps=1)
    with pytest.raises(NoDataError):
        model.fit(torch.full((2, 5, 8, 8), torch.nan), steps=1)
    with pytest.raises(ValueError, match="positive"):
        SpectralAutoencoder(5, 0)


def test_a_finished_checkpoint_gives_the_autoencoder_back(tmp_path: Path) -> None:
    x, _ = cubes(16)
    options = {"batch_size": 8, "fabric": make_fabric(accelerator="cpu"), "progress": False}
    straight = SpectralAutoencoder(5, 2, width=8)
    straight.fit(x, steps=6, **options)  # type: ignore[arg-type]
    first = SpectralAutoencoder(5, 2, width=8)
    first.fit(x, steps=6, checkpoint=tmp_path / "a.pt", **options)  # type: ignore[arg-type]
    second = SpectralAutoencoder(5, 2, width=8)
    second.fit(x, steps=6, checkpoint=tmp_path / "a.pt", **options)  # type: ignore[arg-type]
    for a, b in zip(straight.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b)
