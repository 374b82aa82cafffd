# %% [markdown]
# # torchgeo, Lightning and a YAML file
#
# `UBFCallback` puts `UBFAugment` into any torchgeo data module while it fits: before its own augmentation and normalisation, on
# the device of the batch. Validation and test stay real. This page does it in Python, then with two text files and the command
# `torchgeo fit`, without a line of Python about augmentation.

# %% tags=["remove-cell"]
import os
import warnings

warnings.filterwarnings("ignore", module="lightning")
for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):  # the notebook's terminal is none for the command below
    os.environ.pop(name, None)

# %% [markdown]
# ## A bundle for your sensor
#
# `adapt` brings a packaged bundle to the bands of the data, here AVIRIS, and `save_pretrained` keeps it.

# %%
import tempfile
from pathlib import Path

from ubf_augment import HSISynthesizer
from ubf_augment.datasets import IndianPines

folder = Path(tempfile.mkdtemp())
train = IndianPines("train", fold=0)
bundle = HSISynthesizer.from_pretrained("aid-chikusei")
synth = bundle.adapt(train, wavelengths=train.wavelengths, class_map={"Woods": "Forest"}, sensor="AVIRIS")
synth.save_pretrained(folder / "my-sensor")
print(f"{synth.num_bands} bands, adapted in {synth.card['adaptation']['seconds']:.1f} s")

# %% [markdown]
# ## In Python
#
# A data module in torchgeo's manner, written into a file of its own, since the YAML file below will name it. `mean` and `std`
# are of the training patches; torchgeo normalises by them *after* the callback's augmentation.

# %%
module = '''\
from torch import stack
from torchgeo.datamodules import NonGeoDataModule

from ubf_augment.datasets import IndianPines


class PinesModule(NonGeoDataModule):
    """Training and validation patches of Indian Pines."""

    def __init__(self, batch_size: int = 32, fold: int = 0) -> None:
        pixels = stack([s["image"] for s in IndianPines("train", fold)]).movedim(1, -1).flatten(0, -2)
        self.mean, self.std = pixels.mean(0), pixels.std(0)
        super().__init__(IndianPines, batch_size, 0, fold=fold)
'''
_ = (folder / "pines.py").write_text(module)

# %% tags=["remove-cell"]
import sys

sys.path.insert(0, str(folder))

# %% tags=["remove-stderr"]
from lightning.pytorch import Trainer
from pines import PinesModule

try:
    from torchgeo.tasks import Classification as ClassificationTask  # torchgeo >= 0.10
except ImportError:
    from torchgeo.trainers import ClassificationTask

from ubf_augment import UBFCallback

callback = UBFCallback(synth=synth, p=0.5, strategy="vary", class_map={"Woods": "Forest"}, seed=0)
trainer = Trainer(
    max_epochs=1, accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
)  # fmt: skip
task = ClassificationTask(model="resnet18", in_channels=200, num_classes=len(train.classes), lr=1e-3)
trainer.fit(task, datamodule=PinesModule())
print(f"{trainer.global_step} steps, training loss {trainer.callback_metrics['train_loss']:.2f}")

# %% [markdown]
# What the callback did: while fitting, the data module's `train_aug` was `UBFAugment` followed by what was there before. torchgeo
# alone would let `train_aug` *replace* its normalisation; the callback keeps it. Afterwards everything is as it was, and the
# state of the random stream is part of the checkpoint, so a resumed training goes on as if it had not stopped.
#
# ## In a YAML file
#
# With LightningCLI the same callback is an entry of the trainer. `pretrained` takes what `HSISynthesizer.from_pretrained` takes:
# a packaged name, a directory (what `save_pretrained` or `ubf adapt` writes), or a Hugging Face Hub id.

# %%
config = """\
seed_everything: 0
trainer:
  max_epochs: 2
  accelerator: cpu
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  logger:
    class_path: lightning.pytorch.loggers.CSVLogger
    init_args: {save_dir: logs, name: null, version: pines}
  callbacks:
    - class_path: ubf_augment.UBFCallback
      init_args:
        pretrained: my-sensor
        p: 0.5
        strategy: {vary: 0.7, fuse: 0.3}
        class_map: {Woods: Forest}
        seed: 0
model:
  class_path: ClassificationTask
  init_args: {model: resnet18, in_channels: 200, num_classes: 8, lr: 0.001}
data:
  class_path: pines.PinesModule
  init_args: {batch_size: 32}
"""
_ = (folder / "train.yaml").write_text(config)

# %% [markdown]
#     torchgeo fit --config train.yaml

# %%
import csv
import subprocess

command = [sys.executable, "-m", "torchgeo", "fit", "--config", "train.yaml"]
environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
assert done.returncode == 0, done.stderr

for row in csv.DictReader((folder / "logs" / "pines" / "metrics.csv").open()):
    if row.get("val_loss"):
        print(f"epoch {row['epoch']}: validation loss {float(row['val_loss']):.2f}")

# %% [markdown]
# Two things that torchgeo does and one should know of:
#
# - A training set smaller than a batch gives *no* batch, since incomplete ones are dropped. The callback warns.
# - Metrics of the training side are of augmented batches. Judge by validation, which is real.
#
# Your own files need no module of their own: `ubf_augment.datasets.HSIFolderDataModule` reads class folders of GeoTIFF or ENVI
# files.
