"""The resumable loop: an interrupted run must end where an uninterrupted one does."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ubf_augment.training import (
    EMA,
    DataOrder,
    History,
    digest,
    fit_loop,
    make_fabric,
    save_atomic,
    warmup_constant,
    warmup_cosine,
)

X = torch.randn(23, 4, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([1.0, -2.0, 0.5, 3.0])
STEPS = 30


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 1))


def loss_fn(model: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
    noise = 0.1 * torch.randn(len(indices), 4, generator=generator)
    return (model(X[indices] + noise)[:, 0] - Y[indices]).square().mean()


def run(checkpoint: Path | None, steps: int = STEPS, loss=loss_fn, **options):  # type: ignore[no-untyped-def]
    model = network()
    ema = EMA(model, 0.9)
    settings: dict[str, Any] = {
        "num_items": len(X),
        "batch_size": 5,
        "seed": 4,
        "save_every_s": 0.0,
        "progress": False,
    }
    settings["schedule"] = warmup_cosine(STEPS, 5)
    history = fit_loop(
        model, torch.optim.AdamW(model.parameters(), lr=1e-2), loss, steps=steps, ema=ema,
        checkpoint=checkpoint, fabric=make_fabric(accelerator="cpu"), **(settings | options),
    )  # fmt: skip
    return model, ema, history


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class CrashError(Exception):
    pass


def crash_after(calls: int):  # type: ignore[no-untyped-def]
    left = calls

    def crashing(model: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        nonlocal left
        if not left:
            raise CrashError
        left -= 1
        return loss_fn(model, indices, generator)

    return crashing


@pytest.mark.parametrize("calls", [1, 7, 29])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, calls: int) -> None:
    whole, whole_ema, whole_history = run(None)
    with pytest.raises(CrashError):
        run(tmp_path / "run.pt", loss=crash_after(calls))
    torch.rand(100)  # whatever happened to the global random state meanwhile
    model, ema, history = run(tmp_path / "run.pt")
    assert torch.equal(weights(model), weights(whole))
    assert all(torch.equal(ema.average[k], v) for k, v in whole_ema.average.items())
    assert history.steps == whole_history.steps == list(range(1, STEPS + 1))
    assert history.loss == whole_history.loss


def test_a_crash_between_saves_costs_only_the_steps_since_the_last(tmp_path: Path) -> None:
    whole, _, _ = run(None)
    with pytest.raises(CrashError):
        run(tmp_path / "run.pt", loss=crash_after(4))
    saved = (tmp_path / "run.pt").read_bytes()
    with pytest.raises(CrashError):  # these steps are lost: nothing is saved within an hour
        run(tmp_path / "run.pt", loss=crash_after(10), save_every_s=3600.0)
    assert (tmp_path / "run.pt").read_bytes() == saved
    model, _, _ = run(tmp_path / "run.pt")
    assert torch.equal(weights(model), weights(whole))


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first, _, _ = run(tmp_path / "run.pt")
    again, _, history = run(tmp_path / "run.pt", loss=crash_after(0))
    assert torch.equal(weights(first), weights(again))
    assert history.steps[-1] == STEPS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_is_raised_again(tmp_path: Path, number: signal.Signals) -> None:
    whole, _, _ = run(None)
    received: list[int] = []
    old = signal.signal(number, lambda n, _: received.append(n))

    def signalled(model: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        if step.pop() == 0:
            os.kill(os.getpid(), number)
        return loss_fn(model, indices, generator)

    step = [1] * 20 + [0] + [1] * 11  # taken from the end: the twelfth call sends the signal
    try:
        _, _, history = run(tmp_path / "run.pt", loss=signalled, save_every_s=3600.0)
    finally:
        signal.signal(number, old)
    assert received == [number]
    assert signal.getsignal(number) == old
    assert history.steps[-1] == 12
    assert torch.load(tmp_path / "run.pt", weights_only=True)["step"] == 12
    model, _, _ = run(tmp_path / "run.pt")
    assert torch.equal(weights(model), weights(whole))


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def signalled(model: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return loss_fn(model, indices, generator)

    try:
        _, _, history = run(None, loss=signalled)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, old)
    assert history.steps[-1] == STEPS


def test_a_terminated_process_dies_of_the_signal_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys, torch
sys.path[:0] = [{str(Path(__file__).parent)!r}]
import test_training as t
def loss(model, indices, generator):
    os.kill(os.getpid(), signal.SIGTERM)
    return t.loss_fn(model, indices, generator)
t.run(t.Path({str(tmp_path / "run.pt")!r}), loss=loss, save_every_s=3600.0)
"""
    environment = {**os.environ, "UBF_TYPECHECK": "0", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGTERM, done.stderr.decode()
    assert torch.load(tmp_path / "run.pt", weights_only=True)["step"] == 1


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run.pt", steps=2)
    with pytest.raises(ValueError, match=r"seed.*4.*5.*delete"):
        run(tmp_path / "run.pt", seed=5)
    with pytest.raises(ValueError, match="batch_size"):
        run(tmp_path / "run.pt", batch_size=6)


def test_a_checkpoint_of_another_model_or_other_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    data = torch.rand(8, 3)
    run(path, steps=2, identity={"config": {"size": (8, 8)}, "data": digest(data)})
    run(path, steps=3, identity={"config": {"size": [8, 8]}, "data": digest(data.clone())})  # prolonged
    with pytest.raises(ValueError, match=r"config.*8.*16"):
        run(path, steps=4, identity={"config": {"size": (16, 16)}, "data": digest(data)})
    with pytest.raises(ValueError, match="'data'"):
        run(path, steps=4, identity={"config": {"size": (8, 8)}, "data": digest(data + 1)})


def test_global_random_numbers_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    network_state = torch.random.get_rng_state()
    model = nn.Linear(4, 1)
    torch.random.set_rng_state(network_state)
    fit_loop(
        model, torch.optim.SGD(model.parameters(), lr=1e-3), loss_fn, num_items=23, steps=2, batch_size=5,
        fabric=make_fabric(accelerator="cpu"), progress=False,
    )  # fmt: skip
    assert torch.equal(torch.rand(2), expected)


def test_training_reduces_the_loss_and_leaves_eval_mode() -> None:
    model, _, history = run(None, steps=300, batch_size=23, schedule=None)
    assert history.loss[-1] < 0.5 * history.loss[0]
    assert not model.training
    assert history.seconds > 0


def test_bf16_precision_runs_on_the_cpu() -> None:
    model = network()
    seen = []

    def loss(model: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        out = model(X[indices])
        assert out.dtype == torch.float32  # Fabric gives results back in float32
        return out.square().mean()

    fabric = make_fabric(accelerator="cpu", precision="bf16-mixed")
    fit_loop(
        model, torch.optim.SGD(model.parameters(), lr=1e-3), loss, num_items=23, steps=2, fabric=fabric,
        progress=False,
    )  # fmt: skip
    assert len(seen) == 2
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_gradients_that_are_not_finite_stop_the_run() -> None:
    with pytest.raises(RuntimeError, match="non-finite"):
        run(None, loss=lambda model, i, g: model(X[i]).sum() * math.nan)


def test_every_epoch_holds_every_item_once() -> None:
    order = DataOrder(num_items=10, batch_size=4, seed=1)
    stream = torch.cat([order(i) for i in range(10)])
    epochs = stream.view(4, 10)
    assert torch.equal(epochs.sort(1).values, torch.arange(10).expand(4, 10))
    assert len(epochs.unique(dim=0)) == 4
    assert torch.equal(order(7), DataOrder(10, 4, 1)(7))  # a function of the step alone
    big = DataOrder(num_items=3, batch_size=7, seed=0)(0)
    assert big[:6].view(2, 3).sort(1).values.tolist() == [[0, 1, 2]] * 2
    with pytest.raises(ValueError, match="need items"):
        DataOrder(0, 4, 1)


def test_the_average_follows_its_formula() -> None:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    ema = EMA(layer, decay=0.25)
    layer.weight.data.fill_(2.0)
    ema.update(layer)  # decay (1 + 1) / (10 + 1)
    assert float(ema.average["weight"]) == pytest.approx(2 / 11 * 1 + 9 / 11 * 2)
    ema.update(layer)
    ema.update(layer)
    ema.update(layer)  # now the decay is 0.25
    for _ in range(20):
        ema.update(layer)
    ema.copy_to(layer)
    assert layer.weight.item() == pytest.approx(2.0, abs=1e-5)
    with pytest.raises(ValueError, match="decay"):
        EMA(layer, 1.0)


def test_learning_rates() -> None:
    factor = warmup_cosine(110, warmup=10, final=0.1)
    assert factor(4) == pytest.approx(0.5)
    assert factor(60) == pytest.approx(0.1 + 0.9 * 0.5)
    assert factor(110) == factor(1000) == pytest.approx(0.1)
    assert warmup_constant(0)(0) == 1.0
    model, _, _ = run(None, steps=1)  # the loop applies the factor: step one moves little
    assert float((weights(model) - weights(network())).abs().max()) <= 1e-2 / 5 * 1.05


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_atomic({"a": 1}, path)
    with pytest.raises(Exception, match="local object"):  # which cannot be pickled
        save_atomic({"a": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_history_is_plain_data() -> None:
    history = History([1], [0.5], 1.0, {"codec": {}})
    assert History(**history.to_dict()) == history


def test_progress_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    run(None, steps=3, progress=True, description="toy")
    captured = capsys.readouterr()
    assert "toy: step 3/3, loss" in captured.err
    assert not captured.out


def test_progress_is_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run(None, steps=3, progress=True, description="toy")
    last = capsys.readouterr().err.split("\r")[-1]
    assert last.startswith("toy: 100%|")
    assert "3/3" in last
    assert "loss" in last


def test_progress_is_a_bar_in_a_notebook(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """tqdm.auto makes it a widget there; here, where it was imported before, it is a bar of text."""
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", object())
    run(None, steps=3, progress=True, description="toy")
    assert "toy: 100%|" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    script = f"""
import sys, torch
sys.path[:0] = [{str(Path(__file__).parent)!r}]
import test_training as t
model = torch.nn.Linear(4, 1)
for p in model.parameters():
    torch.nn.init.ones_(p)
def loss(model, indices, generator):
    return (model(t.X[indices])[:, 0] - t.Y[indices]).square().mean()
fabric = t.make_fabric(accelerator="cpu", devices=int(sys.argv[1]))
t.fit_loop(model, torch.optim.SGD(model.parameters(), lr=0.01), loss, num_items=23, steps=9, batch_size=4,
           fabric=fabric, checkpoint=sys.argv[2], grad_clip=None, progress=False)
"""
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "UBF_TYPECHECK": "0", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    found = []
    for devices in ("1", "2"):
        path = tmp_path / f"{devices}.pt"
        command = [sys.executable, str(tmp_path / "script.py"), devices, str(path)]
        subprocess.run(command, env=environment, check=True, timeout=300)
        found.append(torch.load(path, weights_only=True)["model"]["weight"])
    torch.testing.assert_close(found[0], found[1])
