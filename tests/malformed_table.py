"""The table of malformed files: `CASES`, a few hundred lines of (kind, name, how it is made, words of the message, options).

A line whose words are None is odd, but good: it must be read right.
"""

from __future__ import annotations

import gzip
import io
import math
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from malformed_files import (
    GOOD,
    HTML,
    HWC,
    KNOWN,
    LAUGHS,
    NM,
    STORED,
    TEXT,
    VRT,
    WMS,
    WRITERS,
    Case,
    alone,
    at_offset,
    bytes_name,
    called,
    changed,
    cut,
    empty_zip,
    envi,
    envi_sparse,
    flipped,
    half_precision,
    hdf5_claims,
    hdf5_elsewhere,
    header,
    holds,
    in_a_folder,
    longer,
    loop,
    mat,
    mat73,
    mat_bomb,
    npy,
    npy_claims,
    npz,
    npz_bomb,
    of,
    patched,
    png,
    renamed,
    sidecar,
    special,
    tif,
    tif_bomb,
    zeros_bomb,
)  # fmt: skip

from ubf_augment.io import list_hsi

# fmt: off
NPY = KNOWN["npy"]
ALL, TOP = (slice(None), slice(None)), (slice(0, 6), slice(None))
BANDS = slice(None)
NAN, INF = math.nan, math.inf
COMPLEX = (HWC + 1j * HWC).astype(np.complex64)
PLANES = COMPLEX.transpose(2, 0, 1)
FLAT = HWC.reshape(-1, 5).T
LOW = np.where(np.arange(24)[:, None] < 6, -9999, STORED).astype(np.int16)


def truncated() -> Iterator[Case]:
    for ending in WRITERS:
        for share, drop in ((0.02, 0), (0.35, 0), (0.8, 0), (1.0, 1)):
            name = f"{ending} at {share:.0%}" if share < 1 else f"{ending} without its last byte"
            yield Case("truncated", name, cut(ending, share, drop), "scene|download", KNOWN.get(ending, {}))
    yield Case("truncated", "hdr inside a list", header(lambda t: t[: t.index("842")]), "scene.hdr is truncated|no end")
    yield Case("truncated", "hdr after two lines", header(lambda t: "\n".join(t.splitlines()[:2])), "scene.img|not a raster")


def damaged() -> Iterator[Case]:
    for ending in ("tif", "mat", "73.mat", "npz"):
        for seed in range(3):
            yield Case("damaged bytes", f"{ending}, seed {seed}", flipped(ending, seed), "scene|download")
    for name, ending, offset, content, words in (
        ("tif magic", "tif", 2, b"\xff\xff", "scene.tif|not a raster"),
        ("tif directory beyond the end", "tif", 4, b"\xf0\xff\xff\x7f", "scene.tif|download"),
        ("npy magic", "npy", 0, b"\x93NUMPX", "scene.npy|damaged"), ("npy version", "npy", 6, b"\x09", "scene.npy|version"),
        ("npy header", "npy", 10, b"{'x': 1}", "scene.npy|damaged"), ("npz directory", "npz", 0, b"XX", "scene.npz|damaged"),
        ("mat first variable", "mat", 128, b"\xff\xff\xff\xff", "scene.mat|damaged"),
    ):
        yield Case("damaged bytes", name, at_offset(offset, content, ending), words, KNOWN.get(ending, {}))


def tif_tags() -> Iterator[Case]:
    for name, tag, value in (
        ("width 2³¹", 256, 2**31 - 1), ("width 0", 256, 0), ("height 0", 257, 0), ("height 2³¹", 257, 2**31 - 1),
        ("77 bits per value", 258, 77), ("unknown compression", 259, 12345), ("wrong compression", 259, 8),
        ("blocks beyond the end", 273, 2**31 - 1), ("no bands", 277, 0), ("65535 bands", 277, 65535),
        ("no rows per strip", 278, 0), ("unknown planes", 284, 9), ("unknown type of values", 339, 9),
    ):
        yield Case("tif tags", name, patched(tag, value), "scene.tif")
    yield Case("tif tags", "a block of 2³¹ bytes", patched(279, 2**31 - 1), None)
    yield Case("tif tags", "a directory that follows itself", loop, None)
    yield Case("tif tags", "bytes behind the end", lambda f: longer(tif(f / "scene.tif")), None)


def something_else() -> Iterator[Case]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("scene.tif", "no image")
    contents = {
        "text": TEXT, "html": HTML, "png": png(20, 20), "json": b'{"a": [1, 2, 3]}' * 9, "gzip": gzip.compress(TEXT),
        "zip": archive.getvalue(), "pdf": b"%PDF-1.7\n" + bytes(300), "program": b"\x7fELF\x02\x01\x01" + bytes(600),
        "random": np.random.default_rng(0).bytes(4000), "zeros": bytes(4000), "nothing": b"", "vrt": VRT,
    }
    for name, content in contents.items():
        yield Case("something else", f"{name} as .tif", holds("scene.tif", content), "scene.tif|not a raster")
    for ending in ("mat", "npy", "npz", "hdr", "img"):
        for name in ("html", "nothing", "random"):
            words = "no data file beside|put it there" if ending == "hdr" else "scene|download"
            yield Case("something else", f"{name} as .{ending}", holds(f"scene.{ending}", contents[name]), words)
    yield Case("something else", "vrt as .img", holds("scene.img", VRT), "scene.img|says where others are")
    yield Case("something else", "web map as .img", holds("scene.img", WMS), "scene.img")
    yield Case("something else", "mat as .npy", renamed(mat, "x.mat", "scene.npy"), "scene.npy|ending")
    yield Case("something else", "tif as .mat", renamed(tif, "x.tif", "scene.mat"), "scene.mat|ending")
    yield Case("something else", "npy as .npz", renamed(npy, "x.npy", "scene.npz"), "scene.npz|ending")


def no_files() -> Iterator[Case]:
    for kind, words in (
        ("folder", "is a folder|list_hsi"), ("pipe", "is no file"), ("broken link", "is a link to elsewhere.tif"),
        ("link to itself", "scene.tif"), ("device", "is no file"), ("missing", "no file|exists"),
        ("missing folder", "nor its folder"), ("long name", "cannot look for"), ("long path", "cannot look for"),
        ("name with a zero byte", "no file"),
    ):
        yield Case("no files", kind, special(kind), words)
    for kind in ("broken link", "pipe", "device"):
        yield Case("no files", f"{kind} in a folder", in_a_folder(kind), "scene.tif", read=lambda p: bool(list_hsi(p)))


def names() -> Iterator[Case]:
    for name, stem in {
        "umlauts": "scéne-äöü-ß", "chinese": "scene-高光谱", "emoji": "scene-🛰️", "right to left": "scene-مشهد",
        "quotes": "scene 'a' \"b\"", "percent and braces": "scene %s {x}", "line break": "scene\nb", "long": "scene" + "x" * 240,
    }.items():
        for ending in ("tif", "img", "mat", "npy"):
            yield Case("names", f"{name}, {ending}", called(stem, ending), None, KNOWN.get(ending, {}))
    yield Case("names", "no UTF-8", bytes_name, "no UTF-8|rename")


def types() -> Iterator[Case]:
    arrays: dict[str, Any] = {"Y": COMPLEX, "wavelengths": NM}
    yield Case("types", "complex tif", of(tif, "scene.tif", PLANES), "scene.tif|complex numbers")
    yield Case("types", "complex ENVI", of(envi, "scene.img", PLANES), "scene.img|complex numbers")
    yield Case("types", "complex mat", of(mat, "scene.mat", **arrays), "scene.mat|complex numbers")
    yield Case("types", "complex compressed mat", of(mat, "scene.mat", True, **arrays), "scene.mat|complex numbers")
    yield Case("types", "complex npz", of(npz, "scene.npz", **arrays), "scene.npz: no array has 3 axes")
    for name, array in (
        ("complex", COMPLEX), ("text", HWC.astype(str)), ("dates", (HWC * 1000).astype("datetime64[s]")),
        ("records", np.zeros((3, 4, 5), [("r", "f4"), ("g", "f4")])), ("bytes", np.zeros((3, 4, 5), "V4")),
    ):
        yield Case("types", f"npy of {name}", of(npy, "scene.npy", array), "scene.npy|no real numbers", NPY)
    pickled = np.array([{"x": 1}], object)
    yield Case("types", "pickle as npy", of(npy, "scene.npy", pickled), "scene.npy|allow_pickle", NPY)
    yield Case("types", "pickle in npz", of(npz, "scene.npz", Y=pickled), "scene.npz|no numeric arrays")
    for dtype in ("uint8", "int16", "uint16", "int32", "uint32"):
        values = (GOOD.numpy() * 200).astype(dtype)
        yield Case("types", f"{dtype} tif without a scale", of(tif, "scene.tif", values), f"scene.tif|{dtype}|scale=")
    yield Case("types", "int16 ENVI without a scale", of(envi, "scene.img", STORED), "scene.img|int16|scale=")
    yield Case("types", "int16 mat without a scale", of(mat, "scene.mat", Y=STORED, wavelengths=NM), "int16|scale=",
               {"layout": "chw"})
    yield Case("types", "float16 npy", of(npy, "scene.npy", HWC.astype(np.float16)), None, read=half_precision)
    yield Case("types", "big-endian npy", of(npy, "scene.npy", HWC.astype(">f8")), None, NPY)
    from scipy.sparse import eye

    for name, held in (
        ("text", {"Y": "text"}), ("cells", {"Y": np.array([HWC, HWC[:3]], object)}), ("a struct", {"Y": {"a": HWC}}),
        ("a sparse matrix", {"Y": eye(5).tocsc()}), ("nothing", {"_": 1}),
    ):
        yield Case("types", f"mat with {name}", of(mat, "scene.mat", **held), "scene.mat|no numeric arrays")


def keys_and_shapes() -> Iterator[Case]:
    kind, two = "keys and shapes", {"A": HWC, "B": HWC[:, :, :3], "wavelengths": np.array(NM)}
    for ending, writer in (("mat", mat), ("73.mat", mat73), ("npz", npz)):
        name = f"scene.{ending}"
        yield Case(kind, f"{ending}: no such variable", of(writer, name), "'Z'|it holds 'Y'", {"key": "Z"})
        yield Case(kind, f"{ending}: which of two", of(writer, name, **two), "'A'|'B'|key=")
        yield Case(kind, f"{ending}: matrix", of(writer, name, Y=FLAT, wavelengths=NM), "'Y'|layout='c(wh)'")
        yield Case(kind, f"{ending}: four axes", of(writer, name, Y=HWC[None]), "4|axes|key=", {"key": "Y"})
        yield Case(kind, f"{ending}: no rows", of(writer, name, Y=HWC[:0], wavelengths=NM), "scene|empty", {"key": "Y"})
        yield Case(kind, f"{ending}: no such wavelengths", of(writer, name), "'nm' for the wavelengths", {"wavelengths": "nm"})
    yield Case(kind, "npz: empty", of(empty_zip, "scene.npz"), "scene.npz|no numeric arrays")
    yield Case(kind, "npy: a number", of(npy, "scene.npy", np.float32(1)), "shape ()|axes", NPY)
    yield Case(kind, "npy: one axis", of(npy, "scene.npy", HWC.ravel()), "(3720,)|axes", NPY)
    flat = NPY | {"layout": "c(wh)"}
    yield Case(kind, "wrong size", of(npy, "scene.npy", FLAT), "744 pixels|30 × 30", flat | {"size": (30, 30)})
    yield Case(kind, "negative size", of(npy, "scene.npy", FLAT), "at least 1", flat | {"size": (-24, -31)})
    yield Case(kind, "bands first", of(npy, "scene.npy", GOOD.numpy()), "5 wavelengths|31 bands", NPY)


def wavelengths() -> Iterator[Case]:
    kind, nm, micro = "wavelengths", "{490, 560, 665, 842, 1610}", "{" + ", ".join(str(v / 1000) for v in NM) + "}"
    for name, text, unit, words in (
        ("one too few", "{490, 560, 665, 842}", "Nanometers", "lists 4|5 bands|wavelengths="),
        ("one too many", "{490, 560, 665, 842, 1610, 2200}", "Nanometers", "lists 6|5 bands|wavelengths="),
        ("missing", None, "Nanometers", "missing|wavelengths="), ("empty list", "{}", "Nanometers", "missing|wavelengths="),
        ("words", "{blue, green, red, nir, swir}", "Nanometers", "'blue'|wavelengths="),
        ("µm without a unit", micro, "Unknown", "look like µm|1000"), ("µm", micro, "Micrometers", None),
        ("nm called µm", nm, "Micrometers", "outside 100–20000 nm|wavelengths="),
        ("frequencies", "{600, 500, 400, 300, 200}", "GHz", "'GHz'|wavelengths="),
        ("numbers of bands", "{1, 2, 3, 4, 5}", "Index", "missing|wavelengths="),
        ("falling", "{1610, 842, 665, 560, 490}", "Nanometers", "not in order|sort_bands=True"),
        ("mixed up", "{490, 665, 560, 842, 1610}", "Nanometers", "not in order|sort_bands=True"),
        ("twice the same", "{490, 560, 560, 842, 1610}", "Nanometers", "not ascending|drop_bands"),
        ("zeros", "{0, 0, 0, 0, 0}", "Nanometers", "missing|wavelengths="),
        ("negative", "{-490, 560, 665, 842, 1610}", "Nanometers", "bands [0]|drop_bands"),
        ("without end", "{490, 560, 665, 842, 1e999999999}", "Nanometers", "bands [4]|drop_bands"),
    ):
        yield Case(kind, f"ENVI: {name}", of(envi, "scene.img", wavelength=text, wavelength_units=unit), words)
    yield Case(kind, "ENVI: frequencies, but they are given", of(envi, "scene.img", wavelength_units="GHz"), None,
               {"wavelengths": list(NM)})
    yield Case(kind, "ENVI: widths of zero", of(envi, "scene.img", fwhm="{0, 0, 0, 0, 0}"), None)
    yield Case(kind, "tif: missing", of(tif, "scene.tif", nm=None), "scene.tif|missing|wavelengths=")
    yield Case(kind, "tif: one band without", of(tif, "scene.tif", nm=NM[:4]), "bands [4]|drop_bands")
    for name, value in (
        ("not a number", "nan"), ("infinite", "inf"), ("huge", "1e999999999"), ("a word", "green"), ("empty", " "),
    ):  # fmt: skip
        words = "not a number|wavelengths=" if value == "green" else "bands [4]|drop_bands"
        yield Case(kind, f"tif: {name}", of(tif, "scene.tif", nm=[*NM[:4], value]), words)
    for name, given, words in (
        ("too few", list(NM[:4]), "4 wavelengths|5 bands"), ("NaN", [*NM[:4], NAN], "no wavelength"),
        ("µm", [v / 1000 for v in NM], "µm"),
    ):
        yield Case(kind, f"given: {name}", of(tif, "scene.tif"), f"scene.tif|{words}", {"wavelengths": given})
    yield Case(kind, "npz: another number", of(npz, "scene.npz", Y=HWC, wavelengths=NM[:4]), "4 wavelengths|5 bands|layout")
    yield Case(kind, "mat: text", of(mat, "scene.mat", Y=HWC, wavelengths="490 560"), "missing|wavelengths=")
    yield Case(kind, "npz: complex", of(npz, "scene.npz", Y=HWC, wavelengths=np.array(NM) + 1j), "missing|wavelengths=")


def missing_data() -> Iterator[Case]:
    kind = "missing data"
    for name, array, words in (
        ("all NaN", changed(BANDS, ALL, NAN), "no pixel"), ("all infinite", changed(BANDS, ALL, INF), "no pixel"),
        ("a band of NaN", changed(2, ALL, NAN), "drop_bands=[2]"), ("a band of −∞", changed(0, ALL, -INF), "drop_bands=[0]"),
        ("one NaN", changed(1, (3, 4), NAN), "1 of 744|row 3, column 4|on_nodata"),
        ("one infinite value", changed(4, (23, 30), INF), "1 of 744|row 23, column 30|on_nodata"),
        ("a quarter −9999, unmarked", changed(BANDS, TOP, -9999.0), "-9999|nodata="),
        ("a band of −9999, unmarked", changed(3, ALL, -9999.0), "-9999|nodata="),
        ("a quarter 10³⁸", changed(BANDS, TOP, 1e38), "1e+38|scale="),
        ("a quarter 10³⁰⁰", changed(BANDS, TOP, 1e300, "float64"), "186 of 744|on_nodata"),
        ("all the lowest float64", changed(BANDS, ALL, -1.7976931348623157e308, "float64"), "no pixel"),
    ):
        yield Case(kind, f"tif: {name}", of(tif, "scene.tif", array), f"scene.tif|{words}")
        yield Case(kind, f"npy: {name}", of(npy, "scene.npy", array.transpose(1, 2, 0)), f"scene.npy|{words}", NPY)
    whole = np.full_like(STORED, -9999)
    for name, array, profile, options, words in (
        ("int16 −9999, unmarked", LOW, {"scale": 1e-4}, {}, "nodata=-9999"),
        ("int16 −9999, scale given", LOW, {}, {"scale": 1e-4}, "nodata=-9999"),
        ("int16 −9999, marked", LOW, {"scale": 1e-4, "nodata": -9999}, {}, "186 of 744"),
        ("all nodata", whole, {"scale": 1e-4, "nodata": -9999}, {}, "no pixel"),
        ("all zero, and zero is nodata", 0 * STORED, {"scale": 1e-4, "nodata": 0}, {}, "no pixel"),
    ):
        yield Case(kind, name, of(tif, "scene.tif", array, **profile), f"scene.tif|{words}", options)


def scales() -> Iterator[Case]:
    for name, scale in (("negative", -1e-4), ("zero", 0.0), ("not a number", NAN), ("infinite", INF)):
        yield Case("scales", f"tif: {name}", of(tif, "scene.tif", STORED, scale=scale), "scene.tif|scale=1/10000")
    for name, text in (
        ("zero", "0"), ("negative", "-10000"), ("a word", "none"), ("tiny", "1e-300"), ("upside down", "0.0001"),
    ):
        make = of(envi, "scene.img", STORED, reflectance_scale_factor=text)
        yield Case("scales", f"ENVI: {name}", make, "scene.img|scale=1/10000")
    for name, value in (("upside down", 10_000.0), ("zero", 0.0), ("negative", -1e-4), ("not a number", NAN)):
        yield Case("scales", f"given: {name}", of(tif, "scene.tif", STORED), "scene.tif|scale", {"scale": value})
    yield Case("scales", "digital numbers as float", of(tif, "scene.tif", STORED.astype(np.float32)), "scene.tif|scale=1/10000")
    yield Case("scales", "percent", of(tif, "scene.tif", 100 * GOOD.numpy()), "scene.tif|exceed|scale=")


def georeferencing() -> Iterator[Case]:
    for name, text, words in (
        ("pixels of no size", "{UTM, 1, 1, 500000, 5000000, 0, 0, 33, North, WGS-84}", "georeferencing|gdal_edit"),
        ("not a number", "{UTM, 1, 1, nan, 5000000, nan, 30, 33, North, WGS-84}", "georeferencing|gdal_edit"),
        ("infinite", "{UTM, 1, 1, inf, 5000000, 30, inf, 33, North, WGS-84}", "georeferencing|gdal_edit"),
        ("words", "{somewhere}", None), ("zone 99", "{UTM, 1, 1, 500000, 5000000, 30, 30, 99, North, WGS-84}", None),
    ):
        yield Case("georeferencing", f"ENVI: {name}", of(envi, "scene.img", map_info=text), words)
    for name, ending, text in (
        ("world file of zeros", "tfw", "0\n0\n0\n0\n5\n5\n"), ("world file of words", "tfw", "here\nthere\n"),
        ("sidecar that multiplies", "tif.aux.xml", LAUGHS), ("sidecar of text", "tif.aux.xml", "no xml"),
    ):
        yield Case("georeferencing", name, sidecar(ending, text), None)


def envi_headers() -> Iterator[Case]:
    raster, more, less = "scene.img|not a raster", "scene.img|truncated|promises", "scene.img|describes|correct it"
    for name, change, words in (
        ("one band more", {"bands": 6}, more), ("one band fewer", {"bands": 4}, less),
        ("one line more", {"lines": 25}, more), ("one line fewer", {"lines": 23}, less),
        ("one sample more", {"samples": 32}, more), ("one sample fewer", {"samples": 30}, less),
        ("narrower values", {"data_type": 2}, less), ("wider values", {"data_type": 5}, more),
        ("offset", {"header_offset": 100}, more), ("negative offset", {"header_offset": -8}, "scene"),
        ("offset in words", {"header_offset": "none"}, "scene|correct it"), ("unknown type", {"data_type": 99}, raster),
        ("no type", {"data_type": None}, "scene"), ("no samples", {"samples": None}, raster),
        ("no bands", {"bands": None}, "scene"),
        ("samples 0", {"samples": 0}, raster), ("samples −31", {"samples": -31}, raster), ("bands 0", {"bands": 0}, "scene"),
        ("lines 2³¹−1", {"lines": 2**31 - 1}, "scene"), ("bands 2³¹−1", {"bands": 2**31 - 1}, "scene"),
        ("numbers of many digits", {"lines": "9" * 40}, "scene"), ("bytes swapped", {"byte_order": 1}, "scene"),
        ("said to be compressed", {"file_compression": 1}, "scene"),
    ):
        yield Case("ENVI headers", name, of(envi, "scene.img", **change), words)
    comment = "description = {" + "x" * 10_000_000 + "}\n"
    yield Case("ENVI headers", "without its first word", header(lambda t: t.replace("ENVI\n", "")), raster)
    yield Case("ENVI headers", "of zeros", header(lambda t: "\0" * 500), raster)
    yield Case("ENVI headers", "ten megabytes of a comment", header(lambda t: t + comment), None)
    yield Case("ENVI headers", "without data", lambda f: alone(envi(f / "scene.img")), "no data file beside|.img|put it there")


def bombs() -> Iterator[Case]:
    much = "GiB|UBF_MAX_GIB"
    yield Case("bombs", "tif claims 80 TB", tif_bomb(500, 200_000, 200_000, blockysize=512), f"scene.tif|{much}")
    yield Case("bombs", "tif of 60,000 bands", tif_bomb(60_000, 4000, 4000, blockysize=4000), f"scene.tif|{much}")
    yield Case("bombs", "tif of zeros", zeros_bomb, f"scene.tif|{much}")
    for name, shape, words in (
        ("claims 8 PB", (10**7, 10**6, 100), much), ("claims more than there are addresses", (2**40, 2**40, 5), "claims"),
        ("of a negative shape", (-4, 4, 5), "shape"),
    ):
        yield Case("bombs", f"npy {name}", holds("scene.npy", npy_claims(shape) + bytes(900)), f"scene.npy|{words}", NPY)
    yield Case("bombs", "npz of zeros", npz_bomb, f"scene.npz['Y']|{much}")
    yield Case("bombs", "mat claims much", mat_bomb((30_000, 30_000, 200), 1000), f"scene.mat['Y']|{much}")
    yield Case("bombs", "mat unpacks to much", mat_bomb((24, 31, 5), 2**31), "29760 bytes, but 2147483648|damaged",
               {"wavelengths": list(NM)})
    yield Case("bombs", "mat of a negative shape", mat_bomb((-24, 31, 5), 1000), "scene.mat", {"wavelengths": list(NM)})
    yield Case("bombs", "hdf5 claims much", hdf5_claims(0), f"scene.mat['Y']|{much}")
    yield Case("bombs", "ENVI claims much", of(envi, "scene.img", samples=10**9, lines=10**9), "scene.img")
    yield Case("bombs", "ENVI claims a terabyte, and has it", envi_sparse, f"scene.img|{much}")


def never_written() -> Iterator[Case]:
    for name, profile in (("strips", {}), ("tiles", {"tiled": True, "blockxsize": 16, "blockysize": 16})):
        options: dict[str, Any] = {"interleave": "band", "SPARSE_OK": True, **profile}
        yield Case("never written", f"tif: {name}", of(tif, "scene.tif", only=2, **options), "scene.tif|never written|nodata")
        yield Case("never written", f"tif: no {name} at all", of(tif, "scene.tif", only=0, **options), "never written|nodata")
    yield Case("never written", "hdf5: three of five bands", hdf5_claims(3, (5, 31, 24)), "scene.mat|never written")
    yield Case("never written", "hdf5: nothing", hdf5_claims(0, (5, 31, 24)), "scene.mat|never written")
    for kind in ("virtual", "external"):
        yield Case("never written", f"hdf5: {kind}", hdf5_elsewhere(kind), "scene.mat|refers to other files")
    yield Case("never written", "hdf5: link to another file", hdf5_elsewhere("link"), "scene.mat|no array has 3 axes")


TABLES = (
    truncated, damaged, tif_tags, something_else, no_files, names, types, keys_and_shapes, wavelengths, missing_data, scales,
    georeferencing, envi_headers, bombs, never_written,
)
CASES = [case for table in TABLES for case in table()]
