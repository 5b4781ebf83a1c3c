"""A Hopper card that is not there, for tests and scripts: Triton itself compiles for it, and what it launches
is noted and not run. Tensors are on the CPU. A process that has one must not have TRITON_INTERPRET."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget

HOPPER = GPUTarget("cuda", 90, 32)


class Launched(NamedTuple):
    """What the card was told to run."""

    name: str
    function: int
    """Which loaded kernel: each has a number."""
    grid: tuple[int, int, int]
    stream: int
    args: tuple[Any, ...]


class PretendedCard:
    """As much of Triton's driver as compiling and launching ask for."""

    def __init__(self, *, notes: bool = True) -> None:
        self.device = 0
        self.stream = 0
        self.loaded: list[tuple[str, int]] = []
        """Name and device of every kernel, by its number."""
        self.launched: list[Launched] = []
        self._notes = notes
        self.utils = self

    def activate(self) -> None:
        """In the place of the driver of this process."""
        triton.runtime.driver.set_active(self)

    def get_current_target(self) -> GPUTarget:
        return HOPPER

    def get_current_device(self) -> int:
        return self.device

    def get_current_stream(self, device: int) -> int:
        return self.stream

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232448}

    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[Any, ...]:
        """The module, the function, registers, spills, and the most threads."""
        self.loaded.append((name, device))
        return object(), len(self.loaded) - 1, 0, 0, 1024

    def unload_module(self, module: Any) -> None:
        pass

    def launcher_cls(self, src: Any, metadata: Any) -> Any:
        """What launches one kernel; it calls the hooks as Triton's own does."""

        def launch(
            x: int, y: int, z: int, stream: int, function: int, packed: Any, about: Any, enter: Any,
            leave: Any, *args: Any,
        ) -> None:  # fmt: skip
            if enter is not None:
                enter(about)
            if self._notes:
                name = self.loaded[function][0]
                self.launched.append(Launched(name, function, (x, y, z), stream, args))
            if leave is not None:
                leave(about)

        return launch
