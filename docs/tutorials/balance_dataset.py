# %% [markdown]
# # Balance a data set
#
# Some classes have few images. `balance` fills every class up with synthetic ones, and gives a data set that a DataLoader takes
# like any other. The bundle here is `indian-pines`: its generator knows the crops of Indian Pines by name, and it was fitted on
# the training blocks of `fold=0` alone, so validation and test blocks stay unseen.

# %% tags=["remove-cell"]
# %matplotlib inline
# %config InlineBackend.figure_format = "retina"

# %%
import torch
from torch.utils.data import DataLoader

from ubf_augment import HSISynthesizer, SyntheticHSIDataset, balance
from ubf_augment.datasets import IndianPines
from ubf_augment.metrics import rmse
from ubf_augment.report import image_grid, spectra_plot

train = IndianPines("train", fold=0)
synth = HSISynthesizer.from_pretrained("indian-pines")
print("the bundle knows:", ", ".join(synth.classes))

# %% [markdown]
# Classes are matched by name. Where your names differ, give `class_map={"your name": "its name"}`; a class that the bundle cannot
# make raises an error rather than being filled with something else (`strict=False` leaves such classes as they are).

# %%
filled = balance(train, synth, seed=0)

real = torch.bincount(torch.tensor(train.targets))
synthetic = torch.bincount(torch.tensor(filled.datasets[1].targets), minlength=len(real))
for name, before, added in zip(train.classes, real.tolist(), synthetic.tolist(), strict=True):
    print(f"{name:16s} {before:3d} real + {added:3d} synthetic")

# %% [markdown]
# Real items come first. Items are dicts with `image`, `label` and `is_synthetic`, so that a loss can weigh them or a log can
# count them. Item *i* depends on the seed and *i* alone, whatever the batch size or the number of workers; abundance maps are
# drawn once and kept, later epochs only decode them. A DataLoader asks for whole batches, which are drawn at once; going
# through the items one by one is many times slower.

# %%
batch = next(
    iter(DataLoader(filled, batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(0)))
)
print(
    {key: tuple(value.shape) for key, value in batch.items()}, int(batch["is_synthetic"].sum()), "synthetic"
)

again = balance(train, synth, seed=0)
print("same item again:", torch.equal(filled[-1]["image"], again[-1]["image"]))

# %% [markdown]
# ## Look at them before you train on them
#
# The rarest class and the commonest, four real patches and four synthetic ones each, all in one stretch. `materialize` draws all
# abundance maps now, in large batches.

# %%
order = real.argsort().tolist()
made = SyntheticHSIDataset(synth, 40, seed=1, classes=train.classes).materialize(progress=False)
images, titles = [], []
for k in (order[0], order[-1]):
    for data, kind in ((train, "real"), (made, "synthetic")):
        rows = [i for i, target in enumerate(data.targets) if target == k][:4]
        images += [data[i]["image"] for i in rows]
        titles += [f"{train.classes[k]}\n{kind}"] * 4
image_grid(torch.stack(images), train.wavelengths, titles)

# %%
k = order[0]


def of_class(data: IndianPines | SyntheticHSIDataset, k: int) -> torch.Tensor:
    """All images of one class."""
    return torch.stack([data[i]["image"] for i, target in enumerate(data.targets) if target == k])


val = IndianPines("val", fold=0)
name = train.classes[k]
spectra_plot(
    {f"{name}, real (train)": of_class(train, k), f"{name}, synthetic": of_class(made, k)}, train.wavelengths
)

# %% [markdown]
# Pictures do not replace numbers. Two that are cheap: how far the mean spectrum of each class is from that of real patches on
# *other* blocks (the real training patches beside it, as the yardstick), and how much neighbouring pixels differ, which tells
# whether the spatial structure is right.

# %%
print(f"{'mean spectrum against validation blocks, RMSE':>62s} | {'difference of neighbours':>24s}")
print(f"{'':16s} {'real train':>22s} {'synthetic':>22s} | {'real':>11s} {'synthetic':>12s}")
for k, name in enumerate(train.classes):
    x, z, v = of_class(train, k), of_class(made, k), of_class(val, k)
    mean = [s.mean((0, 2, 3))[None, :, None, None] for s in (x, z, v)]
    rough = [float((s[..., 1:] - s[..., :-1]).square().mean().sqrt()) for s in (x, z)]
    print(
        f"{name:16s} {float(rmse(mean[0], mean[2])):22.4f} {float(rmse(mean[1], mean[2])):22.4f}"
        f" | {rough[0]:11.4f} {rough[1]:12.4f}"
    )

# %% [markdown]
# Read the table class by class. Where the synthetic mean is no further from the validation blocks than the real training mean,
# the spectra can be trusted as far as the real ones can. Where neighbouring pixels differ more in synthetic patches than in
# real ones, the generator has not learnt the texture of fields: a classifier that looks at spectra will mind little, one that
# looks at texture may learn to tell real from synthetic. Then prefer `UBFAugment(strategy="vary")` or `"fuse"`, which keep the
# structure of real patches, and in any case decide on validation data.
#
# `transform=` repeats on synthetic items what your data set does to its own, such as a normalisation; `to=` sets another goal
# than the size of the largest class; `SyntheticHSIDataset` alone gives synthetic images without real ones, for pretraining,
# say.
