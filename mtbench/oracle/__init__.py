"""The float64 truth, in NumPy, written twice.

`recurrence` follows eq 8 and eq 12 a position at a time; `closed_form` follows eq 13 and eq 14 and shares no
line with it. Tests hold one against the other; the closed form, which can give any single row, judges the
backends. Nothing here is imported by a backend.
"""

from mtbench.oracle.closed_form import attention, momentum_weight
from mtbench.oracle.gradients import Gradients, gradients
from mtbench.oracle.recurrence import attention_by_recurrence
from mtbench.oracle.rows import Rows

__all__ = [
    "Gradients",
    "Rows",
    "attention",
    "attention_by_recurrence",
    "gradients",
    "momentum_weight",
]
