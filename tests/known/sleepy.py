"""A backend whose kernel sleeps: it takes its time and no CPU, so that several nodes fit on one machine."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from mtbench import Case, FunctionBackend

SLEEP_S = float(os.environ.get("KNOWN_SLEEP_S", "0.04"))


def sleeps(q: Any, k: Any, v: Any, case: Case) -> Any:
    """Causal softmax attention, after a sleep."""
    time.sleep(SLEEP_S)
    scores = case.softmax_scale * (q @ k.swapaxes(2, 3))
    scores = np.where(np.tril(np.ones(scores.shape[2:], bool)), scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return (p / p.sum(-1, keepdims=True) @ v).astype(q.dtype)


BACKEND = FunctionBackend(name="sleepy", framework="numpy", functions={("softmax", "sleeps"): sleeps})
