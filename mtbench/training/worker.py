"""The process that trains: one job, until it is done or told to leave.

Run as ``python -P -m mtbench.training.worker FD``; `mtbench.training.runner` starts it and sends the job.
"""

from __future__ import annotations

import faulthandler
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtbench.errors import BackendFailure, BadInput
from mtbench.frameworks import load_framework
from mtbench.sweep.channel import Channel
from mtbench.sweep.child import die_with_parent
from mtbench.training.settings import Job

__all__ = ["main"]


def main(handle: int) -> None:
    """Take a job, say hello with the environment, train, and say how it ended."""
    faulthandler.enable()
    die_with_parent()
    channel = Channel(handle)
    try:
        order = channel.receive()
        job = Job.from_dict(order["job"])
        framework = load_framework("torch")
        framework.start(job.kernels.device, job.kernels.threads)
        try:
            _train(
                *(
                    channel,
                    job,
                    Path(order["checkpoint"]),
                    Path(order["shared"]),
                    order["every_s"],
                    framework,
                ),
                rated=order["rated"],
            )
        except Exception as error:  # noqa: BLE001  (whatever a kernel raises is how the job ended)
            traceback.print_exc()
            status = "oom" if framework.is_out_of_memory(error) else "error"
            told = str(error) if isinstance(error, BadInput | BackendFailure) else _one_line(error)
            channel.send({"ended": {"status": status, "reason": told}})
    except OSError:  # the runner is gone
        return


class _Runner:
    """The other end, which may answer, and may tell this process to leave."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self._told = channel, False

    def wait_until_kept(self) -> None:
        """Until it has written all that it was sent."""
        self._channel.send({"ask": "kept"})
        while not self._heard():
            pass

    def wants_us_to_leave(self) -> bool:
        """Whether it has said so."""
        while self._channel.waiting(0):
            self._heard()
        return self._told

    def _heard(self) -> bool:
        """Whether the next message is the answer."""
        answer = "kept" in self._channel.receive()
        self._told |= not answer
        return answer


def _train(
    channel: Channel,
    job: Job,
    checkpoint: Path,
    shared: Path,
    every_s: float,
    framework: Any,
    *,
    rated: bool,
) -> None:
    from mtbench.training.trainer import Trainer

    device = job.kernels.device
    problem = framework.device_problem(device)
    if problem:
        channel.send({"ended": {"status": "error", "reason": problem}})
        return
    reached: Mapping[str, Any] = {}
    if device == "cuda" and rated:
        from mtbench.frameworks.torch_rates import rates

        reached = rates((job.kernels.dtype,))
    runner = _Runner(channel)
    trainer = Trainer(job, checkpoint, every_s=every_s, kept=runner.wait_until_kept, shared=shared)
    hello = {"parameters": trainer.parameters, "epochs_before": trainer.epoch}
    channel.send({"hello": framework.environment(device) | reached | hello})
    for row in trainer.run():
        channel.send({"row": row})
        if trainer.diverged:
            channel.send({"ended": {"status": "diverged", "reason": trainer.diverged}})
            return
        if trainer.epoch < job.schedule.epochs and runner.wants_us_to_leave():
            trainer.save()
            channel.send({"ended": {"status": "cut off", "reason": f"after epoch {trainer.epoch}"}})
            return
    channel.send({"ended": {"status": "done", "reason": ""}})


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


if __name__ == "__main__":
    main(int(sys.argv[1]))
