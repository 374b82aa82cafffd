# %% [markdown]
# # Unmix, decode, and a new sensor
#
# Everything in this package goes through abundances. This page follows one real scene, Indian Pines, there and back: from all
# bands, from a colour picture, and to a sensor that the bundle has never seen. Since the scene is known in 200 bands, each step
# can be compared with the truth.

# %% tags=["remove-cell"]
# %matplotlib inline
# %config InlineBackend.figure_format = "retina"

# %%
import matplotlib.pyplot as plt
import torch

from ubf_augment import HSISynthesizer
from ubf_augment.datasets.indian_pines import load_scene
from ubf_augment.metrics import rmse, sad
from ubf_augment.radiometry import to_display, to_reflectance
from ubf_augment.report import abundance_grid, comparison_sheet, endmember_plot
from ubf_augment.spectra import rgb_bands
from ubf_augment.unmixing import gamut_report, reproduction

scene = load_scene()
x, nm = scene.image[None], scene.wavelengths
print(tuple(x.shape), f"{nm[0]:g} to {nm[-1]:g} nm")

# %% [markdown]
# ## From all bands
#
# The bundle `indian-pines` was fitted on training blocks of this scene. `unmix` gives the share of each material in each pixel;
# `mix` turns shares back into spectra.

# %%
pines = HSISynthesizer.from_pretrained("indian-pines")
a = pines.unmix(x)
back = pines.mix(a)
print(
    f"smallest share {float(a.min()):.1e}, largest deviation of the sum from one {float((a.sum(1) - 1).abs().max()):.1e}"
)
print(f"RMSE {float(rmse(back, x)):.4f} reflectance, mean spectral angle {float(sad(back, x)):.2f}°")
abundance_grid(a, pines.endmembers.names)

# %% [markdown]
# Materials have no names, for nobody told the bundle any: they are the spectra whose mixtures explain the pixels best. The
# last one is shade, zero reflectance, and carries the brightness: a dark pixel is a bright one with more shade. With shade
# the scale of a material is free, so a spectrum may rise above one: no pixel consists of it alone.

# %%
endmember_plot(pines.endmembers)

# %% [markdown]
# ## From a picture
#
# Now the flagship, `aid-chikusei`: 59 visible bands, endmembers from a scene in Japan. Give it a colour picture of our scene. A
# picture holds displayed values *v*, and reflectance is *r* = scale · *v*^gamma, one scale and one gamma for the whole source.
# Here we make the picture ourselves with the same curve, so its reflectance is known; with pictures of your own you set
# `rgb_scale` and `rgb_gamma` once, when the bundle is fitted.

# %%
aid = HSISynthesizer.from_pretrained("aid-chikusei")
red_green_blue = x[:, list(rgb_bands(nm))]
picture = (to_display(red_green_blue, aid.rgb_scale, aid.rgb_gamma) * 255).round().to(torch.uint8)

a = aid.unmix_rgb(picture)
decoded = aid.mix(a)  # 59 bands
print(tuple(picture.shape), "→", tuple(a.shape), "→", tuple(decoded.shape))
abundance_grid(a, aid.endmembers.names)

# %% [markdown]
# Three colours cannot tell six shares: of the many mixtures with the right colour the encoder names the one that its training
# made likely.
#
# Are these abundances worth anything? First check: look at the decoded cube in red, green and blue again. It must be the picture.

# %%
reflectance = to_reflectance(picture, aid.rgb_scale, aid.rgb_gamma)
seen = decoded[:, list(rgb_bands(aid.wavelengths))]
found = reproduction(seen, reflectance)
best = gamut_report(reflectance, aid.rgb_endmembers)
for key in ("relative_error", "angle", "coverage"):
    print(f"{key:15s} the encoder {found[key]:.4f}   the best possible abundances {best[key]:.4f}")

# %% [markdown]
# `gamut_report` asks whether *any* mixture of the endmembers has these colours; `coverage` is the share of pixels that some
# mixture hits within 5 %. Colours outside this gamut cannot be decoded, whatever the encoder does. A red roof and a swimming
# pool, made up for the purpose:

# %%
made = {"red roof": (200, 40, 30), "swimming pool": (40, 190, 220), "dry grass": (150, 140, 100)}
for name, colour in made.items():
    one = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1)
    found = gamut_report(to_reflectance(one, aid.rgb_scale, aid.rgb_gamma), aid.rgb_endmembers)
    print(f"{name:14s} relative error of the best mixture {found['relative_error']:.3f}")

# %% [markdown]
# A large error means: no endmember of the bundle is of that kind. The model card of every bundle has this report for each class
# of its pictures.
#
# ## To a new sensor
#
# AVIRIS has 200 bands up to 2500 nm, the bundle 59 up to 698 nm. `adapt` takes images of the new sensor, unmixes them through
# red, green and blue, and solves for the endmembers' spectra in all 200 bands. Half of the scene is given to it, the other half
# is kept for the comparison.

# %%
left, right = x[:, :, :, :72], x[:, :, :, 73:]
aviris = aid.adapt(left, wavelengths=nm, sensor="AVIRIS, left half of Indian Pines")
report = aviris.card["adaptation"]
print(f"{report['seconds']:.1f} s for {report['pixels']} pixels")

halves = picture[..., 73:]
from_picture = aviris.mix(aviris.unmix_rgb(halves))
from_all = aviris.mix(aviris.unmix(right))
print(f"unmixed from all bands:         RMSE {float(rmse(from_all, right)):.4f}")
print(f"unmixed from red, green, blue:  RMSE {float(rmse(from_picture, right)):.4f}")

# %%
figure, axis = plt.subplots(figsize=(7.5, 3))
for made_cube, name in ((from_picture, "from red, green, blue"), (from_all, "from all bands")):
    axis.plot(nm, (made_cube - right).square().mean((0, 2, 3)).sqrt(), ".", ms=3, label=name)
axis.axvspan(float(aid.wavelengths[0]), float(aid.wavelengths[-1]), color="0.92", label="bands of the bundle")
axis.set(xlabel="wavelength in nm", ylabel="RMSE in reflectance", ylim=(0, None))
_ = axis.legend(frameon=False)
# %%
rows, columns = slice(20, 84), slice(4, 68)
comparison_sheet(
    right[:, :, rows, columns].repeat(2, 1, 1, 1),
    torch.cat([from_all, from_picture])[:, :, rows, columns],
    nm,
    ["from all bands", "from red, green, blue"],
    names=("real", "decoded"),
)

# %% [markdown]
# Least squares over all bands treats 200 of them alike, so the colours of the left column, three bands of the 200, may be a
# little off. The right column has the colours of the picture and, beyond the visible, another spectrum.
#
# This is the limit of everything that starts from pictures. In the visible the decoded scene is close; beyond 700 nm the error
# from red, green and blue is several times that from all bands, because a green field and a green roof can look alike and
# reflect the infrared quite differently. Three ways to live with it:
#
# - give images and labels to `adapt`: from five images on it learns what the infrared can be, given colour, texture and class;
#   pictures and generated scenes get a draw from it, whose spread says how much is open;
# - use `vary`, `fuse` and `edit`, which keep the measured spectra of your own images;
# - for generated scenes, trust the visible bands more than the infrared ones.
#
# `aviris.save_pretrained("my-sensor")` keeps the adapted bundle; on the command line the same is
# `ubf adapt aid-chikusei my_images/ --out my-sensor`.
