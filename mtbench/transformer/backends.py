"""Which backends and forms a model can use, asked of their declarations. Imports no framework."""

from __future__ import annotations

from mtbench.backend import Backend, form_for, partial_of
from mtbench.errors import BadInput
from mtbench.registry import load_backend
from mtbench.spec import Case

__all__ = ["model_backend", "model_form"]


def model_backend(name: str) -> Backend:
    """The backend of that name, as `mtbench.load_backend` finds it.

    Raises:
        BadInput: there is none, or its arrays are not PyTorch's.
    """
    backend = load_backend(name)
    if backend.framework != "torch":
        raise BadInput(
            f"backend {name!r} computes on arrays of {backend.framework}, and the model is PyTorch's: "
            "torch-eager, torch-compile, triton and sdpa are backends of torch"
        )
    return backend


def model_form(backend: Backend, case: Case, form: str | None = None) -> str:
    """The form that a model's case is computed in: the one asked for, or the backend's first that does it.

    Raises:
        BadInput: none does, it takes no lengths at a call where the case has some, or what is asked for
            leaves out part of the work; the message has the reason.
    """
    found = form_for(backend, case, form)
    if case.lengths is not None and not getattr(backend, "lengths_at_call", False):
        raise BadInput(
            f"backend {backend.name!r} settles lengths when a kernel is built (no lengths_at_call), and a "
            "model's batches each have their own: torch-eager, torch-compile and triton take them at a call"
        )
    if less := partial_of(backend, case, found):
        raise BadInput(f"backend {backend.name!r}, form {found}: it is {less}, so no model can use it")
    return found
