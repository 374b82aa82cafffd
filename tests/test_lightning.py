"""UBFCallback in torchgeo data modules, Trainer and LightningCLI."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.cli import LightningCLI
from made import made_hsrs
from tiny import CLASSES, NM, E, real_batch, tiny_synth
from torch import Tensor, nn
from torchgeo.datamodules import NonGeoDataModule
from torchgeo.datasets import NonGeoDataset

import ubf_augment
from ubf_augment.augment import UBFAugment
from ubf_augment.errors import NoDataError
from ubf_augment.generators import get_generator
from ubf_augment.io import write_hsi
from ubf_augment.lightning import UBFCallback
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.unmixing import fcls

try:
    from torchgeo.tasks import Classification as ClassificationTask  # torchgeo ≥ 0.10
except ImportError:
    from torchgeo.trainers import ClassificationTask

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning")


class Scenes(NonGeoDataset):
    def __init__(self, split: str = "train", n: int = 24, order: tuple[int, ...] = (0, 1, 2)) -> None:
        self.x, y = real_batch(n, 32, {"train": 0, "val": 1, "test": 2}[split])
        self.y = torch.tensor(order)[y]
        self.classes = [CLASSES[order.index(k)] for k in range(3)]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"image": self.x[i], "label": self.y[i]}


class ScenesModule(NonGeoDataModule):
    mean = torch.zeros(5)
    std = torch.full((5,), 2.0)

    def __init__(self, batch_size: int = 8, n: int = 24, order: list[int] | None = None) -> None:
        super().__init__(Scenes, batch_size, 0, n=n, order=tuple(order or (0, 1, 2)))


class Recorder(LightningModule):
    """Keeps the batches it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)
        self.seen: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        self.seen.append(batch)
        return nn.functional.cross_entropy(self.layer(batch["image"].mean((2, 3))), batch["label"])

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        self.validated.append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder: Path, *callbacks: Any, **options: Any) -> Trainer:
    return Trainer(**{
        "max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "callbacks": list(callbacks),
        "default_root_dir": folder, "num_sanity_val_steps": 0, **options,
    })  # fmt: skip


def test_torchgeo_classification_task_trains(tmp_path: Path) -> None:
    callback = UBFCallback(synth=tiny_synth(), p=0.5, strategy="auto", seed=0)
    task = ClassificationTask(model="resnet18", in_channels=5, num_classes=3, lr=1e-3)
    module = ScenesModule()
    run = trainer(tmp_path, callback)
    run.fit(task, datamodule=module)
    assert run.global_step == 3
    assert callback.augment is not None
    assert callback.augment.calls == 3
    assert torch.isfinite(run.callback_metrics["train_loss"])
    assert run.test(task, datamodule=module, verbose=False)
    assert callback.augment.calls == 3  # validation and test stay real


def test_images_are_normalised_after_augmentation_and_validation_stays_real(tmp_path: Path) -> None:
    module, model = ScenesModule(), Recorder()
    before = module.train_aug
    trainer(tmp_path, UBFCallback(synth=tiny_synth(), p=1.0, residual=False, seed=0)).fit(model, module)
    assert module.train_aug is before  # given back after fitting
    for batch in model.seen:
        assert batch["is_synthetic"].all()
        a = fcls(2 * batch["image"], E)  # undoes the division by std = 2
        assert torch.equal(a.mean((2, 3)).argmax(1), batch["label"])
    assert model.validated
    assert all("is_synthetic" not in batch for batch in model.validated)
    real = torch.cat([batch["image"] for batch in model.validated])
    torch.testing.assert_close(2 * real, Scenes("val").x)


def test_own_training_augmentation_follows_and_may_be_any_callable(tmp_path: Path) -> None:
    module, model = ScenesModule(), Recorder()
    module.train_aug = lambda batch: {**batch, "seen": batch["is_synthetic"]}  # type: ignore[assignment]
    trainer(tmp_path, UBFCallback(synth=tiny_synth(), p=0.5)).fit(model, module)
    assert all(torch.equal(b["seen"], b["is_synthetic"]) for b in model.seen)
    assert any(b["seen"].any() for b in model.seen)


def test_class_names_of_the_data_set_decide_which_class_is_which(tmp_path: Path) -> None:
    from ubf_augment.unmixing import fcls

    module, model = ScenesModule(order=[2, 0, 1]), Recorder()
    callback = UBFCallback(synth=tiny_synth(), p=1.0, residual=False)
    trainer(tmp_path, callback).fit(model, module)
    assert callback.augment is not None
    names = callback.augment.index.names
    assert names == ("Forest", "Lake", "Field")
    for batch in model.seen:
        made = fcls(2 * batch["image"], E).mean((2, 3)).argmax(1)
        assert [CLASSES[k] for k in made] == [names[k] for k in batch["label"]]


def test_resuming_goes_on_in_the_random_stream(tmp_path: Path) -> None:
    def fit(epochs: int, resume: Path | None = None) -> Recorder:
        seed_everything(1, verbose=False)
        model = Recorder()
        callback = UBFCallback(synth=tiny_synth(), p=1.0, seed=7, labels="balance")
        run = trainer(tmp_path, callback, max_epochs=epochs)
        run.fit(model, ScenesModule(), ckpt_path=resume)
        run.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return model

    whole = fit(2)
    fit(1)
    resumed = fit(2, tmp_path / "1.ckpt")
    assert len(resumed.seen) == 3
    for a, b in zip(whole.seen[3:], resumed.seen, strict=True):
        assert torch.equal(a["image"], b["image"])  # p = 1: images depend on the stream and the counts alone
        assert torch.equal(a["label"], b["label"])


def test_an_open_choice_is_made_before_fitting_and_kept_in_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def instead(augment: UBFAugment, train: Any, **options: Any) -> None:
        asked.append((len(train), options["after"]()))
        augment.settle(0.75, "vary")

    monkeypatch.setattr("ubf_augment.lightning.choose", instead)

    def fit(resume: Path | None = None) -> UBFCallback:
        callback = UBFCallback(synth=tiny_synth(), p="auto", strategy="auto", seed=7)
        run = trainer(tmp_path, callback, max_epochs=1 if resume is None else 2)
        run.fit(Recorder(), ScenesModule(), ckpt_path=resume)
        if resume is None:
            run.save_checkpoint(tmp_path / "chosen.ckpt")
        return callback

    first = fit()
    assert len(asked) == 1
    assert isinstance(asked[0][1], torch.nn.Module)  # the data module's own augmentation follows
    again = fit(tmp_path / "chosen.ckpt")
    assert len(asked) == 1  # the checkpoint brought the choice
    for callback in (first, again):
        assert callback.augment is not None
        assert (callback.augment.p, callback.augment.weights) == (0.75, {"vary": 1.0})


def test_fit_twice_wraps_once(tmp_path: Path) -> None:
    module, model, callback = ScenesModule(), Recorder(), UBFCallback(synth=tiny_synth(), p=1.0, seed=0)
    run = trainer(tmp_path, callback)
    run.fit(model, module)
    run.fit_loop.max_epochs = 2
    run.fit(model, module)
    assert callback.augment is not None
    assert callback.augment.calls == 6


class Failing(Recorder):
    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        raise RuntimeError("out of memory")


def test_after_an_error_the_data_module_is_its_own_again_and_the_callback_can_be_used(tmp_path: Path) -> None:
    broken, callback = ScenesModule(), UBFCallback(synth=tiny_synth(), p=1.0, seed=0)
    before = broken.train_aug
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer(tmp_path, callback).fit(Failing(), broken)
    assert broken.train_aug is before
    model = Recorder()
    trainer(tmp_path, callback).fit(model, ScenesModule())
    assert all(batch["is_synthetic"].all() for batch in model.seen)


def test_a_data_set_without_class_names_is_warned_of(tmp_path: Path) -> None:
    class Nameless(ScenesModule):
        def setup(self, stage: str) -> None:
            super().setup(stage)
            for data in (self.train_dataset, self.val_dataset):
                del data.classes

    with pytest.warns(UserWarning, match="Nameless names no classes, so its label 0 is taken for 'Field'"):
        trainer(tmp_path, UBFCallback(synth=tiny_synth())).fit(Recorder(), Nameless())


def test_empty_training_loader_is_foretold(tmp_path: Path) -> None:
    with pytest.warns(
        UserWarning, match="has 24 images per device, a batch 32.*Set batch_size to 24 or less"
    ):
        trainer(tmp_path, UBFCallback(synth=tiny_synth())).fit(Recorder(), ScenesModule(batch_size=32))


def test_bad_use(tmp_path: Path) -> None:
    for options in ({}, {"pretrained": "a", "synth": tiny_synth()}):
        with pytest.raises(ValueError, match="exactly one"):
            UBFCallback(**options)
    loader = torch.utils.data.DataLoader(Scenes(), 8)
    with pytest.raises(TypeError, match="needs a data module with train_aug"):
        trainer(tmp_path, UBFCallback(augment=UBFAugment(tiny_synth()))).fit(Recorder(), loader)


@pytest.mark.slow
def test_torchgeo_task_on_the_trainer_trains_as_a_plain_loop(tmp_path: Path) -> None:
    """Same network, optimiser, batches and stream of `UBFAugment`: same weights, running statistics too."""

    class Task(ClassificationTask):
        def configure_optimizers(self) -> torch.optim.Optimizer:  # type: ignore[override]
            return torch.optim.AdamW(self.parameters(), 1e-3, weight_decay=0.05)

    class InOrder(ScenesModule):
        def train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
            return torch.utils.data.DataLoader(self.train_dataset, 8)

    def augmentation() -> UBFAugment:
        return UBFAugment(tiny_synth(), 0.5, strategy="vary", classes=CLASSES, seed=0)

    torch.manual_seed(1)
    task = Task(model="resnet18", in_channels=5, num_classes=3)
    plain = copy.deepcopy(task.model)
    callback = UBFCallback(augment=augmentation())
    run = trainer(tmp_path, callback, max_epochs=2, limit_val_batches=0)
    run.fit(task, datamodule=InOrder())
    assert run.global_step == 6

    def train(model: nn.Module, augment: nn.Module | None) -> dict[str, Tensor]:
        optimizer, data = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05), Scenes()
        model.train()
        for _ in range(2):
            for rows in torch.arange(24).split(8):
                batch = {"image": data.x[rows], "label": data.y[rows]}
                batch = batch if augment is None else augment(batch)
                z = (batch["image"] - ScenesModule.mean[:, None, None]) / ScenesModule.std[:, None, None]
                loss = nn.functional.cross_entropy(model(z), batch["label"])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
        return dict(model.state_dict())

    found, without = task.model.state_dict(), train(copy.deepcopy(plain), None)
    for k, v in train(plain, augmentation()).items():
        torch.testing.assert_close(found[k], v, atol=1e-5, rtol=1e-5)
    assert (
        max(float((found[k] - v).abs().max()) for k, v in without.items()) > 1e-3
    )  # the augmentation is seen


@pytest.mark.parametrize("class_path", ["ubf_augment.lightning.UBFCallback", "ubf_augment.UBFCallback"])
def test_lightning_cli(class_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if class_path == "ubf_augment.UBFCallback" and not hasattr(ubf_augment, "UBFCallback"):
        pytest.skip("the short name is not exported")
    generator = get_generator(
        "ddpm", num_endmembers=3, size=(8, 8), num_classes=3, codec="unshuffle", widths=(16, 16)
    )
    HSISynthesizer(E, generator, classes=CLASSES).save_pretrained(tmp_path / "bundle")
    options = {
        "pretrained": str(tmp_path / "bundle"), "p": 0.5, "strategy": {"vary": 0.5, "generate": 0.5}, "seed": 0,
        "class_map": {"Lake": "Lake"},
    }  # fmt: skip
    config = {
        "seed_everything": 0,
        "trainer": {
            "max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
            "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": str(tmp_path),
            "callbacks": [{"class_path": class_path, "init_args": options}],
        },
        "model": {
            "class_path": f"{ClassificationTask.__module__}.{ClassificationTask.__name__}",
            "init_args": {"model": "resnet18", "in_channels": 5, "num_classes": 3},
        },
        "data": {"class_path": f"{__name__}.ScenesModule", "init_args": {"batch_size": 12}},
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(sys, "argv", ["run"])
    cli = LightningCLI(
        subclass_mode_model=True, subclass_mode_data=True, save_config_callback=None,
        args=["fit", "--config", str(tmp_path / "run.yaml")],
    )  # fmt: skip
    [callback] = [c for c in cli.trainer.callbacks if isinstance(c, UBFCallback)]
    assert cli.trainer.global_step == 2
    assert callback.augment is not None
    assert callback.augment.calls == 2
    assert callback.augment.weights == {"vary": 0.5, "generate": 0.5}


# ---- data modules of this package


def test_hsrs_data_module(tmp_path: Path) -> None:
    from ubf_augment.datasets import HSRSSC, HSRSSCDataModule

    root = made_hsrs(tmp_path)
    dm = HSRSSCDataModule(root, batch_size=4, train_size=12, val_size=5)
    dm.setup("fit")
    assert (len(dm.train_dataset), len(dm.val_dataset)) == (7, 5)
    train = torch.stack([HSRSSC(root, train_size=12, val_size=5)[i]["image"] for i in range(7)])
    torch.testing.assert_close(dm.mean, train.mean((0, 2, 3)))
    torch.testing.assert_close(dm.std, train.movedim(1, 0).flatten(1).std(1, correction=0))
    batch = dm.aug({"image": train, "label": torch.arange(7)})  # as torchgeo applies it, on the device
    torch.testing.assert_close(batch["image"].mean((0, 2, 3)), torch.zeros(48), atol=1e-4, rtol=0)
    assert [len(b["label"]) for b in dm.train_dataloader()] == [4]  # incomplete batches are dropped
    assert sum(len(b["label"]) for b in dm.val_dataloader()) == 5
    test = HSRSSCDataModule(root, train_size=12, val_size=5)
    test.setup("test")
    assert len(test.test_dataset) == 12
    torch.testing.assert_close(test.mean, dm.mean)  # of the training side in every stage
    assert dm.plot(next(iter(dm.val_dataset))) is not None
    with pytest.raises(ValueError, match="both mean and std"):
        HSRSSCDataModule(root, mean=[0.1] * 48)


def test_folder_data_module_parts_every_class(tmp_path: Path) -> None:
    from ubf_augment.datasets import HSIFolderDataModule

    for name, value, count in (("field", 0.25, 10), ("forest", 0.5, 20)):
        for i in range(count):
            write_hsi(tmp_path / name / f"{i:02}.tif", torch.full((5, 6, 7), value), NM)
    dm = HSIFolderDataModule(tmp_path, batch_size=5, mean=[0.0] * 5, std=[0.5] * 5)
    dm.setup("fit")
    sides = [dm.train_dataset, dm.val_dataset, dm.test_dataset]
    assert [torch.bincount(torch.tensor(s.targets)).tolist() for s in sides] == [[7, 14], [1, 2], [2, 4]]
    names = [{str(f) for f, _ in s.files} for s in sides]
    assert len(set.union(*names)) == 30
    again = HSIFolderDataModule(tmp_path)
    again.setup("test")
    assert again.test_dataset.files == sides[2].files
    torch.testing.assert_close(again.mean, torch.full((5,), (7 * 0.25 + 14 * 0.5) / 21))
    batch = dm.aug({"image": torch.full((2, 5, 6, 7), 0.25), "label": torch.zeros(2, dtype=torch.int64)})
    assert batch["image"].unique().tolist() == [0.5]
    with pytest.raises(NoDataError, match="images of 2 classes"):
        HSIFolderDataModule(tmp_path, test_share=0.99).setup("fit")


def test_callback_augments_a_folder_after_which_it_is_normalised(tmp_path: Path) -> None:
    from ubf_augment.datasets import HSIFolderDataModule

    x, y = real_batch(24, 8)
    for i in range(24):
        write_hsi(tmp_path / CLASSES[int(y[i])] / f"{i:02}.tif", x[i], NM)
    module, model = HSIFolderDataModule(tmp_path, batch_size=6), Recorder()
    trainer(tmp_path, UBFCallback(synth=tiny_synth(), p=1.0, seed=0)).fit(model, datamodule=module)
    assert module.train_aug is None  # given back after fitting
    assert module.mean.shape == (5,)
    for batch in model.seen:
        assert batch["is_synthetic"].all()
        reflectance = batch["image"] * module.std[:, None, None] + module.mean[:, None, None]
        assert torch.equal(fcls(reflectance, E).mean((2, 3)).argmax(1), batch["label"])
    assert len(model.validated) == 1
    assert "is_synthetic" not in model.validated[0]
