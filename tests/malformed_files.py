"""Files that are not what they should be: how they are made, and what happens when they are read.

The table of them is `malformed_table.CASES`. `outcome` runs one of its lines: in an empty folder, with 512 MiB of memory more
than the process has, 20 seconds, and images of at most 0.03 GiB.
"""

from __future__ import annotations

import functools
import io
import os
import re
import resource
import signal
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ubf_augment import read_hsi
from ubf_augment.datasets import HSIFolder
from ubf_augment.errors import UBFError
from ubf_augment.io import open_scene
from ubf_augment.io.limits import VARIABLE

NM = (490.0, 560.0, 665.0, 842.0, 1610.0)
GOOD = torch.rand(5, 24, 31, generator=torch.Generator().manual_seed(0))
STORED = np.rint(GOOD.numpy() * 10_000).astype(np.int16)
HWC = np.ascontiguousarray(GOOD.numpy().transpose(1, 2, 0))
MEMORY = 512 << 20
SECONDS = 20
REMEDY = re.compile(
    r"pass|give|copy|download|correct|leave|choose|write|name|convert|crop|fetch|mend|multiply|save|upgrade|put|replace|"
    r"remove|divide|list_hsi|bring|check|rename"
)

Make = Callable[[Path], Path]
Read = Callable[[Path], Any]


@dataclass(frozen=True)
class Case:
    """A file and what it must lead to.

    Attributes:
        kind: row of the printed table.
        name: unique within the kind.
        make: writes it into a folder and gives the path to read.
        words: that the message must have, separated by ``|``; None if the file is good and must be read right.
        options: of `read_hsi`.
        read: what reads it, if not `read_hsi`.
    """

    kind: str
    name: str
    make: Make
    words: str | None
    options: dict[str, Any] = field(default_factory=dict)
    read: Read | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


@dataclass(frozen=True)
class Outcome:
    """What happened: "refused", "read", "read wrong", "crash", "hang" or "unclear" (a refusal that helps nobody)."""

    what: str
    error: str = ""
    message: str = ""


def outcome(case: Case, folder: Path, entry: str = "read_hsi") -> Outcome:
    """Run a case through ``read_hsi``, ``open_scene`` or ``HSIFolder``."""
    target = folder / "Field" if entry == "HSIFolder" and case.read is None else folder
    target.mkdir(parents=True, exist_ok=True)
    path = case.make(target)
    read = case.read or ENTRIES[entry]
    try:
        with _limits():
            found = read(path, **case.options) if case.read is None else read(path)
    except TimeoutError as error:
        return Outcome("hang", "TimeoutError", str(error))
    except (UBFError, FileNotFoundError, FileExistsError, ValueError) as error:
        message = str(error)
        own = isinstance(error, UBFError | FileNotFoundError | FileExistsError) or type(error) is ValueError
        named = (
            case.read is not None or path.stem[:5] in message or type(error) is ValueError
        )  # wrong options
        clear = own and named and len(message) > 30 and REMEDY.search(message) is not None
        return Outcome("refused" if clear else "unclear", type(error).__name__, message)
    except BaseException as error:
        return Outcome("crash", type(error).__name__, str(error))
    right = found is True or (
        found is not False and found.image.shape == GOOD.shape and bool(torch.allclose(found.image, GOOD, atol=6e-5))
    )  # fmt: skip
    return Outcome("read" if right else "read wrong")


def _scene(path: Path, **options: Any) -> Any:
    """The whole scene as one window."""
    from types import SimpleNamespace

    from ubf_augment.io import Window

    with open_scene(path, **options) as scene:
        scene.check()
        image, mask = scene.read(Window(0, 0, *scene.size))
        if not bool(mask.all()):  # `read_hsi` refuses these, a scene masks them
            from ubf_augment.errors import NoDataError

            raise NoDataError(f"{path} has pixels without data: crop it")
    return SimpleNamespace(image=image)


def _folder(path: Path, **options: Any) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(image=HSIFolder(path.parent.parent, **options)[0]["image"])


ENTRIES: dict[str, Callable[..., Any]] = {"read_hsi": read_hsi, "open_scene": _scene, "HSIFolder": _folder}


@contextmanager
def _limits() -> Iterator[None]:
    """Little memory and little time."""

    def late(number: int, frame: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    os.environ[VARIABLE] = "0.03"
    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + MEMORY, hard))
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


# ---------------------------------------------------------------- good files, to be spoilt


def tif(path: Path, values: Any = None, nm: Any = NM, scale: Any = None, **profile: Any) -> Path:
    """A GeoTIFF as other programs may write it."""
    import rasterio

    array = GOOD.numpy() if values is None else np.asarray(values)
    tags, sparse = profile.pop("tags", {}), profile.pop("only", None)
    shape = {"count": array.shape[0], "height": array.shape[1], "width": array.shape[2]}
    with rasterio.open(path, "w", driver="GTiff", dtype=array.dtype.name, **shape, **profile) as dataset:
        if sparse is None:
            dataset.write(array)
        else:
            dataset.write(array[:sparse], indexes=list(range(1, sparse + 1)))
        for i, value in enumerate(nm or (), 1):
            dataset.update_tags(i, wavelength=str(value), wavelength_units="nm")
        if scale is not None:
            dataset.scales = (scale,) * array.shape[0]
        dataset.update_tags(**tags)
    return path


def envi(path: Path, values: Any = None, **header: Any) -> Path:
    """An ENVI pair by hand, band sequential; a key of None leaves its line out."""
    array = GOOD.numpy() if values is None else np.asarray(values)
    codes = {"uint8": 1, "int16": 2, "int32": 3, "float32": 4, "float64": 5, "complex64": 6, "uint16": 12}
    lines: dict[str, Any] = {
        "samples": array.shape[2], "lines": array.shape[1], "bands": array.shape[0], "header offset": 0,
        "file type": "ENVI Standard", "data type": codes[array.dtype.name], "interleave": "bsq", "byte order": 0,
        "wavelength": "{" + ", ".join(map(str, NM)) + "}", "wavelength units": "Nanometers",
    }  # fmt: skip
    lines |= {k.replace("_", " "): v for k, v in header.items()}
    text = "ENVI\n" + "".join(f"{k} = {v}\n" for k, v in lines.items() if v is not None)
    path.with_suffix(".hdr").write_text(text)
    array.tofile(path)
    return path


def mat(path: Path, compressed: bool = False, **arrays: Any) -> Path:
    from scipy.io import savemat

    savemat(path, arrays or {"Y": HWC, "wavelengths": np.array(NM)}, do_compression=compressed)
    return path


def mat73(path: Path, **arrays: Any) -> Path:
    """HDF5 with reversed axes."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in (arrays or {"Y": HWC, "wavelengths": np.array(NM)}).items():
            file.create_dataset(
                name, data=np.asarray(array).T, compression="gzip" if np.ndim(array) == 3 else None
            )
    return path


def npy(path: Path, array: Any = HWC) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


def npz(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **(arrays or {"Y": HWC, "wavelengths": np.array(NM)}))
    return path


WRITERS: dict[str, Callable[..., Path]] = {
    "tif": functools.partial(tif, compress="deflate"), "img": envi, "mat": functools.partial(mat, compressed=True),
    "73.mat": mat73, "npy": npy, "npz": npz,
}  # fmt: skip
KNOWN = {"npy": {"wavelengths": list(NM)}}
"""Options that a good file of that ending needs."""


def good(folder: Path, ending: str) -> Path:
    return WRITERS[ending](folder / f"scene.{ending}")


# ---------------------------------------------------------------- ways to spoil them


def cut(ending: str, share: float, drop: int = 0) -> Make:
    def make(folder: Path) -> Path:
        path = good(folder, ending)
        os.truncate(path, int(path.stat().st_size * share) - drop)
        return path

    return make


def flipped(ending: str, seed: int) -> Make:
    """Bytes changed at random in the compressed values, where a checksum can tell."""

    def make(folder: Path) -> Path:
        path = good(folder, ending)
        data, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
        low, high = {"npz": (200, 9000), "mat": (300, 9000), "73.mat": (len(data) // 2, len(data) - 200)}.get(
            ending, (2000, 9000)
        )
        for at in rng.integers(low, high, 25):
            data[at] ^= int(rng.integers(1, 256))
        path.write_bytes(data)
        return path

    return make


def holds(name: str, content: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def of(writer: Callable[..., Path], name: str, *args: Any, **options: Any) -> Make:
    return lambda folder: writer(folder / name, *args, **options)


def patched(tag: int, value: int, **profile: Any) -> Make:
    """A TIFF with another value in a tag of its first directory."""

    def make(folder: Path) -> Path:
        path = tif(folder / "scene.tif", **profile)
        data = bytearray(path.read_bytes())
        start = struct.unpack_from("<I", data, 4)[0]
        for i in range(struct.unpack_from("<H", data, start)[0]):
            at = start + 2 + 12 * i
            found, kind, number = struct.unpack_from("<HHI", data, at)
            if found == tag:
                if number == 1:
                    struct.pack_into("<HHI", data, at, tag, 4, 1)
                    struct.pack_into("<I", data, at + 8, value)
                else:
                    size = 2 if kind == 3 else 4
                    at = at + 8 if number * size <= 4 else struct.unpack_from("<I", data, at + 8)[0]
                    struct.pack_into("<H" if kind == 3 else "<I", data, at, min(value, 256**size - 1))
        path.write_bytes(data)
        return path

    return make


def at_offset(offset: int, content: bytes, ending: str = "tif") -> Make:
    def make(folder: Path) -> Path:
        path = good(folder, ending)
        data = bytearray(path.read_bytes())
        data[offset : offset + len(content)] = content
        path.write_bytes(data)
        return path

    return make


def loop(folder: Path) -> Path:
    """A TIFF whose directory names itself as the next one: read once, it is whole."""
    path = tif(folder / "scene.tif")
    data = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", data, 4)[0]
    struct.pack_into("<I", data, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], start)
    path.write_bytes(data)
    return path


def sidecar(ending: str, text: str) -> Make:
    def make(folder: Path) -> Path:
        path = tif(folder / "scene.tif")
        path.with_name(f"scene.{ending}").write_text(text)
        return path

    return make


def header(text: Callable[[str], str]) -> Make:
    """ENVI with its header's text changed."""

    def make(folder: Path) -> Path:
        path = envi(folder / "scene.img")
        hdr = path.with_suffix(".hdr")
        hdr.write_text(text(hdr.read_text()))
        return path

    return make


def changed(band: int | slice, pixels: Any, value: float, dtype: str = "float32") -> np.ndarray:
    array = GOOD.numpy().astype(dtype)
    array[(band, *pixels)] = value
    return array


ALL = (slice(None), slice(None))
TOP = (slice(0, 6), slice(None))


# ---------------------------------------------------------------- files that claim or unpack to much


def npy_claims(shape: tuple[int, ...], dtype: str = "<f8") -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": dtype, "fortran_order": False, "shape": shape})
    return head.getvalue()


def npz_bomb(folder: Path) -> Path:
    """Zeros that are a thousand times larger than their file."""
    path = folder / "scene.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("Y.npy", "w", force_zip64=True) as file,
    ):
        file.write(npy_claims((4000, 4000, 200)))
        for _ in range(32):
            file.write(bytes(1 << 20))
    return path


def mat_bomb(shape: tuple[int, ...], stored: int) -> Make:
    """A compressed variable of that shape and so many bytes."""

    def make(folder: Path) -> Path:
        dims = struct.pack(f"<2I{len(shape)}i", 5, 4 * len(shape), *shape)
        dims += bytes(-len(dims) % 8)
        head = struct.pack("<2I2I", 6, 8, 6, 0) + dims + struct.pack("<HHI", 1, 1, ord("Y"))
        total = min(len(head) + 8 + stored, 2**32 - 1)
        head = struct.pack("<2I", 14, total) + head + struct.pack("<2I", 9, min(stored, 2**32 - 1))
        packer, parts = zlib.compressobj(), []
        parts.append(packer.compress(head))
        for _ in range(min(stored, 32 << 20) >> 20):
            parts.append(packer.compress(bytes(1 << 20)))
        data = b"".join([*parts, packer.flush()])
        path = folder / "scene.mat"
        path.write_bytes(
            b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\x01IM" + struct.pack("<2I", 15, len(data)) + data
        )
        return path

    return make


def hdf5_claims(written: int, shape: tuple[int, ...] = (200, 4000, 4000)) -> Make:
    """A chunked array of which only some chunks were written."""

    def make(folder: Path) -> Path:
        import h5py

        path = folder / "scene.mat"
        with h5py.File(path, "w") as file:
            data = file.create_dataset(
                "Y", shape, "f4", chunks=(1, *(min(n, 8) for n in shape[1:])), compression="gzip"
            )
            for i in range(written):
                data[i] = GOOD.numpy()[i].T[: shape[1], : shape[2]]
            file["wavelengths"] = np.linspace(400, 2400, shape[0])
        return path

    return make


def hdf5_elsewhere(kind: str) -> Make:
    """An array whose values are said to lie in another file."""

    def make(folder: Path) -> Path:
        import h5py

        path = folder / "scene.mat"
        with h5py.File(path, "w") as file:
            file["wavelengths"] = np.array(NM)
            if kind == "virtual":
                layout = h5py.VirtualLayout((5, 31, 24), "f4")
                layout[:] = h5py.VirtualSource("elsewhere.h5", "Y", (5, 31, 24))
                file.create_virtual_dataset("Y", layout)
            elif kind == "external":
                raw = [("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
                file.create_dataset("Y", (5, 31, 24), "f4", external=raw)
            else:
                file["Y"] = h5py.ExternalLink("elsewhere.h5", "Y")
        return path

    return make


def tif_bomb(count: int, height: int, width: int, **profile: Any) -> Make:
    """A GeoTIFF that claims much and holds nothing."""

    def make(folder: Path) -> Path:
        import rasterio

        path = folder / "scene.tif"
        shape = {"count": count, "height": height, "width": width, "dtype": "float32"}
        with rasterio.open(
            path, "w", driver="GTiff", SPARSE_OK=True, bigtiff="yes", nodata=-1, **shape, **profile
        ):
            pass
        return path

    return make


def zeros_bomb(folder: Path) -> Path:
    """A GeoTIFF of zeros, written: 48 MB in a file of some kB."""
    import rasterio

    path = folder / "scene.tif"
    shape = {"count": 3, "height": 2000, "width": 2000, "dtype": "float32"}
    with rasterio.open(path, "w", driver="GTiff", compress="deflate", blockysize=500, **shape) as dataset:
        for i in (1, 2, 3):
            dataset.write(np.zeros((2000, 2000), np.float32), i)
    return path


def envi_sparse(folder: Path) -> Path:
    """A header that promises a terabyte, and a sparse file that has it.

    By line: GDAL 3.12.2 itself refuses bands of more than 2 GiB that are interleaved by band (OSGeo/gdal#14968).
    """
    path = envi(folder / "scene.img", samples=200_000, lines=250_000, interleave="bil")
    os.truncate(path, 200_000 * 250_000 * 5 * 4)
    return path


# ---------------------------------------------------------------- what is no file


def special(kind: str) -> Make:
    def make(folder: Path) -> Path:
        path = folder / "scene.tif"
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "broken link":
            path.symlink_to("elsewhere.tif")
        elif kind == "link to itself":
            path.symlink_to(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "missing":
            pass
        elif kind == "missing folder":
            path = folder / "nowhere" / "scene.tif"
        elif kind == "long name":
            path = folder / ("scene" + "x" * 300 + ".tif")
        elif kind == "long path":
            path = folder / "/".join(["scene" * 20] * 60) / "scene.tif"
        else:
            path = folder / "scene\0.tif"
        return path

    return make


def called(stem: str, ending: str) -> Make:
    def make(folder: Path) -> Path:
        return WRITERS[ending](folder / f"{stem}.{ending}")

    return make


def bytes_name(folder: Path) -> Path:
    """A name that is no UTF-8."""
    source = tif(folder / "scene.tif")
    os.rename(os.fsencode(source), os.fsencode(folder) + b"/scene-\xff\xfe.tif")
    return Path(os.fsdecode(os.fsencode(folder) + b"/scene-\xff\xfe.tif"))


def png(width: int, height: int, rows: int | None = None) -> bytes:
    """A grey picture of zeros; ``rows`` are there, whatever its header says."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = zlib.compress(bytes((width + 1) * (height if rows is None else rows)))
    head = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


TEXT = b"wavelength,reflectance\n490,0.1\n560,0.2\n" * 20
HTML = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>Not Found</body></html>"
VRT = b"""<VRTDataset rasterXSize="31" rasterYSize="24"><VRTRasterBand dataType="Float32" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">/vsicurl/http://localhost:9/x.tif</SourceFilename><SourceBand>1</SourceBand>
<SourceProperties RasterXSize="31" RasterYSize="24" DataType="Float32" BlockXSize="31" BlockYSize="24"/>
</SimpleSource></VRTRasterBand></VRTDataset>"""
WMS = b"""<GDAL_WMS><Service name="TMS"><ServerUrl>http://localhost:9/${z}/${x}/${y}.png</ServerUrl></Service><DataWindow>
<UpperLeftX>0</UpperLeftX><UpperLeftY>1</UpperLeftY><LowerRightX>1</LowerRightX><LowerRightY>0</LowerRightY>
<SizeX>256</SizeX><SizeY>256</SizeY></DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"""
LAUGHS = """<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa">""" + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
) + "]><PAMDataset><Metadata><MDI key='x'>&i;</MDI></Metadata></PAMDataset>"  # fmt: skip


def longer(path: Path) -> Path:
    path.write_bytes(path.read_bytes() + b"more")
    return path


def alone(path: Path) -> Path:
    """The header of a pair whose data file is gone."""
    path.unlink()
    return path.with_suffix(".hdr")


def empty_zip(path: Path) -> Path:
    zipfile.ZipFile(path, "w").close()
    return path


def renamed(writer: Callable[..., Path], before: str, after: str) -> Make:
    return lambda folder: writer(folder / before).rename(folder / after)


def in_a_folder(kind: str) -> Make:
    """The folder that holds such a thing."""

    def make(folder: Path) -> Path:
        special(kind)(folder)
        return folder

    return make


def half_precision(path: Path) -> bool:
    return bool((read_hsi(path, wavelengths=list(NM)).image - GOOD).abs().max() < 1e-3)
