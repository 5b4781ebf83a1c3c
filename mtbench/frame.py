"""A run as a pandas DataFrame, for questions that no report asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtbench.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["load"]

WHOLE = frozenset(
    {"batch", "heads", "kv_heads", "seq_len", "kv_len", "head_dim", "value_dim", "seed", "world_size"}
)
TRUTH = frozenset({"causal", "ranked"})
NUMBERS = frozenset(
    {"beta", "gamma", "eps", "scale", "relative_error", "tolerance", "build_s", "first_call_s"}
)
NUMBER_STARTS = (
    *("wall_ms_", "device_ms_", "span_ms_", "floor_ms", "roofline_"),
    *("relative_", "max_abs_", "tolerance_"),
)


def load(folder: Path | str) -> pd.DataFrame:
    """The rows of a run folder: one a measurement, in the order they were measured.

    The columns are those of ``measurements.csv``, whatever is in the run:

    - the case: ``attention``, ``device``, ``dtype``, ``mode``, ``causal``, the sizes, ``beta``, ``gamma``,
      ``eps``, ``scale``, ``feature_map``, ``seed``; and ``backend``, ``form``, ``layout``;
    - ``hardware``, the kind of machine in a run of several: rows of two kinds are not compared in speed;
    - what came of it: ``status``, ``reason``, ``flags`` (words, perhaps none), and ``ranked``, which is true
      where the row may be compared in speed;
    - times of a call in milliseconds, of each clock (``wall_ms``, ``device_ms``, ``span_ms``): ``_median``,
      ``_ci_low`` and ``_ci_high`` (the median's 95% interval), ``_min``, ``_p95``; and ``_samples_count``,
      ``_launches_count`` and ``_outliers_count``; ``floor_ms`` is the least that memory allows, for
      ``floor_bytes``, and ``roofline_ms`` that and the rate of products, for ``operations_count``;
      ``roofline_share`` is that over the median, a ratio (on a GPU the device clock's, else the wall
      clock's);
    - ``peak_memory_bytes`` (measured) and ``static_memory_bytes`` (the compiler's estimate), in bytes;
      ``build_s`` and ``first_call_s``, in seconds;
    - ``relative_error`` and its ``tolerance``, ratios, of the array that is worst, and those of each array
      (``relative_o``, ``max_abs_o``, ``tolerance_o``, ...). An output that is not finite has the error inf;
    - ``world_size``, the devices that a sequence is split over, and ``exchange``, what they sent each other;
    - ``compiled``, ``machine``, ``stage_s`` and ``config``: JSON, for whoever needs it.

    A value that is not there is ``pandas.NA``; the dtypes are pandas's nullable ones and do not depend on the
    run: Int64, Float64, boolean, and string for the rest. Samples one by one are in ``mtbench.results.Run``.

    Raises:
        BadInput: pandas is not installed, there is no run in the folder, or a newer mtbench wrote it.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise BadInput(
            "mtbench.load needs pandas, which is not installed: pip install 'mtbench[pandas]'"
        ) from error
    from mtbench.registry import import_part
    from mtbench.results import Run

    run = Run.load(folder)
    exports = import_part("reports.exports")
    rows = exports.flat_rows(run)
    return pd.DataFrame(
        {
            name: pd.Series([_value(name, row[name]) for row in rows], dtype=_dtype(name))
            for name in exports.column_names()
        }
    )


def _dtype(name: str) -> Any:
    if name in WHOLE or name.endswith(("_count", "_bytes")):
        return "Int64"
    if name in TRUTH:
        return "boolean"
    if name in NUMBERS or name.startswith(NUMBER_STARTS):
        return "Float64"
    return "string"


def _value(name: str, value: Any) -> Any:
    """None where nothing is there: an empty text is nothing, but no flags is an answer."""
    if value == "" and name != "flags":
        return None
    if _dtype(name) == "Float64" and isinstance(value, str):
        # JSON has no NaN and no infinity. A NaN would read as missing, and what is missing is not wrong.
        return float("inf") if value == "nan" else float(value)
    return value
