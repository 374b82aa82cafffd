"""Read and write hyperspectral images: GeoTIFF and ENVI (rasterio), MATLAB v5 (scipy) and v7.3 (h5py), NumPy.

Whatever the file, `read_hsi` gives float32 reflectance (C, H, W) with wavelengths in nm, ascending, and a
mask of valid pixels; nothing is clipped, rescaled, reordered or dropped unless the call says so.
"""

from ubf_augment.io.image import HSI, list_hsi, read_hsi
from ubf_augment.io.libraries import earthlib, read_library
from ubf_augment.io.maps import write_maps
from ubf_augment.io.scene import Scene, Window, open_scene
from ubf_augment.io.writing import write_hsi

__all__ = [
    "HSI",
    "Scene",
    "Window",
    "earthlib",
    "list_hsi",
    "open_scene",
    "read_hsi",
    "read_library",
    "write_hsi",
    "write_maps",
]
