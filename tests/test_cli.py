"""The command ``ubf``, called as a user calls it, on the packaged bundle of Indian Pines and on made files."""

from __future__ import annotations

import inspect
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import (
    made_aid,
    made_arad,
    made_chikusei_blocks,
    made_harvard,
    made_hsrs_scenes,
    made_resisc45,
    write_picture,
)
from PIL import Image

import ubf_augment.cli
from ubf_augment import HSISynthesizer, UBFAugment, read_hsi, write_hsi
from ubf_augment.cli import main
from ubf_augment.datasets import AID, ARAD1K

FEW = "{'steps': 2}"


def sample(out: Path, num: int, *more: str) -> int:
    words = [
        "sample",
        "indian-pines",
        "--out",
        str(out),
        "--num",
        str(num),
        "--options",
        FEW,
        "--sheet",
        "false",
    ]
    return main([*words, "--classes", "Woods,Corn-notill", *more])


def test_list_names_the_packaged_bundles(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert "aid-chikusei" in shown
    assert "indian-pines" in shown


def test_samples_are_files_with_wavelengths_and_a_rerun_adds_without_changing(tmp_path: Path) -> None:
    assert sample(tmp_path / "a", 1) == 0
    first = {p.name: p.read_bytes() for p in (tmp_path / "a").rglob("*.tif")}
    assert len(first) == 2
    assert sample(tmp_path / "a", 3) == 0
    now = {p.name: p.read_bytes() for p in (tmp_path / "a").rglob("*.tif")}
    assert len(now) == 6
    assert all(now[name] == data for name, data in first.items())
    hsi = read_hsi(next((tmp_path / "a").rglob("*.tif")))
    synth = HSISynthesizer.from_pretrained("indian-pines")
    assert torch.equal(hsi.wavelengths, synth.wavelengths)
    assert hsi.image.shape == (synth.num_bands, *synth.size)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sample", "no-such-bundle", "--out", "x"], "no-such-bundle"),
        (["sample", "indian-pines", "--out", "x", "--classes", "Wodos"], "Woods"),
        (["adapt", "indian-pines", "nowhere", "--out", "x"], "nowhere"),
    ],
)
def test_wrong_input_gives_one_line_and_code_2(
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert says in shown
    assert "Traceback" not in shown


def made_folders(root: Path) -> Path:
    """Three small images, two classes of pictures, and the settings of a fit of seconds."""
    g = torch.Generator().manual_seed(0)
    nm = [450.0, 490.0, 530.0, 560.0, 600.0, 640.0, 665.0, 700.0]
    spectra = torch.rand(3, 8, generator=g) * 0.5
    for i in range(3):
        a = torch.softmax(3 * torch.randn(3, 24, 24, generator=g), 0)
        write_hsi(root / "hsi" / f"{i}.tif", torch.einsum("phw,pc->chw", a, spectra), nm)
        for name in ("Red", "Green"):
            folder = root / "rgb" / name
            folder.mkdir(parents=True, exist_ok=True)
            pixels = torch.randint(0, 256, (24, 24, 3), generator=g, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    (root / "fit.yaml").write_text(
        f"hsi: {root / 'hsi'}\nrgb: {root / 'rgb'}\nout: {root / 'bundle'}\nsheet: false\n"
        "settings:\n  num_endmembers: 4\n  size: [16, 16]\n  unmixing_steps: 3\n  generator_steps: 2\n"
        "  generator_config: {codec: unshuffle, factor: 2, widths: [16, 16], attention: []}\n"
    )
    return root


@pytest.mark.slow
def test_fit_from_folders_makes_a_bundle_that_samples_and_adapts(tmp_path: Path) -> None:
    config = made_folders(tmp_path) / "fit.yaml"
    assert main(["fit", "--config", str(config)]) == 0
    synth = HSISynthesizer.from_pretrained(tmp_path / "bundle")
    assert {"Red", "Green"} <= set(synth.classes)
    assert synth.sample(["Red"], seed=0).shape == (1, 8, 16, 16)
    words = [
        "adapt",
        str(tmp_path / "bundle"),
        str(tmp_path / "hsi"),
        "--out",
        str(tmp_path / "new"),
        "--sheet",
        "false",
    ]
    assert main(words) == 0
    assert HSISynthesizer.from_pretrained(tmp_path / "new").num_bands == 8


TINY = [
    "--accelerator", "cpu", "--threads", "1", "--sheet", "false", "--settings.num_endmembers", "4",
    "--settings.size", "[16,16]", "--settings.restarts", "1", "--settings.refine_iterations", "5",
    "--settings.unmixing_steps", "3", "--settings.unmixing_options", "{batch_size: 2, crop: 16}",
    "--settings.unmixing_config", "{width: 8, rgb_width: 8, blocks: 1, rgb_blocks: 1}",
    "--settings.generator_steps", "2", "--settings.generator_options", "{}", "--settings.generator_batch_size", "4",
    "--settings.generator_config", "{codec: unshuffle, factor: 2, widths: [16, 16], attention: []}",
]  # fmt: skip


def made_places(root: Path) -> Path:
    """Places365: one folder of jpg files per class."""
    rng = np.random.default_rng(0)
    for name in ("airfield", "kitchen"):
        for i in range(3):
            write_picture(root / name / f"{i:08}.jpg", rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    return root


@pytest.mark.slow
def test_the_natural_scenario_from_its_packaged_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made_arad(tmp_path / "ARAD", side=(20, 24))
    words = ["fit", "--config", "natural.yaml", "--hsi.init_args.root", "ARAD", "--out", "natural"]
    assert main([*words, "--rgb", str(made_places(tmp_path / "places")), *TINY]) == 0
    synth = HSISynthesizer.from_pretrained(tmp_path / "natural")
    assert synth.wavelengths.tolist() == list(range(400, 701, 10))
    assert synth.classes == ("airfield", "kitchen", "ARAD1K")
    assert synth.card["sensor"] == "ARAD_1K, 31 bands, 400 to 700 nm"
    train = ARAD1K("ARAD")
    batch = {"image": torch.stack([s["image"] for s in train]), "label": torch.tensor([0, 1, 0])}
    out = UBFAugment(synth, p=1.0, seed=0, classes=["airfield", "kitchen"], sample_options={"steps": 2})(
        batch
    )
    assert out["image"].shape == (3, 31, 20, 24)
    assert out["is_synthetic"].all()


SMALL_CHIKUSEI = ["--hsi.init_args.patch", "16", "--hsi.init_args.block", "16", "--hsi.init_args.gap", "0"]


def of_harvard(root: Path) -> list[str]:
    made_harvard(root / "hsi", side=(16, 20))
    return ["--hsi.init_args.crop", "16", "--rgb", str(made_places(root / "rgb"))]


def of_chikusei_aid(root: Path) -> list[str]:
    made_chikusei_blocks(root / "hsi")
    return [*SMALL_CHIKUSEI, "--rgb.init_args.root", str(made_aid(root / "rgb", 1, side=16))]


def of_chikusei_nwpu(root: Path) -> list[str]:
    made_chikusei_blocks(root / "hsi")
    return [*SMALL_CHIKUSEI, "--rgb", str(made_resisc45(root / "rgb") / "NWPU-RESISC45")]


def of_hsrs(root: Path) -> list[str]:
    made_hsrs_scenes(root / "hsi", side=16)
    return ["--hsi.init_args.train_size", "10"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "made", "bands", "classes"),
    [
        ("natural-harvard", of_harvard, (31, 420, 720), {"airfield", "kitchen", "HarvardHSI"}),
        ("chikusei-aid", of_chikusei_aid, (59, 398.71, 698.04), {*AID.CLASSES, "Chikusei"}),
        ("chikusei-nwpu", of_chikusei_nwpu, (59, 398.71, 698.04), {"forest", "river", "Chikusei"}),
        ("hsrs-sc", of_hsrs, (48, 382.5, 1055.5), {f"class {k}" for k in range(5)}),
    ],
)
def test_the_other_scenarios_from_their_packaged_configurations(
    name: str, made: Any, bands: tuple[int, float, float], classes: set[str], tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    words = [
        "fit",
        "--config",
        f"{name}.yaml",
        "--hsi.init_args.root",
        str(tmp_path / "hsi"),
        "--out",
        str(out),
    ]
    assert main([*words, *made(tmp_path), *TINY]) == 0
    synth = HSISynthesizer.from_pretrained(out)
    nm = synth.wavelengths
    assert (len(nm), float(nm[0]), float(nm[-1])) == pytest.approx(bands, abs=0.01)
    assert set(synth.classes) == classes
    x = synth.sample([synth.classes[0]], seed=0, steps=2)
    assert x.shape == (1, bands[0], 16, 16)
    assert torch.isfinite(x).all()


SCENARIOS = {
    "natural": ["ARAD1K"],
    "natural-harvard": ["HarvardHSI"],
    "chikusei-aid": ["Chikusei", "AID"],
    "chikusei-nwpu": ["Chikusei"],
    "hsrs-sc": ["HSRSSC"],
}


def test_every_packaged_configuration_is_one_that_the_command_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from ubf_augment.cli import build_parser
    from ubf_augment.cli.configuration import packaged_config
    from ubf_augment.generators import get_generator
    from ubf_augment.unmixing import UnmixingModel

    folder = Path(ubf_augment.cli.__file__).parent / "configs"
    assert {f.stem for f in folder.glob("*.yaml")} == set(SCENARIOS)
    for name, used in SCENARIOS.items():
        words = packaged_config(["fit", "--config", name])
        options = build_parser(words)[0].parse_args(words).fit
        sources = [options.hsi, options.rgb]
        assert [s.class_path.rpartition(".")[2] for s in sources if hasattr(s, "class_path")] == used
        settings = options.settings
        known = inspect.signature(UnmixingModel.fit).parameters
        assert set(settings.unmixing_options) <= set(known)
        size = tuple(settings.size)
        generator = get_generator(
            settings.generator, num_endmembers=settings.num_endmembers, size=size, **settings.generator_config
        )
        assert generator.size == size


def test_a_configuration_of_ones_own_comes_before_a_packaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ubf_augment.cli.configuration import packaged_config

    monkeypatch.chdir(tmp_path)
    assert Path(packaged_config(["fit", "--config=natural"])[1].partition("=")[2]).is_file()
    (tmp_path / "natural.yaml").write_text("out: mine\n")
    assert packaged_config(["fit", "--config", "natural.yaml"])[2] == "natural.yaml"
    assert packaged_config(["fit", "--config", "other.yaml"])[2] == "other.yaml"


def test_fit_says_in_one_line_which_data_set_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", "natural.yaml"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("ubf fit: Dataset not found in `root='data/ARAD_1K'`")
    assert "ARAD_1K_0001.mat" in shown
    assert len(shown.splitlines()) == 1


def test_what_fit_gathers(tmp_path: Path) -> None:
    from torch.utils.data import Subset

    from ubf_augment.cli.inputs import ReadOptions, gather_pictures, gather_scenes
    from ubf_augment.datasets import AID

    root = made_folders(tmp_path)
    made_arad(tmp_path / "arad", side=(8, 8))
    scenes, labels = gather_scenes([root / "hsi", ARAD1K(tmp_path / "arad")], ReadOptions(), limit=2)
    assert [getattr(s, "meta", {}).get("path", "")[-5:] for s in scenes] == ["0.tif", "1.tif", ""]
    assert isinstance(scenes[2], Subset)
    assert list(scenes[2].indices) == [0, 1]
    assert labels == [None] * 3
    aid = AID(made_aid(tmp_path / "aid", 3, 8))
    some = gather_pictures(aid, None, 2)
    assert len(some) == 60
    assert [some[i]["label"] for i in (0, 1, 2)] == [0, 0, 1]
    assert gather_pictures([aid], None, None) is aid
    assert len(gather_pictures([root / "rgb", tmp_path / "aid" / "AID"], ["Red", "Airport"], None)) == 6
    with pytest.raises(ValueError, match="one data set alone"):
        gather_pictures([aid, root / "rgb"], None, None)
    with pytest.raises(ValueError, match="rgb_classes=… is for folders"):
        gather_pictures(aid, ["Airport"], None)
    with pytest.raises(ValueError, match="at least 1"):
        gather_scenes(root / "hsi", ReadOptions(), limit=0)


STEPS = 150


def fit_command(folders: Path, out: Path) -> list[str]:
    """`ubf fit` as another process; it saves after every step of the generator."""
    code = (  # a background job may have SIGINT ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from ubf_augment.cli import main; raise SystemExit(main())"
    )
    words = [
        "fit",
        "--config",
        str(folders / "fit.yaml"),
        "--out",
        str(out),
        "--threads",
        "1",
        "--dtype",
        "float32",
    ]
    words += ["--accelerator", "cpu", "--settings.generator_steps", str(STEPS)]
    words += ["--settings.restarts", "1", "--settings.refine_iterations", "5"]
    words += ["--settings.generator_options", '{"save_every_s": 0.0}']
    return [sys.executable, "-c", code, *words]


def contents(bundle: Path) -> dict[str, Any]:
    """Weights as they are stored, and the index without times and its own checksum."""
    index = json.loads((bundle / "model_index.json").read_text())
    index["sha256"].pop("model_index.json")
    index["card"]["training"] = {k: v for k, v in index["card"]["training"].items() if "seconds" not in k}
    return {
        **{str(f.relative_to(bundle)): f.read_bytes() for f in bundle.rglob("*.safetensors")},
        "index": index,
    }


@pytest.fixture(scope="module")
def whole_fit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folders, and what an uninterrupted fit of them gives."""
    folders = made_folders(tmp_path_factory.mktemp("fit"))
    subprocess.run(
        fit_command(folders, folders / "whole" / "b"), check=True, capture_output=True, timeout=300
    )
    return folders, contents(folders / "whole" / "b")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_fit_goes_on_to_the_same_bundle(
    number: signal.Signals, whole_fit: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folders, expected = whole_fit
    command, checkpoint = fit_command(folders, tmp_path / "b"), tmp_path / "b.work" / "generator.pt"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not checkpoint.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=300)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on from here" in said
    else:
        assert process.returncode == -number
    assert not (tmp_path / "b").exists()
    assert 0 < torch.load(checkpoint, weights_only=True)["step"] < STEPS
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    found = contents(tmp_path / "b")
    assert found["index"] == expected["index"]
    assert found == expected
