"""Between an `HSISynthesizer` and the contents of a bundle."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ubf_augment.bundle import Bundle, Component
from ubf_augment.errors import BundleError, UBFError
from ubf_augment.generators import get_generator, list_generators
from ubf_augment.mixing import ResidualModel
from ubf_augment.spectra import Endmembers
from ubf_augment.synthesis.base import SynthesizerParts
from ubf_augment.synthesis.card import model_card
from ubf_augment.unmixing import RGBRegression, UnmixingModel

S = TypeVar("S", bound=SynthesizerParts)
_ANY_SIZE = 1_000_000
_LARGEST_MAP = 1 << 27  # half a GiB
_REPEATED = re.compile(r"blocks|layers|depth")


def pack(synth: SynthesizerParts, name: str) -> Bundle:
    """Describe a synthesizer as a bundle.

    Raises:
        BundleError: if its generator is not registered by a name.
    """
    generator = synth.generator
    if generator.name not in list_generators():
        raise BundleError(
            f"{type(generator).__name__} is not a registered generator: decorate it with "
            "@generators.register('name')"
        )
    e, residual, own = synth.endmembers, synth.residual, synth.class_endmembers
    tensors: dict[str, Tensor] = {"spectra": e.spectra, "wavelengths": e.wavelengths}
    if e.fwhm is not None:
        tensors["fwhm"] = e.fwhm
    if own:
        tensors |= {"class_spectra": torch.stack(list(own.values())), "class_index": torch.tensor(list(own))}
    if synth.unmixing is None:
        tensors["rgb_spectra"] = synth.rgb_endmembers
    if residual is not None:
        tensors |= {
            "residual_mean": residual.mean,
            "residual_factors": residual.factors,
            "residual_noise_std": residual.noise_std,
            "residual_correlation_length": torch.tensor(residual.correlation_length, dtype=torch.float64),
        }
    components = {"generator": _component(generator, {"name": generator.name, "config": generator.config})}
    if synth.unmixing is not None:
        # Endmembers stay exact: an encoder belongs to them.
        components["unmixing"] = _component(synth.unmixing, synth.unmixing.config, exact=("theta",))
    if synth.regression is not None:
        components["regression"] = _component(synth.regression, synth.regression.config)
    index = {
        "name": name,
        "sensor": synth.card.get("sensor", ""),
        "wavelengths": e.wavelengths.tolist(),
        "endmembers": list(e.names),
        "classes": list(synth.classes),
        "size": list(synth.size),
        "generator": generator.name,
        "rgb_scale": synth.rgb_scale,
        "rgb_gamma": synth.rgb_gamma,
        "card": synth.card,
    }
    return Bundle(index, tensors, components, model_card(index))


def unpack(cls: type[S], bundle: Bundle, directory: Path) -> S:
    """Build the synthesizer that a bundle describes.

    Raises:
        BundleError: if an entry is missing, a generator unknown, or weights do not fit their configuration.
    """
    index, t, parts = bundle.index, bundle.tensors, bundle.components
    try:
        encoders = {name: _unmixing(parts[name]) for name in ("unmixing", "regression") if name in parts}
        described = parts["generator"].config
        if described["name"] not in list_generators():
            raise BundleError(
                f"{directory} needs the generator {described['name']!r}, which this installation does not "
                f"know (it has {', '.join(list_generators())}): upgrade ubf-augment, or import the module "
                "that registers it"
            )
        generator = _load(lambda: get_generator(described["name"], **described["config"]), parts["generator"])
        if (count := math.prod((generator.channels, *generator.size))) > _LARGEST_MAP:
            raise ValueError(f"one abundance map has {count} values, at most {_LARGEST_MAP} are sensible")
        own = {
            int(k): t["class_spectra"][i] for i, k in enumerate(t.get("class_index", torch.zeros(0)).tolist())
        }
        return cls(
            Endmembers(t["spectra"], t["wavelengths"], tuple(index["endmembers"]), t.get("fwhm")),
            generator,
            **encoders,
            residual=_residual(t),
            classes=index["classes"],
            class_endmembers=own,
            rgb_endmembers=t.get("rgb_spectra"),
            rgb_scale=index["rgb_scale"],
            rgb_gamma=index["rgb_gamma"],
            card=index["card"],
        )
    except BundleError:
        raise
    except (LookupError, ArithmeticError, TypeError, ValueError, RuntimeError, UBFError) as error:
        raise BundleError(
            f"{directory} does not describe a synthesizer of this version ({type(error).__name__}: {error}): "
            "save it again with save_pretrained, or install the version that wrote it"
        ) from error


def fingerprint(synth: nn.Module) -> str:
    """Sixteen hexadecimal digits that change when spectra, residual model or a weight of a network change."""
    digest = hashlib.sha256()
    for value in synth.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _residual(t: Mapping[str, Tensor]) -> ResidualModel | None:
    if "residual_mean" not in t:
        return None
    return ResidualModel(
        t["residual_mean"],
        t["residual_factors"],
        t["residual_noise_std"],
        float(t["residual_correlation_length"]),
    )


def _unmixing(part: Component) -> Any:
    kind = RGBRegression if part.config.get("kind") == "regression" else UnmixingModel
    return _load(lambda: kind.from_config(part.config), part)


def _component(module: nn.Module, config: Mapping[str, Any], exact: tuple[str, ...] = ()) -> Component:
    parameters = frozenset(name for name, _ in module.named_parameters() if name not in exact)
    return Component(config, module.state_dict(), parameters)


M = TypeVar("M", bound=nn.Module)


def _load(make: Callable[[], M], part: Component) -> M:
    """Build a network and give it its weights; one that would not fit them is refused before memory is allocated for it.

    Raises:
        ValueError, RuntimeError: if configuration and weights do not fit, or a weight is not finite.
    """
    _check_config(part)
    try:
        with torch.device("meta"):
            planned = {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}
    except (NotImplementedError, RuntimeError):  # looks at its values while it is built
        planned = {name: tuple(tensor.shape) for name, tensor in part.state.items()}
    for name, tensor in part.state.items():
        if planned.get(name) != tuple(tensor.shape):
            expected = planned.get(name, "nothing of that name")
            raise ValueError(f"{name} is {tuple(tensor.shape)}, its configuration says {expected}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds NaN or infinite values")
    module = make()
    module.load_state_dict(dict(part.state))
    return module


def _check_config(part: Component) -> None:
    """Sizes in a configuration cannot exceed the number of weights, nor blocks that of tensors.

    Raises:
        ValueError: if they do.
    """
    values = max(_ANY_SIZE, sum(tensor.numel() for tensor in part.state.values()))

    def check(key: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                check(str(name), inner)
        elif isinstance(value, list):
            for inner in value:
                check(key, inner)
        elif isinstance(value, int | float) and "seed" not in key:
            limit = len(part.state) if _REPEATED.search(key) else values
            if not value <= limit:  # NaN is refused, too
                raise ValueError(f"{key} is {value}, more than its weights allow")

    check("", part.config)
