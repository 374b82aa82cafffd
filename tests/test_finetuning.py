"""Carrying a generator over to other classes, and fine-tuning it on the user's own images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import NM, E
from torch import Tensor

from ubf_augment import get_generator, simplex
from ubf_augment.errors import LabelError, NoDataError, UnknownClassError
from ubf_augment.generators import AbundanceGenerator
from ubf_augment.mixing import mix
from ubf_augment.synthesis import HSISynthesizer

SMALL: dict[str, Any] = {"codec": "unshuffle", "factor": 2, "widths": (16, 32), "layers": 1, "attention": ()}
OPTIONS: dict[str, Any] = {"warmup": 10, "ema_decay": 0.97, "lr": 2e-3, "progress": False}


def generator(name: str = "ddpm", classes: int | None = 2) -> AbundanceGenerator:
    return get_generator(name, num_endmembers=3, size=(8, 8), num_classes=classes, **SMALL)


def maps(y: Tensor, seed: int = 0) -> Tensor:
    """Class k is mostly endmember k."""
    g = torch.Generator().manual_seed(seed)
    logits = 3.0 * torch.nn.functional.one_hot(y, 3)[:, :, None, None]
    return simplex.from_logits(logits + torch.randn(len(y), 3, 8, 8, generator=g))


def trained() -> HSISynthesizer:
    """Knows soil and tree."""
    model, y = generator(), torch.arange(32) % 2
    model.fit(maps(y), labels=y, steps=120, batch_size=16, **OPTIONS)
    return HSISynthesizer(E, model, classes=["soil", "tree"])


@pytest.mark.parametrize("name", ["ddpm", "flow"])
def test_a_class_begins_as_the_one_given_for_it(name: str) -> None:
    model = generator(name)
    other = model.for_classes([1, None, 0])
    assert other.num_classes == 3

    def draw(of: AbundanceGenerator, k: int) -> Tensor:
        rngs = [torch.Generator().manual_seed(i) for i in range(4)]
        return of.sample(torch.full((4,), k), generator=rngs, steps=3)

    torch.testing.assert_close(draw(other, 0), draw(model, 1))
    torch.testing.assert_close(draw(other, 2), draw(model, 0))
    assert not torch.allclose(draw(other, 1), draw(other, 0))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())  # nothing is shared


def test_what_cannot_be_carried_over_says_so() -> None:
    with pytest.raises(TypeError, match="ddpm"):
        get_generator("gmm", num_endmembers=3, size=(8, 8), num_classes=2).for_classes([0])
    with pytest.raises(TypeError, match="without classes"):
        generator(classes=None).for_classes([0])
    with pytest.raises(LabelError, match=r"2 is outside 0\.\.1"):
        generator().for_classes([2])


def test_finetuning_learns_the_users_classes_and_leaves_the_original_alone() -> None:
    synth = trained()
    before = {k: v.clone() for k, v in synth.state_dict().items()}
    y = torch.arange(36) % 3
    truth = torch.tensor([1, 0, 2])  # the user's classes: wood, field, lake (shade, which was never seen)
    x = mix(maps(truth[y], 5), E)
    tuned = synth.finetune(
        x, y, classes=("wood", "field", "lake"), class_map={"wood": "tree", "field": "soil"}, steps=150, batch_size=16,
        **OPTIONS,
    )  # fmt: skip
    assert tuned.classes == ("wood", "field", "lake")
    shares = tuned.sample_abundances(torch.arange(3).repeat_interleave(16), seed=0, steps=5).mean((2, 3))
    assert shares.view(3, 16, 3).mean(1).argmax(1).tolist() == truth.tolist()
    assert tuned.card["finetuning"]["began as"] == {"wood": "tree", "field": "soil", "lake": None}
    assert all(torch.equal(v, before[k]) for k, v in synth.state_dict().items())
    assert synth.classes == ("soil", "tree")
    torch.testing.assert_close(tuned.unmix(x[:2]), synth.unmix(x[:2]))


def test_bad_input_is_refused() -> None:
    synth = HSISynthesizer(E, generator(), classes=["soil", "tree"])
    x, y = torch.full((2, len(NM), 8, 8), 0.2), torch.tensor([0, 1])
    with pytest.raises(LabelError, match="for each of 2 images"):
        synth.finetune(x, y[:1], classes=["a", "b"])
    with pytest.raises(LabelError, match=r"0\.\.0"):
        synth.finetune(x, y, classes=["a"])
    with pytest.raises(NoDataError):
        synth.finetune(x[:0], y[:0], classes=["a", "b"])
    with pytest.raises(UnknownClassError):
        synth.finetune(x, y, classes=["a", "b"], class_map={"a": "sea"})
