"""Whether the kernels run on a card or in Triton's interpreter, and how one is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from mtbench.errors import BackendFailure

from .tiles import Tiles

__all__ = ["Launch", "compile_only", "enter", "options", "start"]


class Launch(Protocol):
    """What is done with a kernel and its arguments: start it, or compile it alone."""

    def __call__(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        args: tuple[Any, ...],
        constants: Mapping[str, Any],
        tiles: Tiles,
    ) -> None:
        """Do it with a kernel on a grid, its arguments and its compile-time constants, in that order."""


def enter(device: str) -> None:
    """Settle how this process runs Triton kernels, before the first of them is imported.

    Triton decides it when a kernel is decorated, so one process has one way.

    Raises:
        BackendFailure: the process has settled on the other way already, or TRITON_INTERPRET is set and
            the device is a card.
    """
    interpreted = device == "cpu"
    maps = sys.modules.get(f"{__package__}.maps")
    if maps is not None and interpreted != maps.INTERPRETED:
        now, wanted = ("the interpreter", "cuda") if maps.INTERPRETED else ("a GPU", "cpu")
        raise BackendFailure(
            f"this process has loaded the Triton kernels for {now}; device {wanted} needs another process"
        )
    if interpreted:
        os.environ["TRITON_INTERPRET"] = "1"
    else:
        import triton

        if triton.knobs.runtime.interpret:
            raise BackendFailure(
                "TRITON_INTERPRET is set, so Triton would interpret the kernels on the CPU: unset it to use "
                "device cuda"
            )


def options(tiles: Tiles) -> dict[str, Any]:
    """The compiler's options. Without enable_fp_fusion Triton 3.9 warns that its default will change."""
    return {
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
        "maxnreg": tiles.registers,
        "enable_fp_fusion": True,
    }


def start(
    kernel: Any,
    grid: tuple[int, ...],
    args: tuple[Any, ...],
    constants: Mapping[str, Any],
    tiles: Tiles,
) -> None:
    """Run it."""
    kernel[grid](*args, **constants, **options(tiles))


def compile_only(
    kernel: Any,
    grid: tuple[int, ...],
    args: tuple[Any, ...],
    constants: Mapping[str, Any],
    tiles: Tiles,
) -> None:
    """Compile it as `start` would, for aligned tensors; the tensors may be on device meta."""
    types = (getattr(arg, "dtype", arg) for arg in args)
    kernel.warmup(*types, grid=grid, **constants, **options(tiles))
