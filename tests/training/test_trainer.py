"""Training in one process: the optimiser, the clipping, checkpoints from which a training goes on exactly."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from mtbench import BadInput  # noqa: E402
from mtbench.training.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from mtbench.training.optimizer import FlatRAdam, clip_each, make_optimizer  # noqa: E402
from mtbench.training.settings import Job, Kernels, Optimization  # noqa: E402
from mtbench.training.trainer import Trainer  # noqa: E402

pytestmark = pytest.mark.torch

LEARNT = ("epoch", "lr", "loss", "metric", "evaluation")


def learnt(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without times and memory."""
    return [{key: row[key] for key in LEARNT} for row in rows]


@pytest.mark.parametrize("variant", ["softmax", "momentum+adaptive", "momentum-released+adaptive-released"])
def test_one_that_was_cut_off_goes_on_exactly(job: Any, variant: str, tmp_path: Path) -> None:
    """With dropout: the random numbers go on too."""
    made = job(variant)
    whole = learnt(list(Trainer(made, tmp_path / "whole.pt", every_s=1e9).run()))
    assert [row["lr"] for row in whole] == [1e-3, 1e-3, 1e-3, 1e-4]
    assert [row["evaluation"] is not None for row in whole] == [False, True, False, True]
    parts: list[dict[str, Any]] = []
    for _ in range(4):
        trainer = Trainer(made, tmp_path / "parts.pt", every_s=1e9)
        torch.manual_seed(99 + trainer.epoch)  # whatever this process did meanwhile
        assert trainer.epoch == len(parts)
        load_checkpoint(
            tmp_path / "parts.pt",
            job=made.id,
            model=trainer._stepper.model,
            optimizer=trainer._stepper.optimizer,
        )
        if trainer.epoch == 0:
            trainer = Trainer(made, tmp_path / "parts.pt", every_s=1e9)
        parts.append(next(trainer.run()))
        trainer.save()
    assert learnt(parts) == whole
    assert not list(Trainer(made, tmp_path / "parts.pt", every_s=1e9).run())


def test_a_seed_gives_every_variant_the_same_beginning_and_the_same_data(job: Any, tmp_path: Path) -> None:
    states, data = [], []
    for variant in ("softmax", "linear", "momentum+adaptive"):
        trainer = Trainer(job(variant), tmp_path / f"{variant}.pt", every_s=1e9)
        states.append(trainer._stepper.model.state_dict())
        data.append(trainer._batches(2)["tokens"])
    for state, tokens in zip(states[1:], data[1:], strict=True):
        assert all(torch.equal(state[name], states[0][name]) for name in states[0])
        assert (tokens == data[0]).all()
    other = Trainer(job("softmax", seed=1), tmp_path / "other.pt", every_s=1e9)
    assert not torch.equal(other._stepper.model.state_dict()["head.weight"], states[0]["head.weight"])


def test_it_learns(job: Any, tmp_path: Path) -> None:
    made = job("softmax", optimization=Optimization(lr=1e-2))
    made = replace(made, schedule=replace(made.schedule, iterations=40, batch=16))
    rows = list(Trainer(made, tmp_path / "x.pt", every_s=1e9).run())
    assert rows[-1]["evaluation"]["loss"] < 0.8 * rows[0]["loss"][0]
    assert rows[-1]["evaluation"]["metric"] > 0.3  # by chance .1, and .25 with the separator, which is easy
    assert all(s > 0 for row in rows for s in row["seconds"])


def test_a_loss_that_is_no_number_ends_it(job: Any, tmp_path: Path) -> None:
    made = job("momentum", optimization=Optimization(lr=1e30, clip=None))
    rows = list(Trainer(made, tmp_path / "x.pt", every_s=0).run())
    assert len(rows) < made.schedule.epochs
    assert not math.isfinite(rows[-1]["loss"][-1])
    assert not (tmp_path / "x.pt").exists() or len(rows) > 1


def lasting(made: Job, epochs: int, **changes: int) -> Job:
    """One step an epoch, after which its losses have not seen what the last step left."""
    return replace(made, schedule=replace(made.schedule, epochs=epochs, iterations=1, **changes))


def test_the_last_step_is_judged_by_held_out_data(job: Any, tmp_path: Path) -> None:
    made = lasting(job("linear", optimization=Optimization(lr=1e30)), 1)
    trainer = Trainer(made, tmp_path / "x.pt", every_s=0)
    (row,) = trainer.run()
    assert all(map(math.isfinite, row["loss"]))
    assert trainer.diverged == "the held-out loss is nan after epoch 1"
    trainer.save()
    assert not (tmp_path / "x.pt").exists()


def test_no_checkpoint_is_of_a_training_that_diverged(job: Any, tmp_path: Path) -> None:
    """Of an epoch whose held-out data is not asked for, too; and going on comes to the same end."""
    broken = Optimization(lr=1e-3, drop_epoch=3, drop=1e-33)  # 1e30 in the fourth epoch
    made = lasting(job("linear", optimization=broken), 6, evaluations=1)
    file = tmp_path / "x.pt"
    whole = Trainer(made, file, every_s=0)
    assert [row["evaluation"] for row in whole.run()] == [None] * 4
    assert whole.diverged == "the held-out loss is nan after epoch 4"
    assert torch.load(file)["epoch"] == 3
    again = Trainer(made, file, every_s=0)
    assert [row["epoch"] for row in again.run()] == [3]
    assert again.diverged == whole.diverged


def test_a_checkpoint_waits_until_what_was_said_is_kept(job: Any, tmp_path: Path) -> None:
    file, said, kept = tmp_path / "x.pt", [], []

    def keep() -> None:
        assert not file.exists() or torch.load(file)["epoch"] < len(said)
        kept.append(len(said))

    for row in Trainer(job(), file, every_s=0, kept=keep).run():
        said.append(row)  # noqa: PERF402  (one after the other: `keep` looks at what there is)
    assert kept == [1, 2, 3, 4]
    assert torch.load(file)["epoch"] == 4


def test_each_gradient_is_clipped_alone() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(3)) for _ in range(3)]
    gradients = ([3.0, 0, 4], [0.3, 0, 0.4], [0.0, 0, 0])
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    clip_each(parameters, 1.0)
    wanted = ([0.6, 0, 0.8], [0.3, 0, 0.4], [0.0, 0, 0])
    for parameter, gradient in zip(parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, torch.tensor(gradient), rtol=1e-5, atol=0)


def test_one_tensor_of_all_parameters_is_trained_as_each_alone() -> None:
    """Against torch's own, tensor by tensor, over steps with and without rectification; a parameter that gets
    no gradient is one whose gradient is 0."""
    settings: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.01, "decoupled_weight_decay": True}
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    flat = FlatRAdam(ours.parameters(), **settings)
    plain = torch.optim.RAdam(theirs.parameters(), **settings)
    for step in range(12):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        for model, optimizer in ((ours, flat), (theirs, plain)):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            if step == 7:
                model[1].bias.grad = None if model is ours else torch.zeros(2)
            optimizer.step()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other)
    assert len({p.untyped_storage().data_ptr() for p in ours.parameters()}) == 1


def test_weight_decay_is_decoupled() -> None:
    """A parameter without a gradient shrinks by lr times weight decay, as in the released code's RAdam."""
    layer = torch.nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    optimizer = make_optimizer(layer, Optimization(lr=0.1, weight_decay=0.01), capturable=False)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.1 * 0.01))


@pytest.mark.parametrize("fault", ["other job", "no checkpoint", "code"])
def test_a_checkpoint_that_is_none_is_refused(job: Any, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.RAdam(layer.parameters())
    if fault == "other job":
        save_checkpoint(file, job="another", epoch=1, model=layer, optimizer=optimizer)
    elif fault == "no checkpoint":
        file.write_bytes(b"not a checkpoint")
    else:
        torch.save({"format": 2, "job": job().id, "harm": _Harm()}, file)
    with pytest.raises(BadInput, match="delete it"):
        Trainer(job(), file, every_s=1)


class _Harm:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a checkpoint ran code",))


def test_a_checkpoint_is_whole_or_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, layer = tmp_path / "x.pt", torch.nn.Linear(2, 2)
    optimizer = torch.optim.RAdam(layer.parameters())
    save_checkpoint(file, job="a", epoch=1, model=layer, optimizer=optimizer)
    before = file.read_bytes()

    def full(state: Any, out: Any) -> None:
        out.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(file, job="a", epoch=2, model=layer, optimizer=optimizer)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_bfloat16_is_by_autocast_with_float32_parameters(job: Any, tmp_path: Path) -> None:
    trainer = Trainer(job("linear", kernels=Kernels(precision="bfloat16")), tmp_path / "x.pt", every_s=1e9)
    rows = list(trainer.run())
    assert all(p.dtype == torch.float32 for p in trainer._stepper.model.parameters())
    plain = list(Trainer(job("linear"), tmp_path / "y.pt", every_s=1e9).run())
    assert rows[0]["loss"] != plain[0]["loss"]
    assert rows[0]["loss"] == pytest.approx(plain[0]["loss"], rel=0.05)


def test_a_job_survives_json(job: Any) -> None:
    made = job("momentum+adaptive", kernels=Kernels(backends={"softmax": "sdpa", "": "triton"}, capture=True))
    assert Job.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert made.kernels.backend("softmax") == "sdpa"
    assert made.kernels.backend("linear") == "triton"
