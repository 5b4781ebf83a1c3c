"""mtbench: how softmax, linear and momentum attention compare, measured.

Importing it loads no framework.
"""

from mtbench.attend import attend
from mtbench.backend import Caveat, Limit, Unsupported
from mtbench.errors import BackendFailure, BadInput
from mtbench.frame import load
from mtbench.function_backend import FunctionBackend
from mtbench.registry import load_backend
from mtbench.spec import AttentionSpec, Case

__all__ = [
    "AttentionSpec",
    "BackendFailure",
    "BadInput",
    "Case",
    "Caveat",
    "FunctionBackend",
    "Limit",
    "Unsupported",
    "attend",
    "load",
    "load_backend",
]

__version__ = "0.1.0"
