"""Between an `HSISynthesizer` and the contents of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
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
        generator = _load(get_generator(described["name"], **described["config"]), parts["generator"])
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
    except (KeyError, TypeError, ValueError, RuntimeError, UBFError) as error:
        raise BundleError(
            f"{directory} does not describe a synthesizer of this version ({type(error).__name__}: {error}): "
            "save it again with save_pretrained, or install the version that wrote it"
        ) from error


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
    kind: type[RGBRegression | UnmixingModel]
    kind = RGBRegression if part.config.get("kind") == "regression" else UnmixingModel
    return _load(kind.from_config(part.config), part)


def _component(module: nn.Module, config: Mapping[str, Any], exact: tuple[str, ...] = ()) -> Component:
    parameters = frozenset(name for name, _ in module.named_parameters() if name not in exact)
    return Component(config, module.state_dict(), parameters)


M = TypeVar("M", bound=nn.Module)


def _load(module: M, part: Component) -> M:
    module.load_state_dict(dict(part.state))
    return module
