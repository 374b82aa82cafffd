"""The demo: samples of the packaged bundles, and a training with and without augmentation on real labels."""

from ubf_augment.demo.run import run_demo
from ubf_augment.demo.training import CANDIDATES, DemoSettings, train_once

__all__ = ["CANDIDATES", "DemoSettings", "run_demo", "train_once"]
