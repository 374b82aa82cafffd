"""Reflectance scenes of 48 bands made from RGB pictures, by library spectra and a mixing that is not linear; for `twin.py`.

Every picture becomes a map of 18 materials by its colours, and the map a reflectance cube. Only the picture enters: the random
numbers come from a checksum of its pixels. Measured spectra of soil, litter, roads, roofs and paint, and simulated canopies
(PROSAIL), are those of the package earthlib; water follows the semi-analytical model of Lee et al. (2002,
doi:10.1364/AO.41.005755).

What the linear model does not have, each with its switch in `Effects`: soil, sand, gravel, litter and thin canopies mixed in
single-scattering albedo (Hapke 1981, doi:10.1029/JB086iB04p03039); light scattered twice between neighbouring materials
(generalised bilinear model, Halimi et al. 2011, doi:10.1109/TGRS.2010.2098414); shadows lit by the sky; relief; spectra that vary
within a material; illumination, haze and water vapour of each scene; point spread; noise by band. Colours do not settle the near
infrared: among materials of like colour the choice is random, in smooth patches. Brown rivers can come out as soil.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ubf_augment.io import earthlib
from ubf_augment.radiometry import to_reflectance
from ubf_augment.seeding import derive_seed
from ubf_augment.spectra import resample, rgb_bands, sensor

EXPOSURE = (0.55, 2.2)  # scale and gamma that pictures are taken for
VARIANTS, _LIBRARY = 3, 160  # spectra of a material in one scene, and at most in the library
_MAPS, _SPECTRA, _LIGHT, _NOISE = 1, 2, 3, 4  # independent streams of random numbers of one picture


@dataclass(frozen=True)
class Effects:
    """What the linear mixing model does not have; `LINEAR` has nothing of it.

    Attributes:
        intimate: soil, sand, gravel, litter and thin canopies mix in single-scattering albedo.
        bilinear: largest γ of light scattered twice.
        shadow: how far the light of shadows is sky light.
        relief: deviation of the log-brightness by relief.
        variability: spectra vary within a scene's material.
        illumination: size of the scene's spectral factor, haze and water vapour; 1 as a sensor after correction.
        blur: deviation of the point spread in pixels.
        noise: 1 for the noise of `noise_std`.
    """

    intimate: bool = True
    bilinear: float = 1.0
    shadow: float = 0.6
    relief: float = 0.08
    variability: bool = True
    illumination: float = 1.0
    blur: float = 0.4
    noise: float = 1.0


EVERYTHING = Effects()
LINEAR = Effects(False, 0.0, 0.0, 0.0, False, 0.0, 0.0, 0.0)

Rule = Callable[[Any, Any, Any, Any], Any]  # red, green, blue, near infrared → whether a spectrum belongs


@dataclass(frozen=True)
class Material:
    """A material of the library.

    Attributes:
        name: for readers.
        kinds: of its spectra in the library; none for water.
        rule: by colour, among those.
        common: log-odds beside colour, texture and chance.
        texture: −1 smooth … 1 rough.
        grains: whether it lies as grains and mixes intimately.
        over: the material that shows through half of it.
    """

    name: str
    kinds: tuple[str, ...]
    rule: Rule = lambda r, g, b, n: r > 0
    common: float = 0.0
    texture: float = 0.0
    grains: bool = False
    over: str = ""


MATERIALS = (
    Material("trees", ("canopy",), lambda r, g, b, n: (n < 0.44) & (g < 0.09), 1.0, 0.8),
    Material("grass", ("canopy",), lambda r, g, b, n: (n >= 0.44) & (g >= 0.07), 0.7, -0.3),
    Material("thin canopy", ("canopy",), grains=True, over="dark soil"),
    Material("meadow", ("canopy",), texture=-0.2, grains=True, over="litter"),
    Material("litter", ("litter", "npv"), common=-0.3, grains=True),
    Material("dark soil", ("soil", "dirt"), lambda r, g, b, n: r < 0.22, 0.5, -0.3, True),
    Material("bright soil", ("soil",), lambda r, g, b, n: r >= 0.28, 0.5, -0.3, True),
    Material("sand", ("sand",), texture=-0.4, grains=True),
    Material("gravel", ("gravel",), common=-0.5, grains=True),
    Material("asphalt", ("asphalt", "road", "parking_lot"), lambda r, g, b, n: r < 0.2, 0.0, -0.3),
    Material("concrete", ("sidewalk", "driveway", "bridge"), lambda r, g, b, n: r > 0.2),
    Material("shingle", ("comp_shingle", "concrete_tile", "wood_shingle"), texture=0.3),
    Material("tiles", ("tile", "other"), lambda r, g, b, n: r > 1.5 * b, 0.0, 0.3),
    Material("metal", ("metal",), common=-1.5),
    Material("blue paint", ("paint",), lambda r, g, b, n: b > r, -2.0),
    Material("paint", ("paint",), lambda r, g, b, n: b <= r, -0.7),
    Material("clear water", (), common=-0.3, texture=-1.5),
    Material("turbid water", (), common=-0.3, texture=-1.5),
)
WAVELENGTHS = tuple(sensor("hsrs-sc").wavelengths.tolist())
RGB = list(rgb_bands(WAVELENGTHS))
_PURE_WATER = {
    380: 0.011, 400: 0.0066, 450: 0.0092, 500: 0.0204, 550: 0.0565, 600: 0.222, 650: 0.34, 700: 0.624, 720: 1.23, 740: 2.4,
    760: 2.6, 780: 2.4, 800: 2.1, 830: 3.2, 860: 4.9, 890: 6.2, 920: 11, 940: 26, 960: 44, 980: 43, 1000: 36, 1030: 22, 1060: 13,
}  # fmt: skip
"""Absorption in 1/m by wavelength in nm."""
_T = (torch.tensor(WAVELENGTHS) - 719) / 336.5  # −1 … 1 over the bands


@cache
def library() -> tuple[Tensor, ...]:
    """Spectra (N, 48) of every one of the `MATERIALS`.

    Raises:
        ModuleNotFoundError: if earthlib is not installed.
    """
    measured = earthlib()
    nm, kind = measured.wavelengths.numpy(), np.array([name.partition(" ")[0] for name in measured.names])
    stored = measured.spectra.numpy()[:, nm < 1200]
    nm = nm[nm < 1200]
    whole = (stored.min(1) > 0.004) & (stored.max(1) < 0.95) & (np.abs(np.diff(stored, 2)).max(1) < 0.05)
    r, g, b, n = (stored[:, np.abs(nm - at).argmin()] for at in (660, 560, 490, 850))
    slope = (stored[:, :1] - stored[:, 5:6]) / 5  # down to 370 nm as a straight line
    grown = np.concatenate([np.clip(stored[:, :1] + slope * k, 0.003, None) for k in (3, 2, 1)], 1)
    full = torch.from_numpy(np.concatenate([grown, stored], 1))
    bands = resample(full, [370.0, 380.0, 390.0, *nm.tolist()], WAVELENGTHS, dim=1)
    out = {}
    for m in MATERIALS:
        rows = np.flatnonzero(whole & np.isin(kind, m.kinds) & m.rule(r, g, b, n))
        some = rows[:: max(1, -(-len(rows) // _LIBRARY))]
        out[m.name] = bands[torch.from_numpy(some)] if m.kinds else water(turbid=m.name == "turbid water")
    for m in MATERIALS:
        if m.over:
            below = out[m.over]
            out[m.name] = (out[m.name] + below[torch.arange(len(out[m.name])) % len(below)]) / 2
    return tuple(out.values())


def water(turbid: bool, count: int = 60) -> Tensor:
    """Reflectance (count, 48) of deep water: ρ = π 0.52 r / (1 − 1.7 r) + glint, r = (0.089 + 0.125 u) u, u = b / (a + b).

    The absorption a is that of pure water (rounded from Pope and Fry 1997, doi:10.1364/AO.36.008710, and Kou et al. 1993,
    doi:10.1364/AO.32.003531), algae and yellow substance; the backscattering b that of particles. Amounts are drawn once.
    """
    nm = np.array(WAVELENGTHS)
    rng = np.random.default_rng(int(turbid))
    low, high = ((5, 0.3, 0.05), (30, 2.5, 0.3)) if turbid else ((0.5, 0.02, 0.003), (3, 0.2, 0.03))
    algae, yellow, particles = np.exp(rng.uniform(np.log(low), np.log(high), (count, 3))).T[..., None]
    pigment = np.exp(-(((nm - 440) / 45) ** 2)) + 0.5 * np.exp(-(((nm - 675) / 15) ** 2))
    a = (
        np.exp(np.interp(nm, list(_PURE_WATER), np.log(list(_PURE_WATER.values()))))
        + 0.05 * algae**0.63 * pigment
        + yellow * np.exp(-0.015 * (nm - 440))
    )
    b = 0.001 * (550 / nm) ** 4.3 + particles * (550 / nm)
    u = b / (a + b)
    below = (0.089 + 0.125 * u) * u
    above = np.pi * 0.52 * below / (1 - 1.7 * below) + rng.uniform(0.003, 0.01, (count, 1))
    return torch.from_numpy(above).float()


def noise_std(reflectance: Tensor) -> Tensor:
    """Deviation (48, H, W) of the noise: 0.2 / SNR · √(0.3 + 0.7 ρ / 0.2).

    The signal-to-noise ratio at ρ = 0.2 is 51 at 382 nm, 150 at 620 nm, and 30 at 1056 nm.
    """
    snr = 30 + 120 * torch.exp(-(((torch.tensor(WAVELENGTHS) - 620) / 180) ** 2))
    return 0.2 / snr[:, None, None] * (0.3 + 3.5 * reflectance.clamp_min(0)).sqrt()


def grains(parts: Tensor, spectra: Tensor) -> Tensor:
    """Reflectance (C, N) of an intimate mixture: parts (K, N) that sum to one, spectra (K, C, N).

    The single-scattering albedos w of the parts are averaged, with ρ = w / (1 + 2 √(1 − w))²: sun and sensor overhead.
    """
    root = ((1 + 3 * spectra).sqrt() - 2 * spectra) / (1 + 4 * spectra)  # √(1 − w)
    w = (parts[:, None] * (1 - root.square())).sum(0)
    return w / (1 + 2 * (1 - w).clamp_min(0).sqrt()).square()


def _rng(picture: Tensor, stream: int) -> torch.Generator:
    """Random numbers that depend on the pixels of the picture and on nothing else."""
    return torch.Generator().manual_seed(derive_seed(zlib.crc32(picture.numpy().tobytes()), stream))


def _field(count: int, side: int, cells: int, rng: torch.Generator) -> Tensor:
    """Smooth random maps (count, side, side) of deviation about one, with ``cells`` patches along a side."""
    coarse = torch.randn(1, count, cells, cells, generator=rng)
    fine: Tensor = F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)[0]
    return 1.4 * fine


def _blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (K, H, W), σ in pixels."""
    from torchvision.transforms.functional import gaussian_blur

    out: Tensor = gaussian_blur(x, [2 * int(3 * sigma + 1) + 1] * 2, [sigma, sigma]) if sigma else x
    return out


def endmembers(picture: Tensor) -> Tensor:
    """Spectra (K, V, 48) of the materials in a picture's scene: for each one of the library and others like it."""
    rng, out = _rng(picture, _SPECTRA), []
    for spectra in library():
        first = spectra[int(torch.randint(len(spectra), (1,), generator=rng))]
        like = (spectra - first).square().mean(1).argsort()[1 : 2 + len(spectra) // 8 + VARIANTS]
        others = like[torch.randperm(len(like), generator=rng)[: VARIANTS - 1]]
        out.append(torch.cat([first[None], spectra[others]]))
    return torch.stack(out)


def colours(picture: Tensor) -> Tensor:
    """Reflectance (3, H, W) of red, green and blue that a picture is taken for: display curve and haze undone, exposed."""
    x = to_reflectance(picture, *EXPOSURE)
    x = x - 0.8 * x.flatten(1).quantile(0.01, 1)[:, None, None]
    exposure: float = (0.11 / max(float(x.mean()), 1e-3)) ** 0.6
    return (x * exposure).clamp_min(0) + 0.004


def material_maps(picture: Tensor) -> Tensor:
    """Amounts (K, 2S, 2S) ≥ 0 of the materials in a picture uint8 (3, 2S, 2S): abundances times brightness.

    Likeness of colour, brightness and texture, with random preferences that are smooth in space, gives a prior p; the amounts are
    p ∘ (1 + M x) with the 3-vector x that brings M' a to the picture's colours in regularised least squares, kept non-negative.
    """
    rng, side = _rng(picture, _MAPS), picture.shape[-1]
    target = colours(picture)
    M = endmembers(picture).mean(1)[:, RGB]
    seen = _blur(target, 0.8)
    log = seen.mean(0).log()
    rough = _blur((log - _blur(log[None], 3.0)[0]).abs()[None], 3.0)
    chroma = (seen / seen.sum(0))[None] - (M / M.sum(1, keepdim=True))[..., None, None]
    bright = log[None] - M.mean(1).log()[:, None, None]
    texture, common = (
        torch.tensor([getattr(m, what) for m in MATERIALS])[:, None, None] for what in ("texture", "common")
    )
    logits = (
        common - (chroma / (0.05 + 0.0015 / seen.mean(0))).square().sum(1) / 2 - (bright / 0.5).square() / 2
    )
    logits = logits + texture * ((rough - 0.15) / 0.08).clamp(-1.5, 1.5)
    logits = logits + 0.7 * torch.randn(len(M), 1, 1, generator=rng) + 0.6 * _field(len(M), side, 6, rng)
    share = (1.5 * logits).softmax(0)
    p = (share * (seen.mean(0) / torch.einsum("khw,k->hw", share, M.mean(1)))).flatten(1)
    for _ in range(3):
        G = torch.einsum("kn,ki,kj->nij", p, M, M)
        G = G + 0.03 * G.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(3)
        x = torch.linalg.solve(G, (target.flatten(1) - M.T @ p).T[..., None])[..., 0]
        p = p * (1 + M @ x.T).clamp_min(0)
    limit = (
        1 + (p.sum(0) / 1.7) ** 4
    ) ** 0.25  # nothing is lit much brighter than a level surface in the sun
    return (p / limit).view(-1, side, side)


def simulate(picture: Tensor, effects: Effects = EVERYTHING) -> Tensor:
    """Reflectance (48, S, S) of a picture uint8 (3, 2S, 2S)."""
    side, rng = picture.shape[-1], _rng(picture, _LIGHT)
    amounts, E = material_maps(picture), endmembers(picture)
    which = (2.5 * _field(VARIANTS, side, 5, rng)).softmax(0).flatten(1)
    gamma = effects.bilinear * _field(1, side, 4, rng).sigmoid().flatten(1)
    if not effects.variability:
        E, which = E[:, :1], torch.ones(1, side * side)
    brightness = amounts.sum(0).clamp_min(1e-6)
    a = (amounts / brightness).flatten(1)
    y = _blend(a, which, E)
    if effects.intimate:
        fine = torch.tensor([m.grains for m in MATERIALS])
        part = a[fine].sum(0)
        parts = a[fine] / part.clamp_min(1e-6)
        spectra = torch.einsum("vn,kvc->kcn", which, E[fine])
        y = y + part * (grains(parts, spectra) - (parts[:, None] * spectra).sum(0))
    if effects.bilinear:
        near = _blur(a.view(-1, side, side), 2.5).flatten(1)  # light comes from the neighbours too
        y = y + gamma * pairs(near, which, E)
    y = y.view(-1, side, side) * _light(brightness, effects, rng)
    y = F.avg_pool2d(_blur(y, 2 * effects.blur)[None], 2)[0]
    y = _scene(y, effects.illumination, rng)
    if effects.noise:
        y = y + effects.noise * noise_std(y) * torch.randn(y.shape, generator=_rng(picture, _NOISE))
    return y


def _blend(a: Tensor, which: Tensor, E: Tensor) -> Tensor:
    """Sum (C, N) of materials a (K, N), whose spectra E (K, V, C) are blended by which (V, N)."""
    return E.flatten(0, 1).T @ (a[:, None] * which).flatten(0, 1)


def pairs(a: Tensor, which: Tensor, E: Tensor) -> Tensor:
    """Light (C, N) scattered by two materials, Σ_{i<j} a_i a_j e_i e_j = ((Σ a e)² − Σ a² e²) / 2, e blended as in `_blend`."""
    both = (which[:, None] * which).flatten(0, 1)
    squares = _blend(a.square(), both, (E[:, :, None] * E[:, None]).flatten(1, 2))
    return (_blend(a, which, E).square() - squares) / 2


def _light(brightness: Tensor, effects: Effects, rng: torch.Generator) -> Tensor:
    """Irradiance (C, H, W) relative to a bright level surface: shadows are blue, λ^−1.5, and slopes bright or dark."""
    side = brightness.shape[-1]
    dark = effects.shadow * (1 - brightness).clamp(0, 1)
    sky = (560 / torch.tensor(WAVELENGTHS))[:, None, None] ** 1.5
    return brightness * (1 + dark * (sky - 1)) * (effects.relief * _field(1, side, 4, rng)).exp()


def _scene(y: Tensor, size: float, rng: torch.Generator) -> Tensor:
    """Apply what is common to a scene: gain, tilt and bend of the illumination, remaining water vapour, haze."""
    basis = torch.stack([torch.ones(len(_T)), _T, _T.square() - 1 / 3])
    factor = (torch.tensor([0.10, 0.07, 0.04]) * torch.randn(3, generator=rng)) @ basis
    nm = torch.tensor(WAVELENGTHS)
    vapour = torch.exp(-(((nm - 942) / 22) ** 2)) + 0.3 * torch.exp(-(((nm - 823) / 15) ** 2))
    factor = factor - 0.04 * torch.randn(1, generator=rng) * vapour
    haze = 0.008 * torch.rand(1, generator=rng) * (450 / nm) ** 2
    return (size * factor).exp()[:, None, None] * y + (size * haze)[:, None, None]
