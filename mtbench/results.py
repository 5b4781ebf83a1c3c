"""What a run leaves: the rows, the run and its folder on disk.

A run folder holds ``run.json`` (written before the first measurement, and again at the end) and
``measurements.jsonl`` (one row a case, backend and form, flushed as it is finished). Everything else in it,
the report, the figures and the exports, is made from those two.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from mtbench.errors import BadInput
from mtbench.floor import Ceilings, read_ceilings
from mtbench.measure.statistics import TIME_LIMIT, Samples
from mtbench.spec import Case

__all__ = [
    "DOES_LESS",
    "FAILURES",
    "SCHEMA_VERSION",
    "STATUSES",
    "Agreement",
    "Measurement",
    "Run",
    "json_float",
    "machines_of",
    "read_float",
    "read_header",
    "read_rows",
    "run_kind",
]

SCHEMA_VERSION = 3
"""2 added launches, what the machine did meanwhile, the seconds of each stage and the static estimate; 3 the
hardware of each row, and the machines of a run that was measured on several kinds."""

Status = Literal["ok", "unsupported", "unavailable", "wrong", "oom", "crash", "timeout", "error"]
STATUSES: tuple[Status, ...] = get_args(Status)
DOES_LESS = "does less"
"""The flag of a row whose form leaves part of the work out of what is timed; its reason says which."""
FAILURES: frozenset[Status] = frozenset({"wrong", "crash", "timeout", "error"})
"""The statuses that make a run's exit code 1."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How one array (o, dq, dk or dv) agrees with the float64 oracle."""

    relative: float
    """||x - ref|| / ||ref|| over what was compared; infinite where x is not finite and ref is."""
    max_abs: float
    tolerance: float
    """The largest relative error that passes: `mtbench.measure.agreement` has the rule."""

    @property
    def passes(self) -> bool:
        """NaN never passes."""
        return self.relative <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row: a case in one form of one backend, and what came of it."""

    case: Case
    backend: str
    form: str
    hardware: str = ""
    """The kind of machine it was measured on, a name in `Run.machines`. Empty in a run of one machine, whose
    environment is the run's own."""
    status: Status
    reason: str = ""
    """Why it is not ok, or what to know of an ok row (``interpreted``)."""
    flags: tuple[str, ...] = ()
    """Remarks beside the status: ``interpreted``, ``few samples``, ``noisy``, ``does less``."""
    layout: str = ""
    wall_ms: Samples | None = None
    """Host clock around the call and the framework's own wait."""
    wall_reason: str = ""
    """Why wall_ms is null, else how sampling ended: ``interval``, or ``time limit`` where a launch's did."""
    device_ms: Samples | None = None
    """Union of the GPU's kernel intervals of the call (CUPTI)."""
    device_reason: str = ""
    span_ms: Samples | None = None
    """First kernel's start to last kernel's end, of the same calls as device_ms."""
    cache: str = ""
    """``warm``, or how it was flushed before every sample."""
    build_s: float | None = None
    """Seconds to build: ahead-of-time compilation."""
    first_call_s: float | None = None
    """Seconds of the first call: just-in-time compilation and autotuning."""
    compiled: Mapping[str, int] = field(default_factory=dict)
    """Programs that build and first call compiled: ``anew``, and ``from_cache``, which a cache on disk had.
    Empty where nothing is compiled, or nothing counts it."""
    peak_memory_bytes: int | None = None
    """Measured over one call: outputs and temporaries, inputs left out."""
    memory_method: str = ""
    """How it was read, or why not."""
    static_memory_bytes: int | None = None
    """What the compiler says a call needs (XLA); measured by nobody."""
    agreement: Mapping[str, Agreement] = field(default_factory=dict)
    """o, and in mode forward_backward dq, dk and dv."""
    compared: str = ""
    """What the oracle judged: ``all rows``, or how many sampled rows."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What the kernel chose for itself."""
    machine: tuple[Mapping[str, Any], ...] = ()
    """A launch each: what the machine did while the clocks ran (`mtbench.measure.machine`)."""
    stage_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds the row spent in each stage, all launches together."""

    @property
    def launches(self) -> int:
        """Processes it was measured in so far; 0 where none was started for it."""
        return len(self.machine)

    def joined(self, later: Measurement) -> Measurement:
        """This row and another launch of it, as one row: clocks joined, errors and the end of the
        sampling the worse of the two, the rest as the first launch had it. A launch that failed makes the row
        fail."""
        seconds = Counter(self.stage_s)
        seconds.update(later.stage_s)
        together: dict[str, Any] = {"stage_s": dict(seconds), "machine": self.machine + later.machine}
        if later.status != "ok":
            reason = f"launch {self.launches + 1}: {later.reason}"
            return replace(self, status=later.status, reason=reason, **together)
        for name in ("wall_ms", "device_ms", "span_ms"):
            first, second = getattr(self, name), getattr(later, name)
            if first is not None and second is not None:
                together[name] = first + second
        for name in ("wall_reason", "device_reason"):
            if getattr(later, name) == TIME_LIMIT:
                together[name] = TIME_LIMIT
        return replace(
            self,
            flags=tuple(dict.fromkeys((*self.flags, *later.flags))),
            agreement={
                name: max(a, later.agreement.get(name, a), key=_badness) for name, a in self.agreement.items()
            },
            **together,
        )

    @property
    def id(self) -> str:
        """A readable key that no two rows of a run share."""
        return f"{self.unplaced_id}{f'@{self.hardware}' if self.hardware else ''}"

    @property
    def unplaced_id(self) -> str:
        """The id without the kind of machine: the same row on each of them."""
        return f"{self.backend}/{self.form}/{self.case.id}"

    @property
    def worst(self) -> Agreement | None:
        """The agreement nearest to its tolerance, or furthest beyond it."""
        if not self.agreement:
            return None
        return max(self.agreement.values(), key=_badness)

    @property
    def relative_error(self) -> float | None:
        """That of `worst`."""
        return None if self.worst is None else self.worst.relative

    @property
    def tolerance(self) -> float | None:
        """That of `worst`."""
        return None if self.worst is None else self.worst.tolerance

    @property
    def timed(self) -> bool:
        """Whether it is ok and has a time."""
        return self.status == "ok" and self.wall_ms is not None

    @property
    def ranked(self) -> bool:
        """Whether it may be compared in speed with other rows: timed, and no part of the work left out."""
        return self.timed and DOES_LESS not in self.flags

    def to_row(self) -> dict[str, Any]:
        """The flat row of measurements.jsonl."""
        case, spec = self.case, self.case.spec
        return {
            "schema": SCHEMA_VERSION,
            "id": self.id,
            "attention": spec.kind,
            "backend": self.backend,
            "form": self.form,
            "hardware": self.hardware,
            "device": case.device,
            "dtype": case.dtype,
            "mode": case.mode,
            "causal": spec.causal,
            "batch": case.batch,
            "heads": case.heads,
            "kv_heads": case.kv_heads,
            "seq_len": case.seq_len,
            "kv_len": case.kv_len,
            "lengths": None if case.lengths is None else list(case.lengths),
            "head_dim": case.head_dim,
            "value_dim": case.value_dim,
            "beta": spec.beta,
            "gamma": spec.gamma,
            "eps": spec.eps,
            "scale": spec.scale,
            "feature_map": spec.feature_map,
            "seed": case.seed,
            "layout": self.layout,
            "status": self.status,
            "reason": self.reason,
            "flags": list(self.flags),
            "wall_ms": None if self.wall_ms is None else self.wall_ms.to_dict(),
            "wall_reason": self.wall_reason,
            "device_ms": None if self.device_ms is None else self.device_ms.to_dict(),
            "device_reason": self.device_reason,
            "span_ms": None if self.span_ms is None else self.span_ms.to_dict(),
            "cache": self.cache,
            "build_s": self.build_s,
            "first_call_s": self.first_call_s,
            "compiled": dict(self.compiled),
            "peak_memory_bytes": self.peak_memory_bytes,
            "memory_method": self.memory_method,
            "static_memory_bytes": self.static_memory_bytes,
            "relative_error": json_float(self.relative_error),
            "tolerance": self.tolerance,
            "compared": self.compared,
            "agreement": {
                name: {
                    "relative": json_float(a.relative),
                    "max_abs": json_float(a.max_abs),
                    "tolerance": a.tolerance,
                }
                for name, a in self.agreement.items()
            },
            "config": dict(self.config),
            "machine": [dict(launch) for launch in self.machine],
            "stage_s": dict(self.stage_s),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Measurement:
        """The measurement that `to_row` wrote.

        Raises:
            BadInput: the row's schema is newer than this mtbench.
        """
        if row.get("schema", 0) > SCHEMA_VERSION:
            raise _NewerSchemaError(
                f"a row of schema {row['schema']} needs a newer mtbench (this one reads {SCHEMA_VERSION})"
            )
        if row["status"] not in STATUSES:
            raise ValueError(f"unknown status {row['status']!r}")
        case = Case.from_dict(
            {
                "spec": {
                    "kind": row["attention"],
                    **{k: row[k] for k in ("causal", "beta", "gamma", "eps", "scale", "feature_map")},
                },
                **{
                    k: row[k]
                    for k in (
                        "batch heads kv_heads seq_len kv_len lengths head_dim value_dim dtype device "
                        "mode seed"
                    ).split()
                },
            }
        )

        def samples(name: str) -> Samples | None:
            return None if row[name] is None else Samples.from_dict(row[name])

        return cls(
            case=case,
            wall_ms=samples("wall_ms"),
            device_ms=samples("device_ms"),
            span_ms=samples("span_ms"),
            hardware=str(row.get("hardware", "")),
            flags=tuple(row["flags"]),
            machine=tuple(row.get("machine", ())),
            stage_s=row.get("stage_s", {}),
            compiled=row.get("compiled", {}),
            static_memory_bytes=row.get("static_memory_bytes"),
            agreement={
                name: Agreement(
                    relative=read_float(a["relative"]),
                    max_abs=read_float(a["max_abs"]),
                    tolerance=a["tolerance"],
                )
                for name, a in row["agreement"].items()
            },
            **{
                k: row[k]
                for k in (
                    "backend form status reason layout wall_reason device_reason cache build_s "
                    "first_call_s peak_memory_bytes memory_method compared config"
                ).split()
            },
        )


def _badness(agreement: Agreement) -> float:
    """Over 1 is beyond the tolerance; NaN is worst."""
    relative = agreement.relative
    return float("inf") if relative != relative else relative / agreement.tolerance


class _NewerSchemaError(BadInput):
    """A later mtbench wrote it: that is no damage to be skipped."""


def json_float(value: float | None) -> float | str | None:
    """JSON has no NaN and no infinity: those are written as words, which `read_float` reads."""
    if value is None or abs(value) < float("inf"):
        return value
    return str(float(value))


def read_float(value: float | str | None) -> float:
    """What `json_float` made; NaN for nothing."""
    return float("nan") if value is None else float(value)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder, read."""

    folder: Path
    header: Mapping[str, Any]
    """run.json: schema, command, plan, environment, workers, started and finished."""
    measurements: tuple[Measurement, ...]
    unreadable_lines: int = 0
    """Lines of measurements.jsonl that are no row: a last one cut off by a crash, or damage."""

    @property
    def machines(self) -> Mapping[str, Mapping[str, Any]]:
        """The kinds of machine it was measured on, by the name that its rows have (`Measurement.hardware`):
        each has its ``environment`` and what its ``workers`` say of themselves. One machine alone has no
        name, and its two stand in the header itself."""
        return machines_of(self.header)

    def parts(self) -> dict[str, Run]:
        """A run for each kind of machine, which has its rows alone, and its environment and workers in the
        header itself. A run of one machine has one part, itself."""
        machines = self.machines
        return {
            name: replace(
                self,
                header={**self.header, **machines.get(name, {}), "machines": {name: machines.get(name, {})}},
                measurements=tuple(row for row in self if row.hardware == name),
            )
            for name in dict.fromkeys((*machines, *(row.hardware for row in self)))
        }

    @property
    def ceilings(self) -> Mapping[str, Mapping[str, Ceilings]]:
        """What each kind of machine was measured to reach, by its name and then by device."""
        return {name: read_ceilings(machine.get("workers")) for name, machine in self.machines.items()}

    @classmethod
    def load(cls, folder: Path | str) -> Run:
        """Read a run folder.

        Raises:
            BadInput: there is no run in it, or a newer mtbench wrote it.
        """
        folder = Path(folder)
        header = read_header(folder, newest=SCHEMA_VERSION)
        rows_file = folder / "measurements.jsonl"
        rows, unreadable = read_rows(rows_file.read_bytes() if rows_file.exists() else b"")
        return cls(folder=folder, header=header, measurements=tuple(rows), unreadable_lines=unreadable)

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)

    def with_measurements(self, measurements: tuple[Measurement, ...]) -> Run:
        """The same run with other rows, for a report of a part of it."""
        return replace(self, measurements=measurements)


KINDS: Mapping[str | None, str] = {
    None: "a sweep",
    "training": "a training run",
    "generation": "generated images",
}
"""What a run is, by the ``kind`` in its header."""


def run_kind(folder: Path) -> str | None:
    """What kind of run is in a folder: None is a sweep, ``training`` a training run.

    Raises:
        BadInput: there is no run in it.
    """
    kind: str | None = _header(folder).get("kind")
    return kind


def machines_of(header: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """What `Run.machines` says, of the header of a run of any kind."""
    several = header.get("machines")
    if isinstance(several, Mapping) and several:
        return {str(name): found for name, found in several.items() if isinstance(found, Mapping)}
    return {"": {key: header.get(key) for key in ("environment", "workers")}}


def read_header(folder: Path, *, newest: int, kind: str | None = None) -> dict[str, Any]:
    """The run.json of a run of that kind.

    Raises:
        BadInput: there is none, it is another kind of run, or its schema is past the newest that is known.
    """
    header = _header(folder)
    found = header.get("kind")
    if found != kind:
        raise BadInput(
            f"{folder} holds {KINDS.get(found, f'a run of kind {found!r}')}, and what is wanted here is "
            f"{KINDS[kind]}"
        )
    if header["schema"] > newest:
        raise BadInput(
            f"{folder} has schema {header['schema']} and needs a newer mtbench (this one reads {newest})"
        )
    return header


def _header(folder: Path) -> dict[str, Any]:
    file = folder / "run.json"
    if not file.is_file():
        raise BadInput(f"{folder} holds no run: it has no run.json")
    try:
        header = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{file} is not JSON: {error}") from error
    if not isinstance(header, dict) or "schema" not in header:
        raise BadInput(f"{file} is not a run's header: it has no schema version")
    return header


def read_rows(text: bytes) -> tuple[list[Measurement], int]:
    """The rows of a measurements.jsonl and how many of its lines are none.

    While a run of several launches goes on, a row has a line for each launch so far, the last of which
    holds all: that one counts, in the place of the first.

    Raises:
        BadInput: a newer mtbench wrote a row.
    """
    rows: dict[str, Measurement] = {}
    unreadable = 0
    for line in text.splitlines():
        try:
            row = Measurement.from_row(json.loads(line))
        except _NewerSchemaError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError):
            unreadable += 1
        else:
            rows[row.id] = row
    return list(rows.values()), unreadable
