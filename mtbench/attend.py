"""Attention on one's own arrays, in the calling process."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtbench.backend import form_for
from mtbench.errors import BackendFailure, BadInput
from mtbench.inputs import NUMPY_DTYPES, Array, Inputs
from mtbench.measure.environment import device_problem
from mtbench.registry import load_backend
from mtbench.spec import AttentionSpec, Case

__all__ = ["attend"]


def attend(
    q: Any,
    k: Any,
    v: Any,
    spec: AttentionSpec | None = None,
    *,
    backend: str = "torch-eager",
    form: str | None = None,
    device: str | None = None,
    lengths: tuple[int, ...] | None = None,
) -> Array:
    """Compute one attention with one backend, untimed, under whatever precision settings this process has.

    Args:
        q: [batch, heads, seq_len, head_dim], NumPy, in float32, float16 or ml_dtypes.bfloat16.
        k: [batch, heads, kv_len, head_dim], of the same dtype.
        v: [batch, heads, kv_len, value_dim], of the same dtype.
        spec: which attention; by default causal momentum with beta .9 and gamma 1.
        backend: a name that `mtbench list` shows, or a file such as ``./mine.py``.
        form: one of the backend's forms; by default its first that does the case.
        device: ``cpu`` or ``cuda``; by default ``cuda`` where this machine has a GPU.
        lengths: how many keys of each batch entry are real.

    Returns:
        The output, [batch, heads, seq_len, value_dim], in the dtype of q.

    Raises:
        BadInput: arrays that do not fit together, an unknown backend or form, or a case that the backend
            does not do or cannot do here; the message says which limit.
        BackendFailure: the backend broke its contract.
    """
    spec = AttentionSpec() if spec is None else spec
    q, k, v = np.asarray(q), np.asarray(k), np.asarray(v)
    if device is None:
        device = "cpu" if device_problem("cuda") else "cuda"
    case = _case(q, k, v, spec, device, lengths)
    chosen = load_backend(backend)
    kernel = chosen.build(case, form_for(chosen, case, form))
    kernel.load(Inputs(q=q, k=k, v=v))
    result = kernel()
    kernel.wait(result)
    o = kernel.outputs(result).get("o")
    wanted = (case.batch, case.heads, case.seq_len, case.value_dim)
    if o is None or o.shape != wanted or o.dtype != q.dtype:
        found = "no o" if o is None else f"{o.dtype} {o.shape}"
        raise BackendFailure(f"backend {backend!r} returned {found}, not {q.dtype} {wanted}")
    return o


def _case(
    q: Array, k: Array, v: Array, spec: AttentionSpec, device: str, lengths: tuple[int, ...] | None
) -> Case:
    for name, array in (("q", q), ("k", k), ("v", v)):
        if array.ndim != 4:
            raise BadInput(f"{name} has shape {array.shape}, not [batch, heads, positions, dim]")
    if q.shape[0] != k.shape[0] or k.shape[:3] != v.shape[:3] or q.shape[3] != k.shape[3]:
        raise BadInput(f"q {q.shape}, k {k.shape} and v {v.shape} do not fit together")
    names = {dtype: name for name, dtype in NUMPY_DTYPES.items()}
    if q.dtype not in names or not q.dtype == k.dtype == v.dtype:
        raise BadInput(
            f"q, k and v are {q.dtype}, {k.dtype}, {v.dtype}: one of {', '.join(NUMPY_DTYPES)} for all"
        )
    return Case(
        spec=spec,
        batch=q.shape[0],
        heads=q.shape[1],
        seq_len=q.shape[2],
        kv_len=k.shape[2],
        lengths=lengths,
        head_dim=q.shape[3],
        value_dim=v.shape[3],
        kv_heads=k.shape[1],
        dtype=names[q.dtype],  # type: ignore[arg-type]
        device=device,  # type: ignore[arg-type]
    )
