"""torch.compile: around an augmentation, and of the networks that a source draws from."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from test_sources import rng
from tiny import CLASSES, TinyGenerator, real_batch, tiny_synth
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from ubf_augment import UBFAugment, get_generator, list_generators
from ubf_augment.seeding import per_sample
from ubf_augment.sources import Live, Pool
from ubf_augment.sources.compiling import compiled


class _Smoother(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(x))


class Networked(TinyGenerator):
    """Its draws go through a network."""

    networks = ("smoother.forward",)

    def __init__(self, size: tuple[int, int] = (8, 8), num_classes: int | None = 3) -> None:
        super().__init__(size, num_classes)
        torch.manual_seed(0)
        self.smoother = _Smoother()
        self.batches: list[int] = []

    def _sample(self, y: Tensor | None, n: int, generator: list[torch.Generator], **options: Any) -> Tensor:
        self.batches.append(n)
        a = super()._sample(y, n, generator, **options)
        return torch.softmax(a.log() + self.smoother(a), 1)


def networked() -> Any:
    from ubf_augment.synthesis import HSISynthesizer

    plain = tiny_synth()
    return HSISynthesizer(plain.endmembers, Networked(), residual=plain.residual, classes=CLASSES)


def test_a_compiled_step_is_the_step_and_compiles_once() -> None:
    torch._dynamo.reset()
    x, y = real_batch(12)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 3))

    def step(augment: UBFAugment, x: Tensor, y: Tensor) -> Tensor:
        image, label = augment(2 * x / 2, y)
        return nn.functional.cross_entropy(head(image), label)

    def build() -> UBFAugment:
        return UBFAugment(tiny_synth(), 0.5, classes=CLASSES, seed=3)

    plain, graphs = build(), CompileCounter()
    expected = [step(plain, x, y) for _ in range(5)]
    fast, augment, frames = torch.compile(step, backend=graphs), build(), []
    for i in range(5):  # a different number of images is replaced each time
        assert torch.equal(fast(augment, x, y), expected[i])
        frames.append(graphs.frame_count)
    assert frames == [2] * 5  # one graph before the augmentation, one after it


def test_compiled_networks_draw_the_same_scenes() -> None:
    torch._dynamo.reset()
    synth = networked()
    live, plain = Live(synth, compile={"backend": "eager"}), Live(synth)
    for y in (torch.tensor([0, 1, 2]), torch.tensor([1, 1]), torch.tensor([2])):
        torch.testing.assert_close(live.sample(y, rng(4)), plain.sample(y, rng(4)))


def test_the_synthesizer_itself_stays_uncompiled_and_shares_its_weights() -> None:
    torch._dynamo.reset()
    synth, counter = networked(), CompileCounter()
    live = Live(synth, compile={"backend": counter})
    y = torch.tensor([0, 1])
    before = live.sample(y, rng())
    assert counter.frame_count == 1
    synth.sample_abundances(y, generator=rng())
    assert counter.frame_count == 1
    assert "forward" not in synth.generator.smoother.__dict__
    with torch.no_grad():
        synth.generator.smoother.conv.weight.mul_(3)
    after = live.sample(y, rng())
    assert not torch.allclose(after, before, atol=1e-3)
    torch.testing.assert_close(after, Live(synth).sample(y, rng()))
    copy.deepcopy(synth)


def test_batches_are_filled_up_where_graphs_are_recorded() -> None:
    synth = networked()
    live = Live(synth)
    live._multiple = 8
    for n in (1, 5, 8, 11):
        y = torch.arange(n) % 3
        torch.testing.assert_close(live.sample(y, rng(n)), Live(synth).sample(y, rng(n)))
        each = live.sample(y, per_sample(n, range(n)))
        torch.testing.assert_close(each, Live(synth).sample(y, per_sample(n, range(n))))
    assert synth.generator.batches[0::4] == [8, 8, 8, 16]
    assert Live(synth, compile="reduce-overhead")._multiple == 8


def test_generators_without_networks_stay_as_they_are() -> None:
    synth = tiny_synth()
    assert compiled(synth, True) is synth
    plain = networked()
    assert compiled(plain, False) is plain


def test_a_pool_may_compile() -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    y = torch.tensor([0, 1])
    options: dict[str, Any] = {"capacity": 2, "first": 2, "progress": False}
    pooled = Pool(networked(), compile={"backend": counter}, **options)
    assert torch.equal(pooled.sample(y, rng()), Pool(networked(), **options).sample(y, rng()))
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", list_generators())
def test_every_generator_names_networks_that_exist(name: str) -> None:
    generator = get_generator(name, num_endmembers=3, size=(16, 16), num_classes=2)
    for path in generator.networks:
        child, method = path.split(".")
        assert callable(getattr(getattr(generator, child), method))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddpm", "stylegan3", "vdvae"])
def test_networks_are_whole_graphs(name: str) -> None:
    torch._dynamo.reset()
    from jaxtyping import config as checks

    from ubf_augment.spectra import Endmembers
    from ubf_augment.synthesis import HSISynthesizer

    config: dict[str, Any] = {
        "ddpm": {"widths": (8, 8), "codec_widths": (8, 8), "steps": 2},
        "stylegan3": {"layers": 3, "channels": 8, "w_dim": 16},
        "vdvae": {"widths": (8,), "latent_channels": 2},
    }[name]
    generator = get_generator(name, num_endmembers=2, size=(8, 8), num_classes=2, **config)
    E = Endmembers(torch.tensor([[0.1, 0.2, 0.4], [0.0, 0.0, 0.0]]), torch.tensor([490.0, 560.0, 665.0]))
    synth = HSISynthesizer(E, generator, classes=("a", "b"))
    y = torch.tensor([0, 1, 1])
    fast = Live(synth, compile={"backend": "eager", "fullgraph": True})
    checks.update("jaxtyping_disable", True)  # the checks of shapes that tests add would break the graph
    try:
        torch.testing.assert_close(fast.sample(y, rng()), Live(synth).sample(y, rng()))
    finally:
        checks.update("jaxtyping_disable", False)


# ---- on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("how", [False, True, "reduce-overhead"])
def test_scenes_are_those_of_the_cpu(how: bool | str) -> None:
    there = networked().to("cuda")
    here = networked()
    for y in (torch.arange(9) % 3, torch.tensor([1, 2]), torch.arange(9) % 3):
        expected = Live(here).sample(y, rng(1))
        found = [Live(there, compile=how).sample(y, rng(1)) for _ in range(2)]
        assert all(x.device.type == "cuda" for x in found)
        for x in found:  # the first is not overwritten by the second
            torch.testing.assert_close(x.cpu(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
def test_a_pool_on_a_side_stream_holds_the_maps_of_the_cpu() -> None:
    options: dict[str, Any] = {
        "capacity": 4,
        "first": 2,
        "refresh": 1,
        "seed": 3,
        "progress": False,
        "move": False,
    }
    here, there = Pool(networked(), **options), Pool(networked().to("cuda"), **options)
    for i in range(8):
        y = torch.tensor([0, 1, 1, i % 3])
        a, b = here.sample(y, rng(i)), there.sample(y, rng(i))
        assert float((a - b.cpu()).abs().max()) <= 1e-3  # what half precision may round the other way
    assert here.made.tolist() == there.made.tolist()


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", ["generate", "bank"])
def test_a_batch_on_the_gpu_is_that_of_the_cpu(strategy: Any) -> None:
    x, y = real_batch(12, size=64)
    pictures = torch.randint(40, 200, (9, 3, 8, 8), dtype=torch.uint8)
    found = []
    for device in ("cpu", "cuda"):
        augment = UBFAugment(
            networked(), 0.5, strategy=strategy, bank={c: pictures for c in CLASSES}, classes=CLASSES, seed=1
        )
        out, _ = augment(x.to(device), y.to(device))
        assert out.device.type == device
        found.append(out.cpu())
    torch.testing.assert_close(found[0], found[1], rtol=1e-2, atol=3e-3)
