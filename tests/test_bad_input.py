"""Bad input, line by line, through every entry point that can meet it: own exception, what, where, what to do.

Each case is (entry point, call, exception, words of the message). Cases of the command line are words: they
must end with code 2 and one line on stderr.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from tiny import CLASSES, NM, E, real_batch, tiny_synth
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, TensorDataset

from ubf_augment import HSISynthesizer, UBFAugment, UBFCallback, get_generator, read_hsi, write_hsi
from ubf_augment.cli import main
from ubf_augment.datasets import HSIFolder, SyntheticHSIDataset, balance
from ubf_augment.errors import (
    BandCountError,
    BundleError,
    BundleVersionError,
    HSIReadError,
    LabelError,
    MissingLabelError,
    NoDataError,
    RadiometryError,
    ShapeError,
    UnknownClassError,
    WavelengthError,
)
from ubf_augment.io import list_hsi
from ubf_augment.synthesis.pipeline import FitSettings
from ubf_augment.training import read_checkpoint

X, Y = real_batch(6, 8)
NAN = X.clone()
NAN[2, :, 3, 4] = float("nan")
INTEGER = (X * 10_000).to(torch.int16)
SWIR = [1700.0, 1800.0, 1900.0, 2000.0, 2100.0]
SMALL = ["--settings.num_endmembers", "4", "--settings.size", "[16,16]", "--settings.unmixing_steps", "1"]
SMALL += ["--settings.generator_steps", "1", "--settings.restarts", "1", "--settings.refine_iterations", "1"]


@dataclass(frozen=True)
class Made:
    """Files to go wrong with."""

    root: Path
    synth: HSISynthesizer

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    def augment(self, *batch: Any, **options: Any) -> Any:
        return UBFAugment(self.synth, 1.0, **{"seed": 0, **options})(*batch)

    def callback(
        self, image: Tensor, label: Any = Y, callback: UBFCallback | None = None, **options: Any
    ) -> Any:
        """A batch through the training augmentation that the callback sets."""
        data = SimpleNamespace(classes=list(CLASSES))
        module = SimpleNamespace(train_aug=None, aug=nn.Identity(), train_dataset=data)
        trainer: Any = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.datamodule = module
        call = callback or UBFCallback(synth=self.synth, p=1.0, **options)
        call.setup(trainer, LightningModule(), "fit")
        batch = {"image": image} if label is None else {"image": image, "label": label}
        return module.train_aug(batch)

    def fit(self, image: Tensor, nm: Any = NM, **settings: Any) -> HSISynthesizer:
        small = FitSettings(num_endmembers=3, size=(8, 8), unmixing_steps=1, generator_steps=1, **settings)
        return HSISynthesizer.fit([(image, nm)], None, small, progress=False)

    def bad_bundle(self, kind: str) -> Path:
        """A copy of the bundle, damaged."""
        folder = self.root / f"bundle-{kind}"
        if folder.exists():
            return folder
        shutil.copytree(self.bundle, folder)
        weights, index = folder / "generator" / "model.safetensors", folder / "model_index.json"
        if kind == "missing":
            weights.unlink()
        elif kind == "truncated":
            weights.write_bytes(weights.read_bytes()[:-1])
        elif kind == "altered":
            weights.write_bytes(weights.read_bytes()[:-1] + b"?")
        else:
            index.write_text(json.dumps(json.loads(index.read_text()) | {"format_version": 99}))
        return folder


def tif(path: Path, values: Any, wavelengths: Any = (), **profile: Any) -> Path:
    """A GeoTIFF as other programs may write it."""
    array = np.asarray(values)
    shape = {"count": array.shape[0], "height": array.shape[1], "width": array.shape[2]}
    with rasterio.open(path, "w", driver="GTiff", dtype=array.dtype.name, **shape, **profile) as file:
        file.write(array)
        for i, nm in enumerate(wavelengths):
            file.update_tags(i + 1, wavelength=str(nm), wavelength_units="nm")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("bad")
    generator = get_generator(
        "ddpm", num_endmembers=3, size=(8, 8), num_classes=3, codec="unshuffle", widths=(16, 16)
    )
    HSISynthesizer(E, generator, classes=CLASSES).save_pretrained(root / "bundle")
    x = X[0]
    write_hsi(root / "good.tif", x, NM)
    write_hsi(root / "swir.tif", x, SWIR)
    tif(root / "bare.tif", x)
    tif(root / "unsorted.tif", x, NM[::-1])
    tif(root / "integer.tif", INTEGER[0], NM)
    tif(root / "nan.tif", NAN[2], NM)
    tif(root / "nodata.tif", torch.where(x[0] < x[0].median(), torch.tensor(-9999.0), x), NM, nodata=-9999)
    (root / "cut.tif").write_bytes((root / "good.tif").read_bytes()[:-1])
    (root / "text.tif").write_text("no image " * 40)
    for name in ("empty", "tree/Field", "tree/Forest", "halves/Field", "pictures/Field", "cut/Field"):
        (root / name).mkdir(parents=True)
    shutil.copy(root / "good.tif", root / "tree" / "Field")
    for name in ("integer", "nodata"):
        (root / name / "Field").mkdir(parents=True)
        shutil.copy(root / f"{name}.tif", root / name / "Field")
    for name in ("good", "cut"):  # the first file is good
        shutil.copy(root / f"{name}.tif", root / "halves" / "Field" / f"{'ab'[name == 'cut']}.tif")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)).save(root / "a.png")
    picture = (root / "a.png").read_bytes()
    (root / "pictures" / "Field" / "a.png").write_bytes(picture)
    (root / "cut" / "Field" / "a.png").write_bytes(picture[: len(picture) // 2])
    (root / "deep" / "Field").mkdir(parents=True)
    Image.fromarray(np.full((24, 24), 60_000, np.uint16)).save(root / "deep" / "Field" / "a.png")
    torch.save({"step": 1}, root / "whole.pt")
    (root / "cut.pt").write_bytes((root / "whole.pt").read_bytes()[:-40])
    return Made(root, tiny_synth())


Call = Callable[[Made], Any] | str
Case = tuple[str, Call, type[Exception], str]


def line(*cases: Case) -> Any:
    """Run the test once for each case."""
    return pytest.mark.parametrize(
        ("call", "error", "words"), [case[1:] for case in cases], ids=[case[0] for case in cases]
    )


def check(
    made: Made, call: Call, error: type[Exception], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The call is refused with exactly this exception, whose message has all of ``words`` (split at ``|``)."""
    assert issubclass(error, ValueError | TypeError | OSError)
    if isinstance(call, str):
        out = made.root / "out"
        given = [w.replace("@", f"{made.root}/") for w in call.split()]
        more = [*SMALL, "--accelerator", "cpu"] if given[0] == "fit" else []
        assert main([*given, "--out", str(out), "--sheet", "false", *more]) == 2
        shown = [s for s in capsys.readouterr().err.splitlines() if s.startswith("ubf ")]
        assert len(shown) == 1
        message = shown[0]
        assert message.startswith(f"ubf {given[0]}: ")
        assert not out.exists()
    else:
        with pytest.raises(error) as caught:
            call(made)
        assert caught.type is error
        message = str(caught.value)
    for word in words.split("|"):
        assert word in message, f"{word!r} is not in: {message}"


@line(
    ("augment", lambda m: m.augment(X[:, :4], Y), BandCountError, "4 bands|expected 5|adapt"),
    ("callback", lambda m: m.callback(X[:, :4]), BandCountError, "4 bands|expected 5|adapt"),
    ("balance", lambda m: balance(TensorDataset(X[:, :4], Y), m.synth), BandCountError, "4 bands|adapt"),
    ("unmix", lambda m: m.synth.unmix(X[:, :4]), BandCountError, "4 bands|expected 5|wavelengths="),
    ("unmix_rgb", lambda m: m.synth.unmix_rgb(X), ShapeError, "3 channels|got 5"),
    ("adapt", lambda m: m.synth.adapt(X, wavelengths=NM[:4]), BandCountError, "5 bands|expected 4|image"),
    ("fit", lambda m: m.fit(X[0], NM[:4]), BandCountError, "4 wavelengths|hyperspectral image 0|5 bands"),
    (
        "read_hsi",
        lambda m: read_hsi(m.root / "bare.tif", wavelengths=NM[:4]),
        BandCountError,
        "bare.tif|5 bands",
    ),
    (
        "ubf adapt",
        "adapt @bundle @bare.tif --wavelengths 490,560,665",
        BandCountError,
        "bare.tif|3 wavelengths",
    ),
    ("ubf fit", "fit --hsi @bare.tif --read.wavelengths [490,560]", BandCountError, "bare.tif|2 wavelengths"),
)
def test_wrong_band_count(made: Made, call: Call, error: Any, words: str, capsys: Any) -> None:
    check(made, call, error, words, capsys)


@line(
    ("unmix", lambda m: m.synth.unmix(X, wavelengths=SWIR), WavelengthError, "490|1700–2100|adapt"),
    ("adapt", lambda m: m.synth.adapt(X, wavelengths=SWIR), WavelengthError, "red|1700 nm|rgb_bands="),
    ("fit", lambda m: m.fit(X[0], wavelengths=SWIR), WavelengthError, "2000–2100|490–1610|drop"),
    ("endmembers", lambda m: E.resample(SWIR), WavelengthError, "2000–2100|490–1610|adapt"),
    ("ubf adapt", "adapt @bundle @swir.tif", WavelengthError, "red|1700 nm|--rgb_bands"),
    (
        "ubf fit",
        "fit --hsi @good.tif --settings.wavelengths [490,560,665,2000,2100]",
        WavelengthError,
        "2000–2100|490–1610|drop",
    ),
)
def test_wavelengths_outside_the_range(made: Made, call: Call, error: Any, words: str, capsys: Any) -> None:
    check(made, call, error, words, capsys)


@line(
    (
        "unmix",
        lambda m: m.synth.unmix(X, wavelengths=NM[::-1]),
        WavelengthError,
        "not ascending|image|sort_bands",
    ),
    (
        "adapt",
        lambda m: m.synth.adapt(X, wavelengths=NM[::-1]),
        WavelengthError,
        "not ascending|images|sort_bands",
    ),
    ("fit", lambda m: m.fit(X[0], NM[::-1]), WavelengthError, "not ascending|image 0|sort_bands"),
    (
        "read_hsi",
        lambda m: read_hsi(m.root / "unsorted.tif"),
        WavelengthError,
        "unsorted.tif|sort_bands=True",
    ),
    (
        "write_hsi",
        lambda m: write_hsi(m.root / "new.tif", X[0], NM[::-1]),
        WavelengthError,
        "new.tif|sort_bands",
    ),
    ("ubf adapt", "adapt @bundle @unsorted.tif", WavelengthError, "unsorted.tif|order|--read.sort_bands"),
    ("ubf fit", "fit --hsi @unsorted.tif", WavelengthError, "unsorted.tif|order|--read.sort_bands"),
)
def test_unsorted_wavelengths(made: Made, call: Call, error: Any, words: str, capsys: Any) -> None:
    check(made, call, error, words, capsys)


@line(
    ("adapt", lambda m: m.synth.adapt(X, wavelengths=None), WavelengthError, "images|missing|each band"),
    ("fit", lambda m: m.fit(X[0], None), WavelengthError, "hyperspectral image 0|missing|each band"),
    (
        "read_hsi",
        lambda m: read_hsi(m.root / "bare.tif"),
        WavelengthError,
        "bare.tif|missing|wavelengths=[…]",
    ),
    ("write_hsi", lambda m: write_hsi(m.root / "new.tif", X[0], None), WavelengthError, "new.tif|missing"),
    ("ubf adapt", "adapt @bundle @bare.tif", WavelengthError, "bare.tif|missing|--read.wavelengths"),
    ("ubf fit", "fit --hsi @bare.tif", WavelengthError, "bare.tif|missing|--read.wavelengths"),
)
def test_missing_wavelengths(made: Made, call: Call, error: Any, words: str, capsys: Any) -> None:
    check(made, call, error, words, capsys)


@line(
    ("augment", lambda m: m.augment(NAN, Y), NoDataError, "image 2|1 pixels|fill"),
    ("callback", lambda m: m.callback(NAN), NoDataError, "image 2|1 pixels|fill"),
    (
        "balance",
        lambda m: balance(TensorDataset(NAN[2:], Y[2:]), m.synth),
        NoDataError,
        "1 pixels|first image|crop",
    ),
    ("unmix", lambda m: m.synth.unmix(NAN), NoDataError, "1 pixels|image 2|crop"),
    ("unmix_rgb", lambda m: m.synth.unmix_rgb(NAN[:, :3]), NoDataError, "1 pixels|crop"),
    ("adapt", lambda m: m.synth.adapt(NAN, wavelengths=NM), NoDataError, "1 pixels|image 2|crop"),
    ("fit", lambda m: m.fit(NAN[2]), NoDataError, "1 pixels|hyperspectral image 0|crop"),
    (
        "read_hsi NaN",
        lambda m: read_hsi(m.root / "nan.tif"),
        NoDataError,
        "nan.tif|row 3, column 4|on_nodata=",
    ),
    (
        "read_hsi nodata",
        lambda m: read_hsi(m.root / "nodata.tif"),
        NoDataError,
        "nodata.tif|of 64 pixels|on_nodata=",
    ),
    ("HSIFolder", lambda m: HSIFolder(m.root / "nodata"), NoDataError, "nodata.tif|on_nodata="),
    ("write_hsi", lambda m: write_hsi(m.root / "new.tif", NAN[2], NM), NoDataError, "new.tif|mask="),
    ("ubf adapt", "adapt @bundle @nan.tif", NoDataError, "nan.tif|1 pixels|crop"),
)
def test_missing_pixels(made: Made, call: Call, error: Any, words: str, capsys: Any) -> None:
    check(made, call, error, words, capsys)


DATA = 10_000 * X  # digital numbers that a loader has turned into float
BANK = {"Field": torch.zeros(2, 3, 8, 8)}


@line(
    ("augment", lambda m: m.augment(INTEGER, Y), RadiometryError, "int16|not reflectance|scale"),
    ("callback", lambda m: m.callback(INTEGER), RadiometryError, "int16|not reflectance|scale"),
    ("bank", lambda m: m.augment(X, Y, strategy="bank", bank=BANK), RadiometryError, "bank['Field']|uint8"),
    (
        "balance",
        lambda m: balance(TensorDataset(INTEGER, Y), m.synth),
        RadiometryError,
        "int16|float reflectance",
    ),
    ("unmix", lambda m: m.synth.unmix(INTEGER), RadiometryError, "int16|divide|10000"),
    ("unmix_rgb", lambda m: m.synth.unmix_rgb(INTEGER[:, :3]), RadiometryError, "int16|uint8"),
    ("adapt", lambda m: m.synth.adapt(INTEGER, wavelengths=NM), RadiometryError, "int16|image|divide"),
    ("fit", lambda m: m.fit(INTEGER[0]), RadiometryError, "int16|hyperspectral image 0|divide"),
    (
        "read_hsi",
        lambda m: read_hsi(m.root / "integer.tif"),
        RadiometryError,
        "integer.tif|int16|scale=1/10000",
    ),
    (
        "HSIFolder",
        lambda m: HSIFolder(m.root / "integer"),
        RadiometryError,
        "integer.tif|int16|scale=1/10000",
    ),
    ("ubf adapt", "adapt @bundle @integer.tif", RadiometryError, "integer.tif|int16|--read.scale"),
    ("ubf fit", "fit --hsi @integer.tif", RadiometryError, "integer.tif|int16|--read.scale"),
    ("pictures", "fit --hsi @good.tif --rgb @deep", RadiometryError, "deep/Field/a.png|8 bits (I"),
    ("float augment", lambda m: m.augment(DATA, Y), RadiometryError, "batch|median|10000"),
    ("float callback", lambda m: m.callback(DATA), RadiometryError, "batch|median|10000"),
    (
        "float balance",
        lambda m: balance(TensorDataset(DATA, Y), m.synth),
        RadiometryError,
        "first image|median",
    ),
    ("float unmix", lambda m: m.synth.unmix(DATA), RadiometryError, "batch|median|10000"),
    ("float adapt", lambda m: m.synth.adapt(DATA, wavelengths=NM), RadiometryError, "image|median|10000"),
)
def test_integers_without_a_scale(made: Made, call: Call, error: Any, words: str, capsys: Any) -> None:
    check(made, call, error, words, capsys)


@line(
    ("augment", lambda m: m.augment(X), MissingLabelError, "generate|augment(x, y)"),
    ("augment dict", lambda m: m.augment({"image": X}), MissingLabelError, "generate|'label': y"),
    ("callback", lambda m: m.callback(X, None), MissingLabelError, "generate|'label': y"),
    ("sample", lambda m: m.synth.sample(), MissingLabelError, "3 classes|label"),
    ("sample n", lambda m: m.synth.sample_abundances(n=4), MissingLabelError, "3 classes|label"),
    ("balance pairs", lambda m: balance(TensorDataset(X), m.synth), MissingLabelError, "item 0|tuple|(image, label)"),
    ("balance dicts", lambda m: balance([{"image": X[0]}], m.synth), MissingLabelError, "item 0|image|'label': …"),  # type: ignore[arg-type]
    ("balance tensors", lambda m: balance(list(X), m.synth), MissingLabelError, "item 0|Tensor|(image, label)"),  # type: ignore[arg-type]
    ("class-free source", lambda m: SyntheticHSIDataset(tiny_synth(num_classes=None), 9), MissingLabelError, "no class"),
    ("class-free balance", lambda m: balance(TensorDataset(X, Y), tiny_synth(num_classes=None)), MissingLabelError, "no class"),
)  # fmt: skip
def test_unlabelled_batch_with_a_source_of_classes(
    made: Made, call: Call, error: Any, words: str, capsys: Any
) -> None:
    check(made, call, error, words, capsys)


ROAD = ["Field", "Road", "Lake"]


@line(
    ("sample", lambda m: m.synth.sample(["Feld"]), UnknownClassError, "'Feld'|'Field'|synth.classes"),
    ("adapt", lambda m: m.synth.adapt(X, wavelengths=NM, labels=["Road"] * 6, classes=["Field"]), UnknownClassError,
     "'Road'|Field"),
    ("augment", lambda m: m.augment(X, Y, classes=ROAD, strict=True), UnknownClassError, "Road|class_map="),
    ("class_map", lambda m: m.augment(X, Y, classes=ROAD, class_map={"Road": "Forrest"}), UnknownClassError,
     "'Forrest'|did you mean 'Forest'"),
    ("callback", lambda m: m.callback(X, classes=ROAD, strict=True), UnknownClassError, "Road|class_map="),
    ("dataset", lambda m: SyntheticHSIDataset(m.synth, {"Road": 3}), UnknownClassError, "'Road'|Field, Forest, Lake"),
    ("balance", lambda m: balance(TensorDataset(X[:5], Y[[0, 1, 2, 0, 2]]), m.synth, classes=ROAD), UnknownClassError,
     "Road|class_map="),
    ("HSIFolder", lambda m: HSIFolder(m.root / "tree", classes=["Road"]), UnknownClassError, "tree|'Road'|Field"),
    ("ubf sample", "sample @bundle --classes Feld", UnknownClassError, "'Feld'|'Field'"),
    ("ubf fit", "fit --hsi @good.tif --rgb @pictures --rgb_classes Road", UnknownClassError, "'Road'|Field"),
)  # fmt: skip
def test_unknown_class(made: Made, call: Call, error: Any, words: str, capsys: Any) -> None:
    check(made, call, error, words, capsys)


NINE = torch.tensor([0, 1, 9, 0, 1, 2])


@line(
    ("augment", lambda m: m.augment(X, NINE), LabelError, "label 9|position 2|0..2|classes="),
    ("callback", lambda m: m.callback(X, NINE), LabelError, "label 9|position 2|0..2|classes="),
    ("sample", lambda m: m.synth.sample([0, 9]), LabelError, "label 9|position 1|0..2"),
    ("unmix", lambda m: m.synth.unmix(X, NINE), LabelError, "label 9|position 2|0..2"),
    ("adapt", lambda m: m.synth.adapt(X, wavelengths=NM, labels=NINE), LabelError, "label 9|0..2|classes="),
    (
        "adapt fraction",
        lambda m: m.synth.adapt(X, wavelengths=NM, labels=NINE + 0.5),
        LabelError,
        ".5|integer",
    ),
    ("balance", lambda m: balance(TensorDataset(X, NINE), m.synth), LabelError, "label 9|0..2|classes="),
    (
        "balance one-hot",
        lambda m: balance(TensorDataset(X, torch.eye(6)), m.synth),
        LabelError,
        "item 0|one integer",
    ),
    ("negative", lambda m: m.augment(X, -NINE), LabelError, "label -1|position 1|0..2"),
)
def test_label_out_of_range(made: Made, call: Call, error: Any, words: str, capsys: Any) -> None:
    check(made, call, error, words, capsys)


@line(
    ("augment", lambda m: m.augment(X[0], Y[:1]), ShapeError, "(5, 8, 8)|x[None]"),
    ("augment dict", lambda m: m.augment({"image": X[0], "label": Y[0]}), ShapeError, "(5, 8, 8)|x[None]"),
    ("augment label", lambda m: m.augment(X[:1], Y[0]), ShapeError, "shape ()|1 images"),
    ("callback", lambda m: m.callback(X[0]), ShapeError, "(5, 8, 8)|x[None]"),
    ("unmix", lambda m: m.synth.unmix(X[0]), ShapeError, "(5, 8, 8)|x[None]"),
    ("unmix_rgb", lambda m: m.synth.unmix_rgb(X[0, :3]), ShapeError, "(3, 8, 8)|x[None]"),
    ("mix", lambda m: m.synth.mix(X[0, :3]), ShapeError, "(3, 8, 8)|a[None]"),
    ("adapt", lambda m: m.synth.adapt(X[0], wavelengths=NM), ShapeError, "(5, 8, 8)|images[None]"),
    ("balance", lambda m: balance(TensorDataset(X[:, 0], Y), m.synth), ShapeError, "(C, H, W)|(8, 8)"),
)
def test_unbatched_tensor(made: Made, call: Call, error: Any, words: str, capsys: Any) -> None:
    check(made, call, error, words, capsys)


@line(
    ("list_hsi", lambda m: list_hsi(m.root / "empty"), HSIReadError, "empty|no hyperspectral image|.tif"),
    ("read_hsi", lambda m: read_hsi(m.root / "empty"), HSIReadError, "empty is a folder|list_hsi"),
    (
        "HSIFolder",
        lambda m: HSIFolder(m.root / "empty"),
        HSIReadError,
        "empty has no class folders|put the files",
    ),
    ("empty class", lambda m: HSIFolder(m.root / "tree"), HSIReadError, "tree/Forest|.tif"),
    ("no images", lambda m: m.synth.adapt([], wavelengths=NM), ShapeError, "no images|at least one"),
    ("balance", lambda m: balance(TensorDataset(X[:0], Y[:0]), m.synth), ValueError, "empty"),
    ("ubf adapt", "adapt @bundle @empty", HSIReadError, "empty|no hyperspectral image|.tif"),
    ("ubf adapt classes", "adapt @bundle @tree", HSIReadError, "tree/Forest|no hyperspectral image"),
    ("ubf fit", "fit --hsi @empty", HSIReadError, "empty|no hyperspectral image|.tif"),
    (
        "ubf fit rgb",
        "fit --hsi @good.tif --rgb @empty",
        HSIReadError,
        "empty has no class folders|put the pictures",
    ),
    (
        "ubf fit rgb class",
        "fit --hsi @good.tif --rgb @tree --rgb_classes Forest",
        HSIReadError,
        "'Forest'|.png",
    ),
)
def test_empty_folder(made: Made, call: Call, error: Any, words: str, capsys: Any) -> None:
    check(made, call, error, words, capsys)


@line(
    ("read_hsi", lambda m: read_hsi(m.root / "cut.tif"), HSIReadError, "cut.tif is truncated|bytes|download"),
    ("read_hsi text", lambda m: read_hsi(m.root / "text.tif"), HSIReadError, "text.tif|damaged|download"),
    ("HSIFolder", lambda m: HSIFolder(m.root / "halves")[1], HSIReadError, "halves/Field/b.tif is truncated"),
    ("checkpoint", lambda m: read_checkpoint(m.root / "cut.pt"), ValueError, "cut.pt|truncated|delete"),
    ("ubf adapt", "adapt @bundle @cut.tif", HSIReadError, "cut.tif is truncated|download"),
    ("ubf adapt text", "adapt @bundle @text.tif", HSIReadError, "text.tif|damaged|download"),
    ("ubf fit", "fit --hsi @halves", HSIReadError, "halves/Field/b.tif is truncated|download"),
    ("ubf fit rgb", "fit --hsi @good.tif --rgb @cut", HSIReadError, "cut/Field/a.png|truncated|replace"),
)
def test_unreadable_or_truncated_file(made: Made, call: Call, error: Any, words: str, capsys: Any) -> None:
    check(made, call, error, words, capsys)


def by_callback(m: Made, kind: str) -> Any:
    return m.callback(X, callback=UBFCallback(str(m.bad_bundle(kind))))


@line(
    *(
        case
        for kind, error, words in (
            ("missing", BundleError, "generator/model.safetensors is missing|download"),
            ("altered", BundleError, "generator/model.safetensors was altered|download"),
            ("truncated", BundleError, "generator/model.safetensors was altered or truncated|download"),
            ("newer", BundleVersionError, "bundle-newer|format version 99|pip install -U"),
        )
        for case in (
            (kind, lambda m, k=kind: HSISynthesizer.from_pretrained(m.bad_bundle(k)), error, words),
            (f"{kind}, callback", lambda m, k=kind: by_callback(m, k), error, words),
            (f"{kind}, ubf sample", f"sample @bundle-{kind}", error, words),
            (f"{kind}, ubf adapt", f"adapt @bundle-{kind} @good.tif", error, words),
        )
    ),
    ("unknown", lambda m: HSISynthesizer.from_pretrained("nowhere"), BundleError, "'nowhere'|packaged bundles: "),
    ("target", lambda m: m.synth.save_pretrained(m.root / "tree"), BundleError, "not a registered generator"),
)  # fmt: skip
def test_missing_altered_or_newer_bundle(made: Made, call: Call, error: Any, words: str, capsys: Any) -> None:
    for kind in ("missing", "altered", "truncated", "newer"):
        made.bad_bundle(kind)
    check(made, call, error, words, capsys)


def test_a_target_that_is_no_bundle_is_refused_before_the_work(made: Made, capsys: Any) -> None:
    for words in (["fit", "--hsi", "nowhere"], ["adapt", "nowhere", "nowhere"]):
        assert main([*words, "--out", str(made.root / "tree")]) == 2
        assert "tree exists and is not a bundle: choose another directory" in capsys.readouterr().err


def test_the_parts_of_a_data_set_must_agree_on_their_classes(made: Made) -> None:
    class Named(TensorDataset):
        classes = ("Lake", "Field", "Forest")

    first, second = Named(X[:3], Y[:3]), Named(X[3:], Y[3:])
    filled = balance(ConcatDataset([first, second]), made.synth, to=3)
    assert filled.datasets[1].classes == ("Lake", "Field", "Forest")  # not those of the synthesizer
    assert filled.classes == ("Lake", "Field", "Forest")
    assert sorted(filled.targets) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    second.classes = ("Field", "Lake", "Forest")
    with pytest.raises(ValueError, match="do not agree on their classes"):
        balance(ConcatDataset([first, second]), made.synth)
