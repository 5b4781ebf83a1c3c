"""A backend of NumPy functions that fail in every way a kernel can; loaded as a user's own file is."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import numpy as np

from mtbench import Case, FunctionBackend


def right(q: Any, k: Any, v: Any, case: Case) -> Any:
    """Causal softmax attention, plainly."""
    scores = case.softmax_scale * (q @ k.swapaxes(2, 3))
    scores = np.where(np.tril(np.ones(scores.shape[2:], bool)), scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return (p / p.sum(-1, keepdims=True) @ v).astype(q.dtype)


def one_percent_off(q: Any, k: Any, v: Any, case: Case) -> Any:
    return right(q, k, v, case) * q.dtype.type(1.01)


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


def prints(q: Any, k: Any, v: Any, case: Case) -> Any:
    sys.stdout.write('{"row": {}}\n' * 100)
    sys.stdout.flush()
    return right(q, k, v, case)


FUNCTIONS = [
    right,
    one_percent_off,
    nan,
    wrong_shape,
    wrong_dtype,
    raises,
    segfault,
    leaves,
    hangs,
    out_of_memory,
    allocates_without_end,
    prints,
]

BACKEND = FunctionBackend(
    name="faulty",
    framework="numpy",
    functions={("softmax", function.__name__): function for function in FUNCTIONS},
)
