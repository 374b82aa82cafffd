"""Ridge regression of abundance maps on features, shared and per class, and the spread of its errors on scenes left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ubf_augment import simplex
from ubf_augment.mixing import ResidualModel, mix

_FOLDS = 20
_PENALTIES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_SHRINKAGE = 3.0  # scenes' worth of trust in the covariance of all classes
_LEVEL, _DRAWS = 0.9, 59  # ranks of the truth among 59 draws: of sixty, the middle 54 are 90 %
_CALIBRATED, _PIXELS = 128, 16  # windows, and pixels of each


def cut_windows(
    images: Sequence[Float[Tensor, "c _ _"]], *, side: int = 64, most: int = 512, seed: int = 0
) -> tuple[list[Tensor], list[int]]:
    """Windows that cover all images, or of ``most`` drawn from them, and the number of the image that each is of.

    A single image is cut into at least nine.

    >>> windows, image = cut_windows([torch.zeros(3, 64, 100), torch.zeros(3, 20, 20)])
    >>> [tuple(w.shape) for w in windows], image
    ([(3, 64, 64), (3, 64, 36), (3, 20, 20)], [0, 0, 1])
    """
    if len(images) == 1:
        side = min(side, max(8, min(images[0].shape[1:]) // 3))
    corners = [
        (i, top, left)
        for i, x in enumerate(images)
        for top in range(0, x.shape[1], side)
        for left in range(0, x.shape[2], side)
    ]
    order = torch.randperm(len(corners), generator=torch.Generator().manual_seed(seed))[:most]
    chosen = [corners[k] for k in sorted(order.tolist())]
    return [images[i][:, t : t + side, left : left + side] for i, t, left in chosen], [i for i, *_ in chosen]


def folds(scene: Sequence[int], seed: int = 0) -> Int64[Tensor, " n"]:
    """The fold of each window, of twenty at most: those of a scene are left out together, unless there is only one scene.

    >>> fold = folds([0, 0, 1, 2])
    >>> bool(fold[0] == fold[1]), sorted(fold[1:].tolist())
    (True, [0, 1, 2])
    """
    groups = list(range(len(scene))) if len(set(scene)) == 1 else list(scene)
    names = sorted(set(groups))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    fold = {name: k % min(_FOLDS, len(names)) for name, k in zip(names, order, strict=True)}
    return torch.tensor([fold[g] for g in groups])


@dataclass(frozen=True)
class Moments:
    """Averages over the pixels of each window: φφᵀ (N, F, F), φaᵀ (N, F, P), aaᵀ (N, P, P).

    A ridge regression needs nothing else, whatever windows are left out and however they are weighted.
    """

    phi: Tensor
    cross: Tensor
    a: Tensor

    @classmethod
    def of(cls, phi: Sequence[Tensor], a: Sequence[Tensor]) -> Moments:
        """Those of features (F, h, w) and abundances (P, h, w)."""

        def products(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
            pairs = zip(left, right, strict=True)
            return torch.stack(
                [f.flatten(1).double() @ q.flatten(1).double().T / f[0].numel() for f, q in pairs]
            )

        return cls(products(phi, phi), products(phi, a), products(a, a))

    def solve(
        self, classes: Int64[Tensor, " n"], num_classes: int, own: int, fold: Int64[Tensor, " n"], spectra: Tensor
    ) -> tuple[Float[Tensor, "k f p"], Float[Tensor, "m k f p"]]:  # fmt: skip
        """Weights W (K + 1, F, P) from all windows, and (folds, K + 1, F, P) from those of the other folds.

        W_y = W + D_y minimises Σ ‖W_yᵀφ − a‖² / N + λ (‖W‖² + Σ ‖D_y‖²); D_y adds to the first ``own`` rows alone, there is
        none for the last class, unknown, and the first feature of W, 1, is free. λ is that of five with the least error of
        the mixed spectra Eᵀa on the windows left out.

        Args:
            classes: of the windows, K for unknown.
            num_classes: K.
            own: how many features a class has weights of its own for.
            fold: of the windows.
            spectra: E (P, C).
        """
        several = int(fold.max()) + 1
        parts = [self._assemble(classes, num_classes, own, fold == f) for f in range(several)]
        gram, cross = (torch.stack(v) for v in zip(*parts, strict=True))
        count = torch.bincount(fold, minlength=several)
        found = []
        for penalty in _PENALTIES:
            ridge = torch.full((gram.shape[1],), penalty, dtype=torch.float64)
            ridge[0] = 1e-9
            # With all, then with each fold left out.
            g = torch.cat([gram.sum(0)[None], gram.sum(0) - gram])
            c = torch.cat([cross.sum(0)[None], cross.sum(0) - cross])
            n = torch.cat([count.sum()[None], count.sum() - count])[:, None, None]
            solved = torch.linalg.solve(g / n + torch.diag(ridge), c / n)
            w = torch.stack([self._expand(s, num_classes, own) for s in solved])
            mine = w[1 + fold, classes]
            product = mine.mT @ self.cross
            square = self.a - product - product.mT + mine.mT @ self.phi @ mine
            found.append((float(torch.einsum("pc,npq,qc->", spectra, square, spectra)), w))
        _, w = min(found, key=lambda pair: pair[0])
        return w[0], w[1:]

    def _assemble(self, classes: Tensor, num_classes: int, own: int, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Normal equations of W and of each D_y, summed over windows."""
        f = self.phi.shape[1]
        gram = torch.zeros(f + num_classes * own, f + num_classes * own, dtype=torch.float64)
        cross = torch.zeros(len(gram), self.cross.shape[2], dtype=torch.float64)
        gram[:f, :f], cross[:f] = self.phi[chosen].sum(0), self.cross[chosen].sum(0)
        for k in set(classes[chosen].tolist()) - {num_classes}:
            mine, at = chosen & (classes == k), slice(f + k * own, f + (k + 1) * own)
            phi, cross[at] = self.phi[mine].sum(0), self.cross[mine].sum(0)[:own]
            gram[:f, at], gram[at, :f], gram[at, at] = phi[:, :own], phi[:own], phi[:own, :own]
        return gram, cross

    def _expand(self, solution: Tensor, num_classes: int, own: int) -> Tensor:
        """W_y of every class, from W and D."""
        f = self.phi.shape[1]
        w = solution[:f].repeat(num_classes + 1, 1, 1)
        w[:num_classes, :own] += solution[f:].view(num_classes, own, w.shape[2])
        return w


def spread(
    truth: Sequence[Float[Tensor, "p _ _"]], expected: Sequence[Float[Tensor, "p _ _"]], classes: Int64[Tensor, " n"],
    num_classes: int, fold: Int64[Tensor, " n"],
) -> tuple[Float[Tensor, "k p p"], Float[Tensor, "k p p"], float, tuple[Tensor, Tensor]]:  # fmt: skip
    """What the errors truth − expected of windows say of u, one per scene, and of v, within it.

    Returns:
        Roots (K + 1, P, P) of the covariances of u and v in each class, the last for no class; the correlation length of v in
        pixels; and the roots (N, P, P) of both that the other folds' windows give for each window. Covariances are means over
        the windows of a class, drawn towards those of all by three windows' worth.
    """
    errors = [a - m for a, m in zip(truth, expected, strict=True)]
    level = torch.stack([e.double().mean((1, 2)) for e in errors])
    inner = [e - m.float()[:, None, None] for e, m in zip(errors, level, strict=True)]
    flat = [v.flatten(1).double() for v in inner]
    roots, left_out = [], []
    for values in (level[:, :, None] * level[:, None], torch.stack([v @ v.T / v.shape[1] for v in flat])):
        roots.append(_root(_per_class(values, classes, num_classes)))
        others = [fold != f for f in range(int(fold.max()) + 1)]
        without = torch.stack([_per_class(values[o], classes[o], num_classes) for o in others])
        left_out.append(_root(without[fold, classes]))
    length = ResidualModel.estimate(inner, rank=len(truth[0])).correlation_length
    return roots[0], roots[1], length, (left_out[0], left_out[1])


def _per_class(values: Float[Tensor, "n p p"], classes: Int64[Tensor, " n"], num_classes: int) -> Tensor:
    """Mean of each class, drawn towards that of all, which is the last (K + 1, P, P)."""
    found = values.mean(0).repeat(num_classes + 1, 1, 1)
    for k in set(classes.tolist()) - {num_classes}:
        mine = values[classes == k]
        share = len(mine) / (len(mine) + _SHRINKAGE)
        found[k] = share * mine.mean(0) + (1 - share) * found[k]
    return found


def _root(covariance: Float[Tensor, "k p p"]) -> Float[Tensor, "k p p"]:
    """Matrices L with LLᵀ = covariance."""
    values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
    root: Tensor = vectors * values.clamp_min(0).sqrt()[:, None, :]
    return root.float()


def calibrate(
    truth: Sequence[Float[Tensor, "p _ _"]], expected: Sequence[Float[Tensor, "p _ _"]], between: Float[Tensor, "n p p"],
    within: Float[Tensor, "n p p"], spectra: Float[Tensor, "p c"], seed: int = 0,
) -> float:  # fmt: skip
    """Find κ such that the central 90 % of Eᵀ Π(expected + κ (u + v)) hold 90 % of the true Eᵀa.

    Bands count by the variance of the draws. Looked at are some pixels of some windows.

    Args:
        truth: abundances of windows.
        expected: those predicted without the window's scene.
        between: roots of the covariance of u, per window.
        within: those of v.
        spectra: E.
        seed: of windows, pixels and draws.
    """
    rng = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(truth), generator=rng)[:_CALIBRATED].tolist()
    at = [torch.randint(truth[i][0].numel(), (_PIXELS,), generator=rng) for i in chosen]
    a, centre = (
        torch.stack([v[i].flatten(1)[:, k] for i, k in zip(chosen, at, strict=True)])
        for v in (truth, expected)
    )
    u, v = (torch.randn(_DRAWS, *size, generator=rng) for size in ((len(a), a.shape[1], 1), a.shape))
    noise = torch.einsum("bpq,dbqn->dbpn", between[chosen], u) + torch.einsum(
        "bpq,dbqn->dbpn", within[chosen], v
    )
    shown = mix(a[..., None], spectra)
    tail = (1 - _LEVEL) / 2 * (_DRAWS + 1)
    low, high = 0.2, 5.0
    for _ in range(9):
        middle = (low * high) ** 0.5
        x = mix(simplex.project((centre + middle * noise).flatten(0, 1)[..., None]), spectra)
        x = x.view(_DRAWS, *shown.shape)
        rank = (x < shown).sum(0)
        held = ((rank >= tail) & (rank <= _DRAWS - tail)).double().mean((0, 2, 3))
        weight = x.var(0).double().mean((0, 2, 3)).clamp_min(1e-12)
        low, high = (middle, high) if float((held * weight).sum() / weight.sum()) < _LEVEL else (low, middle)
    return float((low * high) ** 0.5)
