"""Whether the kernels run on a card or in Triton's interpreter, and how one is started.

Triton binds a launch's arguments, constants and options anew at every call, in Python, to find the kernel
that it compiled for them: that takes longer than a short kernel runs. All of them but the tensors are the
same at every call of a case, so a launch is `Prepared` once, and keeps the compiled kernels found for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol

from mtbench.errors import BackendFailure

from .tiles import Tiles

__all__ = ["Launch", "Prepared", "by_triton", "compile_only", "enter", "options", "start"]


class Prepared:
    """A launch but for its tensors.

    Args:
        kernel: whose arguments are its tensors, then its numbers, then its compile-time constants.
        grid: programs along one to three axes.
        scalars: the numbers, in the kernel's order.
        constants: the compile-time constants by name.
        tiles: whose warps, stages and registers the compiler is told.
    """

    def __init__(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        scalars: tuple[int | float, ...],
        constants: Mapping[str, Any],
        tiles: Tiles,
    ) -> None:
        import triton
        from triton.runtime import driver

        self.kernel = kernel
        self.grid = grid
        self.scalars = scalars
        self.constants = dict(constants)
        self.tiles = tiles
        self.keywords = self.constants | options(tiles)
        self.interpreted = not isinstance(kernel, triton.JITFunction)
        names = kernel.arg_names[len(kernel.arg_names) - len(self.constants) :]
        self._after = (*scalars, *(self.constants[name] for name in names))
        self._knobs, self._driver = triton.knobs, driver
        self._runners: dict[Hashable, Callable[..., None]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Prepared:
        """Itself: what is copied, such as a model that has run, goes on with the kernels that were found."""
        return self

    def _key(self, device: int, tensors: tuple[Any, ...]) -> tuple[Hashable, ...]:
        """What Triton compiles a kernel for beside the numbers and constants, which are settled: the device,
        its own switches, and of each tensor whether it is there, its dtype and whether it begins at a
        multiple of 16 bytes. (On AMD's cards also whether it has under 2 GiB, which the case settles.)

        Whether a global that a kernel uses has changed, which Triton takes for an error, is looked at when it
        is asked alone; so is the switch of its sanitizer of floats."""
        compilation, runtime = self._knobs.compilation, self._knobs.runtime
        return (
            device,
            runtime.debug,
            getattr(compilation, "instrumentation_mode", None),  # of Triton 3.6
            *[None if x is None else (x.dtype, x.data_ptr() % 16 == 0) for x in tensors],
        )

    def run(self, tensors: tuple[Any, ...]) -> None:
        """Run it on the current device and stream: by Triton, and by the compiled kernel itself where Triton
        has found that before. Triton's launch hooks are called either way. A function that is to run before
        `JITFunction.run` wants that to run; one that changes how kernels are compiled is asked at every call
        what it would do now."""
        changes = getattr(self._knobs.runtime, "add_stages_inspection_hook", None)  # of Triton 3.6
        if self.interpreted or self.kernel.pre_run_hooks or changes is not None:
            by_triton(self, *tensors)
            return
        active = self._driver.active
        device = active.get_current_device()
        key = self._key(device, tensors)
        runner = self._runners.get(key)
        if runner is not None:
            runner(*tensors, *self._after, stream=active.get_current_stream(device))
            return
        compiled = by_triton(self, *tensors)
        if compiled is not None:  # a hook of Triton's cache may have forbidden it
            # By its name: what Triton's AsyncCompileMode returns has a kernel's methods, but not by [].
            self._runners[key] = compiled.__getitem__((*self.grid, 1, 1)[:3])


class Launch(Protocol):
    """What is done with a kernel and its arguments: start it, or compile it alone."""

    def __call__(self, prepared: Prepared, *tensors: Any) -> Any:
        """Do it with a launch and its tensors, in the kernel's order; None where it has none."""


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


def start(prepared: Prepared, *tensors: Any) -> None:
    """Run it."""
    prepared.run(tensors)


def by_triton(prepared: Prepared, *tensors: Any) -> Any:
    """Run it as Triton does, which finds the kernel anew.

    Returns:
        The compiled kernel, where Triton does not interpret.
    """
    return prepared.kernel[prepared.grid](*tensors, *prepared.scalars, **prepared.keywords)


def compile_only(prepared: Prepared, *tensors: Any) -> None:
    """Compile it as `start` would, for aligned tensors; the tensors may be on device meta."""
    types = (getattr(tensor, "dtype", tensor) for tensor in tensors)
    prepared.kernel.warmup(*types, *prepared.scalars, grid=prepared.grid, **prepared.keywords)
