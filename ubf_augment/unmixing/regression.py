"""What red, green and blue tell of abundances: their distribution given colour, surroundings and scene class, in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ubf_augment import simplex
from ubf_augment.errors import LabelError, ShapeError
from ubf_augment.mixing import ResidualModel
from ubf_augment.precision import full_precision
from ubf_augment.seeding import Generators, randn
from ubf_augment.spectra import Endmembers
from ubf_augment.unmixing.least_squares import LeastSquares
from ubf_augment.unmixing.ridge import Moments, calibrate, cut_windows, folds, spread
from ubf_augment.unmixing.solver import check_image, fcls

_DARK = 0.01  # reflectance added before the logarithm; and what is added to the deviation of logarithms
_AROUND = 17  # side of the surroundings in pixels
_OWN = 4  # features that a class has weights of its own for: 1 and the colours
_FEATURES = 28  # 1, six numbers, their products
# Of abundances that bring colours back to those predicted: on EuroSAT red, green and blue are off by 0.007 instead of 0.013, and
# the near infrared by 0.002 more. Draws are left as they are, whose spread it would narrow.
_NEARNESS = 0.3
_LIMIT = 2.0  # deviations beyond which a number is taken for one at the limit


class RGBRegression(LeastSquares):
    """Unmix RGB pictures of sensors that see more than red, green and blue: draw what the picture leaves open.

        m = Π(W_yᵀ φ(z)),   a = Π(m + u + v),   u ~ N(0, B_y) once per scene,   v ~ N(0, V_y) smooth within it

    z = (d − μ) / σ, kept within ±2, holds colour and texture of a pixel: d are log(r + 0.01) of red, green and blue, and how
    much each of them varies in the 17×17 pixels around (`describe`). φ is 1, z and the products of z; y is the scene's class or
    unknown; Π projects onto the simplex. Everything is solved, nothing is trained: W by ridge regression (what
    all classes share, and a plane of its own for each class), the covariances from the errors on scenes left out, those of a
    class drawn towards those of all, and both scaled so that 90 % of the values of those scenes lie in the central 90 % of their
    draws.

    μ and σ are those of the sensor's images, or for pictures of another source those of that source (`set_pictures`): a
    bright pixel of a dull camera then is a bright pixel, and no pixel lies far from all that was learned from. A draw brings
    red, green and blue back as well as the regression knows them. Where one answer is wanted instead, it is the one near m that
    also keeps the colours, argmin ‖r − E_RGBᵀa‖² + 0.3 s ‖a − m‖² on the simplex (s is the mean squared norm of E_RGB, see
    `fcls`). Hyperspectral images are unmixed by `fcls`.

    Args:
        endmembers: E (P, C).
        rgb_index: band indices of red, green, blue; by wavelength if not given.
        num_classes: K; None if classes are not told.

    Raises:
        WavelengthError: if no band is near red, green or blue, and ``rgb_index`` is not given.

    Source: mixed linear model, Henderson 1975, doi:10.2307/2529430; split conformal calibration, Lei et al. 2018,
    doi:10.1080/01621459.2017.1307116.

    >>> from ubf_augment.mixing import mix
    >>> E = Endmembers(torch.tensor([[0.1, 0.2, 0.4, 0.3], [0.0, 0.0, 0.0, 0.0]]), [490, 560, 665, 860], ("soil", "shade"))
    >>> light = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> a = torch.cat([light, 1 - light], 1)
    >>> pictures = mix(a, E)[:, [2, 1, 0]]
    >>> model = RGBRegression(E).fit(list(pictures), list(a))
    >>> bool((model.unmix_rgb(pictures) - a).abs().mean() < 0.05)
    True
    """

    weight: Tensor
    between: Tensor
    within: Tensor
    mean: Tensor
    std: Tensor
    length: Tensor

    def __init__(
        self, endmembers: Endmembers, *, rgb_index: Sequence[int] | None = None, num_classes: int | None = None
    ) -> None:  # fmt: skip
        super().__init__(endmembers, rgb_index)
        self.num_classes = num_classes or 0
        p = endmembers.num_endmembers
        start = torch.zeros(self.num_classes + 1, _FEATURES, p)
        start[:, 0] = 1 / p
        self.register_buffer("weight", start)
        self.register_buffer("between", torch.zeros(self.num_classes + 1, p, p))  # roots of B
        self.register_buffer("within", torch.zeros(self.num_classes + 1, p, p))  # roots of V
        self.register_buffer("mean", torch.zeros(2, 6))  # μ of the sensor's images, and of pictures
        self.register_buffer("std", torch.ones(2, 6))
        self.register_buffer("length", torch.zeros(()))  # correlation length of v in pixels

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able description from which `from_config` rebuilds the model (E and buffers apart)."""
        return {
            "kind": "regression", "wavelengths": self.wavelengths.tolist(), "names": list(self.endmembers.names),
            "rgb_index": list(self.rgb_index), "num_classes": self.num_classes or None,
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the model that `config` describes; load E and the other buffers with ``load_state_dict``."""
        rest = {k: v for k, v in config.items() if k != "kind"}
        nm, names = rest.pop("wavelengths"), tuple(rest.pop("names"))
        with torch.device("cpu"):  # they are checked, also where the rest is laid out on "meta" first
            endmembers = Endmembers(torch.zeros(len(names), len(nm)), nm, names)
        return cls(endmembers, **rest)

    def for_classes(self, start: Sequence[int | None]) -> Self:
        """The same model for other classes: each takes over what is known of an old one, or of no class.

        Args:
            start: for each new class the old one, or None.
        """
        other = type(self)(self.endmembers, rgb_index=self.rgb_index, num_classes=len(start))
        rows = [self.num_classes if k is None or not self.num_classes else k for k in (*start, None)]
        state = self.state_dict()
        for name in ("weight", "between", "within"):
            state[name] = state[name][rows]
        other.load_state_dict(state)
        return other.to(self.weight.device)

    def set_pictures(self, mean: Float[Tensor, "6"], std: Float[Tensor, "6"]) -> Self:
        """Say how colours and textures of another source of pictures are distributed, see ``pictures`` of `unmix_rgb`.

        Args:
            mean: of what `describe` gives.
            std: its standard deviation.
        """
        self.mean[1].copy_(mean)
        self.std[1].copy_(std.clamp_min(1e-6))
        return self

    def unmix_rgb(
        self,
        r: Float[Tensor, "b 3 h w"],
        y: Int64[Tensor, " b"] | None = None,
        generator: Generators = None,
        *,
        pictures: bool = False,
    ) -> Float[Tensor, "b p h w"]:
        """Abundances of RGB pictures in reflectance, channels red, green, blue.

        Args:
            r: reflectance at red, green and blue.
            y: scene classes, K for unknown; unknown if not given.
            generator: draw from the distribution; without, its centre is taken and brought to the colours.
            pictures: r is not of the sensor's RGB bands, but of the source of pictures that `set_pictures` describes.

        Raises:
            ShapeError, BandCountError, NoDataError, LabelError: for input that does not fit.
        """
        check_image(r, 3)
        y = self._classes(y, len(r)).to(self.weight.device)
        z = self._standardise(r, pictures)
        with full_precision(z):
            a = simplex.project(torch.einsum("bfp,bfhw->bphw", self.weight[y], _quadratic(z)))
            if generator is not None and len(r):
                return simplex.project(a + self._deviation(y, r.shape[2], r.shape[3], generator))
        if pictures:  # the colours of the sensor that stand where these stand among the pictures'
            mean, std = self.mean[0, :3, None, None], self.std[0, :3, None, None]
            r = (z[:, :3] * std + mean).exp() - _DARK
        return fcls(r.float(), self.spectra[:, list(self.rgb_index)], prior=a, prior_weight=_NEARNESS)

    def _deviation(self, y: Tensor, height: int, width: int, generator: Generators) -> Tensor:
        """One draw of u + v."""
        p = self.spectra.shape[0]
        u = torch.einsum("bpq,bq->bp", self.between[y], randn((len(y), p), generator, y.device))
        eye = torch.eye(p, device=y.device)
        fields = ResidualModel(torch.zeros_like(eye[0]), eye, torch.zeros_like(eye[0]), float(self.length))
        v = torch.einsum("bpq,bqhw->bphw", self.within[y], fields.sample(len(y), height, width, generator))
        return u[:, :, None, None] + v

    def _classes(self, y: Tensor | None, n: int) -> Tensor:
        if y is None:
            return torch.full((n,), self.num_classes)
        if y.shape != (n,) or (n and not 0 <= int(y.min()) <= int(y.max()) <= self.num_classes):
            raise LabelError(
                f"classes must be ({n},) integers from 0 to {self.num_classes} ({self.num_classes}: unknown)"
            )
        return y

    def _standardise(self, r: Tensor, pictures: bool = False) -> Tensor:
        """What a picture is told by: z (B, 6, H, W)."""
        mean, std = (v[int(pictures)][:, None, None] for v in (self.mean, self.std))
        return ((describe(r) - mean) / std).clamp(-_LIMIT, _LIMIT)

    @torch.no_grad()
    def fit(
        self, pictures: Sequence[Float[Tensor, "3 _ _"]], maps: Sequence[Float[Tensor, "p _ _"]],
        labels: Int64[Tensor, " n"] | None = None, *, scenes: Sequence[int] | None = None, seed: int = 0,
    ) -> Self:  # fmt: skip
        """Solve for the distribution, from red, green and blue of hyperspectral images and their abundances by `fcls`.

        Args:
            pictures: (3, H, W) in reflectance, of any sizes.
            maps: abundances (P, H, W) of the same pixels.
            labels: class of each, K for unknown.
            scenes: number of the scene that each was cut from: those of one are left out together. Each is a scene by
                itself if not given; a single one is cut into parts that are left out in turn.
            seed: of the windows that are taken from large images, of the folds, and of the draws that the spread is scaled by.

        Raises:
            ShapeError: if there are no pictures, or not a map, and a scene, for each, or a single one is smaller than 16×16.
            NoDataError, SimplexError, LabelError: for pictures, maps and labels that do not fit.
        """
        self._check(pictures, maps, scenes)
        y = self._classes(None if labels is None else labels.cpu(), len(pictures))
        pairs = [torch.cat([r.float(), a.float()]).cpu() for r, a in zip(pictures, maps, strict=True)]
        windows, image = cut_windows(pairs, seed=seed)
        if len(windows) < 2:
            raise ShapeError(
                f"one picture of {tuple(pairs[0].shape[1:])} pixels is too little: give several, or a larger one"
            )
        fold = folds([i if scenes is None else scenes[i] for i in image], seed)
        y, truth = y[image], [w[3:] for w in windows]
        z = torch.cat([describe(w[None, :3])[0].flatten(1) for w in windows], 1)
        self.mean.copy_(z.mean(1))  # of pictures too, unless `set_pictures` says otherwise
        self.std.copy_(z.std(1, correction=0).clamp_min(1e-6))
        phi = [_quadratic(self._standardise(w[None, :3].to(self.mean.device)))[0].cpu() for w in windows]
        moments, spectra = Moments.of(phi, truth), self.spectra.cpu()
        unknown, known = torch.full_like(y, self.num_classes), torch.unique(y[y < self.num_classes])
        # A class without an image stays as the unknown one.
        passes = [(unknown, torch.arange(self.num_classes + 1)), (y, known)]
        for classes, rows in passes if len(known) else passes[:1]:
            weight, left_out = moments.solve(classes, self.num_classes, _OWN, fold, spectra.double())
            expected = [
                simplex.project(torch.einsum("fp,fhw->phw", left_out[f, k].float(), v), 0)
                for f, k, v in zip(fold.tolist(), classes.tolist(), phi, strict=True)
            ]
            between, within, length, left = spread(truth, expected, classes, self.num_classes, fold)
            scale = calibrate(truth, expected, *left, spectra, seed)
            self.length.fill_(length)
            for buffer, found in (
                (self.weight, weight), (self.between, scale * between), (self.within, scale * within),
            ):  # fmt: skip
                buffer[rows] = found[rows].to(buffer)
        return self

    def _check(
        self, pictures: Sequence[Tensor], maps: Sequence[Tensor], scenes: Sequence[int] | None
    ) -> None:
        n, p = len(pictures), len(self.spectra)
        if not n or len(maps) != n or (scenes is not None and len(scenes) != n):
            raise ShapeError(
                f"{n} pictures, {len(maps)} maps" + (f", {len(scenes)} scenes" if scenes is not None else "")
                + ": give at least one picture, and a map, and a scene, for each"
            )  # fmt: skip
        for i, (r, a) in enumerate(zip(pictures, maps, strict=True)):
            check_image(r[None], 3)
            if a.shape != (p, *r.shape[1:]):
                raise ShapeError(f"map {i} is {tuple(a.shape)}, expected {(p, *r.shape[1:])}")
            simplex.check(a, dim=0, atol=1e-4)


def _quadratic(z: Tensor) -> Tensor:
    """φ (B, 28, H, W)."""
    i, j = torch.triu_indices(z.shape[1], z.shape[1], device=z.device)
    return torch.cat([torch.ones_like(z[:, :1]), z, z[:, i] * z[:, j]], 1)


def describe(r: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 6 h w"]:
    """Colour and texture of every pixel: l = log(r + 0.01), and log(s + 0.01) with the deviation s of l in 17×17 pixels.

    Noise below −0.008 does not count, nor does what lies beyond the edges.

    >>> flat = describe(torch.full((1, 3, 4, 4), 0.09))[0, :, 0, 0]
    >>> [round(float(v.exp()), 2) for v in flat]
    [0.1, 0.1, 0.1, 0.01, 0.01, 0.01]
    """
    log = (r.float() + _DARK).clamp_min(_DARK / 5).log()
    centred = log - log.mean((2, 3), keepdim=True)  # for rounding's sake
    mean, square = (
        avg_pool2d(v, _AROUND, 1, _AROUND // 2, count_include_pad=False) for v in (centred, centred.square())
    )
    return torch.cat([log, ((square - mean.square()).clamp_min(0).sqrt() + _DARK).log()], 1)
