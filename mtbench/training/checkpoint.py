"""All that a training needs to go on as if it had not been cut off: parameters, the optimiser's state, the
random numbers' and the epoch. The data is made anew from the seed and the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mtbench.errors import BadInput
from mtbench.locked_folder import write_atomically

__all__ = ["load_checkpoint", "save_checkpoint"]

FORMAT = 2
"""2: the optimiser has all parameters as one tensor."""


def save_checkpoint(
    path: Path, *, job: str, epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write it whole, or leave the one before.

    Args:
        path: the file.
        job: whose it is (`Job.id`).
        epoch: how many are done.
        model: what is trained.
        optimizer: what trains it.

    Raises:
        OSError: it cannot be written.
    """
    state: Mapping[str, Any] = {
        "format": FORMAT,
        "job": job,
        "epoch": epoch,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    write_atomically(path, lambda file: torch.save(state, file))


def load_checkpoint(path: Path, *, job: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put a checkpoint's state into model, optimiser and torch's generators. Returns how many epochs are
    done: 0 where there is no file.

    Raises:
        BadInput: it is another job's, of another format, or no checkpoint.
    """
    if not path.exists():
        return 0
    try:
        # Tensors and plain values alone: a file cannot bring code.
        state = torch.load(path, map_location="cpu", weights_only=True)
        same = state["format"] == FORMAT and state["job"] == job
    except Exception as error:
        raise BadInput(
            f"{path} is no checkpoint that can be read ({type(error).__name__}): delete it"
        ) from error
    if not same:
        raise BadInput(
            f"{path} is a checkpoint of {state['job']}, format {state['format']}, and not of {job}: delete it"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    if state["random_cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random_cuda"])
    epoch: int = state["epoch"]
    return epoch
