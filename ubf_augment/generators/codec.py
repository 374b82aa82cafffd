"""The space a generator works in: abundance maps packed into few pixels, and back onto the simplex.

Two codecs share one interface (``fit_linear``, ``encode``, ``decode``, ``project``). Both encoders are
linear and found in closed form, so a denoiser can be trained at once and stays valid when the decoder is
trained further:

- `UnshuffleCodec`: all of the f×f pixels of a patch become channels; exactly invertible.
- `AbundanceAutoencoder`: the leading principal components of the f×f patches; a convolutional decoder
  puts the lost detail back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ubf_augment import simplex


class Codec(nn.Module, ABC):
    """Map abundances (B,P,H,W) to codes (B,c,H/f,W/f) of zero mean and unit mean variance, and back.

    Attributes:
        factor: f.
        channels: c.
        ready: buffer, True once `fit_linear` was called.
    """

    ready: Tensor

    def __init__(self, factor: int, channels: int) -> None:
        """Start unfitted."""
        super().__init__()
        self.factor, self.channels = factor, channels
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))

    @abstractmethod
    def fit_linear(self, batches: Iterable[Float[Tensor, "b p h w"]]) -> None:
        """Estimate the encoder from maps, in closed form."""

    @abstractmethod
    def encode(self, a: Float[Tensor, "b p h w"]) -> Float[Tensor, "b c hf wf"]:
        """Give the code of maps."""

    @abstractmethod
    def decode(self, z: Float[Tensor, "b c hf wf"]) -> Float[Tensor, "b p h w"]:
        """Give the maps of a code."""

    @abstractmethod
    def linear(self, z: Float[Tensor, "b c hf wf"]) -> Float[Tensor, "b p h w"]:
        """Give the linear reconstruction of a code, on the simplex only as far as the code is."""

    def project(self, z: Float[Tensor, "b c hf wf"]) -> Float[Tensor, "b c hf wf"]:
        """Project onto the simplex in abundance space and encode again: encode(Π(linear(z)))."""
        return self.encode(simplex.project(self.linear(z).float()))


class StandardCodec(Codec):
    """Standardise each channel, then move f×f pixels into channels; the values are not constrained.

    >>> codec = StandardCodec(3, factor=2)
    >>> x = torch.randn(1, 3, 4, 4)
    >>> codec.encode(x).shape, bool(torch.allclose(codec.decode(codec.encode(x)), x, atol=1e-6))
    (torch.Size([1, 12, 2, 2]), True)
    """

    shift: Tensor
    scale: Tensor
    least = 1e-12  # smallest variance

    def __init__(self, channels: int, factor: int = 4) -> None:
        """Build for images of some channels and factor f."""
        super().__init__(factor, channels * factor**2)
        self.register_buffer("shift", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def fit_linear(self, batches: Iterable[Float[Tensor, "b c h w"]]) -> None:
        """Set mean and standard deviation per channel."""
        mean, cov = channel_moments(v.movedim(1, -1).flatten(0, -2) for v in batches)
        self.shift.copy_(mean)
        self.scale.copy_(cov.diagonal().clamp_min(self.least).sqrt())
        self.ready.fill_(True)

    def encode(self, a: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d hf wf"]:
        """Give the standardised, unshuffled channels."""
        v = (a - self.shift.view(1, -1, 1, 1)) / self.scale.view(1, -1, 1, 1)
        return F.pixel_unshuffle(v, self.factor)

    def linear(self, z: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b c h w"]:
        """Invert `encode`."""
        v = F.pixel_shuffle(z.float(), self.factor)
        return v * self.scale.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1)

    def decode(self, z: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b c h w"]:
        """Invert `encode`."""
        return self.linear(z)

    def project(self, z: Float[Tensor, "b d hf wf"]) -> Float[Tensor, "b d hf wf"]:
        """Leave a code as it is: there is no constraint to meet."""
        return z


class UnshuffleCodec(StandardCodec):
    """Standardise each abundance channel, then move f×f pixels into channels: z = unshuffle_f((a − μ) / σ).

    Exactly invertible; c = P f². `project` is then the Euclidean projection of each pixel onto the simplex.

    >>> codec = UnshuffleCodec(3, factor=2)
    >>> a = torch.softmax(torch.randn(1, 3, 4, 4), 1)
    >>> codec.encode(a).shape, bool(torch.allclose(codec.decode(codec.encode(a)), a, atol=1e-6))
    (torch.Size([1, 12, 2, 2]), True)
    """

    least = 1e-6

    def __init__(self, num_endmembers: int, factor: int = 4) -> None:
        """Build for P endmembers and factor f."""
        super().__init__(num_endmembers, factor)
        self.shift.fill_(1 / num_endmembers)

    def decode(self, z: Float[Tensor, "b c hf wf"]) -> Float[Tensor, "b p h w"]:
        """Invert `encode` and project: on the simplex for any code."""
        return simplex.project(self.linear(z).float())

    def project(self, z: Float[Tensor, "b c hf wf"]) -> Float[Tensor, "b c hf wf"]:
        """Project every pixel onto the simplex."""
        return Codec.project(self, z)


class _Block(nn.Module):
    """Residual block x + conv(silu(conv(silu x))).

    It has no normalisation: group statistics would hide absolute abundances.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.conv2.weight.mul_(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.conv2(F.silu(self.conv1(F.silu(x)))))


class AbundanceAutoencoder(Codec):
    """Principal components of f×f patches as code, and a convolutional decoder that ends on the simplex.

    The encoder is z = S⁻¹ U (v − μ) with v the unshuffled patch (P f² values), U (c, P f²) the leading
    eigenvectors of its covariance and Sᵢ ∝ sᵢ^w, sᵢ the standard deviation of component i: w = 1 whitens,
    w = 0 keeps the natural fall towards fine detail, the default is half way. The decoder corrects the
    linear reconstruction â = Uᵀ S z + μ in log-ratio space (Aitchison's perturbation):

        decode(z) = softmax(log max(â, ε) + g(z)),

    so every code decodes onto the simplex, and g = 0 already gives the principal-component
    reconstruction. g is trained with L = mean abs(decode(z + σ n) − a) + mean abs of the errors of
    spatial differences; the noise n makes it stand the errors of a generator. The role is that of the
    autoencoder in latent diffusion (Rombach et al. 2022, arXiv:2112.10752).

    With f = 4, c = 16, widths (48, 96) and P = 6, decoding a 64×64 map costs 0.27 GFLOP, encoding 0.001.

    >>> codec = AbundanceAutoencoder(3, factor=4, channels=8)
    >>> codec.decode(torch.randn(2, 8, 4, 4)).sum(1).sub(1).abs().max().item() < 1e-5
    True
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(
        self, num_endmembers: int, factor: int = 4, channels: int = 16, widths: Sequence[int] = (48, 96),
        blocks: int = 2, noise: float = 0.05, whiten: float = 0.5, floor: float = 1e-3,
    ) -> None:  # fmt: skip
        """Build the codec.

        Args:
            num_endmembers: P.
            factor: f, one of 2, 4, 8.
            channels: c, at most P f².
            widths: feature widths of the decoder at half resolution and below.
            blocks: residual blocks at the decoder's lowest resolution.
            noise: σ, in units of the code.
            whiten: w in [0, 1].
            floor: ε.

        Raises:
            ValueError: if ``factor`` is not 2, 4 or 8, or there are more channels than values in a patch.
        """
        if factor not in (2, 4, 8):
            raise ValueError(f"the latent codec's factor must be 2, 4 or 8, got {factor}")
        patch = num_endmembers * factor**2
        if not 1 <= channels <= patch:
            raise ValueError(
                f"a patch of {num_endmembers}×{factor}×{factor} values has 1 to {patch} components, "
                f"not {channels}"
            )
        super().__init__(factor, channels)
        self.noise, self.whiten, self.floor = noise, whiten, floor
        self.register_buffer("mean", torch.full((patch,), 1 / num_endmembers))
        self.register_buffer("basis", torch.linalg.qr(torch.randn(patch, channels)).Q.T.contiguous())
        self.register_buffer("scale", torch.full((channels,), 0.1))
        downs = {2: 0, 4: 1, 8: 2}[factor]
        outer, inner = widths[0], widths[1] if downs else widths[0]
        path = [outer] + [inner] * downs
        layers: list[nn.Module] = [nn.Conv2d(channels, inner, 3, padding=1)]
        layers += [_Block(inner) for _ in range(blocks)]
        for i in reversed(range(downs)):
            layers += [nn.Conv2d(path[i + 1], 4 * path[i], 1), nn.PixelShuffle(2), _Block(path[i])]
        last = nn.Conv2d(outer, 4 * num_endmembers, 3, padding=1)
        with torch.no_grad():
            last.weight.mul_(0.02)
            cast(Tensor, last.bias).zero_()
        self.net = nn.Sequential(*layers, nn.SiLU(), last, nn.PixelShuffle(2))

    def fit_linear(self, batches: Iterable[Float[Tensor, "b p h w"]]) -> None:
        """Set mean, basis and scale from the covariance of the patches.

        Principal components: Pearson 1901, doi:10.1080/14786440109462720.
        """
        mean, cov = channel_moments(
            F.pixel_unshuffle(a, self.factor).movedim(1, -1).flatten(0, -2) for a in batches
        )
        values, vectors = torch.linalg.eigh(cov)
        std = values.flip(0)[: self.channels].clamp_min(1e-8).sqrt()
        basis = vectors.flip(1)[:, : self.channels].T
        largest = basis.gather(1, basis.abs().argmax(1, keepdim=True))
        scale = std**self.whiten
        scale = scale * (std / scale).square().mean().sqrt()  # mean variance of a code: one
        self.mean.copy_(mean)
        self.basis.copy_(basis * largest.sign())
        self.scale.copy_(scale)
        self.ready.fill_(True)

    def encode(self, a: Float[Tensor, "b p h w"]) -> Float[Tensor, "b c hf wf"]:
        """Give the scaled principal components."""
        v = F.pixel_unshuffle(a.float(), self.factor) - self.mean.view(1, -1, 1, 1)
        with torch.autocast(v.device.type, enabled=False):
            return F.conv2d(v, (self.basis / self.scale[:, None])[:, :, None, None])

    def linear(self, z: Float[Tensor, "b c hf wf"]) -> Float[Tensor, "b p h w"]:
        """Give Uᵀ S z + μ, shuffled back."""
        with torch.autocast(z.device.type, enabled=False):
            v = F.conv2d(z.float(), (self.basis * self.scale[:, None]).T[:, :, None, None])
        return F.pixel_shuffle(v + self.mean.view(1, -1, 1, 1), self.factor)

    def decode(self, z: Float[Tensor, "b c hf wf"]) -> Float[Tensor, "b p h w"]:
        """Give the maps of any code: softmax, hence always on the simplex."""
        correction = self.net(z.contiguous(memory_format=torch.channels_last)).float()
        return simplex.from_logits(self.linear(z).clamp_min(self.floor).log() + correction)

    def forward(self, a: Float[Tensor, "b p h w"], noise: Float[Tensor, "b c hf wf"]) -> Float[Tensor, ""]:
        """Compute the decoder's training loss on maps, with standard normal ``noise`` of the code's shape."""
        return l1_and_gradients(self.decode(self.encode(a) + self.noise * noise), a)


def l1_and_gradients(b: Float[Tensor, "b p h w"], a: Float[Tensor, "b p h w"]) -> Float[Tensor, ""]:
    """Mean abs(b − a) plus the mean absolute error of the spatial differences (both directions averaged).

    >>> l1_and_gradients(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)).item()
    1.0
    """
    d = b - a
    return d.abs().mean() + 0.5 * (d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean())


@torch.no_grad()
def channel_moments(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (c,) and covariance (c, c) of rows (n, c), in float64 around the first batch's mean."""
    origin, total, square, count = torch.zeros(()), torch.zeros(()), torch.zeros(()), 0
    for v in batches:
        if not count:
            origin = v.double().mean(0)
            total, square = (
                torch.zeros_like(origin),
                torch.zeros(len(origin), len(origin), dtype=origin.dtype, device=v.device),
            )
        d = v.double() - origin
        total, square, count = total + d.sum(0), square + d.T @ d, count + len(d)
    mean = total / count
    return origin + mean, square / count - mean[:, None] * mean
