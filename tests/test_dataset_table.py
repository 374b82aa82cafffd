"""What every data set and sensor can do: one test for each cell of the table in docs/datasets.md.

The cell of row R in column "loads" is ``test_loads[R]``, and so on; `test_the_tables_in_the_docs` holds the tables to that.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import (
    MATERIALS,
    made_aid,
    made_arad,
    made_chikusei_blocks,
    made_enmap,
    made_eurosat,
    made_harvard,
    made_hsrs_scenes,
    made_materials,
    made_mixtures,
    made_places,
    made_prisma,
    made_prisma_he5,
    made_reflectance,
    made_resisc45,
    made_sensor_folder,
)  # fmt: skip
from tiny import tiny_synth
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ubf_augment import HSISynthesizer, UBFAugment
from ubf_augment.datasets import AID, ARAD1K, HSRSSC, Chikusei, HarvardHSI, HSIFolder, IndianPines
from ubf_augment.datasets.folder import plot_sample
from ubf_augment.io import read_hsi
from ubf_augment.mixing import mix
from ubf_augment.spectra import list_sensors, sensor
from ubf_augment.unmixing import fcls

COLUMNS = ("loads", "plots", "fits", "augments")
DOCS = Path(__file__).resolve().parent.parent / "docs" / "datasets.md"
pytestmark = pytest.mark.filterwarnings("ignore:.*")  # of torchgeo and matplotlib


@dataclass
class Row:
    """A data set made in a folder.

    Attributes:
        make: folder → data set.
        nm: band centres in nm where the data set does not name them itself; None for pictures.
        plots: whether it has a ``plot``.
    """

    make: Callable[[Path], Any]
    pictures: bool = False
    plots: bool = True


class Queries(Dataset[dict[str, Any]]):
    """Windows of a torchgeo scene, as its samplers ask for them, with the wavelengths of the sensor."""

    def __init__(self, scene: Any, wavelengths: Tensor) -> None:
        self.scene, self.wavelengths = scene, wavelengths
        x, y, t = scene.bounds
        half = (x.start + x.stop) / 2
        self.windows = [(slice(x.start, half), y, t), (slice(half, x.stop), y, t)]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        sample = self.scene[self.windows[i]]
        return {"image": sample["image"]}

    def plot(self, sample: dict[str, Any]) -> Any:
        return plot_sample(sample, self.wavelengths)


class Reflectance(Dataset[dict[str, Any]]):
    """A torchgeo data set of a sensor; only ``wavelengths`` is added, which torchgeo's have not."""

    def __init__(self, data: Any, wavelengths: Tensor) -> None:
        self.data, self.wavelengths, self.classes = data, wavelengths, tuple(data.classes)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> dict[str, Any]:
        found: dict[str, Any] = self.data[i]
        return found

    def plot(self, sample: dict[str, Any]) -> Any:
        return plot_sample(sample, self.wavelengths, self.classes)


def eurosat(root: Path) -> Any:
    from torchgeo.datasets import EuroSAT

    s = sensor("sentinel-2").select(EuroSAT.all_band_names)  # B8A stands last
    return Reflectance(EuroSAT(made_eurosat(root), "train", transforms=s), s.centres)


def enmap(root: Path) -> Any:
    from torchgeo.datasets import EnMAP

    s = sensor("enmap").select(EnMAP.default_bands)
    return Queries(EnMAP(made_enmap(root), transforms=s), s.centres)


def prisma(root: Path) -> Any:
    from torchgeo.datasets import PRISMA

    s = sensor("prisma")
    return Queries(PRISMA(made_prisma(root), transforms=s), s.centres)


def resisc45(root: Path) -> Any:
    from torchgeo.datasets import RESISC45

    return RESISC45(made_resisc45(root))


def places365(root: Path) -> Any:
    from torchvision.datasets import Places365

    made_places(root)

    def checksum(name: str) -> tuple[str, str]:
        return name, hashlib.md5((root / name).read_bytes()).hexdigest()

    class Made(Places365):  # type: ignore[misc]
        _CATEGORIES_META = checksum("categories_places365.txt")
        _FILE_LIST_META = {"train-standard": checksum("places365_train_standard.txt")}  # noqa: RUF012

    return Made(root, small=True)


def indian_pines(root: Path) -> Any:
    pytest.importorskip("tensorly", reason="Indian Pines ships inside tensorly")
    data = IndianPines("val")
    chosen = range(0, len(data), len(data) // 12)  # twelve patches are enough here
    data.corners, data.targets = data.corners[list(chosen)], [data.targets[i] for i in chosen]
    return data


DATA: dict[str, Row] = {
    "HSRSSC": Row(lambda root: HSRSSC(made_hsrs_scenes(root), train_size=10)),
    "Chikusei": Row(
        lambda root: Chikusei(
            made_chikusei_blocks(root), "train", nm=Chikusei.VISIBLE, patch=16, block=16, gap=0
        )
    ),
    "ARAD1K": Row(lambda root: ARAD1K(made_arad(root, side=(16, 20)))),
    "HarvardHSI": Row(lambda root: HarvardHSI(made_harvard(root, side=(16, 20)))),
    "IndianPines": Row(indian_pines),
    "HSIFolder": Row(lambda root: HSIFolder(made_sensor_folder(root, sensor("hsrs-sc")), sensor="hsrs-sc")),
    "AID": Row(lambda root: AID(made_aid(root, 2)), pictures=True),
    "RESISC45 (torchgeo)": Row(resisc45, pictures=True),
    "Places365 (torchvision)": Row(places365, pictures=True, plots=False),
    "EuroSAT (torchgeo)": Row(eurosat),
    "EnMAP (torchgeo)": Row(enmap),
    "PRISMA (torchgeo)": Row(prisma),
}


def of_sensor(name: str) -> Row:
    """A folder of files as the products of a sensor store them."""
    return Row(lambda root: HSIFolder(made_sensor_folder(root, sensor(name)), sensor=name))


ROWS = DATA | {f"sensor `{name}`": of_sensor(name) for name in list_sensors()}
REAL = [name for name in ROWS if not ROWS[name].pictures]
PICTURES = [name for name in ROWS if ROWS[name].pictures]


def has(row: str, column: str) -> bool:
    """Whether the table has a mark there."""
    return column != "plots" or ROWS[row].plots


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Each data set, made once."""
    found: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in found:
            found[name] = ROWS[name].make(tmp_path_factory.mktemp("row"))
        return found[name]

    return get


@pytest.fixture(scope="module")
def fitted(opened: Callable[[str], Any]) -> Callable[[str], HSISynthesizer]:
    """A synthesizer of each data set: exact least squares, and the quickest generator."""
    found: dict[str, HSISynthesizer] = {}

    def get(name: str) -> HSISynthesizer:
        if name not in found:
            data = opened(name)
            hsi: Any = data
            if ROWS[name].pictures:
                known = sensor("sentinel-2")
                hsi = [(made_reflectance(known, 0, 1, 16)[list(known.order)], known.centres)]
            found[name] = HSISynthesizer.fit(
                hsi, data if ROWS[name].pictures else None, num_endmembers=4, size=(4, 4), restarts=1, refine_iterations=5,
                unmixing_steps=0, generator="gmm", residual_rank=2, progress=False,
            )  # fmt: skip
        return found[name]

    return get


def image_of(sample: Any) -> Any:
    return sample["image"] if isinstance(sample, dict) else sample[0]


# ---- loads


@pytest.mark.parametrize("name", ROWS)
def test_loads(name: str, opened: Callable[[str], Any]) -> None:
    data = opened(name)
    assert len(data) >= 2
    sample = data[0]
    image = image_of(sample)
    if isinstance(sample, dict):
        assert next(iter(sample)) == "image"
    if ROWS[name].pictures:
        values = np.asarray(image)
        assert 3 in values.shape
        assert values.min() >= 0
        assert 128 < values.max() <= 255  # displayed values, not stretched
        assert len(data.classes) >= 2
        return
    assert image.dtype == torch.float32
    assert len(image) == len(data.wavelengths)
    assert (torch.as_tensor(data.wavelengths).diff() > 0).all()
    assert torch.isfinite(image).all()
    assert -0.05 < float(image.min()) < float(image.max()) < 1.0
    if "label" in sample:
        assert int(sample["label"]) < len(data.classes)


@pytest.mark.parametrize("name", list_sensors())
def test_files_of_a_sensor_give_back_the_reflectance_that_they_were_made_of(
    name: str, opened: Callable[[str], Any]
) -> None:
    s, data = sensor(name), opened(f"sensor `{name}`")
    assert torch.equal(data.wavelengths, s.centres)
    for i, (main, number) in enumerate((main, number) for main in range(2) for number in range(3)):
        expected = made_reflectance(s, 10 * main + number, main)[list(s.order)]
        step = s.scale if s.scale is not None and s.scale < 1 else 1e-6
        torch.testing.assert_close(data[i]["image"], expected, atol=0.51 * step + 1e-7, rtol=0)


# ---- plots


@pytest.mark.parametrize("name", [name for name in ROWS if has(name, "plots")])
def test_plots(name: str, opened: Callable[[str], Any]) -> None:
    data = opened(name)
    sample = data[1]
    figure = data.plot(sample)
    shown = [picture for axes in figure.axes for picture in axes.get_images()]
    assert len(shown) == 1
    pixels = np.asarray(shown[0].get_array())
    assert pixels.shape == (*image_of(sample).shape[1:], 3)
    assert pixels.std() > 0
    if not ROWS[name].pictures:
        nm = np.asarray(figure.axes[1].lines[0].get_xdata())
        assert np.isfinite(nm).sum() == len(data.wavelengths)  # gaps between far bands are NaN


# ---- fits


@pytest.mark.parametrize("name", ROWS)
def test_fits(name: str, opened: Callable[[str], Any], fitted: Callable[[str], HSISynthesizer]) -> None:
    synth, data = fitted(name), opened(name)
    if ROWS[name].pictures:
        assert set(data.classes) < set(synth.classes)  # and that of the hyperspectral image
        return
    assert torch.equal(synth.wavelengths, torch.as_tensor(data.wavelengths, dtype=torch.float64))
    present = {int(data[i]["label"]) for i in range(len(data))} if hasattr(data, "classes") else set()
    expected = [data.classes[k] for k in sorted(present)] if present else [type(data).__name__]
    assert sorted(synth.classes) == sorted(expected)
    sample = data[0]
    a = fcls(sample["image"][None], synth.endmembers)
    left = (mix(a, synth.endmembers)[0] - sample["image"])[
        :, sample.get("mask", torch.ones(a.shape[2:], dtype=torch.bool))
    ]
    assert float(left.square().mean().sqrt()) < 0.6 * float(sample["image"].std())


# ---- augments


@pytest.mark.parametrize("name", ROWS)
def test_augments(name: str, opened: Callable[[str], Any], fitted: Callable[[str], HSISynthesizer]) -> None:
    data, synth = opened(name), fitted(name)
    if ROWS[name].pictures:  # labels of pictures, images of the sensor
        x = synth.sample(list(data.classes[:2]), seed=0)
        assert x.shape == (2, 13, 4, 4)
        assert torch.isfinite(x).all()
        return
    labelled = hasattr(data, "classes")
    samples = [
        {"image": data[i]["image"], "label": torch.as_tensor(data[i].get("label", 0))} for i in range(2)
    ]
    batch = default_collate(samples)
    augment = UBFAugment(
        synth, p=1.0, strategy="vary", seed=0, classes=data.classes if labelled else synth.classes
    )
    out = augment(batch)
    assert out["image"].shape == batch["image"].shape
    assert out["is_synthetic"].all()
    assert torch.equal(out["label"], batch["label"])
    assert torch.isfinite(out["image"]).all()
    assert 0 < float((out["image"] - batch["image"]).abs().mean()) < 0.3


@pytest.mark.parametrize("name", ["HSRSSC", "EuroSAT (torchgeo)", "sensor `landsat-8`"])
def test_a_bundle_of_another_sensor_is_adapted_to_it(name: str, opened: Callable[[str], Any]) -> None:
    data = opened(name)
    synth = tiny_synth().adapt(data, wavelengths=data.wavelengths, class_map={data.classes[0]: "Field"})
    assert synth.num_bands == len(data.wavelengths)
    x = synth.sample(["Field"], seed=0)
    assert torch.isfinite(x).all()


# ---- the table


def test_materials_look_like_what_they_are_called() -> None:
    e = made_materials().resample("sentinel-2")
    soil, tree, water = e.spectra
    assert e.names == MATERIALS
    assert float(tree[7]) > 4 * float(tree[3])  # near infrared over red
    assert (soil.diff() > 0).all()
    assert (water.diff() < 0).all()
    assert made_mixtures(0, 2)[2].mean() > 0.5


def docs() -> str:
    if not DOCS.exists():
        pytest.skip("the documentation is not part of this installation")
    return DOCS.read_text(encoding="utf-8")


def table() -> str:
    lines = [("data set or sensor", *COLUMNS), ("---",) * (1 + len(COLUMNS))]
    lines += [(name, *("✓" if has(name, column) else "–" for column in COLUMNS)) for name in ROWS]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def sensors() -> str:
    lines = []
    for s in map(sensor, list_sensors()):
        bad = f", {len(s.bad_bands)} of them bad" if s.bad_bands else ""
        spans = f"{s.centres[0]:.0f}–{s.centres[-1]:.0f} nm, {'widths known' if s.fwhm is not None else 'no widths'}"
        offset = f" − {-s.offset:g}" if s.offset else ""
        scale = "no scale" if s.scale is None else f"reflectance = {s.scale:g} × stored{offset}"
        missing = "" if s.nodata is None else f", {s.nodata:g} is no data"
        note = f" {s.note}" if s.note else ""
        lines.append(f"- `{s.name}`: {s.title}{bad}; {spans}; {scale}{missing}.{note} Source: {s.source}.\n")
    return "".join(lines)


@pytest.mark.parametrize("part", [table, sensors])
def test_the_tables_in_the_docs(part: Callable[[], str]) -> None:
    assert part() in docs(), f"{DOCS.name} must hold\n{part()}"


def test_the_docs_name_every_data_set_and_configuration() -> None:
    import ubf_augment.cli
    from ubf_augment import datasets

    page = docs()
    for name in (
        *datasets.__all__,
        *(f.name for f in Path(ubf_augment.cli.__file__).parent.glob("configs/*.yaml")),
    ):
        assert f"`{name}`" in page or f"--config {name}" in page, name


def test_the_commands_and_imports_in_the_docs() -> None:
    from ubf_augment.cli import build_parser
    from ubf_augment.cli.configuration import packaged_config

    text = docs().replace("\\\n", "")
    commands = re.findall(r"^ubf (.+)$", text, re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        words = packaged_config(command.split())
        assert build_parser(words)[0].parse_args(words).fit.out == Path(words[-1])
    for block in re.findall(r"```python\n(.+?)```", text, re.DOTALL):
        compile(block, str(DOCS), "exec")
        exec("\n".join(re.findall(r"^(?:from|import) .+$", block, re.MULTILINE)), {})


def test_the_script_in_the_docs_that_converts_prisma(tmp_path: Path) -> None:
    code = [block for block in re.findall(r"```python\n(.+?)```", docs(), re.DOTALL) if "List_Cw_" in block]
    assert len(code) == 1
    made: dict[str, Any] = {}
    exec(compile(code[0], str(DOCS), "exec"), made)
    image = made_prisma_he5(tmp_path / "PRS_L2D_STD_1.he5")
    made["prisma_to_geotiff"](tmp_path / "PRS_L2D_STD_1.he5", tmp_path / "a.tif")
    hsi = read_hsi(tmp_path / "a.tif", on_nodata="mask")
    s = sensor("prisma")
    torch.testing.assert_close(hsi.wavelengths, s.centres, atol=2e-4, rtol=0)
    torch.testing.assert_close(torch.tensor(hsi.meta["fwhm"]), s.widths.float(), atol=1e-4, rtol=0)
    assert int((~hsi.mask).sum()) == 1
    expected = torch.from_numpy(image)[list(s.order)]
    torch.testing.assert_close(hsi.image[:, hsi.mask], expected[:, hsi.mask], atol=2e-5, rtol=0)
