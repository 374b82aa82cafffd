# %% [markdown]
# # Read and compare images
#
# `read_hsi` turns a file into float32 reflectance (C, H, W) with wavelengths in nm and a mask of valid pixels. GeoTIFF and ENVI
# describe themselves; MATLAB and NumPy files hold bare arrays, so the call describes them.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from ubf_augment import metrics
from ubf_augment.errors import RadiometryError
from ubf_augment.io import read_hsi, write_hsi
from ubf_augment.mixing import mix

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# A made scene: vegetation on the left, soil on the right, mixed between them, in 31 bands.

# %%
nm = torch.linspace(400, 1000, 31)
vegetation = 0.04 + 0.06 * torch.exp(-(((nm - 555) / 30) ** 2)) + 0.42 * torch.sigmoid((nm - 715) / 12)
soil = 0.05 + 0.0004 * (nm - 400)
E = torch.stack([vegetation, soil])

share = torch.linspace(1, 0, 48).expand(1, 1, 48, 48)
scene = mix(torch.cat([share, 1 - share], 1), E)

plt.plot(nm, E.T, label=["vegetation", "soil"])
plt.xlabel("wavelength in nm")
plt.ylabel("reflectance")
plt.legend()
# %% [markdown]
# Written as GeoTIFF, the image keeps its wavelengths and comes back exactly.

# %%
file = write_hsi(
    folder / "scene.tif", scene[0], nm, crs="EPSG:32633", transform=(10, 0, 366000, 0, -10, 5810000)
)
hsi = read_hsi(file)
print(hsi.image.shape, hsi.wavelengths[:3], torch.equal(hsi.image, scene[0]))

# %% [markdown]
# As integers it takes half the space; the scale is stored with it. A scale is never guessed: integers without one are refused.

# %%
small = read_hsi(write_hsi(folder / "small.tif", scene[0], nm, scale=1e-4))
print(
    f"RMSE {metrics.rmse(small.image[None], scene):.1e}, spectral angle {metrics.sad(small.image[None], scene):.4f}°"
)


np.save(folder / "bare.npy", (scene[0] * 10000).round().short().permute(1, 2, 0).numpy())
try:
    read_hsi(folder / "bare.npy", wavelengths=nm)
except RadiometryError as error:
    print(error)
print(read_hsi(folder / "bare.npy", wavelengths=nm, scale=1 / 10000).image.shape)
