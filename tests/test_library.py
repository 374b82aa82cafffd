"""Libraries of spectra: read as they lie, chosen from as exact least squares would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ubf_augment.errors import BandCountError, HSIReadError, NoDataError, ShapeError
from ubf_augment.io import earthlib, read_library
from ubf_augment.mixing import mix
from ubf_augment.spectra import Endmembers
from ubf_augment.unmixing import fcls, select

VALUES = np.array([[0.1, 0.2, 0.4], [0.3, 0.2, 0.1]])
HEADER = """ENVI
samples = 3
lines = 2
bands = 1
file type = ENVI Spectral Library
data type = {kind}
byte order = {order}
{more}
spectra names = {{soil one, water}}
wavelength = {{{nm}}}
"""


def write(
    folder: Path, values: np.ndarray, *, kind: str = "4", order: str = "0", more: str = "", nm: str = "0.49, 0.56,\n 0.665"
) -> Path:  # fmt: skip
    path = folder / "a.sli"
    values.tofile(path)
    (folder / "a.sli.hdr").write_text(HEADER.format(kind=kind, order=order, more=more, nm=nm))
    return path


@pytest.mark.parametrize(
    ("stored", "options"),
    [
        ("<f4", {}),
        (">f8", {"kind": "5", "order": "1", "more": "wavelength units = Micrometers"}),
        ("<i2", {"kind": "2", "more": "reflectance scale factor = 10000\nheader offset = 0"}),
        ("<f4", {"nm": "490, 560, 665", "more": "wavelength units = Nanometers"}),
    ],
)
def test_all_forms_give_the_same(tmp_path: Path, stored: str, options: dict[str, str]) -> None:
    scaled = VALUES * (10_000 if stored == "<i2" else 1)
    path = write(tmp_path, scaled.astype(stored), **options)
    for named in (path, tmp_path / "a.sli.hdr", str(path)):
        e = read_library(named)
        assert e.names == ("soil one", "water")
        torch.testing.assert_close(e.wavelengths, torch.tensor([490.0, 560.0, 665.0], dtype=torch.float64))
        torch.testing.assert_close(e.spectra, torch.from_numpy(VALUES).float())


def test_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, VALUES[:1].astype("<f4"))
    with pytest.raises(HSIReadError, match="12 bytes and its header 3 wavelengths, for 2 spectra"):
        read_library(path)
    path = write(tmp_path, VALUES.astype("<f4"), kind="6")
    with pytest.raises(HSIReadError, match="KeyError: '6'"):
        read_library(path)
    write(tmp_path, VALUES.astype("<f4"), nm="490, x, 665")
    with pytest.raises(HSIReadError, match="could not convert"):
        read_library(path)
    write(tmp_path, -VALUES.astype("<f4"))
    with pytest.raises(ValueError, match="non-negative"):
        read_library(path)
    header = tmp_path / "a.sli.hdr"
    header.write_text(header.read_text().replace("Spectral Library", "Standard"))
    with pytest.raises(HSIReadError, match="read images with read_hsi"):
        read_library(path)
    header.unlink()
    with pytest.raises(FileNotFoundError, match="side by side"):
        read_library(path)
    with pytest.raises(FileNotFoundError):
        read_library(tmp_path / "b.sli")


def test_earthlib() -> None:
    pytest.importorskip("earthlib")
    e = earthlib({"road", "sand"})
    assert {name.split()[0] for name in e.names} == {"road", "sand"}
    assert (e.num_endmembers, e.num_bands) == (209, 180)
    assert (float(e.wavelengths[0]), float(e.wavelengths[-1])) == pytest.approx((400, 2450))
    assert e.resample("sentinel-2").num_bands > 9
    assert earthlib().num_endmembers == 7261
    with pytest.raises(ValueError, match=r"no spectra of gold; it has asphalt, bark"):
        earthlib({"gold", "road"})


def test_without_earthlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ubf_augment\[library\]'"):
        earthlib()


def library(count: int = 60) -> Endmembers:
    g = torch.Generator().manual_seed(0)
    return Endmembers(torch.rand(count, 12, generator=g), torch.linspace(450, 900, 12).tolist())


def test_the_spectra_that_made_the_pixels_are_found() -> None:
    e = library()
    g = torch.Generator().manual_seed(0)
    weights = torch.softmax(4 * torch.randn(400, 4, generator=g), 1)  # mostly one material
    pixels = weights[:, :3] @ e.spectra[[7, 30, 42]]  # the rest is shade
    found = select(e, pixels, 3)
    assert set(found.names[:3]) == {e.names[k] for k in (7, 30, 42)}
    assert found.names[3] == "shade"
    cube = pixels.T[None, :, :, None]
    torch.testing.assert_close(mix(fcls(cube, found), found), cube, rtol=0, atol=1e-4)
    assert torch.equal(found.wavelengths, e.wavelengths)


def test_more_spectra_never_fit_worse() -> None:
    e, g = library(), torch.Generator().manual_seed(1)
    pixels = torch.rand(200, 12, generator=g) * 0.6
    cube = pixels.T[None, :, :, None]
    errors = []
    for count in (1, 2, 4, 6):
        found = select(e, pixels, count)
        assert len(set(found.names)) == count + 1
        errors.append(float((mix(fcls(cube, found), found) - cube).square().mean()))
    assert errors == sorted(errors, reverse=True)


def test_the_first_is_the_best_of_all() -> None:
    """Looked through one by one."""
    e, g = library(8), torch.Generator().manual_seed(2)
    pixels = torch.rand(50, 12, generator=g)
    cube = pixels.T[None, :, :, None]

    def error(k: int) -> float:
        pair = torch.stack([e.spectra[k], torch.zeros(12)])
        return float((mix(fcls(cube, pair), pair) - cube).square().mean())

    assert select(e, pixels, 1).names[0] == e.names[min(range(8), key=error)]


def test_bad_input() -> None:
    e = library()
    with pytest.raises(ShapeError, match="0 endmembers cannot be chosen"):
        select(e, torch.rand(5, 12), 0)
    with pytest.raises(ShapeError, match="61 endmembers cannot be chosen from a library of 60"):
        select(e, torch.rand(5, 12), 61)
    with pytest.raises(BandCountError, match=r"library\.resample"):
        select(e, torch.rand(5, 11), 2)
    with pytest.raises(ShapeError, match=r"\(N, C\)"):
        select(e, torch.rand(0, 12), 2)
    with pytest.raises(NoDataError):
        select(e, torch.full((5, 12), torch.nan), 2)
