# %% [markdown]
# # Choose share and strategy
#
# Which strategy, and for what share of the images? It depends on the data, and sometimes nothing helps. This page shows what each
# strategy does to a batch and what it costs, then lets `choose` decide on the training set, which never looks at test images.

# %% tags=["remove-cell"]
# %matplotlib inline
# %config InlineBackend.figure_format = "retina"

# %%
import time

import torch

from ubf_augment import HSISynthesizer, UBFAugment, choose
from ubf_augment.classification import Recipe, affine
from ubf_augment.datasets import IndianPines
from ubf_augment.report import image_grid

train = IndianPines("train", fold=0)
synth = HSISynthesizer.from_pretrained("indian-pines")
x = torch.stack([sample["image"] for sample in train])
y = torch.tensor(train.targets)

# %% [markdown]
# ## What each does, and what it costs
#
# One patch of eight classes, and what the strategies make of them. `vary` and `edit` keep the patch, `fuse` keeps pixels of two
# patches of the class, `generate` gives another patch of the class.

# %% tags=["remove-stderr"]
first = [train.targets.index(k) for k in range(len(train.classes))]
partner = [max(i for i, t in enumerate(train.targets) if t == k) for k in range(len(train.classes))]
rows = torch.tensor(first + partner)  # fuse needs another image of the class in the batch
tiles, titles = [x[first]], list(train.classes)
for strategy in ("vary", "fuse", "edit", "generate"):
    augment = UBFAugment(synth, p=1.0, strategy=strategy, classes=train.classes, seed=0)
    augment(x[rows], y[rows])  # the first call moves weights and fills the pool
    start = time.perf_counter()
    made, _ = augment(x[rows], y[rows])
    print(f"{strategy:9s} {1000 * (time.perf_counter() - start) / len(rows):6.1f} ms per image")
    tiles.append(made[: len(first)])
    titles += [strategy] * len(first)
image_grid(torch.cat(tiles), train.wavelengths, titles)

# %% [markdown]
# ## A share by hand
#
# `p` is the probability of each image to be replaced; a mapping draws a strategy for each of them. `labels="keep"` draws every
# synthetic image from the class of the one that it replaces, so classes stay as frequent as they were; `labels="balance"` lets
# `generate` and `bank` draw rare classes more often; `placement="append"` keeps all real images and makes the batch grow.

# %%
augment = UBFAugment(synth, p=0.5, strategy={"vary": 2, "fuse": 1}, classes=train.classes, seed=0)
batch = augment({"image": x[:64], "label": y[:64]})
print(int(batch["is_synthetic"].sum()), "of", len(batch["image"]), "images replaced")

appended = UBFAugment(synth, p=0.5, strategy="vary", placement="append", classes=train.classes, seed=0)
batch = appended({"image": x[:64], "label": y[:64]})
print(len(batch["image"]), "images,", int(batch["is_synthetic"].sum()), "of them appended")

# %% [markdown]
# Where to begin:
#
# | your case | begin with |
# |---|---|
# | any | geometric augmentation first; it is worth more than anything here |
# | unlabelled images of the sensor | `pretrain` on all of them, then train as usual |
# | light and season differ between training and use | `vary`, p = 0.5 |
# | few images, several per class in a batch | `vary` and `fuse` |
# | classes that the bundle knows, few images of them | `generate`, p = 0.25 or less, and look at the samples |
# | labelled pictures of the same classes from above | `bank`, p = 0.25 or less |
# | a generator that you trained on your images | `edit`, p = 0.25 |
#
# What was measured about each, wins and losses, is on the page [Evidence](../evidence.md).
#
# ## Let the training set decide
#
# `p="auto"` and `strategy="auto"` leave both open. `choose` trains a network with every option, and with none, on several splits
# of the training set, paired: same weights, same order of images. An option is taken only if its gain is significant; otherwise
# nothing is replaced. Give it the geometric augmentation that you use (`after`), your own network and a good part of your steps;
# here a tiny network and few steps keep the page quick. `groups` keeps patches that share pixels on one side.

# %%
augment = UBFAugment(
    synth, p="auto", strategy={"vary": 1, "fuse": 1}, classes=train.classes, seed=0
)  # or strategy="auto"
recipe = Recipe(model="test_resnet", steps=40, batch_size=32, lr=3e-3, size=16)
blocks = train.corners // 24
groups = blocks[:, 0] * 100 + blocks[:, 1]
choice = choose(
    augment, train, after=lambda: affine(), recipe=recipe, groups=groups, repeats=3, seed=0, progress=False
)
print(choice.table())
print("\nchosen:", choice.name, "→ p =", augment.p)

# %% [markdown]
# The figures are means of accuracy and macro recall on the parts left out, and gains with their errors. In forty steps of a tiny
# network every replaced image is a real one that was not seen, so "no replacement" is the honest answer here; with your network
# and your steps it may be another. From here on the augmentation is an ordinary one with what was chosen:

# %%
batch = augment({"image": x[:64], "label": y[:64]})
print(int(batch["is_synthetic"].sum()), "of 64 images replaced")

# %% [markdown]
# `choose(…, path="choice.json")` keeps the choice, so that a resumed training does not choose again. In torchgeo,
# `UBFCallback(p="auto", strategy="auto")` calls it before fitting. A bundle that was fitted on the same training images, as this
# one, has seen the parts that are left out: `generate` and `edit` then look better than they are.
