"""`HSISynthesizer.fit`: its stages on made data, the whole of it, and going on after an interruption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from synthesis_toys import NM, abundances, materials
from torch import Tensor
from torch.utils.data import Dataset, Subset

from ubf_augment import simplex
from ubf_augment.errors import MissingLabelError, NoDataError, RadiometryError, ShapeError, WavelengthError
from ubf_augment.io import HSI
from ubf_augment.mixing import mix
from ubf_augment.spectra import Endmembers
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.synthesis.beginning import initial_endmembers, match_brightness
from ubf_augment.synthesis.figures import gamut_table, reconstruction, residual_model
from ubf_augment.synthesis.maps import make_maps, quantise
from ubf_augment.synthesis.pictures import PictureSet, Scene, read_pictures, read_scenes
from ubf_augment.synthesis.pipeline import FitSettings, class_names
from ubf_augment.training import make_fabric
from ubf_augment.unmixing import UnmixingModel, fcls, fcls_rgb

SMALL: dict[str, Any] = {
    "num_endmembers": 4,
    "size": (16, 16),
    "restarts": 2,
    "refine_iterations": 30,
    "unmixing_steps": 20,
    "unmixing_config": {"width": 8, "blocks": 1, "rgb_width": 8, "rgb_blocks": 1},
    "unmixing_options": {"batch_size": 2, "crop": 16},
    "generator_steps": 6,
    "generator_batch_size": 4,
    "generator_config": {"codec": "unshuffle", "factor": 4, "widths": (16, 16), "attention": ()},
}


NO_ENCODERS: dict[str, Any] = {"unmixing_config": {}, "unmixing_options": {}}


def hsi(size: int = 40, seed: int = 0) -> HSI:
    image = mix(abundances(1, size, seed), materials())[0]
    return HSI(image, NM, torch.ones(size, size, dtype=torch.bool), {"path": "/data/block.mat"})


def pictures(n: int = 3, size: int = 24) -> dict[str, Tensor]:
    """Pictures of made scenes, class by class, white at reflectance 0.5."""
    out = {}
    for k, name in enumerate(("field", "town")):
        rgb = mix(abundances(n, size, 10 + k), materials())[:, [3, 2, 1]]
        out[name] = (rgb / 0.5 * 255).round().clamp(0, 255).to(torch.uint8)
    return out


def scenes_and_model() -> tuple[list[Scene], UnmixingModel]:
    torch.manual_seed(0)
    return read_scenes([hsi()])[0], UnmixingModel(materials(), width=8, blocks=1, rgb_width=8, rgb_blocks=1)


def test_fit_makes_a_working_synthesizer_and_resumes(tmp_path: Path) -> None:
    def fit(**changes: Any) -> HSISynthesizer:
        return HSISynthesizer.fit(
            [hsi()],
            pictures(),
            FitSettings(**SMALL),
            workdir=tmp_path / "work",
            fabric=make_fabric(accelerator="cpu"),
            progress=False,
            card={"licence": "MIT"},
            **changes,
        )

    synth = fit()
    assert synth.classes == ("field", "town", "block")
    assert synth.unmixing is not None
    assert torch.equal(synth.endmembers.spectra, synth.unmixing.endmembers.spectra)
    simplex.check(synth.sample_abundances(["town"], seed=0, steps=2))
    assert synth.sample(["field", "block"], seed=0, steps=2).shape == (2, 5, 16, 16)
    assert synth.residual is not None
    card = synth.card
    assert card["licence"] == "MIT"
    assert set(card["gamut_coverage"]) == {"field", "town"}
    assert set(card["reconstruction"]) == {"hsi_encoder", "rgb_encoder", "fcls"}
    assert card["settings"]["generator_steps"] == 6
    # the display scale was recovered: white is reflectance 0.5
    assert synth.rgb_scale == pytest.approx(0.5, rel=0.2)

    assert {p.name for p in (tmp_path / "work").iterdir()} >= {"unmixing.pt", "maps.npz", "generator.pt"}
    again = fit()  # every stage is found done
    assert torch.equal(again.sample(["town"], seed=0, steps=2), synth.sample(["town"], seed=0, steps=2))
    back = HSISynthesizer.from_pretrained(synth.save_pretrained(tmp_path / "saved"))
    assert torch.equal(back.sample(["town"], seed=0, steps=2), synth.sample(["town"], seed=0, steps=2))
    with pytest.raises(ValueError, match=r"maps\.npz was made from other data.*delete"):
        fit(rgb_scale=0.3, unmixing_steps=20)


def test_an_hsi_with_a_label_joins_its_class() -> None:
    synth = HSISynthesizer.fit(
        [hsi()],
        pictures(),
        FitSettings(**SMALL),
        hsi_labels=["town"],
        conditional_rgb=True,
        fabric=make_fabric(accelerator="cpu"),
        progress=False,
    )
    assert synth.classes == ("field", "town")
    shown = pictures()["town"]
    simplex.check(synth.unmix_rgb(shown, ["town"] * len(shown)))


def test_hsis_alone() -> None:
    synth = HSISynthesizer.fit([hsi()], None, fabric=make_fabric(accelerator="cpu"), progress=False, **SMALL)
    assert synth.classes == ("block",)
    assert synth.rgb_scale == 1


def test_class_names() -> None:
    shown = PictureSet(
        torch.zeros(0, 3, 4, 4, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), ("a", "b")
    )
    scenes = [
        Scene(torch.zeros(1, 2, 2), torch.ones(2, 2, dtype=torch.bool), n, y)
        for n, y in (("s", "b"), ("t", None))
    ]
    assert class_names(scenes, shown) == ("a", "b", "t")
    assert class_names(scenes, shown, include_hsis=False) == ("a", "b")


def test_brightness_is_matched_by_one_scale() -> None:
    shown = read_pictures(pictures(), (24, 24))
    scenes, nm = read_scenes([hsi()])
    scale = match_brightness(scenes, nm, shown)
    darker = PictureSet(shown.images // 2, shown.labels, shown.classes)
    assert match_brightness(scenes, nm, darker) == pytest.approx(2 * scale, rel=0.05)
    bright = scenes[0].pixels[:, [3, 2, 1]].mean(1).quantile(0.99)
    reached = (scale * shown.images.float() / 255).mean(1).flatten().quantile(0.99)
    assert float(reached) == pytest.approx(float(bright), rel=0.05)


def test_initial_endmembers_explain_scene_and_pictures() -> None:
    scenes, nm = read_scenes([hsi()])
    shown = read_pictures(pictures(), (24, 24))
    e = initial_endmembers(scenes, nm, shown, 0.5, FitSettings(**SMALL))
    assert e.names[-1] == "shade"
    assert bool((e.spectra[-1] == 0).all())
    model = UnmixingModel(e, width=8, blocks=1)
    assert reconstruction(model, scenes)["fcls"]["rmse"] < 5e-3
    table = gamut_table(model, shown, 0.5)
    assert all(row["best_relative_error"] < 0.05 for row in table.values())


def test_maps_are_stored_exactly() -> None:
    a = abundances(2, 9)
    stored = quantise(a)
    assert stored.dtype == torch.uint8
    assert bool((stored.sum(1) == 255).all())
    assert float((stored / 255 - a).abs().max()) < 1 / 255


def test_maps_of_pictures_and_hsis(tmp_path: Path) -> None:
    scenes, model = scenes_and_model()
    shown = read_pictures(pictures(), (16, 16))
    settings = FitSettings(**SMALL)
    classes = class_names(scenes, shown)
    maps, labels = make_maps(model, scenes, shown, 0.5, classes, settings, workdir=tmp_path)
    assert labels.tolist() == [0] * 3 + [1] * 3 + [2] * 16  # 4 × 4 half-overlapping windows of 16 in 40
    assert maps.shape == (22, 4, 16, 16)
    again = make_maps(model, scenes, shown, 0.5, classes, settings, workdir=tmp_path)
    assert torch.equal(again[0][:], maps[:])
    assert torch.equal(make_maps(model, scenes, shown, 0.5, classes, settings)[0], maps[:])  # in memory
    with pytest.raises(ValueError, match="other data or settings"):
        make_maps(model, scenes, shown, 0.6, classes, settings, workdir=tmp_path)


def test_residuals_are_those_of_the_rgb_path() -> None:
    scenes, model = scenes_and_model()
    fitted = residual_model(model, scenes, rank=2)
    image = scenes[0].image[None]
    left = image - mix(model.unmix_rgb(image[:, list(model.rgb_index)]), model.endmembers)
    torch.testing.assert_close(fitted.mean, left.detach().mean((0, 2, 3)), rtol=0, atol=1e-5)


def test_windows_avoid_invalid_pixels() -> None:
    scene = Scene(torch.arange(36.0).view(1, 6, 6), torch.ones(6, 6, dtype=torch.bool))
    scene.mask[0, 0] = False
    found = scene.windows(3, 3)
    assert found[:, 0, 0, 0].tolist() == [3, 18, 21]
    assert scene.windows(7, 1).shape == (0, 1, 7, 7)


@pytest.mark.parametrize(("zoom", "crops"), [(1.0, 1), (1.5, 3)])
def test_pictures_come_to_one_size(zoom: float, crops: int) -> None:
    given = {
        "wide": [torch.zeros(3, 30, 60, dtype=torch.uint8)],
        "small": torch.zeros(1, 3, 10, 10, dtype=torch.uint8),
    }
    found = read_pictures(given, (20, 20), zoom=zoom, crops=crops)
    assert found.images.shape == (2 * crops, 3, 20, 20)
    assert found.labels.tolist() == [0] * crops + [1] * crops


def test_whole_scene_is_kept_at_zoom_one() -> None:
    """A ramp keeps its mean when it is shrunk."""
    ramp = torch.arange(0, 240, dtype=torch.uint8).repeat(3, 240, 1)
    small = read_pictures({"a": [ramp]}, (24, 24)).images.float()
    assert float(small.mean()) == pytest.approx(float(ramp.float().mean()), abs=1)


def test_scenes_come_to_one_grid() -> None:
    fine = torch.arange(440, 721, 5, dtype=torch.float64)
    other = (mix(abundances(1, 8), materials(fine))[0], fine)
    scenes, nm = read_scenes([hsi(), other])
    assert torch.equal(nm, NM)
    assert scenes[1].image.shape == (5, 8, 8)
    assert [s.name for s in scenes] == ["block", "hsi-1"]
    with pytest.raises(WavelengthError, match="outside the source range"):
        read_scenes([other, hsi()])


class Listed:
    """A data set of pictures, with or without class names."""

    def __init__(self, classes: tuple[str, ...] | None, label: int | None = 0) -> None:
        self.label = label
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> dict[str, Any]:
        if i >= 2:
            raise IndexError
        item: dict[str, Any] = {"image": torch.zeros(3, 8, 8, dtype=torch.uint8)}
        return item if self.label is None else item | {"label": self.label}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(2))


def test_bad_input() -> None:
    assert read_pictures(Listed(("a",)), (8, 8)).labels.tolist() == [0, 0]
    with pytest.raises(MissingLabelError, match="no 'classes'"):
        read_pictures(Listed(None), (8, 8))
    with pytest.raises(MissingLabelError, match="picture 0 has no label"):
        read_pictures(Listed(("a",), None), (8, 8))
    for normalised in (torch.linspace(-1, 1, 192).view(3, 8, 8), torch.full((3, 8, 8), 0.123)):
        with pytest.raises(RadiometryError, match=r"class 'a' is torch\.float32 and not of displayed values"):
            read_pictures({"a": [normalised]}, (8, 8))
    with pytest.raises(RadiometryError, match=r"class 'a' is torch\.int64"):
        read_pictures({"a": [torch.zeros(3, 8, 8, dtype=torch.int64)]}, (8, 8))
    with pytest.raises(ShapeError, match=r"class 'a' must be \(3, H, W\)"):
        read_pictures({"a": [torch.zeros(8, 8, 3, dtype=torch.uint8)]}, (8, 8))
    with pytest.raises(ShapeError, match="no RGB pictures"):
        read_pictures({"a": []}, (8, 8))
    with pytest.raises(ValueError, match="at least 1"):
        read_pictures(pictures(), (8, 8), zoom=0.5)
    with pytest.raises(ShapeError, match="no hyperspectral images"):
        read_scenes([])
    with pytest.raises(
        ShapeError, match=r"no hyperspectral image has 64×64 valid.*the largest is 40.*settings\.size"
    ):
        HSISynthesizer.fit([hsi(40)], None)
    with pytest.raises(ShapeError, match="2 labels for 1"):
        read_scenes([hsi()], ["a", "b"])
    with pytest.raises(NoDataError, match="hyperspectral image 0"):
        read_scenes([(torch.full((5, 4, 4), torch.nan), NM)])
    with pytest.raises(RadiometryError, match=r"hyperspectral image 0 is torch\.int64"):
        read_scenes([(torch.ones(5, 4, 4, dtype=torch.int64), NM)])


def test_pictures_in_the_forms_of_torchgeo_and_torchvision() -> None:
    from PIL import Image

    values = torch.arange(192, dtype=torch.uint8).view(3, 8, 8)
    picture = Image.fromarray(values.movedim(0, -1).numpy())

    class Pairs(Listed):
        def __getitem__(self, i: int) -> Any:
            return [(picture, 0), (picture.convert("RGB"), 0)][i]

    for given in (values, values.float(), values.float() / 255, values.double()):
        assert torch.equal(read_pictures({"a": [given]}, (8, 8)).images[0], values)
    assert torch.equal(read_pictures(Pairs(("a",)), (8, 8)).images[1], values)


class Cubes(Dataset[dict[str, Any]]):
    """Two images of a data set; the second has a hole."""

    def __init__(self, classes: tuple[str, ...] | None = None, nm: Any = NM) -> None:
        if classes is not None:
            self.classes = classes
        if nm is not None:
            self.wavelengths = nm

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> dict[str, Any]:
        image, mask = hsi(6, i).image, torch.ones(6, 6, dtype=torch.bool)
        mask[0, 0] = i == 0
        return {"image": image, "mask": mask} | (
            {"label": torch.tensor(i)} if hasattr(self, "classes") else {}
        )


def test_scenes_from_data_sets() -> None:
    scenes, nm = read_scenes(Cubes(("Field", "Lake")))
    assert [s.label for s in scenes] == ["Field", "Lake"]
    assert nm.tolist() == list(NM)
    assert torch.equal(scenes[1].image, hsi(6, 1).image)
    assert [len(s.pixels) for s in scenes] == [36, 35]
    part, _ = read_scenes(Subset(Cubes(), [1]))
    assert [(s.label, s.name) for s in part] == [("Cubes", "Cubes 0")]
    both, _ = read_scenes([Cubes(), hsi(6, 3)], ["A", None])
    assert [s.label for s in both] == ["A", "A", None]
    fewer, grid = read_scenes([Cubes(), Cubes(("a", "b"))], wavelengths=NM[1:4])
    assert fewer[3].image.shape == (3, 6, 6)
    assert grid.tolist() == list(NM[1:4])
    with pytest.raises(WavelengthError, match=r"Cubes names no wavelengths: set data\.wavelengths"):
        read_scenes(Cubes(nm=None))
    with pytest.raises(ShapeError, match="no hyperspectral images"):
        read_scenes(Subset(Cubes(), []))


@pytest.mark.parametrize("count", [1, 0, -3])
def test_shade_needs_a_material_beside_it(count: int) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        FitSettings(num_endmembers=count)


def test_fit_without_training_encoders_is_exact_least_squares(tmp_path: Path) -> None:
    settings = FitSettings(
        **(SMALL | {"unmixing_steps": 0, "generator": "gmm", "generator_config": {}} | NO_ENCODERS)
    )
    kinds = ["a", "b"]
    synth = HSISynthesizer.fit(
        [hsi(16, seed) for seed in range(6)], None, settings, hsi_labels=[kinds[i % 2] for i in range(6)], progress=False
    )  # fmt: skip
    assert synth.unmixing is None
    assert synth.classes == ("a", "b")
    x = hsi(16, 9).image[None]
    torch.testing.assert_close(synth.unmix(x), fcls(x, synth.endmembers))
    torch.testing.assert_close(
        synth.unmix_rgb_reflectance(x[:, [3, 2, 1]]), fcls_rgb(x[:, [3, 2, 1]], synth.rgb_endmembers)
    )
    back = HSISynthesizer.from_pretrained(synth.save_pretrained(tmp_path / "bundle"))
    torch.testing.assert_close(back.sample(["a", "b"], seed=1), synth.sample(["a", "b"], seed=1))


def test_fit_begins_with_given_endmembers() -> None:
    """On their own bands they stay as they are; on others they are resampled; their number replaces the setting."""
    options: dict[str, Any] = (
        SMALL | {"unmixing_steps": 0, "generator": "gmm", "generator_config": {}} | NO_ENCODERS
    )
    options |= {"num_endmembers": 7}
    fine = torch.arange(440, 721, 5, dtype=torch.float64)
    for given, want in ((materials(), materials()), (materials(fine), materials(fine).resample(NM))):
        synth = HSISynthesizer.fit([hsi(20)], None, endmembers=given, progress=False, **options)
        assert torch.equal(synth.endmembers.spectra, want.spectra)
        assert synth.endmembers.names == ("soil", "leaf", "roof", "shade")
        assert synth.card["settings"]["num_endmembers"] == 4


def test_work_of_other_inputs_is_not_gone_on_with(tmp_path: Path) -> None:
    """Encoders of other images are refused; other given endmembers are learned anew, up to the maps, which are refused."""
    options: dict[str, Any] = SMALL | {"generator": "gmm", "generator_config": {}}
    HSISynthesizer.fit([hsi(20)], None, workdir=tmp_path / "a", progress=False, **options)
    (tmp_path / "a" / "maps.npz").unlink()
    with pytest.raises(ValueError, match=r"belongs to another run.*pixels"):
        HSISynthesizer.fit([hsi(20, seed=1)], None, workdir=tmp_path / "a", progress=False, **options)
    brighter = Endmembers(1.3 * materials().spectra, NM, materials().names)
    fixed = options | {"unmixing_options": {**options.get("unmixing_options", {}), "learn_endmembers": False}}
    for e in (materials(), brighter):
        found = HSISynthesizer.fit(
            [hsi(20)], None, endmembers=e, workdir=tmp_path / "b", progress=False, **fixed
        )
        torch.testing.assert_close(found.endmembers.spectra, e.spectra)
        (tmp_path / "b" / "maps.npz").unlink()
        (tmp_path / "b" / "generator.pt").unlink(missing_ok=True)


def test_residuals_are_those_of_the_path_that_the_generator_learned() -> None:
    scenes, model = scenes_and_model()
    x = scenes[0].image[None]
    for pictures_too, a in ((False, model.unmix(x)), (True, model.unmix_rgb(x[:, list(model.rgb_index)]))):
        left = (x - mix(a, model.endmembers))[0].mean((1, 2))
        found = residual_model(model, scenes, rank=2, pictures=pictures_too)
        torch.testing.assert_close(found.mean.float(), left, atol=1e-5, rtol=1e-3)
