"""Where abundance maps of a class come from at training time: the generator itself, or a pool of its maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float16, Int64
from torch import Tensor

from ubf_augment import simplex
from ubf_augment.seeding import Generators, derive_seed, per_sample, process_rank
from ubf_augment.sources.compiling import Compile, compiled, uses_graphs
from ubf_augment.synthesis import HSISynthesizer

_CHUNK = 32
_GRAPH_BATCH = 8  # batches are filled up to multiples of it where every size has a graph of its own


@runtime_checkable
class AbundanceSource(Protocol):
    """What ``generate`` draws from."""

    def sample(self, y: Int64[Tensor, " b"], generator: torch.Generator) -> Float[Tensor, "b p h w"]:
        """Draw abundance maps.

        Args:
            y: the synthesizer's classes.
            generator: of all randomness, on the CPU.

        Returns:
            a ≥ 0 with Σₚ aₚ = 1, on the synthesizer's device, at any size (H, W).
        """


class Live:
    """Every map from the generator, at every step.

    Args:
        synth: endmembers and generator.
        options: of the generator, such as ``{"steps": 5}``, or ``{"precision": "bf16"}`` where the device is fast at it.
        compile: compile the generator's networks, which takes a minute at the first call: True, a mode of `torch.compile`
            ("reduce-overhead" records CUDA graphs), or its arguments. On a CPU little is gained.
    """

    def __init__(
        self, synth: HSISynthesizer, options: Mapping[str, Any] | None = None, *, compile: Compile = False
    ) -> None:
        self._synth, self._options = compiled(synth, compile), dict(options or {})
        self._multiple = _GRAPH_BATCH if uses_graphs(compile) else 1

    def sample(self, y: Int64[Tensor, " b"], generator: Generators) -> Float[Tensor, "b p h w"]:
        """Abundance maps of classes."""
        extra = -len(y) % self._multiple
        if extra:  # sample i depends on its own random numbers alone
            y = torch.cat([y, y[-1:].expand(extra)])
            if not isinstance(generator, torch.Generator | None):
                generator = [*generator, *per_sample(0, range(extra))]
        a = self._synth.sample_abundances(y, generator=generator, **self._options)
        return a[: len(y) - extra]


class Pool:
    """A ring of maps per class that is drawn from at every step, and slowly refreshed.

    What is drawn is a map of the class, flipped, turned, shifted and scaled (`simplex.move`), so that a few maps give many
    scenes. A class that is asked for the first time gets ``first`` maps at once. From then on the generator makes
    ``refresh`` maps per call (0.1: one in ten calls) for the classes asked for: until ``capacity`` in addition, after that
    in place of the oldest. They are drawn from the next call on; on a GPU they are made on a stream of their own while the
    network trains. Map n of a class is the same for a seed whatever else was asked for, to a rounding; each process of many has
    its own, and each worker of a DataLoader in each epoch. They are kept in half precision: eight bits turn spectra by degrees.

    Args:
        synth: endmembers and generator.
        capacity: maps per class; 64 maps of 8 endmembers at 64×64 take 4 MiB.
        first: maps of a class to begin with; all if there is no refresh.
        refresh: new maps per call; 0: never, a fixed set of synthetic scenes.
        move: flip, turn, shift and scale what is drawn.
        seed: of the maps.
        options: of the generator, as for `Live`.
        compile: as for `Live`.
        progress: show a progress bar where more than a few maps are made at once.

    Attributes:
        made: (K,) how many maps of each class were made so far.

    Raises:
        ValueError: if a number is out of range, or the generator takes no classes.

    >>> from ubf_augment import Endmembers, get_generator
    >>> E = Endmembers(torch.tensor([[0.1, 0.2, 0.4], [0.0, 0.0, 0.0]]), [490, 560, 665], ("soil", "shade"))
    >>> g = get_generator("ddpm", num_endmembers=2, size=(8, 8), num_classes=2, widths=(16, 16))
    >>> pool = Pool(HSISynthesizer(E, g, classes=["field", "forest"]), first=2, options={"steps": 2})
    >>> pool.sample(torch.tensor([1, 1, 1]), torch.Generator().manual_seed(0)).shape, pool.made.tolist()
    (torch.Size([3, 2, 8, 8]), [0, 2])
    """

    def __init__(
        self,
        synth: HSISynthesizer,
        capacity: int = 64,
        *,
        first: int = 8,
        refresh: float = 0.1,
        move: bool = True,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        compile: Compile = False,
        progress: bool = True,
    ) -> None:
        if synth.generator.num_classes is None:
            raise ValueError("a pool needs a generator that takes classes")
        if capacity < 1 or first < 1 or not 0 <= refresh < float("inf"):
            raise ValueError(
                f"capacity and first must be ≥ 1 and refresh ≥ 0, got {capacity}, {first} and {refresh}"
            )
        self._synth, self.capacity, self.refresh, self.move, self.seed = synth, capacity, refresh, move, seed
        self.first = min(first, capacity) if refresh else capacity
        self._live, self._progress = Live(synth, options, compile=compile), progress
        self._rings: dict[int, Float16[Tensor, "n p h w"]] = {}  # class → its maps, `capacity` places
        self.made = torch.zeros(synth.generator.num_classes, dtype=torch.int64)
        self._due = 0.0
        self._pending: tuple[Tensor, Tensor] | None = None
        self._stream: Any = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Own what is written to: the tensors of a spawned worker are in memory that it shares with all others."""
        self.__dict__.update(state)
        self.made, self._rings = self.made.clone(), {k: maps.clone() for k, maps in self._rings.items()}

    @torch.no_grad()
    def sample(self, y: Int64[Tensor, " b"], generator: torch.Generator) -> Float[Tensor, "b p h w"]:
        """Abundance maps of classes, on the synthesizer's device."""
        y = y.cpu()
        if not len(y):
            return torch.zeros(0, self._synth.num_endmembers, *self._synth.size, device=self._synth.device)
        self._receive()
        asked = torch.unique(y)
        missing = asked[self.made[asked] == 0].repeat_interleave(self.first)
        if len(missing):
            self._store(missing, self._make(missing, self._progress))
        held = self.made.clamp_max(self.capacity)[y]
        slots = (torch.rand(len(y), generator=generator, dtype=torch.float64) * held).long()
        motions = simplex.draw_motions(len(y), generator) if self.move else None
        a = torch.stack([self._rings[k][i] for k, i in zip(y.tolist(), slots.tolist(), strict=True)])
        a = closed(a.to(self._synth.device))
        self._due += self.refresh
        if count := int(self._due):
            self._due -= count
            self._ask(self._neediest(asked, count))
        return a if motions is None else simplex.move(a, motions)

    @torch.no_grad()
    def fill(self) -> None:
        """Make all maps of all classes now, instead of when they are asked for."""
        self._receive()
        missing = torch.arange(len(self.made)).repeat_interleave((self.capacity - self.made).clamp_min(0))
        if len(missing):
            self._store(missing, self._make(missing, self._progress))

    def state(self) -> dict[str, Any]:
        """What `resume` needs: counts, no maps."""
        pending = self._pending[0].clone() if self._pending is not None else torch.zeros(0, dtype=torch.int64)
        return {"made": self.made.clone(), "due": self._due, "pending": pending}

    @torch.no_grad()
    def resume(self, state: Mapping[str, Any]) -> None:
        """Make the maps again that were held when a state was saved.

        Raises:
            ValueError: if it is of another number of classes.
        """
        made = state["made"]
        if made.shape != self.made.shape:
            raise ValueError(f"the state is of {len(made)} classes, this pool has {len(self.made)}")
        self._rings, self._pending, self._due = {}, None, float(state["due"])
        held = made.clamp_max(self.capacity)
        self.made = made - held
        y = torch.arange(len(made)).repeat_interleave(held)
        if len(y):
            self._store(y, self._make(y, self._progress))
        if len(state["pending"]):
            self._ask(state["pending"])

    def _neediest(self, asked: Tensor, count: int) -> Int64[Tensor, " n"]:
        """The classes that the next maps are made for: each time the one with the fewest so far."""
        made, chosen = self.made.clone(), []
        for _ in range(count):
            k = int(asked[made[asked].argmin()])
            made[k] += 1
            chosen.append(k)
        return torch.tensor(chosen)

    def _make(self, y: Tensor, progress: bool = False) -> Float16[Tensor, "n p h w"]:
        """The next maps of classes; the same class again gives the one after."""
        from tqdm.auto import tqdm

        before = self.made.clone()
        numbers = torch.zeros_like(y)
        for i, k in enumerate(y.tolist()):
            numbers[i] = before[k]
            before[k] += 1
        parts = list(zip(torch.split(y, _CHUNK), torch.split(numbers, _CHUNK), strict=True))
        here = self._process()
        made = []
        for classes, n in tqdm(parts, "drawing abundances", disable=not progress or len(parts) == 1):
            pairs = zip(classes.tolist(), n.tolist(), strict=True)
            rng = [g for k, i in pairs for g in per_sample(derive_seed(self.seed, *here, k), [i])]
            made.append(self._live.sample(classes, rng).half())
        return torch.cat(made)

    def _process(self) -> list[int]:
        """Keys of this process; copies in a DataLoader's workers, and those of the next epoch, differ unless they are fixed."""
        worker = torch.utils.data.get_worker_info() if self.refresh else None
        return [process_rank() or 0, *([] if worker is None else [worker.seed])]

    def _store(self, y: Tensor, maps: Tensor) -> None:
        for k, a in zip(y.tolist(), maps, strict=True):
            if k not in self._rings:
                self._rings[k] = torch.zeros((self.capacity, *a.shape), dtype=a.dtype, device=a.device)
            self._rings[k] = self._rings[k].to(a.device)
            self._rings[k][int(self.made[k]) % self.capacity] = a
            self.made[k] += 1

    def _ask(self, y: Tensor) -> None:
        """Begin to make maps that the next call receives."""
        device = self._synth.device
        if device.type != "cuda":
            self._pending = (y, self._make(y))
            return
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            self._pending = (y, self._make(y))

    def _receive(self) -> None:
        """Store what the last call began to make."""
        if self._pending is None:
            return
        if self._stream is not None:
            current = torch.cuda.current_stream(self._synth.device)
            current.wait_stream(self._stream)
            self._pending[1].record_stream(current)
        (y, maps), self._pending = self._pending, None
        self._store(y, maps)


def closed(kept: Float16[Tensor, "n p h w"]) -> Float[Tensor, "n p h w"]:
    """Abundances that were kept in half precision, as float32 that sum to one again.

    `simplex.closure` without its look at the values, for which a GPU would have to be waited for at every step.

    >>> a = torch.tensor([0.9, 0.07, 0.03]).view(1, 3, 1, 1)
    >>> bool(((closed(a.half()) / a - 1).abs() < 1e-3).all())
    True
    """
    a = kept.float()
    return a / a.sum(1, keepdim=True)


def open_source(
    source: Literal["pool", "live"] | AbundanceSource,
    synth: HSISynthesizer,
    seed: int,
    options: Mapping[str, Any] | None,
) -> AbundanceSource:
    """The source of a name, or the source itself; one for a generator without classes is `Live`.

    Raises:
        ValueError: for an unknown name, or options of the generator beside a source that has its own.
        TypeError: if it is no source.
    """
    if not isinstance(source, str):
        if not isinstance(source, AbundanceSource):
            raise TypeError(
                f"source must be 'pool', 'live' or have sample(y, generator), got {type(source).__name__}"
            )
        if options:
            raise ValueError("sample_options belong to source='pool' or 'live': give them to your own source")
        return source
    if source not in ("pool", "live"):
        raise ValueError(f"source must be 'pool', 'live' or a source of abundance maps, got {source!r}")
    if source == "live" or synth.generator.num_classes is None:
        return Live(synth, options)
    return Pool(synth, seed=seed, options=options)
