# %% [markdown]
# # Augment a training loop
#
# You have few labelled hyperspectral patches and a classifier to train. This page takes a packaged bundle, adapts it to your
# sensor, and puts `UBFAugment` into a plain training loop, then MixUp beside it. The data are real: Indian Pines (AVIRIS, 200
# bands, 400–2500 nm), which comes with the package `tensorly`.

# %% tags=["remove-cell"]
# %matplotlib inline
# %config InlineBackend.figure_format = "retina"

# %%
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from ubf_augment import HSISynthesizer, UBFAugment
from ubf_augment.datasets import IndianPines
from ubf_augment.report import image_grid, spectra_plot

torch.manual_seed(0)
train = IndianPines("train", fold=0)
print(len(train), "patches of", tuple(train[0]["image"].shape))
for name, count in zip(train.classes, torch.bincount(torch.tensor(train.targets)).tolist(), strict=True):
    print(f"{count:4d}  {name}")

# %% [markdown]
# ## 1. Bring a bundle to your sensor
#
# `aid-chikusei` was learnt in 59 visible bands. `adapt` unmixes your images through their red, green and blue bands, solves for
# the spectra that the same materials have in *your* bands, and models what is left over. It trains no network and takes
# seconds. `class_map` says which of your classes is which of the bundle's; classes without counterpart are left out of the map.

# %%
bundle = HSISynthesizer.from_pretrained("aid-chikusei")
synth = bundle.adapt(train, wavelengths=train.wavelengths, class_map={"Woods": "Forest"})

report = synth.card["adaptation"]
print(f"{report['seconds']:.1f} s; RMSE of held-out patches in reflectance:")
print(f"  all bands unmixed and mixed again:       {report['rmse_unmixed_refined']:.4f}")
print(f"  from red, green, blue, visible bands:    {report['rmse_after_in_old_range']:.4f}")
print(f"  from red, green, blue, all 200 bands:    {report['rmse_after']:.4f}")
print(f"  the same with what the infrared showed:  {report['rmse_regression']:.4f}")

# %% [markdown]
# The last lines are the limit to know: three visible bands do not determine the infrared. Where a sensor sees it, `adapt` learns
# what it can be, given colour, texture and class, and draws it. The limit concerns whole scenes made from
# pictures or by the generator (`generate`, `bank`). The strategies `vary`, `fuse` and `edit` start from your own images, whose
# infrared is measured, and do not have this problem. So `vary` is the one to begin with:
#
# $$x' = l \circ \left(x + (E' - E)^\top a\right)$$
#
# The abundances $a$ of a patch stay, its endmembers $E$ get smooth random gains along the wavelength, what the linear model does
# not explain stays as it was measured, and the light $l$ of the whole patch gets a smooth gain and a brightness.

# %%
names = {"classes": train.classes, "class_map": {"Woods": "Forest"}}
augment = UBFAugment(synth, p=1.0, strategy="vary", seed=0, **names)

shown = [train.targets.index(k) for k in range(len(train.classes))]
x = torch.stack([train[i]["image"] for i in shown])
y = torch.tensor([train.targets[i] for i in shown])
varied, _ = augment(x, y)
image_grid(
    torch.cat([x, varied]),
    train.wavelengths,
    train.classes,
    title="one patch per class, and its variation below",
)

# %%
spectra_plot({"Woods, real": x[-1:], "Woods, varied": varied[-1:]}, train.wavelengths)

# %% [markdown]
# Water absorption and the red edge stay where they are, since gains are smooth over hundreds of nanometres. If the colours go
# further than your sensor and season do, lower `endmember_std` (0.1 in log reflectance), `illumination_std` and
# `brightness_std` (0.2). All patches of a figure share one stretch, which is printed in it.
#
# ## 2. A plain loop
#
# Batch in, batch out. Put `UBFAugment` *before* the normalisation: it works in reflectance. `p=0.5` replaces half of the
# images. A mapping mixes strategies; an image that a strategy cannot serve (no partner of its class in the batch, say) gets
# another or stays real.

# %%
pixels = torch.stack([s["image"] for s in train]).movedim(1, -1).flatten(0, -2)
normalise = v2.Normalize(pixels.mean(0).tolist(), pixels.std(0).tolist())


def classifier() -> nn.Module:
    """A small network for 8×8 patches."""
    return nn.Sequential(
        nn.Conv2d(200, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, len(train.classes)),
    )  # fmt: skip


augment = UBFAugment(synth, p=0.5, strategy={"vary": 0.7, "fuse": 0.3}, seed=0, **names)
loader = DataLoader(train, batch_size=32, shuffle=True, drop_last=True)
model = classifier()
optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
for epoch in range(6):
    losses, synthetic = [], 0
    for sample in loader:
        batch = augment(sample)
        loss = nn.functional.cross_entropy(model(normalise(batch["image"])), batch["label"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        synthetic += int(batch["is_synthetic"].sum())
    print(
        f"epoch {epoch}: loss {sum(losses) / len(losses):.2f}, {synthetic} of {32 * len(losses)} images synthetic"
    )

# %% [markdown]
# The batch has the keys that it had, and `is_synthetic`. Labels do not change: every synthetic image has the class of the one
# that it replaces. The tensors that went in are not written to.
#
# These few steps say nothing about accuracy. `ubf demo` compares training without augmentation, with affine augmentation and
# with affine and UBF on this data set, over several seeds, on blocks of the scene that neither training nor the bundle has seen.
#
# ## 3. MixUp beside it
#
# torchvision calls transforms with images and labels; `UBFAugment` takes both calling styles.

# %%
chain = v2.Compose([augment, v2.MixUp(num_classes=len(train.classes))])
sample = next(iter(loader))
images, labels = chain(sample["image"], sample["label"])
print(images.shape, labels.shape, labels.sum(1).unique())

# %% [markdown]
# In front of Kornia, write `nn.Sequential(augment, K.AugmentationSequential(..., data_keys=None))`: Kornia hands its own children
# the image without the label, so `UBFAugment` must stand before its container, not in it.
#
# Next: [torchgeo, Lightning and a YAML file](torchgeo_lightning.py), and [which strategy and how much](choose_strategy.py).
