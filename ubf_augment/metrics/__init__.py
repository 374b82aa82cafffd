"""Quality of images: reconstruction against a reference, and sets of generated images against sets of real ones.

`rmse` … `endmember_angles` compare an image with its reference. For generated images there is no reference: sets are
compared, and every number is a number *about features*, so the feature network has a name that goes with it
(`FeatureNetwork.label`). Pseudo-RGB features cannot see most of a spectrum; `sliced_wasserstein` and
`nearest_spectral_angle` do. `memorisation`, `discriminator_accuracy` and `class_fidelity` are checks for whoever wants
to train on generated images.
"""

from ubf_augment.metrics.checks import (
    ClassFidelity,
    Folds,
    class_fidelity,
    discriminator_accuracy,
)
from ubf_augment.metrics.copies import Memorisation, memorisation
from ubf_augment.metrics.features import (
    FeatureNetwork,
    efficientnet_lite0_features,
    efficientnet_lite0_weights,
    inception_features,
)
from ubf_augment.metrics.generation import (
    density_coverage,
    frechet_distance,
    generation_report,
    kernel_distance,
    mean_pairwise_distance,
    precision_recall,
    rank_deficient,
)
from ubf_augment.metrics.reconstruction import (
    endmember_angles,
    psnr,
    rmse,
    sad,
    spectral_angles,
    ssim,
)
from ubf_augment.metrics.spectral import draw_pixels, nearest_spectral_angle, sliced_wasserstein

__all__ = [
    "ClassFidelity",
    "FeatureNetwork",
    "Folds",
    "Memorisation",
    "class_fidelity",
    "density_coverage",
    "discriminator_accuracy",
    "draw_pixels",
    "efficientnet_lite0_features",
    "efficientnet_lite0_weights",
    "endmember_angles",
    "frechet_distance",
    "generation_report",
    "inception_features",
    "kernel_distance",
    "mean_pairwise_distance",
    "memorisation",
    "nearest_spectral_angle",
    "precision_recall",
    "psnr",
    "rank_deficient",
    "rmse",
    "sad",
    "sliced_wasserstein",
    "spectral_angles",
    "ssim",
]
