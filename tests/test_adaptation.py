"""`HSISynthesizer.adapt` and its mathematics: known endmembers come back; real sensors; bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from synthesis_toys import NM, WIDE_NM, Toy, abundances, images, materials, synthesizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from ubf_augment.errors import (
    BandCountError,
    LabelError,
    NoDataError,
    RadiometryError,
    ShapeError,
    UnknownClassError,
    WavelengthError,
)
from ubf_augment.mixing import mix
from ubf_augment.spectra import Endmembers
from ubf_augment.synthesis.adaptation import Normal, estimate_sensor, extend, solve_endmembers
from ubf_augment.synthesis.imagery import ImageSource, cut_tiles

WIDE_RGB = (3, 2, 1)


class Labelled(Dataset[dict[str, Any]]):
    """Images and labels as torchgeo gives them."""

    classes = ("crops", "forest", "sea")

    def __init__(self, x: Tensor, y: list[int]) -> None:
        self.x, self.y, self.read = x, y, 0

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Any]:
        self.read += 1
        return {"image": self.x[i], "label": torch.tensor(self.y[i])}


def oracle(a: Tensor, x: Tensor) -> Any:
    """The abundances that an image was made of, found by its red, green and blue."""
    rgb = x[:, list(WIDE_RGB)]

    def unmix_rgb(r: Tensor, y: int | None) -> Tensor:
        i = int((rgb - r).abs().sum((1, 2, 3)).argmin())
        return a[i : i + 1]

    return unmix_rgb


def estimate(x: Tensor, a: Tensor, labels: list[int | None] | None = None, **options: Any) -> Any:
    source = ImageSource(x, labels)
    tiles = cut_tiles(source, x.shape[1], lambda y: y if isinstance(y, int) else None)
    return estimate_sensor(tiles, materials(), oracle(a, x), wavelengths=WIDE_NM, rgb=WIDE_RGB, **options)


@pytest.mark.parametrize("refine", [False, True])
def test_known_endmembers_come_back(refine: bool) -> None:
    a = abundances(12, 24)
    x = mix(a, materials(WIDE_NM))
    found = estimate(x, a, ridge=1e-6, refine=refine)
    torch.testing.assert_close(found.spectra, materials(WIDE_NM).spectra, rtol=0, atol=1e-3)
    assert bool((found.spectra[-1] == 0).all())  # shade stays zero
    assert found.report["rmse_after"] < 1e-3
    assert float(found.residual.noise_std.max()) < 1e-3


def test_class_endmembers_come_back() -> None:
    a, labels = abundances(12, 24), [0, 2] * 6
    own = {0: materials(WIDE_NM).spectra, 2: materials(WIDE_NM).spectra * torch.linspace(0.6, 1.2, 8)}
    x = torch.stack([mix(a[i : i + 1], own[y])[0] for i, y in enumerate(labels)])
    found = estimate(x, a, labels, class_ridge=1e-6)
    assert sorted(found.class_spectra) == [0, 2]
    for y, spectra in own.items():
        torch.testing.assert_close(found.class_spectra[y], spectra, rtol=0, atol=2e-3)
    assert found.report["rmse_after"] < 0.2 * found.report["rmse_after_shared"]


def test_an_endmember_that_never_occurs_keeps_its_prior() -> None:
    a = abundances(8, 16, p=3)
    a = torch.cat([a[:, :2], torch.zeros_like(a[:, :1]), a[:, 2:]], 1)  # no roof
    prior = materials().spectra
    normal = Normal.of(list(a), list(mix(a, prior * 1.3)))
    got = solve_endmembers(normal, prior, ridge=1e-4)
    torch.testing.assert_close(got[2], prior[2], rtol=0, atol=1e-5)
    torch.testing.assert_close(got[0], 1.3 * prior[0], rtol=0, atol=1e-2)


def test_solution_is_the_best_non_negative_one() -> None:
    """Optimality: the gradient is zero where e > 0 and not negative where e = 0."""
    g = torch.Generator().manual_seed(0)
    a, x = torch.rand(4, 6, 8, 8, generator=g), torch.randn(4, 3, 8, 8, generator=g)
    normal, prior = Normal.of(list(a), list(x)), torch.zeros(6, 3)
    e = solve_endmembers(normal, prior, ridge=1e-2).double()
    weight = 1e-2 * normal.gram.diagonal().mean()
    gradient = normal.gram @ e - normal.cross + weight * e
    assert float(gradient[e > 0].abs().max()) < 1e-6
    assert float(gradient[e == 0].min()) > -1e-6
    with pytest.raises(ValueError, match="positive"):
        solve_endmembers(normal, prior, ridge=0.0)


def test_extension_follows_the_scene_outside_the_old_range() -> None:
    a = abundances(2, 8)
    old, nm = materials(), torch.tensor([420.0, 560.0, 1610.0], dtype=torch.float64)
    x = torch.stack([torch.full((2, 8, 8), 0.1), mix(a, old)[:, 2], 2 * mix(a, old)[:, -1]], 1)
    guess, inside = extend(old, nm, Normal.of(list(a), list(x)), fwhm=1e-3)
    assert inside.tolist() == [False, True, False]
    torch.testing.assert_close(guess[:, 1], old.spectra[:, 2], rtol=0, atol=1e-4)
    torch.testing.assert_close(guess[:, 2], 2 * old.spectra[:, -1], rtol=0, atol=1e-4)


def test_adapt_makes_a_synthesizer_of_the_new_sensor() -> None:
    synth, x = synthesizer(rgb_scale=0.4), images(12, 24)
    new = synth.adapt(
        x, wavelengths=WIDE_NM, labels=[0, 1, 2] * 4, rank=3, sensor="toy", seed=1, regression=False
    )
    assert new.generator is synth.generator
    assert new.classes == synth.classes
    assert new.rgb_scale == 0.4
    assert torch.equal(new.wavelengths, WIDE_NM)
    assert torch.equal(new.sample_abundances([1], seed=0), synth.sample_abundances([1], seed=0))
    assert new.sample(["town", "field"], seed=0).shape == (2, 8, 8, 8)
    assert sorted(new.class_endmembers) == [0, 1, 2]
    residual = new.residual
    assert residual is not None
    assert residual.factors.shape == (8, 3)
    report = new.card["adaptation"]
    assert report["images"] == 12
    assert report["seconds"] > 0
    assert report["held_out"]
    assert [v is None for v in report["rmse_per_band_before"]] == [False] * 5 + [True] * 3
    assert len(report["rmse_per_band_after"]) == 8
    assert report["rmse_after"] < 0.02
    # pictures are unmixed as before: abundance space did not move
    shown = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(new.unmix_rgb(shown), synth.unmix_rgb(shown))
    # the object that was adapted is as it was
    assert torch.equal(synth.wavelengths, NM)
    assert "adaptation" not in synth.card


def test_adapt_repeats_with_its_seed() -> None:
    synth, x = synthesizer(), images(30, 64)
    first, again, other = (
        synth.adapt(x, wavelengths=WIDE_NM, max_pixels=20_000, seed=s).endmembers.spectra for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_residual_covers_what_the_mixing_model_leaves() -> None:
    """Mixed images plus ε have the mean and the band covariance of the images adapted to."""
    g = torch.Generator().manual_seed(3)
    a = abundances(12, 24)
    noise = 0.03 * torch.randn(12, 2, 24, 24, generator=g)
    x = (
        mix(a, materials(WIDE_NM))
        + torch.einsum("nrhw,cr->nchw", noise, torch.rand(8, 2, generator=g))
        + 0.01
    )
    new = synthesizer().adapt(x.clamp_min(0), wavelengths=WIDE_NM, regression=False)
    rgb_path = new.unmix_rgb_reflectance(x[:, list(WIDE_RGB)].clamp_min(0))
    made = new.mix(rgb_path, residual=True, seed=0)
    assert float((made - x).mean((0, 2, 3)).abs().max()) < 3e-3
    scatter = [torch.cov(v.movedim(1, 0).flatten(1)) for v in (made, x)]
    assert float((scatter[0] - scatter[1]).norm() / scatter[1].norm()) < 0.1


def test_images_in_every_form_give_the_same() -> None:
    x, y = images(6, 16), [0, 1, 2, 0, 1, 2]
    synth = synthesizer(classes=["farmland", "forest", "town"])
    options: dict[str, Any] = {
        "wavelengths": WIDE_NM,
        "class_map": {"crops": "farmland"},
        "regression": False,
    }
    data = Labelled(x, y)
    want = synth.adapt(x, labels=y, classes=data.classes, **options)
    assert sorted(want.class_endmembers) == [0, 1]  # the synthesizer knows no sea
    assert want.card["adaptation"]["classes_with_own_endmembers"] == ["farmland", "forest"]
    loader = DataLoader(data, batch_size=4)
    for form in (data, Subset(data, range(6))):
        got = synth.adapt(form, **options)
        torch.testing.assert_close(got.endmembers.spectra, want.endmembers.spectra, rtol=0, atol=0.02)
        torch.testing.assert_close(got.class_endmembers[0], want.class_endmembers[0], rtol=0, atol=0.02)
    batches = synth.adapt(loader, classes=data.classes, **options)
    assert sorted(batches.class_endmembers) == [0, 1]
    names = [("crops", "forest", "sea")[k] for k in y]
    by_name = synth.adapt(list(x), labels=names, **options)
    torch.testing.assert_close(by_name.class_endmembers[1], want.class_endmembers[1])


def test_only_as_many_images_are_read_as_needed() -> None:
    data = Labelled(images(50, 32), [0] * 50)
    synth = synthesizer(classes=["crops", "b", "c"])
    synth.adapt(data, wavelengths=WIDE_NM, max_pixels=5_000)
    assert data.read == 5


def test_images_of_different_sizes() -> None:
    mixed = [images(1, s, seed=s)[0] for s in (9, 16, 100)]
    new = synthesizer().adapt(mixed, wavelengths=WIDE_NM, max_pixels=3_000)
    assert new.num_bands == 8
    tiles = cut_tiles(ImageSource(mixed), 8, max_pixels=3_000)
    assert sum(t[0].numel() for t in tiles.cubes) <= 3_000


def test_held_out_images_are_whole() -> None:
    tiles = cut_tiles(ImageSource(torch.zeros(10, 2, 130, 130)), 2, max_pixels=10**6)
    held = tiles.held_out().tolist()
    sides = {i: {h for j, h in zip(tiles.image, held, strict=True) if j == i} for i in tiles.image}
    assert all(len(side) == 1 for side in sides.values())
    assert sum(True in side for side in sides.values()) == 2


def test_bands_without_red_green_blue_can_be_named() -> None:
    nm = torch.tensor([800.0, 1000.0, 1200.0, 1600.0], dtype=torch.float64)
    x = images(6, 16)[:, [3, 2, 1, 5]]
    with pytest.raises(WavelengthError, match="no band within 40 nm of red"):
        synthesizer().adapt(x, wavelengths=nm)
    new = synthesizer().adapt(x, wavelengths=nm, rgb_bands=(0, 1, 2))
    assert new.unmix_rgb(torch.zeros(1, 3, 4, 4)).shape == (1, 4, 4, 4)
    with pytest.raises(WavelengthError, match="three band indices"):
        synthesizer().adapt(x, wavelengths=nm, rgb_bands=(0, 1, 4))


def test_bad_input() -> None:
    synth, x = synthesizer(), images(4, 16)
    with pytest.raises(BandCountError, match=r"image \d has 8 bands, expected 5"):
        synth.adapt(x, wavelengths=NM)
    with pytest.raises(WavelengthError, match="not ascending"):
        synth.adapt(x, wavelengths=WIDE_NM.flip(0))
    with pytest.raises(WavelengthError, match="multiply by 1000"):
        synth.adapt(x, wavelengths=WIDE_NM / 1000)
    holes = x.clone()
    holes[2, 0, 5, 5] = torch.nan
    with pytest.raises(NoDataError, match="1 pixels of the image 2"):
        synth.adapt(holes, wavelengths=WIDE_NM)
    with pytest.raises(RadiometryError, match=r"int16.*divide"):
        synth.adapt((x * 1e4).short(), wavelengths=WIDE_NM)
    with pytest.raises(RadiometryError, match="median"):
        synth.adapt(x * 1e4, wavelengths=WIDE_NM)
    with pytest.raises(ShapeError, match="batch axis"):
        synth.adapt(x[0], wavelengths=WIDE_NM)
    with pytest.raises(ShapeError, match="no images"):
        synth.adapt([], wavelengths=WIDE_NM)
    with pytest.raises(ShapeError, match="3 labels for 4 images"):
        synth.adapt(x, wavelengths=WIDE_NM, labels=[0, 1, 2])
    with pytest.raises(ShapeError, match="no 'image'"):
        synth.adapt([{"x": x[0]}], wavelengths=WIDE_NM)
    with pytest.raises(LabelError, match=r"label 7 is outside 0\.\.2.*classes="):
        synth.adapt(x, wavelengths=WIDE_NM, labels=[0, 1, 2, 7])
    with pytest.raises(LabelError, match=r"label 2 is outside 0\.\.1"):
        synth.adapt(x, wavelengths=WIDE_NM, labels=[0, 1, 2, 0], classes=["a", "b"])
    with pytest.raises(UnknownClassError, match="'twon'"):
        synth.adapt(x, wavelengths=WIDE_NM, labels=[0] * 4, classes=["a"], class_map={"a": "twon"})
    with pytest.raises(UnknownClassError, match="'b' is not one of the classes"):
        synth.adapt(x, wavelengths=WIDE_NM, labels=["b"] * 4, classes=["a"])


# ---- real sensors


@pytest.fixture(scope="module")
def visible(UBF_DATA: Path) -> Any:
    """A synthesizer of the 59 visible bands of a Chikusei block, without encoders."""
    from scipy.io import loadmat

    from ubf_augment.unmixing import refine, vca, with_shade

    cube = torch.from_numpy(loadmat(UBF_DATA / "hsi" / "chikusei_282.mat")["Y"]).float()
    nm = torch.linspace(398.71, 698.04, 59, dtype=torch.float64)
    pixels = cube.reshape(-1, 59)[::5]
    spectra = refine(pixels, with_shade(vca(pixels, 5)), shade=True, iterations=30)
    return synthesizer(endmembers=Endmembers(spectra, nm), generator=Toy(6), residual=None)


def test_eurosat(UBF_DATA: Path, visible: Any) -> None:
    import rasterio

    nm = torch.tensor(
        [443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1375, 1610, 2190], dtype=torch.float64
    )
    order = [0, 1, 2, 3, 4, 5, 6, 7, 12, 8, 9, 10, 11]  # the files end with B8A, 865 nm
    x, y = [], []
    for name in ("Forest", "Residential", "SeaLake"):
        for path in sorted((UBF_DATA / "msi" / "eurosat_ms" / name).glob("*.tif"))[:8]:
            with rasterio.open(path) as file:
                x.append(torch.from_numpy(file.read().astype("float32"))[order] / 10_000)
            y.append(name)
    new = visible.adapt(
        x, wavelengths=nm, labels=y, class_map={"Forest": "forest", "Residential": "town"}, regression=False
    )
    report = new.card["adaptation"]
    assert report["seconds"] < 30
    assert report["rmse_after_in_old_range"] < report["rmse_before"]
    assert report["rmse_unmixed_refined"] < report["rmse_unmixed"] < 0.03
    assert report["classes_with_own_endmembers"] == ["forest", "town"]
    a = new.unmix(torch.stack(x[:2]), ["forest", "forest"])
    assert float((new.mix(a, ["forest", "forest"]) - torch.stack(x[:2])).square().mean().sqrt()) < 0.02
    # forests are bright in the near infrared, which no band of the old sensor sees
    made = new.sample(["forest"] * 4, seed=0)
    assert made.shape == (4, 13, 8, 8)


def test_enmap(UBF_DATA: Path, visible: Any) -> None:
    import rasterio

    x, nm = [], torch.zeros(0)
    for path in sorted((UBF_DATA / "hsi" / "enmap_potsdam" / "images").glob("*.tif")):
        with rasterio.open(path) as file:
            nm = torch.tensor(
                [float(file.tags(i + 1)["wavelength"]) for i in range(file.count)], dtype=torch.float64
            )
            cube = torch.from_numpy(file.read())
        good = [i for i in range(len(nm)) if not 129 <= i <= 134]
        order = torch.tensor(good)[nm[good].argsort()]
        x.append(cube[order] / 10_000)
        nm = nm[order]
    assert len(nm) == 218
    new = visible.adapt(torch.stack(x), wavelengths=nm)
    report = new.card["adaptation"]
    assert report["seconds"] < 30
    assert report["rmse_unmixed_refined"] < 0.02
    assert new.num_bands == 218
    with pytest.raises(NoDataError, match=r"mask or fill"):
        visible.adapt([torch.where(x[0] < -1, x[0], torch.nan)], wavelengths=nm)
