"""Backends whose figures and failures are known beforehand.

They come in as any third party's do: by the path of this file, or as the installed package that
`tests.known.package.install` makes of it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtbench import Case, FunctionBackend
from mtbench.backend import FORWARD_ONLY, DeclaredBackend, Kernel
from mtbench.inputs import Array, Inputs


def right(q: Any, k: Any, v: Any, case: Case) -> Any:
    """Causal softmax attention, plainly."""
    scores = case.softmax_scale * (q @ k.swapaxes(2, 3))
    scores = np.where(np.tril(np.ones(scores.shape[2:], bool)), scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return (p / p.sum(-1, keepdims=True) @ v).astype(q.dtype)


def one_percent_off(q: Any, k: Any, v: Any, case: Case) -> Any:
    return right(q, k, v, case) * q.dtype.type(1.01)


def changes_its_inputs(q: Any, k: Any, v: Any, case: Case) -> Any:
    """Right once: the next call has other values."""
    o = right(q, k, v, case)
    v *= q.dtype.type(1.01)
    return o


BUFFERS: dict[Case, Array] = {}


def adds_to_its_last(q: Any, k: Any, v: Any, case: Case) -> Any:
    """Right once: its buffer begins with zeros, and nobody empties it."""
    buffer = BUFFERS.setdefault(case, np.zeros_like(v))
    buffer += right(q, k, v, case)
    return buffer


def nan(q: Any, k: Any, v: Any, case: Case) -> Any:
    return right(q, k, v, case) * q.dtype.type("nan")


def wrong_shape(q: Any, k: Any, v: Any, case: Case) -> Any:
    return right(q, k, v, case)[:, :, 1:]


def wrong_dtype(q: Any, k: Any, v: Any, case: Case) -> Any:
    return right(q, k, v, case).astype(np.float64)


def raises(q: Any, k: Any, v: Any, case: Case) -> Any:
    raise RuntimeError("the kernel\nwas not in the mood")


def segfault(q: Any, k: Any, v: Any, case: Case) -> Any:
    os.kill(os.getpid(), signal.SIGSEGV)


def leaves(q: Any, k: Any, v: Any, case: Case) -> Any:
    os._exit(7)


def hangs(q: Any, k: Any, v: Any, case: Case) -> Any:
    time.sleep(3600)


def out_of_memory(q: Any, k: Any, v: Any, case: Case) -> Any:
    raise MemoryError


def allocates_without_end(q: Any, k: Any, v: Any, case: Case) -> Any:
    held = []
    while True:
        held.append(np.ones(16 << 20, np.uint8))
        time.sleep(0.01)


def takes_5_ms(q: Any, k: Any, v: Any, case: Case) -> Any:
    end = time.perf_counter() + 0.005
    o = right(q, k, v, case)
    while time.perf_counter() < end:
        pass
    return o


def forks(q: Any, k: Any, v: Any, case: Case) -> Any:
    """Leaves a child that sleeps and holds whatever this process has open."""
    if os.fork() == 0:
        time.sleep(3600)
        os._exit(0)
    return right(q, k, v, case)


def forks_and_dies(q: Any, k: Any, v: Any, case: Case) -> Any:
    forks(q, k, v, case)
    os.kill(os.getpid(), signal.SIGKILL)


def prints(q: Any, k: Any, v: Any, case: Case) -> Any:
    sys.stdout.write('{"row": {}}\n' * 100)
    sys.stdout.flush()
    return right(q, k, v, case)


FUNCTIONS = [
    right,
    one_percent_off,
    changes_its_inputs,
    adds_to_its_last,
    nan,
    wrong_shape,
    wrong_dtype,
    raises,
    segfault,
    leaves,
    hangs,
    out_of_memory,
    allocates_without_end,
    forks_and_dies,
    prints,
]


class Logged(FunctionBackend):
    """Writes every build, and the process it was in, to the file that KNOWN_LOG names."""

    def build(self, case: Case, form: str) -> Kernel:
        if log := os.environ.get("KNOWN_LOG"):
            with Path(log).open("a") as file:
                file.write(f"{os.getpid()} {self.name}/{form}/{case.id}\n")
        return super().build(case, form)


BACKEND = Logged(
    name="faulty",
    framework="numpy",
    functions={("softmax", function.__name__): function for function in FUNCTIONS},
)


LOGGED = Logged(
    name="logged",
    framework="numpy",
    functions={
        ("softmax", "right"): right,
        ("softmax", "takes_5_ms"): takes_5_ms,
        ("softmax", "forks"): forks,
    },
)


class Holding(DeclaredBackend):
    """Kernels that hold a known amount in a framework's own arrays, and compute in NumPy."""

    def build(self, case: Case, form: str) -> Kernel:
        count, _, mib = form.removesuffix("_mib").rpartition("_x_")
        return HoldingKernel(self.framework, case, int(count or 1), int(mib) << 20)


class HoldingKernel:
    layout = "bhnd"
    untimed = None
    config: Mapping[str, Any] = {}

    def __init__(self, framework: str, case: Case, count: int, size: int) -> None:
        self.framework, self.case, self.count, self.size = framework, case, count, size

    def load(self, inputs: Inputs) -> None:
        self.inputs = inputs

    def __call__(self) -> Array:
        held = [BLOCKS[self.framework](self.size) for _ in range(self.count)]
        o = right(self.inputs.q, self.inputs.k, self.inputs.v, self.case)
        del held
        return o

    def wait(self, result: Any) -> None: ...

    def outputs(self, result: Any) -> dict[str, Array]:
        return {"o": result}


def torch_block(size: int) -> object:
    import torch

    return torch.ones(size, dtype=torch.uint8)


def jax_block(size: int) -> object:
    import jax.numpy as jnp

    return jnp.ones(size, jnp.uint8).block_until_ready()


BLOCKS = {"numpy": lambda size: np.ones(size, np.uint8), "torch": torch_block, "jax": jax_block}
AMOUNTS = ("512_mib", "8_mib", "256_mib", "64_x_4_mib", "1_x_8_mib")
"""In this order a larger one always comes before."""
HOLDS_NUMPY, HOLDS_TORCH, HOLDS_JAX = (
    Holding(
        name=f"holds-{framework}",
        framework=framework,
        form_table={"softmax": AMOUNTS},
        devices=("cpu",),
        limits=(FORWARD_ONLY,),
    )
    for framework in ("numpy", "torch", "jax")
)


def wrong_dk(q: Any, k: Any, v: Any, case: Case) -> Any:
    """Right in the forward; the gradient of k is 1% too large."""
    import torch

    mine = k * 1.01 + (k * -0.01).detach()
    scores = case.softmax_scale * (q @ mine.swapaxes(2, 3))
    above = torch.ones(scores.shape[2:], dtype=torch.bool).triu(1)
    return torch.softmax(scores.masked_fill(above, float("-inf")), -1) @ v


WRONG_DK = FunctionBackend(name="wrong-dk", framework="torch", functions={("softmax", "wrong_dk"): wrong_dk})
