"""What must be equal for two rows to be comparable, and on which clock they are compared."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mtbench.measure.statistics import Samples
from mtbench.results import Measurement
from mtbench.spec import DEVICES, DTYPES, MODES, AttentionSpec, Case, Device, Dtype, Mode, exact

from .format import clean

__all__ = ["CLOCK_NAMES", "Clock", "Context", "Names", "Shape", "clocks", "samples"]

Clock = Literal["wall", "device"]
CLOCK_NAMES: Mapping[Clock, str] = {"wall": "wall clock", "device": "device clock"}


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where and how: rows of two contexts are never compared."""

    hardware: str = ""
    """The kind of machine, in a run of several."""
    device: Device
    dtype: Dtype
    mode: Mode
    causal: bool
    world_size: int = 1
    """Devices that a sequence is split over."""

    @classmethod
    def of(cls, row: Measurement) -> Context:
        """That of a row."""
        case = row.case
        return cls(
            hardware=row.hardware,
            device=case.device,
            dtype=case.dtype,
            mode=case.mode,
            causal=case.spec.causal,
            world_size=case.world_size,
        )

    @property
    def anywhere(self) -> Context:
        """The same on no kind of machine in particular: what stands side by side."""
        return replace(self, hardware="")

    @property
    def on_one(self) -> Context:
        """The same on one device: what rows over several are set against."""
        return replace(self, world_size=1)

    @property
    def key(self) -> tuple[int, int, int, bool, int, str]:
        """To sort by: in the order of the spec's own lists, the kinds of machine beside each other."""
        return (
            DEVICES.index(self.device),
            DTYPES.index(self.dtype),
            MODES.index(self.mode),
            not self.causal,
            self.world_size,
            self.hardware,
        )

    @property
    def label(self) -> str:
        """For people: ``cpu, float32, forward, causal``, and ``; on h100`` where there are several kinds of
        machine."""
        mode = self.mode.replace("_", " + ")
        on = f", {self.world_size} devices" if self.world_size > 1 else ""
        on += f"; on {clean(self.hardware, 60)}" if self.hardware else ""
        return f"{self.device}, {self.dtype}, {mode}, {'causal' if self.causal else 'not causal'}{on}"

    @property
    def slug(self) -> str:
        """For file names."""
        on = f"{_slug(self.hardware)}-" if self.hardware else ""
        spread = f"-on{self.world_size}" if self.world_size > 1 else ""
        return f"{on}{self.device}-{self.dtype}-{self.mode}-{'causal' if self.causal else 'full'}{spread}"


def _slug(name: str) -> str:
    """A machine's name, of which a file's is made: whatever a run says, no path comes of it."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "unnamed"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes beside seq_len. A size that follows another (kv_len, value_dim, kv_heads) is None."""

    batch: int
    heads: int
    head_dim: int
    kv_heads: int | None = None
    value_dim: int | None = None
    kv_len: int | None = None
    lengths: tuple[int, ...] | None = None
    seed: int = 0

    @classmethod
    def of(cls, case: Case) -> Shape:
        """That of a case."""
        return cls(
            batch=case.batch,
            heads=case.heads,
            head_dim=case.head_dim,
            kv_heads=None if case.kv_heads == case.heads else case.kv_heads,
            value_dim=None if case.value_dim == case.head_dim else case.value_dim,
            kv_len=None if case.kv_len == case.seq_len else case.kv_len,
            lengths=case.lengths,
            seed=case.seed,
        )

    @property
    def key(self) -> tuple[int | tuple[int, ...], ...]:
        """To sort by."""
        optional = (self.kv_heads or 0, self.value_dim or 0, self.kv_len or 0, self.lengths or ())
        return (self.batch, self.heads, self.head_dim, *optional, self.seed)

    def label(self, without: str | None = None) -> str:
        """For people: ``batch 1, heads 8, head_dim 64``; `without` leaves out the field that is swept."""
        parts = [f"{n} {getattr(self, n)}" for n in ("batch", "heads", "head_dim") if n != without]
        optional = {name: getattr(self, name) for name in ("kv_heads", "value_dim", "kv_len")}
        parts += [f"{name} {value}" for name, value in optional.items() if value is not None]
        if self.lengths is not None:
            shown = ", ".join(map(str, self.lengths[:8])) + (", …" if len(self.lengths) > 8 else "")
            parts.append(f"lengths ({shown})")
        if self.seed:
            parts.append(f"seed {self.seed}")
        return ", ".join(parts)

    @property
    def slug(self) -> str:
        """For file names; not unique where lengths differ."""
        parts = [f"b{self.batch}", f"h{self.heads}", f"d{self.head_dim}"]
        for letter, value in (("kvh", self.kv_heads), ("dv", self.value_dim), ("kv", self.kv_len)):
            if value is not None:
                parts.append(f"{letter}{value}")
        if self.lengths is not None:
            parts.append("lengths")
        return "-".join(parts) + (f"-seed{self.seed}" if self.seed else "")


class Names:
    """What the attentions of a run are called: by their kind, and by what tells them apart (beta, say) where
    the run has several of one kind.
    """

    def __init__(self, rows: Iterable[Measurement]) -> None:
        kinds: dict[str, set[AttentionSpec]] = {}
        for row in rows:
            kinds.setdefault(row.case.spec.kind, set()).add(row.case.spec)
        self._differing = {
            kind: [
                name
                for name in ("beta", "gamma", "eps", "scale", "feature_map")
                if len({getattr(spec, name) for spec in specs}) > 1
            ]
            for kind, specs in kinds.items()
        }

    def __call__(self, spec: AttentionSpec) -> str:
        """The name of one."""
        parts = [_assign(name, getattr(spec, name)) for name in self._differing.get(spec.kind, ())]
        return f"{spec.kind} ({', '.join(parts)})" if parts else spec.kind


def _assign(name: str, value: object) -> str:
    shown = exact(value) if isinstance(value, float) else "default" if value is None else value
    return f"{name} {shown}"


def samples(row: Measurement, clock: Clock) -> Samples | None:
    """A ranked row's samples of a clock; None where it has none, or none that is a time."""
    if not row.ranked:
        return None
    found = row.wall_ms if clock == "wall" else row.device_ms
    usable = found is not None and all(math.isfinite(v) and v >= 0 for v in found.values) and found.median > 0
    return found if usable else None


def clocks(rows: Sequence[Measurement]) -> tuple[Clock, ...]:
    """The clocks that rows of one context are ranked by.

    On a CPU the wall clock. On a GPU the device clock; and where some rows have no device time the wall clock
    as well, in a ranking of its own: one ranking never mixes two clocks.
    """
    timed = [row for row in rows if samples(row, "wall") is not None]
    if not timed:
        return ()
    if all(row.case.device == "cpu" for row in timed):
        return ("wall",)
    with_device = sum(samples(row, "device") is not None for row in timed)
    if not with_device:
        return ("wall",)
    return ("device",) if with_device == len(timed) else ("device", "wall")
