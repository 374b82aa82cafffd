"""``ubf list``: which bundles there are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ubf_augment import bundle as bundles
from ubf_augment.cli.output import say, show
from ubf_augment.errors import BundleError

POSITIONAL: dict[str, dict[str, Any]] = {
    "bundle": {
        "type": str,
        "nargs": "?",
        "help": "one to describe: packaged name, directory, or Hub id",
    }
}


def run(bundle: str | None = None) -> None:
    """List the packaged bundles, or describe one.

    Args:
        bundle: packaged name, directory, or Hugging Face Hub id to describe.
    """
    if bundle is not None:
        directory = bundles.locate(bundle)
        try:
            _describe(directory, bundles.verify(directory))
        except (LookupError, TypeError) as error:
            raise BundleError(
                f"the index of {directory} lacks entries, or has others than a bundle: {error}"
            ) from error
        return
    from rich.table import Table

    table = Table("bundle", "bands", "nm", "classes", "size", "endmembers", "MiB", title="packaged bundles")
    names = bundles.packaged()
    for name in names:
        directory = bundles.locate(name)
        index = bundles.verify(directory)
        nm, size = index["wavelengths"], sum(f.stat().st_size for f in directory.rglob("*") if f.is_file())
        table.add_row(
            name, str(len(nm)), f"{nm[0]:.0f}–{nm[-1]:.0f}", str(len(index["classes"])),
            "×".join(map(str, index["size"])), str(len(index["endmembers"])), f"{size / 2**20:.1f}",
        )  # fmt: skip
    if not names:
        say("no bundle is packaged with this installation")
        return
    show(table)


def _describe(directory: Path, index: Mapping[str, Any]) -> None:
    nm = index["wavelengths"]
    print(f"{index['name']}: {directory}")
    print(f"sensor      {index.get('sensor') or '–'}")
    print(f"bands       {len(nm)}, {nm[0]:g}–{nm[-1]:g} nm")
    print(f"size        {'×'.join(map(str, index['size']))} pixels")
    print(f"endmembers  {', '.join(index['endmembers'])}")
    print(f"classes     {', '.join(index['classes']) or 'none'}")
    print(f"generator   {index['generator']}, package version {index['package_version']}")
    print(f"model card  {directory / 'README.md'}")
