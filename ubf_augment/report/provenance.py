"""Where a report comes from: bundle, versions, checksums, data, licence, seed, command, date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ubf_augment import bundle
from ubf_augment.report.real import RealImages
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.synthesis.card import text_of
from ubf_augment.synthesis.storage import fingerprint


@dataclass(frozen=True, eq=False)
class Source:
    """A synthesizer and what is known of its bundle.

    Attributes:
        synth: the synthesizer.
        name: of the bundle, or "synthesizer" for one that was made in memory.
        facts: what identifies it.
    """

    synth: HSISynthesizer
    name: str
    facts: Mapping[str, str]


def load(given: HSISynthesizer | str | Path, device: torch.device | str | None = None) -> Source:
    """A bundle by name, directory or Hub id, or a synthesizer as it is.

    Raises:
        BundleError: if the bundle is not found, incomplete or altered.
    """
    if isinstance(given, HSISynthesizer):
        name = str(given.card.get("name") or "synthesizer")
        given = given if device is None else given.to(device)
        return Source(given, name, {"Fingerprint of its weights": fingerprint(given)})
    directory = bundle.locate(given)
    index = bundle.verify(directory)
    facts = {
        "Written by": f"ubf_augment {index.get('package_version', 'unknown')}, format {index['format_version']}",
        "SHA-256 of its index": index["sha256"][bundle.INDEX],
        "Generator": f"{index.get('generator', '–')}",
    }
    synth = HSISynthesizer.from_pretrained(directory, device=device)
    return Source(synth, str(index.get("name") or directory.name), facts)


def provenance(
    source: Source | None,
    real: RealImages | None,
    real_name: str,
    made: Mapping[str, Any],
    command: str,
) -> dict[str, str]:
    """What → which, in the order in which it is shown.

    Args:
        source: of the samples.
        real: the real images.
        real_name: what they are called.
        made: how the report was made: seed, numbers, options.
        command: that wrote it.
    """
    facts: dict[str, str] = {}
    if source is not None:
        card = source.synth.card
        facts |= {"Bundle": source.name, **source.facts}
        for key, title in (
            ("sensor", "Sensor"),
            ("data", "Training data"),
            ("licence", "Licence"),
            ("seed", "Training seed"),
        ):
            if card.get(key) not in (None, ""):
                facts[title] = text_of(card[key])
        if isinstance(adapted := card.get("adaptation"), Mapping):
            facts["Adapted"] = f"to {text_of(card.get('sensor'))}, in {text_of(adapted.get('seconds'))} s"
    if real is not None:
        nm = real.wavelengths
        facts["Real images"] = (
            f"{real_name}: {real.total} images, {len(nm)} bands, {nm[0]:g}–{nm[-1]:g} nm; "
            f"{len(real.images)} windows of {real.images.shape[2]} × {real.images.shape[3]} pixels were read"
        )
    facts |= {key: text_of(value) for key, value in made.items() if value not in (None, {})}
    if command:
        facts["Command"] = command
    facts["Made with"] = f"ubf_augment {_version('ubf_augment')}, PyTorch {torch.__version__}"
    facts["Date"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return facts


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
