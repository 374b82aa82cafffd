"""Scene classification: train a network on labelled images with any augmentation, score it, choose the augmentation."""

from ubf_augment.classification.choice import Choice, Factory, choose, decide
from ubf_augment.classification.geometry import affine
from ubf_augment.classification.images import LabelledImages, inner_split, read_images
from ubf_augment.classification.scores import Scores, predict, score
from ubf_augment.classification.training import (
    BatchOrder,
    Classifier,
    Recipe,
    Training,
    imagenet_weights,
    train_classifier,
)

__all__ = [
    "BatchOrder",
    "Choice",
    "Classifier",
    "Factory",
    "LabelledImages",
    "Recipe",
    "Scores",
    "Training",
    "affine",
    "choose",
    "decide",
    "imagenet_weights",
    "inner_split",
    "predict",
    "read_images",
    "score",
    "train_classifier",
]
