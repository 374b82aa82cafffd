"""Progressive distillation: its target, what a student learns, and what a distilled generator refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_finetuning import OPTIONS, SMALL, generator, maps
from tiny import E
from torch import Tensor

from ubf_augment import get_generator
from ubf_augment.cli import main
from ubf_augment.errors import ShapeError
from ubf_augment.generators import AbundanceGenerator, load_generator
from ubf_augment.generators._distil import two_steps
from ubf_augment.seeding import per_sample
from ubf_augment.synthesis import HSISynthesizer
from ubf_augment.training import make_fabric

CPU: dict[str, Any] = {"progress": False, "scenes": 32, "batch_size": 16}


@pytest.fixture(scope="module")
def teacher() -> AbundanceGenerator:
    """Maps without texture: class 0 is mostly the first endmember, class 1 the second, each scene to another degree."""
    model, y = generator(), torch.arange(64) % 2
    model.fit(
        maps(y)[:, :, :1, :1].expand(-1, -1, 8, 8).contiguous(),
        labels=y,
        steps=120,
        batch_size=16,
        fabric=make_fabric(accelerator="cpu"),
        **OPTIONS,
    )
    return model.eval()


def draw(model: AbundanceGenerator, **options: Any) -> Tensor:
    return model.sample(torch.arange(16) % 2, generator=per_sample(3, range(16)), **options)


@pytest.mark.parametrize("name", ["ddpm", "flow"])
def test_one_step_through_the_target_ends_where_two_of_the_teacher_do(name: str) -> None:
    model: Any = generator(name).eval()
    grid = torch.as_tensor(list(model._times(4)))
    z, y = torch.randn(4, model.codec.channels, 4, 4), torch.tensor([0, 1, 0, 1])
    i = torch.tensor([0, 0, 2, 2])
    with torch.no_grad():
        found = two_steps(model, z, y, grid, i, 1.0)
        t, m = grid[i], grid[i + 1]
        between = model.advance(z, model.predict_clean(z, t, y, 1.0, True), t, m)
        clean = model.predict_clean(between, m, y, 1.0, True)
    torch.testing.assert_close(found[2:], clean[2:])  # the last step gives the estimate itself
    s = grid[2].expand(2)
    one = model.advance(z[:2], found[:2], t[:2], s)
    torch.testing.assert_close(one, model.advance(between[:2], clean[:2], m[:2], s), rtol=1e-4, atol=1e-4)


def test_advancing_with_the_true_scene_keeps_scene_and_noise() -> None:
    for name in ("ddpm", "flow"):
        model: Any = generator(name)
        grid = torch.as_tensor(list(model._times(4)))
        z0, noise, (t, s) = torch.randn(2, 12, 4, 4), torch.randn(2, 12, 4, 4), (grid[:2], grid[2:])
        (alpha, sigma), (alpha_s, sigma_s) = model.alpha_sigma(t), model.alpha_sigma(s)
        moved = model.advance(alpha * z0 + sigma * noise, z0, t, s)
        torch.testing.assert_close(moved, alpha_s * z0 + sigma_s * noise, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("evaluations", [1, 2])
def test_a_student_comes_nearer_to_its_teacher_than_fewer_steps_do(
    teacher: AbundanceGenerator, evaluations: int
) -> None:
    model: Any = teacher
    fast = model.distill(evaluations, begin=4, guidance=1.0, steps=200, lr=2e-3, **CPU)
    wanted = draw(teacher, sampler="ddim", steps=4, guidance=1.0)
    got, fewer = draw(fast), draw(teacher, sampler="ddim", steps=evaluations, guidance=1.0)
    assert float((got - wanted).square().mean()) < 0.7 * float((fewer - wanted).square().mean())
    assert got.mean((2, 3)).argmax(1).tolist() == [0, 1] * 8


def test_a_distilled_generator_knows_what_it_can_do(teacher: AbundanceGenerator, tmp_path: Path) -> None:
    model: Any = teacher
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    fast = model.distill(2, begin=4, steps=2, **CPU)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert fast.steps == 2
    assert set(fast.times) < set(model._times(4))
    a = draw(fast)
    torch.testing.assert_close(draw(fast, steps=2, guidance=1.0), a)
    fast.save(tmp_path / "fast")
    again = load_generator(tmp_path / "fast")
    assert torch.equal(draw(again), a)
    assert not again.can_edit
    for wrong in ({"steps": 3}, {"guidance": 2.0}, {"sampler": "ddpm"}):
        with pytest.raises(ValueError, match="distilled"):
            draw(fast, **wrong)
    with pytest.raises(TypeError, match="cannot edit"):
        fast.edit(a, [0, 1] * 8)
    with pytest.raises(TypeError, match="does not go on learning"):
        fast.fit(maps(torch.tensor([0, 1])), labels=torch.tensor([0, 1]), steps=1, progress=False)
    with pytest.raises(ValueError, match="distilled already"):
        fast.distill(1)


def test_evaluations_are_counted(teacher: AbundanceGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = teacher
    fast, calls = model.distill(2, begin=2, steps=1, **CPU), []
    inner = fast.denoiser.forward
    monkeypatch.setattr(fast.denoiser, "forward", lambda *a: calls.append(1) or inner(*a))
    draw(fast)
    assert len(calls) == 2


def test_an_interrupted_run_ends_as_an_uninterrupted_one(teacher: AbundanceGenerator, tmp_path: Path) -> None:
    model: Any = teacher
    options: dict[str, Any] = {**CPU, "begin": 4, "steps": 3}
    whole = model.distill(1, **options)
    model.distill(1, **options, checkpoint=tmp_path / "run.pt")
    (tmp_path / "run.1.pt").unlink()  # the last stage is lost, the one before is not
    again = model.distill(1, **options, checkpoint=tmp_path / "run.pt")
    assert torch.equal(draw(whole), draw(again))
    with pytest.raises(ValueError, match="belongs to another run"):
        model.distill(1, **options, guidance=1.0, checkpoint=tmp_path / "run.pt")


def test_a_synthesizer_is_distilled_with_its_sensor(teacher: AbundanceGenerator, tmp_path: Path) -> None:
    synth = HSISynthesizer(E, teacher, classes=["soil", "tree"])
    fast = synth.distill(1, begin=2, steps=2, **CPU)
    assert torch.equal(fast.spectra(), synth.spectra())
    assert fast.card["distillation"]["evaluations"] == 1
    fast.save_pretrained(tmp_path / "fast")
    again = HSISynthesizer.from_pretrained(tmp_path / "fast")
    torch.testing.assert_close(again.sample(["tree"], seed=1), fast.sample(["tree"], seed=1))
    gmm = get_generator("gmm", num_endmembers=3, size=(8, 8), num_classes=2)
    with pytest.raises(TypeError, match=r"GMM .* ddpm"):
        HSISynthesizer(E, gmm, classes=["soil", "tree"]).distill()


def test_bad_settings_are_refused(teacher: AbundanceGenerator) -> None:
    model: Any = teacher
    with pytest.raises(ValueError, match="at least 1"):
        model.distill(0)
    with pytest.raises(ValueError, match="at least 1"):
        model.distill(scenes=0)
    with pytest.raises(ShapeError):
        model.distill(1, maps=torch.rand(2, 3, 4, 4), labels=torch.tensor([0, 1]), progress=False)
    for times in ([5, 9], [], [9, 5, 0]):
        with pytest.raises(ValueError, match="falling times"):
            get_generator(
                "ddpm",
                num_endmembers=3,
                size=(8, 8),
                **SMALL,
                steps=len(times) or 1,
                guidance=1.0,
                times=times,
            )


def test_the_command_writes_a_bundle_and_goes_on_from_its_work(
    teacher: AbundanceGenerator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    HSISynthesizer(E, teacher, classes=["soil", "tree"]).save_pretrained(tmp_path / "whole")
    command = ["distill", str(tmp_path / "whole"), "--evaluations=1", "--scenes=4", "--steps=2", "--batch_size=2",
               "--accelerator=cpu", "--workdir", str(tmp_path / "work")]  # fmt: skip
    assert main([*command, "--out", str(tmp_path / "fast"), "--sheet=false"]) == 0
    assert "1 evaluation per sample" in capsys.readouterr().err
    stages = {path.name: path.read_bytes() for path in (tmp_path / "work").glob("*.pt")}
    assert set(stages) == {f"distillation.{n}.pt" for n in (4, 2, 1)}
    assert main([*command, "--out", str(tmp_path / "again")]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "work").glob("*.pt")} == stages
    one, two = (HSISynthesizer.from_pretrained(tmp_path / name) for name in ("fast", "again"))
    assert torch.equal(one.sample(["soil"], seed=0), two.sample(["soil"], seed=0))
    assert (tmp_path / "again" / "samples.png").stat().st_size > 1000
    assert main([*command, "--out", str(tmp_path / "third"), "--evaluations=0"]) == 2
    assert "at least 1" in capsys.readouterr().err
