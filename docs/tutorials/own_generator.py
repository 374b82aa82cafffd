# %% [markdown]
# # Write your own generator in 50 lines
#
# A generator is a distribution of abundance maps given a class, *p(a | y)*. Anything that can draw maps will do, if they lie on
# the simplex. One class with three methods says how: what is minimised (`loss`), how it is trained (`_fit`), how it draws
# (`_sample`). Everything else is inherited: checking labels and maps, seeds per sample, batches, saving, loading, and its place
# in `HSISynthesizer.fit`, `UBFAugment` and bundles. Here it is a small variational autoencoder of whole maps.

# %% tags=["remove-cell"]
# %matplotlib inline
# %config InlineBackend.figure_format = "retina"

# %%
import torch
from torch import nn
from torch.nn import functional as F

from ubf_augment import AbundanceGenerator, seeding, simplex
from ubf_augment.generators import register
from ubf_augment.generators.maps import as_abundances
from ubf_augment.training import fit_loop


@register("tiny-vae")
class TinyVAE(AbundanceGenerator):
    """A conditional variational autoencoder: code z ~ N(0, 1), a = softmax(decoder(z, y))."""

    def __init__(self, num_endmembers, size=(8, 8), num_classes=None, *, width=256, code=16):
        super().__init__(num_endmembers, size, num_classes)
        self._keep(locals())  # what `config` gives, and load needs
        values, classes = num_endmembers * self.size[0] * self.size[1], num_classes or 0
        self.code = code
        self.encoder = nn.Sequential(
            nn.Linear(values + classes, width), nn.SiLU(), nn.Linear(width, 2 * code)
        )
        self.decoder = nn.Sequential(nn.Linear(code + classes, width), nn.SiLU(), nn.Linear(width, values))
        self.log_std = nn.Parameter(torch.tensor(-2.0))  # of what the decoder leaves over

    def with_class(self, v, y):
        return v if y is None else torch.cat([v, F.one_hot(y, self.num_classes).to(v)], 1)

    def decode(self, z, y):
        logits = self.decoder(self.with_class(z, y))
        return simplex.from_logits(logits.view(-1, self.num_endmembers, *self.size))

    def loss(self, maps, labels, generator):  # -ELBO per value, in nats
        v = maps.flatten(1)
        mean, log_var = self.encoder(self.with_class(v, labels)).chunk(2, 1)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        back = self.decode(mean + noise * (log_var / 2).exp(), labels).flatten(1)
        error = 0.5 * ((v - back) / self.log_std.exp()).square() + self.log_std
        divergence = 0.5 * (mean.square() + log_var.exp() - 1 - log_var)
        return (error.sum(1) + divergence.sum(1)).mean() / v.shape[1]

    forward = loss  # what Lightning Fabric wraps

    def _sample(self, y, n, generator, **options):
        return self.decode(seeding.randn((n, self.code), generator, self.device), y)

    def _fit(self, maps, labels, *, lr, augment, **options):
        def loss(model, rows, generator):
            y = None if labels is None else labels[rows].to(self.device)
            return model(as_abundances(maps[rows]).to(self.device), y, generator)

        optimizer = torch.optim.AdamW(self.parameters(), lr=lr or 2e-3)
        return fit_loop(self, optimizer, loss, num_items=len(maps), description=self.name, **options)


# %% [markdown]
# Two rules make it a good citizen. `_sample` draws sample *i* from `generator[i]` alone (`seeding.randn` does that), so that a
# sample does not depend on its batch. And maps end on the simplex, here by a softmax.
#
# ## Train it
#
# On abundance maps of real patches, which the bundle `indian-pines` unmixes.

# %%
from ubf_augment import HSISynthesizer, get_generator
from ubf_augment.datasets import IndianPines

train = IndianPines("train", fold=0)
synth = HSISynthesizer.from_pretrained("indian-pines")
x = torch.stack([sample["image"] for sample in train])
y = torch.tensor(train.targets)
maps = synth.unmix(x)

torch.manual_seed(0)
generator = get_generator(
    "tiny-vae", num_endmembers=maps.shape[1], size=(8, 8), num_classes=len(train.classes)
)
history = generator.fit(maps, labels=y, steps=600, seed=0, progress=False)
print(f"{history.seconds:.0f} s, loss {history.loss[0]:.2f} → {history.loss[-1]:.2f}")

# %% [markdown]
# ## What comes for free

# %%
a = generator.sample([0, 1, 2], generator=[torch.Generator().manual_seed(s) for s in (5, 6, 7)])
alone = generator.sample([1], generator=[torch.Generator().manual_seed(6)])
print("smallest share", float(a.min()), "and sums within", float((a.sum(1) - 1).abs().max()), "of one")
print("sample 1 is the same alone and in a batch:", torch.allclose(a[1], alone[0], atol=1e-6))
try:
    generator.sample([99])
except ValueError as error:
    print("LabelError:", error)

# %% [markdown]
# In a bundle it takes the place of the old generator. Endmembers, encoders and residual model stay.

# %%
import tempfile
from pathlib import Path

from ubf_augment.report import image_grid

mine = HSISynthesizer(
    synth.endmembers, generator, unmixing=synth.unmixing, residual=synth.residual, classes=train.classes,
    rgb_scale=synth.rgb_scale, rgb_gamma=synth.rgb_gamma, card={"summary": "Indian Pines by a tiny VAE"},
)  # fmt: skip
directory = mine.save_pretrained(Path(tempfile.mkdtemp()) / "mine")
again = HSISynthesizer.from_pretrained(directory)
print("loaded:", type(again.generator).__name__, "of", len(again.classes), "classes")

rows = [train.targets.index(k) for k in range(len(train.classes))]
image_grid(
    torch.cat(
        [x[rows], again.sample(list(train.classes), seed=0), again.sample(list(train.classes), seed=1)]
    ),
    again.wavelengths,
    [f"{name}\n{kind}" for kind in ("real", "tiny-vae", "tiny-vae") for name in train.classes],
)

# %% [markdown]
# Is it any good? Measure it beside the others, as `benchmarks/generators.py` does. Two figures that are cheap: how much
# neighbouring pixels differ (texture), and how much samples of a class differ from each other (diversity).


# %%
def roughness(x):
    return float((x[..., 1:] - x[..., :-1]).square().mean().sqrt())


def diversity(x):  # images of the same class stand one after the other, eight of each
    return float(x.unflatten(0, (-1, 8)).std(1).mean())


def eight(k):
    rows = (y == k).nonzero()[:, 0]
    return rows[torch.arange(8) % len(rows)]


names = [name for name in train.classes for _ in range(8)]
sets = {
    "real": x[torch.cat([eight(k) for k in range(len(train.classes))])],
    "tiny-vae": mine.sample(names, seed=2),
    "ddpm (packaged)": synth.sample(names, seed=2),
}
for name, v in sets.items():
    print(f"{name:16s} neighbours differ by {roughness(v):.4f}, samples of a class by {diversity(v):.4f}")

# %% [markdown]
# A registered generator is known by its name: `HSISynthesizer.fit(hsis, pictures, generator="tiny-vae")` runs the whole pipeline
# with it. A program that loads such a bundle must import the module that registers it, for bundles hold weights and never code.
# `tests/test_generators.py` has the contract as tests that run over every registered generator.
