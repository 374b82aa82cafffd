"""One product, and white noise under it, written where it belongs: the arithmetic of `decode`."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ubf_augment.errors import ShapeError
from ubf_augment.mixing.noise import Noise
from ubf_augment.precision import full_precision

_LEAST = 1 << 15  # values of an image below which calls image by image cost more than they save


def blend(
    a: Float[Tensor, "b p h w"],
    spectra: Float[Tensor, "*b k c"],
    noise: Noise | None,
    out: Float[Tensor, "n c h w"] | None = None,
    rows: Int64[Tensor, " b"] | None = None,
) -> Float[Tensor, "n c h w"]:
    """[a; z; 1] times spectra, plus d n; without noise, a times spectra.

    On a CPU it is done image by image, in the cache: what an image takes from memory is a and its noise, and what goes back is
    the image, once, in the type and layout of ``out``. Elsewhere, for small images and for gradients, it is done at once.

    Args:
        a: maps, float32 or float64.
        spectra: of the same type, K = P, or P + R + 1 with noise; one set or one per image.
        noise: z and n.
        out: images to write into.
        rows: which of them.

    Raises:
        ShapeError: if ``out`` does not fit.
    """
    n, _, height, width = a.shape
    shape = (n, spectra.shape[-1], height, width)
    _check_out(out, rows, shape)
    if noise is not None:
        a = torch.cat([a, noise.smooth(height, width).to(a), a.new_ones(n, 1, height, width)], 1)
    maps, weights = a.flatten(2), spectra.mT.contiguous()
    gradients = torch.is_grad_enabled() and (a.requires_grad or weights.requires_grad)
    if a.device.type == "cpu" and shape[1] * height * width >= _LEAST and not gradients:
        out = a.new_empty(shape) if out is None else out
        _image_by_image(maps, weights, noise, out, range(n) if rows is None else rows.tolist())
        return out
    with full_precision(a):
        if noise is None or not n:
            x = torch.matmul(weights, maps)
        else:
            x = noise.white(height * width).to(a.dtype).baddbmm_(weights.expand(n, -1, -1), maps)
    x = x.view(shape)
    if out is None:
        return x
    out[slice(None) if rows is None else rows.to(out.device)] = x.to(out.dtype)
    return out


def _image_by_image(
    maps: Tensor, weights: Tensor, noise: Noise | None, out: Tensor, rows: range | list[int]
) -> None:
    """Make images in place where the target permits it, else in a buffer that is used again."""
    n, _, pixels = maps.shape
    direct = out.dtype == maps.dtype and out.is_contiguous()
    buffer = None if direct else maps.new_empty(out.shape[1], pixels)
    runs = [None] * n if noise is None else noise.runs(pixels)
    scale = None if noise is None else noise.scale.to(maps.dtype)[:, :, None]
    for i, pieces in enumerate(runs):
        target = out[rows[i]]
        image = target.view(-1, pixels) if buffer is None else buffer
        spectra = weights[i] if weights.ndim == 3 else weights
        if pieces is None or scale is None:
            torch.mm(spectra, maps[i], out=image)
        else:
            for bands, piece in pieces:
                torch.mul(piece, scale[i, bands], out=image[bands])
                image[bands].addmm_(spectra[bands], maps[i])
        if buffer is not None:
            target.copy_(image.view(target.shape))


def _check_out(out: Tensor | None, rows: Tensor | None, shape: tuple[int, int, int, int]) -> None:
    if out is None:
        if rows is not None:
            raise ShapeError("rows say which images of out to write: give out, too")
        return
    count = len(out) if rows is None else len(rows)
    if (count, *out.shape[1:]) != shape:
        raise ShapeError(
            f"out has room for {count} images {tuple(out.shape[1:])}, there are {shape[0]} {shape[1:]}"
        )
