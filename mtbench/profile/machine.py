"""What this machine reaches, kept from one profile to the next: the copy and the products of
`mtbench.measure.ceilings`, and what it costs to launch something at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mtbench.caches import cache_folder
from mtbench.floor import SAME_UNITS
from mtbench.frameworks import Framework
from mtbench.inputs import Inputs, make_inputs
from mtbench.measure.ceilings import ceilings
from mtbench.measure.clocks import Sampling, wall_samples, warm_up
from mtbench.profile.record import Machine
from mtbench.spec import AttentionSpec, Case, Device, Dtype

__all__ = ["known", "measured", "remember"]

OPERATORS = 257
"""Of the call from which the cost of one more operator is told. A framework that compiles them into one
program has none, and its figure is next to 0."""
SAMPLING = Sampling(least=30, least_s=0.05, limit_s=0.3, warmup_s=0.05)
KEYS = ("os", "cpu", "gpus", "python", "packages", "threads")
"""Of the environment, what makes it another machine."""


def measured(framework: Framework, device: Device, dtype: Dtype) -> Machine:
    """Measure it, in a process that runs this framework. Some seconds."""
    dtypes: tuple[Dtype, ...] = tuple(dict.fromkeys((SAME_UNITS.get(dtype, dtype), "float32")))
    reached = ceilings(framework, device, dtypes)
    one, many = (_least_ms(framework, device, n) for n in (1, OPERATORS))
    return Machine(
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        copy_bytes_per_s=reached["copy_bytes_per_s"],
        matmul_flop_per_s=reached["matmul_flop_per_s"],
        call_ms=one,
        operator_ms=max(0.0, many - one) / (OPERATORS - 1),
    )


def _least_ms(framework: Framework, device: Device, operators: int) -> float:
    """The fastest call of so many operators on one row of numbers, by the wall clock."""

    def function(q: Any, k: Any, v: Any) -> Any:
        for _ in range(operators):
            q = q + k
        return q

    case = Case(
        spec=AttentionSpec(kind="softmax", causal=False), heads=1, seq_len=1, head_dim=8, device=device
    )
    kernel = framework.kernel(function, case)
    inputs = make_inputs(case)
    kernel.load(Inputs(q=inputs.q, k=inputs.q, v=inputs.q))
    warm_up(kernel, SAMPLING)
    samples, _ = wall_samples(kernel, lambda: None, SAMPLING)
    return min(samples.values)


def _file(environment: Mapping[str, Any]) -> Path:
    text = json.dumps({key: environment.get(key) for key in KEYS}, sort_keys=True)
    return cache_folder("machines") / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def known(environment: Mapping[str, Any], framework: str, device: str, dtype: Dtype) -> Machine | None:
    """What was measured before on a machine like this one; None where it was not, or not in that dtype. The
    copy is the fastest of any framework's on that device: JAX cannot write into an array that is there."""
    try:
        reached = json.loads(_file(environment).read_text(encoding="utf-8"))["reached"]
        found = Machine(**reached[f"{framework} on {device}"])
        copies = [x["copy_bytes_per_s"] for name, x in reached.items() if name.endswith(f" on {device}")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    found = replace(found, copy_bytes_per_s=max((rate for rate in copies if rate is not None), default=None))
    return found if SAME_UNITS.get(dtype, dtype) in found.matmul_flop_per_s else None


def remember(environment: Mapping[str, Any], framework: str, device: str, machine: Machine) -> None:
    """Keep it for the next time, beside what else is known of this machine.

    Raises:
        OSError: the cache cannot be written.
    """
    file = _file(environment)
    file.parent.mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = {"environment": {key: environment.get(key) for key in KEYS}, "reached": {}}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or none that can be read
        told["reached"] = dict(json.loads(file.read_text(encoding="utf-8"))["reached"])
    told["reached"][f"{framework} on {device}"] = asdict(machine)
    whole = file.with_suffix(".new")
    whole.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    whole.replace(file)
