"""The rows for other tools: a flat CSV, and pytest-benchmark's JSON."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtbench.floor import NOT_MEASURED, Ceilings, floor_bytes, floor_ms
from mtbench.measure.statistics import Samples
from mtbench.results import Measurement, Run
from mtbench.spec import Case
from mtbench.work import operations

from .header import mapping
from .roofline import least_ms, roofline_share

__all__ = [
    "column_names",
    "csv_text",
    "flat_row",
    "flat_rows",
    "measurements_csv",
    "pytest_benchmark_files",
    "pytest_benchmark_json",
]

PYTEST_BENCHMARK_SCHEMA = "5.1.0"
"""The version of pytest-benchmark whose JSON this is."""
ARRAYS = ("o", "dq", "dk", "dv")


def flat_row(row: Measurement, ceilings: Mapping[str, Ceilings] = NOT_MEASURED) -> dict[str, Any]:
    """One row without nesting; a column's unit is in its name, and every row has the same columns."""
    nested = row.to_row()
    agreement, config = nested.pop("agreement"), nested.pop("config")
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if key in ("wall_ms", "device_ms", "span_ms"):
            flat |= _flat_samples(key, getattr(row, key))
            if key == "device_ms":
                flat |= _flat_floors(row, ceilings)
        elif key == "flags":
            flat[key] = " ".join(value)
        elif key == "lengths":
            flat[key] = None if value is None else " ".join(map(str, value))
        elif key in ("compiled", "exchange", "machine", "stage_s"):
            flat[key] = json.dumps(value, default=str) if value else ""
        elif key != "schema":
            flat[key] = value
        if key == "status":
            flat["ranked"] = row.ranked
    for array in ARRAYS:
        for part in ("relative", "max_abs", "tolerance"):
            flat[f"{part}_{array}"] = agreement.get(array, {}).get(part)
    flat["config"] = json.dumps(config, default=str, sort_keys=True) if config else ""
    return flat


def _flat_floors(row: Measurement, ceilings: Mapping[str, Ceilings]) -> dict[str, float | int | None]:
    least, share = least_ms(row.case, ceilings), roofline_share(row, ceilings)
    return {
        "floor_ms": floor_ms(row.case, ceilings),
        "floor_bytes": floor_bytes(row.case),
        "operations_count": operations(row.case),
        "roofline_ms": None if least is None else least[0],
        "roofline_share": None if share is None else share.value,
    }


def _flat_samples(name: str, found: Samples | None) -> dict[str, float | int | None]:
    low, high = (None, None) if found is None else found.interval
    return {
        f"{name}_median": None if found is None else found.median,
        f"{name}_ci_low": low,
        f"{name}_ci_high": high,
        f"{name}_min": None if found is None else found.minimum,
        f"{name}_p95": None if found is None else found.p95,
        f"{name}_samples_count": 0 if found is None else len(found.values),
        f"{name}_launches_count": 0 if found is None else len(found.sizes),
        f"{name}_outliers_count": 0 if found is None else found.outliers,
    }


def measurements_csv(run: Run) -> str:
    """measurements.csv: a line a row, as `csv_text` writes it."""
    rows = flat_rows(run)
    return csv_text(list(rows[0]) if rows else column_names(), rows)


def flat_rows(run: Run) -> list[dict[str, Any]]:
    """`flat_row` of every row, with the ceilings of the machine it was measured on."""
    ceilings = run.ceilings
    return [flat_row(row, ceilings.get(row.hardware, NOT_MEASURED)) for row in run]


def column_names() -> list[str]:
    """The names that every `flat_row` has, in their order."""
    return list(flat_row(Measurement(case=Case(), backend="", form="", status="ok")))


def csv_text(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A CSV with a header.

    Nothing is an empty cell, true and false are words, a float is written in full. A text that a spreadsheet
    would run as a formula has an apostrophe before it.
    """
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        formula = value.startswith(("=", "+", "-", "@", "\t", "\r")) and not _is_float(value)
        return ("'" if formula else "") + value.encode("utf-8", "replace").decode("utf-8").replace(
            "\0", "\ufffd"
        )
    return value


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def pytest_benchmark_files(run: Run) -> dict[str, str]:
    """pytest-benchmark.json; of a run of several kinds of machine a file for each, by its place among them,
    as that format has one machine a file."""
    parts = list(run.parts().values())
    if len(parts) == 1:
        return {"pytest-benchmark.json": pytest_benchmark_json(parts[0])}
    return {
        f"pytest-benchmark-{number}.json": pytest_benchmark_json(part)
        for number, part in enumerate(parts, start=1)
    }


def pytest_benchmark_json(run: Run) -> str:
    """pytest-benchmark.json: the ranked rows on the wall clock, in seconds, grouped by case, so that
    `pytest-benchmark compare FILE` reads a sweep. A row's other columns are in ``extra_info``, and the number
    of samples of each launch (``launch_sizes``), in the order of ``data``.
    """
    header, environment = mapping(run.header), mapping(run.header.get("environment"))
    data = {
        "machine_info": _machine(environment),
        "commit_info": _commit(mapping(environment.get("git"))),
        "benchmarks": [_benchmark(row, row.wall_ms) for row in run if row.ranked and row.wall_ms],
        "datetime": str(header.get("finished") or header.get("started") or ""),
        "version": PYTEST_BENCHMARK_SCHEMA,
    }
    return json.dumps(data, indent=1, default=str) + "\n"


PARAMS = (
    *("attention", "backend", "form", "device", "dtype", "mode", "causal"),
    *("batch", "heads", "seq_len", "head_dim", "value_dim", "beta", "gamma"),
)


def _benchmark(row: Measurement, samples: Samples) -> dict[str, Any]:
    columns = flat_row(row)
    return {
        "group": row.case.id,
        "name": row.unplaced_id,
        "fullname": row.unplaced_id,
        "params": {key: columns[key] for key in PARAMS},
        "param": row.case.id,
        "extra_info": {**columns, "launch_sizes": list(samples.sizes)},
        "options": {"timer": "perf_counter_ns", "disable_gc": False, "warmup": True},
        "stats": _stats([ms / 1000 for ms in samples.values]),
    }


def _stats(data: list[float]) -> dict[str, Any]:
    """pytest-benchmark's statistics, by its own definitions (its quartiles are not NumPy's)."""
    ordered, rounds = sorted(data), len(data)
    q1, q3 = _quartiles(ordered)
    iqr, mean = q3 - q1, statistics.mean(data)
    stddev = statistics.stdev(data) if rounds > 1 else 0.0
    low, high = q1 - 1.5 * iqr, q3 + 1.5 * iqr
    iqr_outliers = sum(not low <= v <= high for v in data)
    stddev_outliers = sum(not mean - stddev <= v <= mean + stddev for v in data)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": stddev,
        "rounds": rounds,
        "median": statistics.median(data),
        "iqr": iqr,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": iqr_outliers,
        "stddev_outliers": stddev_outliers,
        "outliers": f"{stddev_outliers};{iqr_outliers}",
        "ld15iqr": next((v for v in ordered if v >= low), ordered[0]),
        "hd15iqr": next((v for v in reversed(ordered) if v <= high), ordered[-1]),
        "ops": rounds / sum(data) if sum(data) else 0,
        "total": sum(data),
        "data": data,
        "iterations": 1,
    }


def _quartiles(ordered: list[float]) -> tuple[float, float]:
    rounds = len(ordered)
    if rounds == 1:
        return ordered[0], ordered[0]
    if rounds % 2 == 0:
        return statistics.median(ordered[: rounds // 2]), statistics.median(ordered[rounds // 2 :])
    n, rest = divmod(rounds, 4)
    if rest == 1:
        return (
            0.25 * ordered[n - 1] + 0.75 * ordered[n],
            0.75 * ordered[3 * n] + 0.25 * ordered[3 * n + 1],
        )
    return (
        0.75 * ordered[n] + 0.25 * ordered[n + 1],
        0.25 * ordered[3 * n + 1] + 0.75 * ordered[3 * n + 2],
    )


def _machine(environment: Mapping[str, Any]) -> dict[str, Any]:
    cpu, python = mapping(environment.get("cpu")), environment.get("python")
    return {
        "node": environment.get("host") or "",
        "processor": cpu.get("model") or "",
        "machine": cpu.get("machine") or "",
        "python_compiler": "",
        "python_implementation": environment.get("python_implementation") or "",
        "python_implementation_version": python or "",
        "python_version": python or "",
        "python_build": ["", ""],
        "release": "",
        "system": environment.get("os") or "",
        "cpu": {"brand_raw": cpu.get("model") or "", "count": cpu.get("cores")},
        "mtbench": dict(environment),
    }


def _commit(git: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": git.get("commit") or "unversioned",
        "time": git.get("committed"),
        "author_time": None,
        "dirty": bool(git.get("dirty")),
        "project": "mtbench",
        "branch": git.get("branch") or "(unknown)",
    }
