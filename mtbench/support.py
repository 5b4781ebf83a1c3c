"""What every backend does and does not do, from its own declarations. Loads no framework."""

from __future__ import annotations

from functools import cache
from typing import Any

from mtbench.backend import Backend, caveats_of
from mtbench.measure.environment import gpus
from mtbench.spec import ATTENTIONS, DEVICES

__all__ = ["support_of"]


def support_of(backend: Backend) -> dict[str, Any]:
    """One backend's row of the support table, as plain data: it is kept in run.json, so that a report is made
    from the run folder alone."""
    return {
        "backend": backend.name,
        "framework": backend.framework,
        "forms": {kind: list(backend.forms(kind)) for kind in ATTENTIONS},
        "limits": [
            {"kind": limit.kind, "what": limit.what, "reason": limit.reason} for limit in backend.limits
        ],
        "caveats": [{"what": caveat.what, "reason": caveat.reason} for caveat in caveats_of(backend)],
        "unavailable": {device: backend.unavailable(device) or _not_here(device) for device in DEVICES},
    }


@cache
def _not_here(device: str) -> str | None:
    """Why no backend runs on a device of this machine, as far as can be told without a framework."""
    return "nvidia-smi lists no GPU" if device == "cuda" and not gpus() else None
