"""The forms by attention and name.

A form is built for one case: its constants go to the device then, and `wrap` (the identity, or
``torch.compile``) is put around the pieces worth compiling, which have static shapes whatever the length is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mtbench.spec import Case

from . import linear, softmax

__all__ = ["FORMS", "Builder", "Function", "Wrap"]

Function = Callable[..., torch.Tensor]
"""``(q, k, v) -> o``, and of a case with lengths ``(q, k, v, lengths) -> o``."""
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
Builder = Callable[[Case, Wrap], Function]

FORMS: dict[tuple[str, str], Builder] = {
    ("softmax", "parallel"): softmax.parallel,
    ("softmax", "chunked"): softmax.chunked,
    ("softmax", "sdpa"): softmax.sdpa,
    ("softmax", "flex"): softmax.flex,
    ("linear", "parallel"): linear.parallel,
    ("linear", "chunked"): linear.chunked,
    ("linear", "recurrent"): linear.recurrent,
    ("momentum", "parallel"): linear.parallel,
    ("momentum", "chunked"): linear.chunked,
    ("momentum", "recurrent"): linear.recurrent,
}
"""Linear attention is momentum attention with beta 0 and gamma 1 (eq 12), and leaves out what that zeroes."""
