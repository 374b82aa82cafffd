"""How `GMM` is fitted: expectation maximisation per class, then the spatial correlation."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ubf_augment.errors import LabelError
from ubf_augment.files import OnDisk
from ubf_augment.generators._fields import autocorrelation
from ubf_augment.generators.maps import as_abundances
from ubf_augment.seeding import derive_seed
from ubf_augment.training import History, launch, make_fabric, read_checkpoint, save_atomic
from ubf_augment.training.control import shown

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from numpy.typing import NDArray

    from ubf_augment.generators.gmm import GMM

_TOGETHER = 1024
_STATE = ("weights_", "means_", "covariances_", "precisions_cholesky_")


def fit_gmm(
    model: GMM,
    maps: Tensor | OnDisk,
    labels: Tensor | None,
    *,
    steps: int,
    seed: int,
    fabric: Fabric | None,
    checkpoint: Path | None,
    batch_size: int,
    lr: float | None,
    augment: bool,
    progress: bool,
    pixels_per_class: int = 20_000,
    maps_per_class: int = 64,
    tol: float = 1e-4,
    reg_covar: float = 1e-6,
    save_every_s: float = 60.0,
) -> History:
    """Expectation maximisation (scikit-learn), one iteration of every class per step; then the correlations.

    ``steps`` is the largest number of iterations. A class whose log-likelihood rises by less than ``tol`` is
    done; when all are, the history ends with one entry at ``steps`` that repeats the last value, and
    ``extra["iterations"]`` tells how many were done. The loss is the negative lower bound in nats per coordinate
    at the start of each iteration, averaged over the classes. A model that was fitted before goes on from
    where it is. An interruption loses at most ``save_every_s``; going on
    from a checkpoint follows the same path.
    ``batch_size`` and ``lr`` have no meaning here, and ``augment`` none either: flips and turns change neither
    pixels nor isotropic correlations. With several devices each computes the same.

    Options of `GMM.fit`:
        pixels_per_class: pixels drawn for the mixture of a class.
        maps_per_class: maps used for its spatial correlation.
        tol: change of the mean log-likelihood (nats per pixel) that ends the iterations; 0 never does.
        reg_covar: added to each variance of a component, in squared abundance.
        save_every_s: seconds between checkpoints.
    """
    fabric = launch(make_fabric() if fabric is None else fabric)
    model.cpu()
    members = _members(model, labels, len(maps))
    pixels = [
        _pixels(model, maps, ids, pixels_per_class, derive_seed(seed, k)) for k, ids in enumerate(members)
    ]
    mark = {
        "maps": len(maps), "seed": seed, "pixels_per_class": pixels_per_class, "config": model.config,
    }  # fmt: skip
    run = _EM(model, pixels, seed, tol, reg_covar, mark, checkpoint if fabric.is_global_zero else None)
    run.iterate(steps, save_every_s, progress and fabric.is_global_zero)
    if model.spatial:
        for k, ids in enumerate(members):
            chosen = ids[torch.linspace(0, len(ids) - 1, min(len(ids), maps_per_class)).long()]
            a = as_abundances(maps[chosen]).cpu()
            _fit_correlation(model, k, a, derive_seed(seed, 2, k))
    model.ready.fill_(True)
    model.to(fabric.device).eval()
    return run.history


def _fit_correlation(model: GMM, k: int, maps: Tensor, seed: int) -> None:
    """Give the scores of class k such correlations that its maps have those of these."""
    v = torch.einsum("bdhw,de->behw", model.coordinates(maps).double(), model.mixture.axes(k))
    wanted = model.fields.ring_means(autocorrelation(v))
    model.fields.fit(k, model.mixture.score_correlations(wanted, k, seed))


def _members(model: GMM, labels: Tensor | None, count: int) -> list[Tensor]:
    """Item numbers of each class."""
    if labels is None:
        return [torch.arange(count)]
    members = [(labels == k).nonzero().flatten() for k in range(model.num_classes or 1)]
    if empty := [str(k) for k, ids in enumerate(members) if not len(ids)]:
        raise LabelError(
            f"no map has class {', '.join(empty)}: each class has a mixture of its own, so give maps of every "
            "class, or build the generator with the classes that have some"
        )
    return members


def _pixels(model: GMM, maps: Tensor | OnDisk, ids: Tensor, most: int, seed: int) -> NDArray[Any]:
    """Draw at most ``most`` pixels of these maps, as coordinates (n, P − 1) in float64."""
    area = model.size[0] * model.size[1]
    if min(most, len(ids) * area) < model.components:
        raise ValueError(
            f"{min(most, len(ids) * area)} pixels cannot determine {model.components} components: use fewer "
            "components, or more maps and pixels_per_class"
        )
    total = len(ids) * area
    chosen = torch.from_numpy(np.random.default_rng(seed).choice(total, min(total, most), replace=False))
    which, where = ids[chosen // area], chosen % area
    parts = zip(torch.split(which, _TOGETHER), torch.split(where, _TOGETHER), strict=True)
    rows = torch.cat([maps[i].flatten(2)[torch.arange(len(i)), :, at] for i, at in parts])
    return model.coordinates(as_abundances(rows[:, :, None, None]).cpu())[:, :, 0, 0].double().numpy()


class _EM:
    """The mixtures of all classes under way."""

    def __init__(
        self, model: GMM, pixels: list[NDArray[Any]], seed: int, tol: float, reg_covar: float,
        mark: dict[str, Any], path: Path | None,
    ) -> None:  # fmt: skip
        from sklearn.mixture import GaussianMixture

        self.model, self.pixels, self.tol, self.mark, self.path = model, pixels, tol, mark, path
        self.step, self.history = 0, History(extra={"iterations": 0})
        self.bounds, self.done = [-float("inf")] * len(pixels), [False] * len(pixels)
        build: Any = GaussianMixture
        self.mixtures = [
            build(
                model.components, reg_covar=reg_covar, max_iter=1, tol=0.0, warm_start=True,
                random_state=derive_seed(seed, 1, k) % 2**32,
            )
            for k in range(len(pixels))
        ]  # fmt: skip
        if path is not None and path.exists():
            self._restore(path)
        elif bool(model.ready):
            for k, gm in enumerate(self.mixtures):
                self._resume(gm, k, _state_of(model, k))

    @property
    def recent_loss(self) -> float:
        """Last value of the history."""
        return self.history.loss[-1] if self.history.loss else float("nan")

    def iterate(self, steps: int, save_every_s: float, progress: bool) -> None:
        """Run up to ``steps`` iterations in total, and write the mixtures into the model."""
        before, start = self.history.seconds, time.monotonic()
        saved = start
        with shown(progress, self, steps, "gmm") as update:
            while self.step < steps:
                if all(self.done):
                    self.step = steps
                else:
                    self._advance()
                self._record()
                update()
                now = time.monotonic()
                self.history.seconds = before + now - start
                if now - saved >= save_every_s:
                    self._save()
                    saved = now
        self._save()
        for k, gm in enumerate(self.mixtures):
            _write(self.model, k, gm)

    def _advance(self) -> None:
        """One iteration of each class that still changes."""
        from sklearn.exceptions import ConvergenceWarning

        self.step += 1
        self.history.extra["iterations"] = self.step
        for k, gm in enumerate(self.mixtures):
            if self.done[k]:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                gm.fit(self.pixels[k])
            bound = float(gm.lower_bound_)
            self.done[k] = abs(bound - self.bounds[k]) < self.tol
            self.bounds[k] = bound

    def _record(self) -> None:
        self.history.steps.append(self.step)
        self.history.loss.append(-sum(self.bounds) / len(self.bounds) / self.pixels[0].shape[1])

    def _resume(self, gm: Any, k: int, state: dict[str, Tensor]) -> None:
        """Let scikit-learn's warm start go on from these parameters instead of initialising."""
        for name in _STATE:
            setattr(gm, name, state[name].numpy())
        gm.converged_, gm.lower_bound_ = False, self.bounds[k]

    def _save(self) -> None:
        if self.path is None or not self.step:
            return
        states = [{n: torch.from_numpy(np.asarray(getattr(gm, n))) for n in _STATE} for gm in self.mixtures]
        state = {
            "mark": self.mark, "step": self.step, "history": self.history.to_dict(), "bounds": self.bounds,
            "done": self.done, "mixtures": states,
        }  # fmt: skip
        save_atomic(state, self.path)

    def _restore(self, path: Path) -> None:
        state = read_checkpoint(path)
        if state.get("mark") != self.mark:
            raise ValueError(
                f"checkpoint {path} belongs to another run (saved: {state.get('mark')}, asked: {self.mark}); give "
                "another path, delete the file, or call with the settings it was started with"
            )
        self.step, self.history = int(state["step"]), History(**state["history"])
        self.bounds, self.done = list(state["bounds"]), list(state["done"])
        for k, gm in enumerate(self.mixtures):
            self._resume(gm, k, state["mixtures"][k])


@torch.no_grad()
def _write(model: GMM, k: int, gm: Any) -> None:
    """Copy what was found for class k into the model."""
    if hasattr(gm, "means_"):
        model.mixture.logits[k] = torch.from_numpy(gm.weights_).clamp_min(1e-30).log()
        model.mixture.means[k] = torch.from_numpy(gm.means_)
        model.mixture.factors[k] = torch.linalg.cholesky(torch.from_numpy(gm.covariances_))


@torch.no_grad()
def _state_of(model: GMM, k: int) -> dict[str, Tensor]:
    """Give the mixture of class k as scikit-learn keeps it, in float64."""
    factors = model.mixture.factors[k].double().tril()
    eye = torch.eye(factors.shape[-1], dtype=factors.dtype)
    return {
        "weights_": model.mixture.logits[k].double().softmax(-1),
        "means_": model.mixture.means[k].double(),
        "covariances_": factors @ factors.mT,
        "precisions_cholesky_": torch.linalg.solve_triangular(factors, eye, upper=False).mT,
    }
