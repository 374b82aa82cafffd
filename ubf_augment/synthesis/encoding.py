"""Red, green and blue to abundances, whatever does it: encoders, exact least squares or a regression."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor

from ubf_augment.seeding import Generators
from ubf_augment.unmixing import LeastSquares, RGBRegression, UnmixingModel


def encode(
    by: UnmixingModel | LeastSquares,
    r: Float[Tensor, "b 3 h w"],
    y: Int64[Tensor, " b"] | None = None,
    generator: Generators = None,
    *,
    pictures: bool = False,
) -> Float[Tensor, "b p h w"]:
    """Abundances from reflectance at red, green and blue; classes go only to what takes them.

    Args:
        by: what unmixes.
        r: reflectance.
        y: class indices.
        generator: draw, where there is a distribution to draw from.
        pictures: r is of pictures and not of the sensor's own bands, see `RGBRegression.unmix_rgb`.

    >>> import torch
    >>> from ubf_augment.spectra import Endmembers
    >>> E = Endmembers(torch.tensor([[0.1, 0.2, 0.4], [0.0, 0.0, 0.0]]), [490, 560, 665], ("soil", "shade"))
    >>> encode(LeastSquares(E), torch.rand(2, 3, 4, 4), torch.tensor([7, 8])).shape
    torch.Size([2, 2, 4, 4])
    """
    if isinstance(by, RGBRegression):
        return by.unmix_rgb(r, y if by.num_classes else None, generator, pictures=pictures)
    conditional = isinstance(by, UnmixingModel) and by.rgb_encoder.num_classes is not None
    return by.unmix_rgb(r, y if conditional else None, generator)
