# %% [markdown]
# # Your own bundle
#
# The packaged bundles know AID's scene classes and Indian Pines' crops. If you have hyperspectral images of your sensor and
# labelled colour pictures of your classes (unpaired: other places, other times), `ubf fit` makes a bundle of them: endmembers
# and encoders, abundance maps of all pictures, a generator of those maps. This page runs the command on made data of toy size,
# so that it takes seconds; what to change for a real run is said at the end.
#
# ## Files
#
# - **HSIs**: a file, a folder of files, or class folders of files. GeoTIFF and ENVI say their own wavelengths and scale; for
#   MATLAB and NumPy files the configuration says them. A few are enough, if every material of your scenes occurs.
# - **Pictures**: class folders of JPEG, PNG or TIFF files. They teach what scenes of a class look like: the more the better.

# %% tags=["remove-cell"]
# %matplotlib inline
# %config InlineBackend.figure_format = "retina"
import os

for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):  # the notebook's terminal is none for the commands below
    os.environ.pop(name, None)

# %%
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F

from ubf_augment import HSISynthesizer, mix, write_hsi
from ubf_augment.radiometry import to_display
from ubf_augment.report import image_grid
from ubf_augment.spectra import rgb_bands

folder = Path(tempfile.mkdtemp())
random = torch.Generator().manual_seed(0)

nm = torch.linspace(420, 900, 25)
plants = 0.04 + 0.06 * torch.exp(-(((nm - 555) / 30) ** 2)) + 0.42 * torch.sigmoid((nm - 715) / 12)
soil = 0.06 + 0.0005 * (nm - 400)
water = 0.10 * torch.exp(-(nm - 400) / 150)
E = torch.stack([plants, soil, water])
SHARES = {"field": (2.0, 2.5, 0.0), "wood": (3.5, 0.5, 0.0), "lake": (0.5, 0.0, 3.0)}


def landscape(kind: str, size: int) -> torch.Tensor:
    """Reflectance (25, size, size) of smooth mixtures, mostly of what the class consists of."""
    noise = F.interpolate(torch.randn(1, 3, 5, 5, generator=random), (size, size), mode="bicubic")
    return mix(torch.softmax(torch.tensor(SHARES[kind]).view(1, 3, 1, 1) + noise, 1), E)[0]


for kind in SHARES:
    cube = landscape(kind, 48) + 0.003 * torch.randn(25, 48, 48, generator=random)
    write_hsi(folder / "hsi" / f"{kind}.tif", cube, nm)
    (folder / "pictures" / kind).mkdir(parents=True)
    for i in range(12):
        v = to_display(landscape(kind, 48)[list(rgb_bands(nm))], scale=0.45, gamma=1.5)
        array = (v * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(array).save(folder / "pictures" / kind / f"{i:03d}.png")

for path in sorted(folder.rglob("*"))[:12]:
    print(path.relative_to(folder))

# %% [markdown]
# ## Configuration
#
# One YAML file. `settings` are those of `FitSettings`; every option can also be given on the command line. The display curve of
# the pictures, *r* = scale · *v*^gamma, deserves a thought: ordinary JPEGs are stored with a curve, and without undoing a part
# of it forests come out as bright as fields. Leave `rgb_scale` out to have the 99th percentile of brightness matched to that of
# your HSIs.

# %%
config = f"""\
hsi: {folder}/hsi
rgb: {folder}/pictures
out: {folder}/my-bundle
accelerator: cpu
threads: 1
settings:
  num_endmembers: 4          # shade included
  size: [16, 16]             # of the maps; pictures are shrunk to it
  rgb_gamma: 1.5
  include_hsis: false        # true: the generator also learns from the HSIs' own maps
  restarts: 1
  refine_iterations: 30
  unmixing_steps: 60
  unmixing_config: {{width: 16, rgb_width: 16, blocks: 1, rgb_blocks: 1}}
  unmixing_options: {{batch_size: 4, crop: 16}}
  generator_steps: 150
  generator_batch_size: 16
  generator_config: {{factor: 4, latent_channels: 6, codec_widths: [16, 16], widths: [32, 48]}}
  generator_options: {{codec_steps: 60, lr: 0.002, warmup: 20, ema_decay: 0.97}}
  seed: 0
card:
  summary: Made landscapes of three materials, toy size
  sensor: made, 25 bands, 420 to 900 nm
  data: [3 made HSIs, 36 made pictures]
  licence: Apache-2.0
"""
(folder / "fit.yaml").write_text(config)
print(config.replace(str(folder), "..."))

# %% [markdown]
# ## Fit, be interrupted, go on
#
#     ubf fit --config fit.yaml
#
# A real run takes hours, and machines go down. Here the command gets a SIGTERM while the generator trains (Ctrl-C does the
# same), and is then given again.

# %%
import subprocess
import sys
import time

command = [str(Path(sys.executable).with_name("ubf")), "fit", "--config", str(folder / "fit.yaml")]


def shown(text: str) -> str:
    """Output of the command, with the temporary folder left out."""
    return text.replace(str(folder), "...").strip()


work = folder / "my-bundle.work"
process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
assert process.stdout is not None
for line in process.stdout:
    print(shown(line))
    if line.startswith("decoder"):  # the last line before the generator's long training
        time.sleep(1)
        process.terminate()
process.wait()
print("left in my-bundle.work:", sorted(path.name for path in work.iterdir()))

# %%
finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
print(shown(finished.stdout))

# %% [markdown]
# The second call goes on from the checkpoint and ends with the weights that an uninterrupted run on a CPU would have had: order
# and noise of every step depend on seed and step alone. With other settings or other data in the same work directory it stops
# and says so, rather than mixing two runs.
#
# ## What a bundle is
#
# A directory of JSON and safetensors files. Loading it runs no code from it; every file is checked against its SHA-256 sum.

# %%
for path in sorted((folder / "my-bundle").rglob("*")):
    if path.is_file():
        print(f"{path.stat().st_size:9,d} bytes  {path.relative_to(folder / 'my-bundle')}")

# %% [markdown]
# `README.md` is the model card: what you wrote under `card`, all settings, seconds of training, and figures. Two tables to look
# at first: *Reconstruction* (how well encoders and exact least squares reproduce the HSIs) and *Gamut coverage* (how well the
# materials can reproduce the colours of each class).

# %%
card = (folder / "my-bundle" / "README.md").read_text()
print(card[: card.index("## Settings")])
print(card[card.index("## Reconstruction") :])

# %% [markdown]
# ## Use it
#
# By its directory. Samples of each class, and real crops of the HSIs for comparison. What a generator can learn in 150 steps
# from 36 small pictures is the composition of the classes; the blocks are the 4×4 patches of its code, which more training
# joins.

# %%
from ubf_augment import read_hsi

synth = HSISynthesizer.from_pretrained(folder / "my-bundle")
x = synth.sample([kind for kind in synth.classes for _ in range(3)], seed=0)
crops = [read_hsi(folder / "hsi" / f"{kind}.tif").image[:, 16:32, 16:32] for kind in synth.classes]
tiles, titles = [], []
for k, kind in enumerate(synth.classes):
    tiles += [crops[k], *x[3 * k : 3 * k + 3]]
    titles += [f"{kind}, HSI", *[f"{kind}, sampled"] * 3]
image_grid(torch.stack(tiles), synth.wavelengths, titles, columns=4)

# %% [markdown]
# In Python the same is `HSISynthesizer.fit(hsis, pictures, num_endmembers=4, ..., workdir="work")` and
# `synth.save_pretrained("my-bundle", dtype="float16")`. Saving writes beside the target and renames at the end: a crash leaves
# the old bundle whole.
#
# To share it, `synth.push_to_hub("your-name/my-bundle", licence="cc-by-4.0")` uploads it to the Hugging Face Hub (log in
# with `hf auth login` before), and `HSISynthesizer.from_pretrained("your-name/my-bundle")` loads it anywhere, from then on
# offline too.
#
# ## For a real run
#
# - **Steps**: leave `restarts`, `refine_iterations`, `unmixing_steps` and `generator_steps` at their defaults (4, 150, 1500,
#   20000) to begin with; the defaults of `generator_config` are made for 64×64 maps.
# - **Endmembers**: raise `num_endmembers` while the reconstruction error in the card falls clearly; look at the spectra
#   (`report.endmember_plot`).
# - **Infrared**: if your sensor sees beyond 700 nm, set `conditional_rgb: true`, which gives the RGB encoder the scene class;
#   colour alone does not determine the infrared. Without encoders (`unmixing_steps: 0`) the infrared of pictures is drawn from
#   what the HSIs show.
# - **Coverage**: where a class has a low *best coverage*, your HSIs lack a material that its pictures show. Add an HSI that
#   holds it.
# - **GPU**: `accelerator: cuda`, `precision: bf16-mixed`, and several `devices` if you have them. `ubf fit --help` lists
#   everything.
