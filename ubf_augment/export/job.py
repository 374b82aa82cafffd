"""A job that writes the samples of a plan: its manifest, its lock, and what is left to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ubf_augment.errors import OtherProcessError, UBFError
from ubf_augment.export.plan import Plan
from ubf_augment.export.writers import Writer
from ubf_augment.files import locked, replacing
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.synthesis.storage import fingerprint
from ubf_augment.training import once, share, together

if TYPE_CHECKING:
    from lightning.fabric import Fabric

T = TypeVar("T")
MANIFEST = "manifest.json"


class SampleExport:
    """Write the samples of a plan into a folder, in any number of processes, and go on where a former call stopped.

    ``manifest.json`` says what the samples are, and whether they are complete; it does not list them, so that it stays small.

    Args:
        synth: draws them.
        plan: which.
        writer: how they are stored.
        bundle: name of the synthesizer, for the manifest.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ubf_augment.export import TiffFolder
    >>> synth = HSISynthesizer.from_pretrained("indian-pines")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plan = Plan(("Woods",), num=1, batch_size=2, options={"steps": 1})
    ...     SampleExport(synth, plan, TiffFolder(Path(folder), plan, synth.wavelengths)).run()
    ...     [str(f.relative_to(folder)) for f in Path(folder).rglob("*.tif")]
    ['Woods/Woods-00000.tif']
    """

    def __init__(self, synth: HSISynthesizer, plan: Plan, writer: Writer, *, bundle: str = "") -> None:
        self.synth, self.plan, self.writer, self.out = synth, plan, writer, writer.out
        self._parent: int | None = None
        self.facts = {
            "bundle": bundle, "fingerprint": fingerprint(synth), "seed": plan.seed, "residual": plan.residual,
            "options": dict(plan.options), "batch_size": plan.batch_size, "wavelengths": synth.wavelengths.tolist(),
            "size": list(synth.size), **writer.facts(),
        }  # fmt: skip

    def run(
        self, fabric: Fabric | None = None, shown: Callable[[Sequence[int], int], Iterable[int]] | None = None
    ) -> None:
        """Write what is missing. While it runs, the folder is locked.

        Args:
            fabric: launched; None is a single process.
            shown: gets the units that this process is to write and the number of samples that are there; gives the units
                one by one (to show progress).

        Raises:
            UBFError: if another job is writing there, or samples were removed meanwhile.
            ValueError: if the folder holds samples of other settings.
            OSError: if it cannot be written.
            OtherProcessError: if another process failed.
        """
        rank, world = share(fabric)
        self._parent = os.getppid() if rank else None
        with ExitStack() as held:
            found, missing = once(fabric, lambda: self._begin(held))
            mine = missing[rank::world].tolist()
            together(fabric, lambda: self._write(mine if shown is None else shown(mine, found)))
            once(fabric, self._finish)

    def _write(self, units: Iterable[int]) -> None:
        for unit in units:
            start = unit * self.writer.unit
            wanted = range(start, min(start + self.writer.unit, self.plan.total))
            self.writer.write(self._wanted(self.plan.images(self.synth, wanted)), start)

    def _wanted(self, samples: Iterable[T]) -> Iterator[T]:
        """Samples, as long as the process that waits for this one lives."""
        for sample in samples:
            if self._parent is not None and os.getppid() != self._parent:
                raise OtherProcessError("the process that started this one is gone")
            yield sample

    def _begin(self, held: ExitStack) -> tuple[int, Any]:
        """Lock, compare the manifest, look what is there; gives how many samples, and which units are missing."""
        held.enter_context(locked(self.out))
        self._store(self._planned() | {"complete": False})
        flags = self.writer.present()
        whole = np.logical_and.reduceat(flags, np.arange(0, len(flags), self.writer.unit))
        return int(flags.sum()), np.flatnonzero(~whole)

    def _finish(self) -> None:
        """Look whether all is there, that of former calls included, and say so in the manifest."""
        if not self.writer.present().all():
            raise UBFError(f"samples were removed from {self.out} while it was written: run the same again")
        content = json.loads((self.out / MANIFEST).read_text(encoding="utf-8"))
        self._store(content | {"complete": self.writer.complete(content["classes"])})

    def _planned(self) -> dict[str, Any]:
        """The manifest of what this job writes, together with what is there.

        Raises:
            ValueError: if that has other settings.
        """
        mine = self.writer.classes({c: k for k, c in enumerate(self.synth.classes)})
        path = self.out / MANIFEST
        if not path.is_file():
            if any(self.out.rglob("*.tif")) or any(self.out.glob("*.tar")):
                raise ValueError(f"{self.out} holds images but no {MANIFEST}: give another --out")
            return self.facts | {"classes": mine}
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if changed := [k for k, v in self.facts.items() if k != "bundle" and content.get(k) != v]:
            raise ValueError(
                f"{self.out} holds images of another {', '.join(changed)}: give another --out, or delete it"
            )
        return content | {"classes": self.writer.merged(content["classes"], mine)}

    def _store(self, content: dict[str, Any]) -> None:
        with replacing(self.out / MANIFEST) as aside:
            aside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
