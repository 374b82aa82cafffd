"""The page of `ubf report`, read without a browser: parts, embedded values, escaping, metrics, bad input."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from page_reader import PageReader, Spectra, read_page, read_spectra
from PIL import Image
from tiny import CLASSES, NM, real_batch, tiny_synth
from torch import Tensor

from ubf_augment import HSISynthesizer, report, write_hsi
from ubf_augment.cli import main
from ubf_augment.errors import LabelError, UnknownClassError, WavelengthError
from ubf_augment.metrics import FeatureNetwork
from ubf_augment.report import Display, judging, packing, write_report
from ubf_augment.report.contents import Pair
from ubf_augment.synthesis.drawing import draw_numbered

EVIL = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=2">"\'&'


def mean_colour() -> FeatureNetwork:
    return FeatureNetwork("mean colour", 3, lambda x: x.mean((2, 3)))


@pytest.fixture(autouse=True)
def _quick_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "efficientnet_lite0_features", mean_colour)


def real_images(n: int = 60) -> tuple[Tensor, list[str]]:
    x, y = real_batch(n, 8)
    return x.clamp_min(0), [CLASSES[k] for k in y.tolist()]


def make(folder: Path, **options: Any) -> tuple[PageReader, Spectra]:
    x, names = real_images()
    given: dict[str, Any] = {"real": x, "wavelengths": NM, "labels": names, "evaluate": 30, "progress": False}
    given = {"synth": tiny_synth(), **given, **options}
    page = read_page(write_report(out=folder, **given))
    return page, read_spectra(page)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PageReader, Spectra]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "efficientnet_lite0_features", mean_colour)
        yield make(tmp_path_factory.mktemp("report"), seed=4, command="ubf report 'a b'")


def test_a_page_has_all_parts(page: tuple[PageReader, Spectra]) -> None:
    reader, _ = page
    sections = [e.attributes["id"] for e in reader.all("section") if "id" in e.attributes]
    assert sections == ["images", "abundances", "endmembers", "metrics", "provenance"]
    targets = [e.attributes["href"] for e in reader.all("a")]
    assert {f"#{name}" for name in sections} <= set(targets)
    assert [e.text for e in reader.all("h3")][: len(CLASSES)] == list(CLASSES)
    metrics = reader.by_id("metrics").text
    for group in ("Fidelity", "Diversity", "Memorisation", "Discriminator", "mean colour"):
        assert group in metrics
    provenance = reader.by_id("provenance").text
    for fact in ("Fingerprint", "60 images", "ubf report 'a b'", "UTC", "PyTorch"):
        assert fact in provenance


def test_every_picture_is_described_and_reachable_by_keyboard(page: tuple[PageReader, Spectra]) -> None:
    reader, found = page
    images = reader.all("img")
    assert all(e.attributes["alt"] for e in images)
    tiles = reader.all("button", class_="tile")
    assert [int(e.attributes["data-picture"] or -1) for e in tiles] == list(
        range(len(found.data["pictures"]))
    )
    assert all("arrow keys" in (e.attributes["aria-label"] or "") for e in tiles)
    view = reader.by_id("view")
    assert (view.attributes["tabindex"], view.attributes["role"]) == ("0", "application")
    assert reader.by_id("said").attributes["aria-live"] == "polite"
    assert reader.all("html")[0].attributes["lang"] == "en"


def test_embedded_spectra_and_abundances_are_those_of_the_images(page: tuple[PageReader, Spectra]) -> None:
    _, found = page
    synth, (x, names) = tiny_synth(), real_images()
    pictures = found.data["pictures"]
    assert [(p["kind"], p["row"]) for p in pictures] == [
        (kind, row) for row in range(3) for kind in ("real", "synthetic") for _ in range(2)
    ]
    for k, p in enumerate(pictures):
        name = CLASSES[p["row"]]
        if p["kind"] == "synthetic":
            a, image = (t[0] for t in draw_numbered(synth, [(name, p["number"] - 1)], 4))
        else:
            i = int(p["origin"].removeprefix("image "))
            assert names[i] == name
            image, a = x[i], synth.unmix(x[i : i + 1])[0]
        assert np.abs(found.images[k] - found.grid(image.numpy())).max() <= 0.501 * found.data["step"]
        assert np.abs(found.abundances[k] - found.grid(a.numpy())).max() <= 0.501 / 255


def test_pictures_share_one_stretch_which_is_stated(page: tuple[PageReader, Spectra]) -> None:
    reader, _ = page
    synth = tiny_synth()
    text = reader.by_id("images").text
    found = re.search(r"white = reflectance ([\d.]+), gamma (\d\.\d)", text)
    assert found is not None
    display = Display(float(found[1]), float(found[2]))
    shown = [
        decoded(str(e.attributes["src"])) for e in reader.all("img") if "pseudo" in str(e.attributes["alt"])
    ]
    made = draw_numbered(synth, [(CLASSES[0], 0)], 4)[1]
    expected = 255 * report.pseudo_rgb(made, NM, display)[0]
    np.testing.assert_allclose(shown[2], expected, atol=0.51)


def decoded(address: str) -> np.ndarray:
    head, _, content = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"), dtype=float)


def test_abundance_maps_have_the_colours_of_viridis_from_0_to_1(page: tuple[PageReader, Spectra]) -> None:
    reader, _ = page
    strips = [
        decoded(str(e.attributes["src"])) for e in reader.all("img") if "maps" in str(e.attributes["alt"])
    ]
    assert len(strips) == 3
    a = draw_numbered(tiny_synth(), [(CLASSES[1], 0)], 4)[0][0]
    colours = packing.viridis().astype(float)
    for p in range(3):
        expected = colours[np.rint(254 * a[p].numpy()).astype(int)]
        np.testing.assert_array_equal(strips[1][:, 9 * p : 9 * p + 8], expected)


def test_the_page_loads_nothing_and_runs_only_its_own_script(page: tuple[PageReader, Spectra]) -> None:
    reader, _ = page
    for e in reader.elements:
        for name, value in e.attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                assert re.match(r"data:image/png;base64,|#", str(value))
    (style,) = reader.all("style")
    (code,) = [e for e in reader.all("script") if "type" not in e.attributes]
    assert not re.search(r"@import|url\(", style.text)
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|innerHTML|eval\(|WebSocket", code.text)
    (policy,) = [e.attributes["content"] for e in reader.all("meta", http_equiv="Content-Security-Policy")]
    assert "default-src 'none'" in str(policy)
    for part in (style, code):
        digest = base64.b64encode(hashlib.sha256(part.text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in str(policy)


def evil_page(folder: Path) -> Path:
    """A page of a bundle and a data set whose names try to be code."""
    x, _ = real_batch(12, 8)
    synth = tiny_synth()
    synth.classes = (EVIL, *synth.classes[1:])
    synth.card = {"name": EVIL, "summary": EVIL, "licence": EVIL, EVIL: {EVIL: {EVIL: EVIL}, "b": {"c": 1}}}
    synth._names = (EVIL, *synth._names[1:])
    return write_report(
        synth, folder, real=x, wavelengths=NM, labels=[EVIL, "b", "c"] * 4, evaluate=0, real_name=EVIL,
        command=EVIL, progress=False,
    )  # fmt: skip


def test_names_cannot_become_code(tmp_path: Path, page: tuple[PageReader, Spectra]) -> None:
    reader = read_page(evil_page(tmp_path))
    assert len(reader.all("script")) == len(page[0].all("script"))
    assert {e.tag for e in reader.elements} <= {e.tag for e in page[0].elements} | {
        "details",
        "summary",
        "ul",
        "li",
    }
    assert not [e for e in reader.elements for name in e.attributes if name.startswith("on")]
    assert all(str(e.attributes["src"]).startswith("data:") for e in reader.all("img"))
    assert EVIL in [e.text for e in reader.all("h3")]
    assert reader.all("h1")[0].text == EVIL
    assert read_spectra(reader).data["rows"][0] == EVIL


def test_a_smaller_page_carries_fewer_spectra(tmp_path: Path) -> None:
    synth = tiny_synth((48, 48))
    kept: dict[str, Any] = {"synth": synth, "real": None, "labels": None, "wavelengths": None}
    sizes = {}
    for megabytes in (6.0, 0.2):
        _, found = make(tmp_path / str(megabytes), megabytes=megabytes, **kept)
        sizes[megabytes] = found.data["stride"], (tmp_path / str(megabytes) / "index.html").stat().st_size
        image = draw_numbered(synth, [(CLASSES[0], 0)])[1][0]
        assert np.abs(found.images[0] - found.grid(image.numpy())).max() <= 0.501 * found.data["step"]
    assert sizes[6.0][0] == 1
    assert sizes[0.2][0] > 1
    assert sizes[0.2][1] < 0.2e6 < sizes[6.0][1]


def test_large_and_negative_values_are_packed_with_a_larger_step() -> None:
    x = torch.tensor([-40.0, 40.0, 0.25, -40.0]).view(4, 1, 1)
    packed = packing.pack([x], [None], 1e6)
    assert packed.step == pytest.approx(40 / 16_383)
    assert packed.abundances == ""
    assert packing.pack([x / 100], [None], 1e6).step == packing.STEP


def test_metrics_stand_beside_those_of_real_images() -> None:
    x, y = real_batch(80, 8)
    display = Display(1.0)

    def judged(made: Tensor) -> dict[str, tuple[tuple[str, str, str], ...]]:
        pair = Pair(x[:60], made, y[:60], y[60:].repeat(2)[: len(made)], True)
        return {m.name: m.values for m in judging.judge(pair, (2, 1, 0), display, progress=False).measures}

    same, brighter, copied = judged(x[60:]), judged(x[60:] + 0.3), judged(x[:20].flip(-1))
    number = lambda found, name: float(found[name][0][1].split()[0].rstrip("°"))  # noqa: E731
    other = lambda found, name: float(found[name][0][2].split()[0].lstrip("≤").rstrip("°") or 0)  # noqa: E731
    assert number(brighter, "Told from real images") == 100
    assert abs(number(same, "Told from real images") - 50) < 25
    assert number(brighter, "Sliced Wasserstein distance") > 5 * other(
        brighter, "Sliced Wasserstein distance"
    )
    assert number(same, "Sliced Wasserstein distance") < 3 * other(same, "Sliced Wasserstein distance")
    assert number(copied, "Near copies of a real image") > 25
    assert number(same, "Near copies of a real image") < 25
    assert number(same, "Class recognised") > 80
    assert all(len(values) == 2 for name, values in same.items() if name in ("Recall", "Fréchet distance"))


def test_what_cannot_be_measured_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> FeatureNetwork:
        raise ModuleNotFoundError("no weights")

    monkeypatch.setattr(judging, "efficientnet_lite0_features", missing)
    x, names = real_images(30)
    text = make(tmp_path / "a", real=x, labels=names)[0].by_id("metrics").text
    assert "EfficientNet-Lite0 are left out" in text
    assert "search for copies is left out: 15 held-out" in text
    few = make(tmp_path / "b", real=x[:6], labels=names[:6])[0].by_id("metrics").text
    assert "6 real images are too few" in few
    none = make(tmp_path / "c", evaluate=0)[0].by_id("metrics").text
    assert "not asked for" in none
    apart = make(tmp_path / "d", labels=["sea", "road", "ice"] * 10, real=x)[0].by_id("metrics").text
    assert "do not correspond" in apart


def test_a_bundle_alone_and_images_alone(tmp_path: Path) -> None:
    reader, found = make(tmp_path / "a", real=None, labels=None, wavelengths=None)
    assert {p["kind"] for p in found.data["pictures"]} == {"synthetic"}
    assert "nearest endmember (no real images were given)" in reader.by_id("images").text
    assert "No real images were given" in reader.by_id("metrics").text
    reader, found = make(tmp_path / "b", synth=None)
    assert {p["kind"] for p in found.data["pictures"]} == {"real"}
    assert "endmembers" not in found.data
    assert [e.attributes["id"] for e in reader.all("section") if "id" in e.attributes] == [
        "images",
        "provenance",
    ]
    _, found = make(tmp_path / "c", synth=None, labels=None)
    assert (found.data["rows"], len(found.data["pictures"])) == (["images"], 2)
    _, found = make(tmp_path / "d", synth=tiny_synth(num_classes=None), labels=None)
    assert {p["kind"] for p in found.data["pictures"]} == {"real", "synthetic"}


def test_rows_follow_the_classes_of_both_sides(tmp_path: Path) -> None:
    x, _ = real_images(12)
    names = ["Road", "Wood", "Lake"] * 4
    _, found = make(tmp_path / "a", real=x, labels=names, class_map={"Wood": "Forest"}, evaluate=0)
    assert found.data["rows"] == ["Lake", "Wood (as Forest)", "Field", "Road"]
    kinds = {(found.data["rows"][p["row"]], p["kind"]) for p in found.data["pictures"]}
    assert ("Wood (as Forest)", "real") in kinds
    assert ("Wood (as Forest)", "synthetic") in kinds
    assert ("Field", "real") not in kinds
    assert ("Road", "synthetic") not in kinds
    _, found = make(tmp_path / "b", real=x, labels=names, classes=["Field", "Lake"], per_class=1, evaluate=0)
    assert found.data["rows"] == ["Field", "Lake"]
    with pytest.raises(UnknownClassError, match="'Sea'"):
        make(tmp_path / "c", classes=["Sea"])


def test_a_bundle_is_adapted_to_the_bands_of_the_real_images(tmp_path: Path) -> None:
    x, names = real_images(30)
    wide = torch.cat([x, x[:, -1:] / 2], 1)
    reader, found = make(tmp_path, real=wide, labels=names, wavelengths=[*NM, 2190.0])
    assert found.data["wavelengths"] == [*NM, 2190.0]
    assert {image.shape[0] for image in found.images} == {6}
    assert "Adapted" in reader.by_id("provenance").text


def test_large_images_are_cut_into_windows(tmp_path: Path) -> None:
    scene = torch.rand(5, 40, 24, generator=torch.Generator().manual_seed(0))
    _, found = make(tmp_path, real=[scene], labels=None, per_class=4, evaluate=0)
    images = [
        image for image, p in zip(found.images, found.data["pictures"], strict=True) if p["kind"] == "real"
    ]
    assert [image.shape for image in images] == [(5, 8, 8)] * 4
    np.testing.assert_allclose(images[1], scene[:, :8, 8:16], atol=1e-4)


def test_bad_input_is_refused(tmp_path: Path) -> None:
    x, _ = real_images(12)
    with pytest.raises(ValueError, match="nothing to report on"):
        write_report(None, tmp_path)
    with pytest.raises(ValueError, match="per_class must be at least 1"):
        make(tmp_path, per_class=0)
    with pytest.raises(WavelengthError, match="wavelengths="):
        make(tmp_path, wavelengths=None)
    with pytest.raises(LabelError, match="label 7"):
        write_report(None, tmp_path, real=Labelled(x), progress=False)
    (tmp_path / "index.html").write_text("<html>my home page</html>")
    with pytest.raises(ValueError, match="no report of this package"):
        make(tmp_path)
    assert (tmp_path / "index.html").read_text() == "<html>my home page</html>"


class Labelled(torch.utils.data.Dataset[dict[str, Any]]):
    """A data set whose labels do not fit its classes."""

    classes = ("a", "b")
    wavelengths = NM

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": self.x[i], "label": torch.tensor(7)}


def test_colours_can_be_read_in_light_and_dark() -> None:
    style = (Path(packing.__file__).parent / "template" / "style.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})\b", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.S)
    )

    def luminance(colour: str) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb(colour)]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    def rgb(colour: str) -> list[float]:
        return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]

    def contrast(one: str, two: str) -> float:
        high, low = sorted((luminance(one), luminance(two)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for theme in (light, dark):
        for text in ("ink", "quiet", "accent"):
            assert min(contrast(theme[text], theme[ground]) for ground in ("paper", "card")) >= 4.5
        assert min(contrast(theme[f"s{k}"], theme["card"]) for k in range(8)) >= 3


def folders(root: Path) -> Path:
    x, names = real_images(12)
    for i, (image, name) in enumerate(zip(x, names, strict=True)):
        (root / name).mkdir(parents=True, exist_ok=True)
        write_hsi(root / name / f"{i}.tif", image, NM)
    (root / "README.txt").write_text("about these images")
    return root


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real = folders(tmp_path / "real")
    assert main(["report", str(real), "-o", str(tmp_path / "page")]) == 0
    reader = read_page(tmp_path / "page" / "index.html")
    assert f"ubf report {real} --out {tmp_path / 'page'}" in reader.by_id("provenance").text
    assert [e.text for e in reader.all("h3")][:3] == list(CLASSES)
    origins = {p["origin"] for p in read_spectra(reader).data["pictures"]}
    assert origins <= {f"{i}.tif" for i in range(12)}
    words = [
        "report",
        "indian-pines",
        "--out",
        str(tmp_path / "b"),
        "--classes",
        "Woods",
        "--options",
        "{'steps': 2}",
    ]
    assert main(words) == 0
    text = read_page(tmp_path / "b" / "index.html").by_id("provenance").text
    index = HSISynthesizer.from_pretrained("indian-pines").card
    assert str(index["licence"])[:20] in text
    assert "SHA-256" in text
    capsys.readouterr()
    assert (
        main(
            [
                "sample",
                "indian-pines",
                "--out",
                str(tmp_path / "s"),
                "--num",
                "1",
                "--classes",
                "Woods",
                "--sheet",
                "false",
                "--options",
                "{'steps': 1}",
            ]
        )
        == 0
    )
    for words in (["report", str(tmp_path / "s")], ["report", "indian-pines", "--real", str(tmp_path / "s")]):
        assert main([*words, "-o", str(tmp_path / "c")]) == 2
        assert "samples of indian-pines, not real images" in capsys.readouterr().err
    assert main(["report", str(real), "--real", str(real), "-o", str(tmp_path / "c")]) == 2
    assert "no bundle" in capsys.readouterr().err
