# %% [markdown]
# # Adapt to your sensor
#
# A bundle's generator speaks of materials, not of bands. So a bundle that was learnt in 59 visible bands can serve your sensor:
# only the endmembers' spectra and the residual model have to be found anew, and that takes seconds. All it needs is a handful of
# your images, in reflectance, and the wavelengths of their bands.

# %% tags=["remove-cell"]
# %matplotlib inline
# %config InlineBackend.figure_format = "retina"

# %% [markdown]
# ## 1. Say what the sensor is
#
# Many sensors are built in; yours may be a list of wavelengths, or a CSV file with the columns `wavelength`, `fwhm`, `band`.

# %%
from ubf_augment.spectra import list_sensors, sensor

print(", ".join(list_sensors()))

mine = sensor("sentinel-2").select(["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"])
for name, nm, width in zip(mine.bands, mine.wavelengths.tolist(), mine.fwhm.tolist(), strict=True):
    print(f"{name:4s} {nm:7.1f} nm, width {width:5.1f}")

# %% [markdown]
# ## 2. Give it images in reflectance
#
# Files hold whole numbers; `mine.reflectance(stored)` turns them into reflectance with bands in order of wavelength, and
# `transforms=mine` does the same inside a torchgeo data set. Here the images are made from a real scene, so that there is a
# truth to compare with: Indian Pines patches, seen through these ten bands.

# %%
import torch

from ubf_augment import HSISynthesizer
from ubf_augment.datasets import IndianPines
from ubf_augment.spectra import resample

train = IndianPines("train", fold=0)
x = torch.stack([sample["image"] for sample in train])
images = resample(x, train.wavelengths, mine.centres, mine.widths)
labels = torch.tensor(train.targets)
print(tuple(images.shape), f"reflectance from {float(images.min()):.3f} to {float(images.max()):.3f}")

# %% [markdown]
# ## 3. Adapt
#
# `class_map` says which of your classes is which of the bundle's. It does two things: labelled images teach what the infrared of
# their class can be, given colour and texture (a sensor that sees none gets endmembers per class instead), and the generator
# knows what to draw when you ask for your class. Classes without counterpart are left out of it.

# %%
bundle = HSISynthesizer.from_pretrained("aid-chikusei")
synth = bundle.adapt(
    images,
    wavelengths=mine.centres,
    fwhm=mine.widths,
    labels=labels,
    classes=train.classes,
    class_map={"Woods": "Forest"},
    sensor="Sentinel-2, ten bands",
)
print(f"{bundle.num_bands} bands → {synth.num_bands} bands in {synth.card['adaptation']['seconds']:.1f} s")

# %% [markdown]
# ## 4. Ask how good it is
#
# The card has root mean square errors on images that were held out, in reflectance: of images unmixed from all bands and mixed
# again, and of images unmixed from red, green and blue alone, which is what scenes from pictures and from the generator can be.

# %%
report = synth.card["adaptation"]
print(f"unmixed from all ten bands            {report['rmse_unmixed_refined']:.4f}")
print(f"from red, green, blue: all ten bands  {report['rmse_regression']:.4f}")
for name, error in zip(mine.bands, report["rmse_per_band_regression"], strict=True):
    print(f"  {name:4s} {error:.4f}")

# %% [markdown]
# And look at it. The endmembers should be smooth and look like spectra of something; unmixed and mixed again, images should be
# themselves.

# %%
from ubf_augment.report import comparison_sheet, endmember_plot

endmember_plot(synth.endmembers)

# %%
first = [train.targets.index(k) for k in range(len(train.classes))]
back = synth.mix(synth.unmix(images[first]))
comparison_sheet(
    images[first], back, synth.wavelengths, list(train.classes), names=("real", "unmixed and mixed")
)

# %% [markdown]
# ## 5. Use it
#
# Everything else is as before: `UBFAugment(synth, …)`, `SyntheticHSIDataset(synth, …)`, `synth.sample`. Scenes of the thirty
# classes that the generator learnt from pictures now have ten bands:

# %%
from ubf_augment.report import image_grid

kinds = ["Forest", "Farmland", "River", "Desert", "Beach", "Industrial", "Stadium", "Pond"]
image_grid(synth.sample(kinds, seed=0), synth.wavelengths, kinds)

# %%
import tempfile
from pathlib import Path

directory = synth.save_pretrained(Path(tempfile.mkdtemp()) / "my-sensor", dtype="float16")
again = HSISynthesizer.from_pretrained(directory)
print(again.num_bands, "bands,", again.card["sensor"])

# %% [markdown]
# From the command line, with a folder of your files:
#
# ```sh
# ubf adapt aid-chikusei my_images/ --out my-sensor
# ```
#
# ## What to expect beyond the visible
#
# Red, green and blue do not determine the infrared. Scenes from pictures and from the generator carry errors there that are
# several times those in the visible (*Limits* in [Concepts](../concepts.md)); the strategies `vary`, `fuse` and `edit` start from
# your own images and do not have them. What colour, texture and class leave open is drawn for every scene anew. If you have many
# images of your own, `synth.finetune(images, labels, classes=…)` goes further: the generator then learns your classes from them.
