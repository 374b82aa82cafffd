"""Bundles: what is saved comes back, damage is found, a save that dies harms nothing, names are resolved."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from synthesis_toys import Toy, materials, residual, synthesizer
from torch import Tensor

from ubf_augment import bundle
from ubf_augment.bundle import Bundle, Component
from ubf_augment.errors import BundleError, BundleVersionError
from ubf_augment.generators import DDPM
from ubf_augment.spectra import Endmembers
from ubf_augment.synthesis import HSISynthesizer, list_pretrained
from ubf_augment.unmixing import UnmixingModel

FILES = (
    "model_index.json",
    "endmembers.safetensors",
    "generator/config.json",
    "generator/model.safetensors",
    "unmixing/config.json",
    "unmixing/model.safetensors",
)


def complete() -> HSISynthesizer:
    """A synthesizer with every part, on a small diffusion model; always the same one."""
    torch.manual_seed(0)
    model = UnmixingModel(materials(), width=8, blocks=1, rgb_width=8, rgb_blocks=1, num_classes=3)
    own = model.endmembers
    return synthesizer(
        endmembers=Endmembers(own.spectra, own.wavelengths, own.names, fwhm=torch.full((5,), 12.0)),
        generator=DDPM(4, (8, 8), 3, codec="unshuffle", factor=2, widths=(16, 16), attention=()),
        unmixing=model,
        class_endmembers={2: own.spectra * 0.9},
        rgb_scale=0.45,
        rgb_gamma=1.5,
        card={"sensor": "toy", "licence": "MIT", "figures": {"rmse": 0.0123, "missing": float("nan")}},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete().save_pretrained(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "toy"))


def tiny(value: float) -> Bundle:
    """The smallest bundle that `bundle.read` accepts."""
    part = Component({"a": 1}, {"w": torch.full((3,), value)}, frozenset({"w"}))
    return Bundle({"name": "tiny"}, {"spectra": torch.full((2, 2), value)}, {"generator": part}, "# tiny")


def test_round_trip(saved: Path) -> None:
    before, after = complete(), HSISynthesizer.from_pretrained(saved)
    y = ["town", "field"]
    for option in ({"residual": True}, {"residual": False}):
        assert torch.equal(
            before.sample(y, seed=1, steps=2, **option), after.sample(y, seed=1, steps=2, **option)
        )
    x = before.sample(y, seed=0, steps=2, residual=False)
    assert torch.equal(before.unmix(x, y), after.unmix(x, y))
    assert torch.equal(before.unmix(x), after.unmix(x))
    shown = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(before.unmix_rgb(shown, y), after.unmix_rgb(shown, y))
    assert after.classes == before.classes
    assert torch.equal(after.wavelengths, before.wavelengths)
    assert after.endmembers.names == before.endmembers.names
    assert torch.equal(_width(after), _width(before))
    assert (after.rgb_scale, after.rgb_gamma) == (0.45, 1.5)
    assert after.card == {"sensor": "toy", "licence": "MIT", "figures": {"rmse": 0.0123, "missing": None}}
    assert not after.training


def _width(synth: HSISynthesizer) -> Tensor:
    width = synth.endmembers.fwhm
    assert width is not None
    return width


def test_layout(saved: Path) -> None:
    assert sorted(str(p.relative_to(saved)) for p in saved.rglob("*") if p.is_file()) == sorted(
        [*FILES, "README.md"]
    )
    index = json.loads((saved / "model_index.json").read_text())
    assert index["format_version"] == bundle.FORMAT_VERSION
    assert index["sensor"] == "toy"
    assert index["classes"] == ["field", "forest", "town"]
    assert index["size"] == [8, 8]
    assert set(index["sha256"]) == set(FILES)
    text = (saved / "README.md").read_text()
    for part in ("# toy", "5 bands, 450–700 nm", "field, forest, town", "MIT", "0.0123"):
        assert part in text


def test_parts_that_are_absent_stay_absent(tmp_path: Path) -> None:
    generator = DDPM(4, (8, 8), None, codec="unshuffle", factor=2, widths=(16, 16), attention=())
    synth = synthesizer(generator=generator, residual=None, classes=())
    back = HSISynthesizer.from_pretrained(synth.save_pretrained(tmp_path / "bare"))
    assert back.unmixing is None
    assert back.residual is None
    assert back.endmembers.fwhm is None
    assert back.classes == ()
    assert not back.class_endmembers
    assert torch.equal(back.sample(n=2, seed=0, steps=2), synth.sample(n=2, seed=0, steps=2))


def test_half_precision_is_smaller_and_keeps_endmembers_exact(tmp_path: Path, saved: Path) -> None:
    path = complete().save_pretrained(tmp_path / "half", dtype="float16")
    size = [(p / "generator" / "model.safetensors").stat().st_size for p in (path, saved)]
    assert size[0] < 0.6 * size[1]
    half, full = HSISynthesizer.from_pretrained(path), HSISynthesizer.from_pretrained(saved)
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert torch.equal(half.endmembers.spectra, full.endmembers.spectra)
    x = full.sample(["field"], seed=0, steps=2)
    torch.testing.assert_close(half.sample(["field"], seed=0, steps=2), x, rtol=0, atol=0.02)
    # the encoder is still recognised as the endmembers' own
    torch.testing.assert_close(half.unmix(x), full.unmix(x), rtol=0, atol=0.02)
    with pytest.raises(ValueError, match="int8"):
        full.save_pretrained(tmp_path / "no", dtype="int8")


def test_a_weight_too_large_for_half_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"generator/w does not fit into torch.float16"):
        bundle.write(tiny(1e6), tmp_path / "large", dtype="float16")
    assert not list(tmp_path.iterdir())


def test_an_unregistered_generator_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="Toy is not a registered generator"):
        synthesizer().save_pretrained(tmp_path / "toy")


@pytest.mark.parametrize("name", FILES)
def test_an_altered_byte_is_found(copy: Path, name: str) -> None:
    path = copy / name
    data = bytearray(path.read_bytes())
    i = data.rindex(b"1") if name.endswith(".json") else len(data) // 2
    data[i] = ord("2") if name.endswith(".json") else data[i] ^ 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=rf"{name} was altered.*save_pretrained"):
        HSISynthesizer.from_pretrained(copy)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing.*download"):
        HSISynthesizer.from_pretrained(copy)


def test_a_truncated_file_is_found(copy: Path) -> None:
    path = copy / "generator" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BundleError, match="altered or truncated"):
        HSISynthesizer.from_pretrained(copy)


def test_a_directory_without_index(copy: Path) -> None:
    (copy / "model_index.json").write_text("{ not json")
    with pytest.raises(BundleError, match="cannot be read as JSON"):
        HSISynthesizer.from_pretrained(copy)
    (copy / "model_index.json").unlink()
    with pytest.raises(BundleError, match=r"no model_index\.json"):
        HSISynthesizer.from_pretrained(copy)


def _rewrite(root: Path, change: Any) -> None:
    """Change an index and sign it again, as another version of the package would."""
    index = json.loads((root / "model_index.json").read_text())
    change(index)
    index["sha256"]["model_index.json"] = bundle.index_checksum(index)
    (root / "model_index.json").write_text(json.dumps(index))


def test_a_newer_format(copy: Path) -> None:
    _rewrite(
        copy, lambda index: index.update(format_version=bundle.FORMAT_VERSION + 1, package_version="9.9")
    )
    with pytest.raises(BundleVersionError, match=r"format version 2, written by ubf-augment 9\.9.*upgrade"):
        HSISynthesizer.from_pretrained(copy)


def test_a_path_that_leaves_the_bundle_is_refused(copy: Path) -> None:
    _rewrite(copy, lambda index: index.update(components=["../toy/generator"]))
    with pytest.raises(BundleError, match="names a component"):
        HSISynthesizer.from_pretrained(copy)


def test_an_unknown_generator(copy: Path) -> None:
    config = copy / "generator" / "config.json"
    config.write_text(json.dumps({"name": "oracle", "config": {}}))
    _rewrite(
        copy,
        lambda index: index["sha256"].update({"generator/config.json": bundle.checksum(config.read_bytes())}),
    )
    with pytest.raises(BundleError, match=r"needs the generator 'oracle'.*ddpm.*upgrade"):
        HSISynthesizer.from_pretrained(copy)


def test_weights_that_do_not_fit_their_configuration(copy: Path) -> None:
    config = copy / "generator" / "config.json"
    described = json.loads(config.read_text())
    described["config"]["widths"] = [16, 32]
    config.write_text(json.dumps(described))
    _rewrite(
        copy,
        lambda index: index["sha256"].update({"generator/config.json": bundle.checksum(config.read_bytes())}),
    )
    with pytest.raises(BundleError, match="does not describe a synthesizer of this version"):
        HSISynthesizer.from_pretrained(copy)


def test_saving_replaces_a_bundle_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "b"
    bundle.write(tiny(1.0), path)
    bundle.write(tiny(2.0), path)
    assert float(bundle.read(path).tensors["spectra"][0, 0]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(BundleError, match="is not a bundle"):
        bundle.write(tiny(1.0), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="is not a bundle"):
        bundle.write(tiny(1.0), tmp_path / "file")


@pytest.mark.parametrize("call", [1, 2])
def test_an_interrupted_rename_leaves_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    path = tmp_path / "b"
    bundle.write(tiny(1.0), path)
    rename, calls = os.rename, []

    def dies(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == call:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", dies)
    with pytest.raises(KeyboardInterrupt):
        bundle.write(tiny(2.0), path)
    monkeypatch.undo()
    assert float(bundle.read(path).tensors["spectra"][0, 0]) == 1
    bundle.write(tiny(3.0), path)
    assert float(bundle.read(path).tensors["spectra"][0, 0]) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("stage", ["os.fsync", "os.rename", "shutil.rmtree"])
def test_a_killed_save_leaves_a_whole_bundle(tmp_path: Path, stage: str) -> None:
    """SIGKILL while writing, between the renames, or before the old bundle is removed."""
    path = tmp_path / "b"
    bundle.write(tiny(1.0), path)
    module, name = stage.split(".")
    script = f"""
        import os, shutil, signal, sys
        from test_bundle import tiny
        from ubf_augment import bundle
        real, count = {stage}, 0
        def dies(*args, **options):
            global count
            count += 1
            if count == {2 if stage != "shutil.rmtree" else 1}:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)
        {module}.{name} = dies
        bundle.write(tiny(2.0), sys.argv[1])
    """
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        env=os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{here.parent}"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    want = 2 if stage == "shutil.rmtree" else 1
    assert float(bundle.read(path).tensors["spectra"][0, 0]) == want
    assert bundle.locate(path) == path
    bundle.write(tiny(3.0), path)
    assert float(bundle.read(path).tensors["spectra"][0, 0]) == 3


def test_packaged_names_come_first(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "packaged_directory", lambda: saved.parent)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy").mkdir()
    assert list_pretrained() == ["toy"]
    assert HSISynthesizer.from_pretrained("toy").num_bands == 5
    with pytest.raises(BundleError, match=r"neither a packaged name nor a directory.*toy"):
        HSISynthesizer.from_pretrained("tyo")


def test_packaged_bundles_are_whole() -> None:
    for name in list_pretrained():
        assert bundle.verify(bundle.locate(name))["wavelengths"]


def test_a_hub_id_is_downloaded(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def download(repo_id: str, **options: Any) -> str:
        asked.append((repo_id, options["allow_patterns"]))
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert HSISynthesizer.from_pretrained("someone/some-bundle").num_bands == 5
    assert asked[0][0] == "someone/some-bundle"
    assert not any("bin" in p or "pt" in p for p in asked[0][1])


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def download(repo_id: str, **options: Any) -> str:
        raise OSError("offline\nlong trace")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(BundleError, match=r"'someone/x'.*Hub did not give it \(OSError: offline\); packaged"):
        HSISynthesizer.from_pretrained("someone/x")
    with pytest.raises(BundleError, match="neither a packaged name nor a directory"):
        HSISynthesizer.from_pretrained(Path("someone/x"))


def test_no_pickle(saved: Path) -> None:
    assert {p.suffix for p in saved.rglob("*") if p.is_file()} == {".json", ".safetensors", ".md"}
    assert residual().mean.shape == (5,)
    assert Toy().config["num_endmembers"] == 4
