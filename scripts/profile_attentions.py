"""The slowest and the fastest backend of each attention, profiled: what bounds each, kernel by kernel.

``python scripts/profile_attentions.py --mode forward_backward --out FOLDER`` on a machine with a GPU makes a
profile of each at (8, 16, 4096, 64) in bfloat16, sets the two of an attention side by side, prints a short
table, and leaves everything in ``FOLDER/profiles.tar.gz``. It begins no profile after ``--limit`` seconds,
and says which are left: the order is that of what is most worth knowing. ``--device cpu --shape 1,2,64,16``
tries it whole without a GPU.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tarfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench import AttentionSpec, Case  # noqa: E402
from mtbench.profile.against import against_of  # noqa: E402
from mtbench.profile.command import make_profile  # noqa: E402
from mtbench.profile.record import Profile  # noqa: E402
from mtbench.profile.target import target_of  # noqa: E402
from mtbench.registry import import_part  # noqa: E402

CHOSEN = {
    "cuda": (
        ("momentum", "triton", "fused"),
        ("momentum", "torch-eager", "chunked"),
        ("linear", "triton", "fused"),
        ("linear", "torch-eager", "chunked"),
        ("softmax", "sdpa", "cudnn"),
        ("softmax", "torch-eager", "chunked"),
        ("momentum", "jax", "chunked"),
        ("momentum", "torch-compile", "chunked"),
        ("momentum", "jax-pallas", "fused"),
    ),
    "cpu": (("momentum", "jax", "chunked"), ("momentum", "torch-eager", "chunked")),
}
"""Of each attention the fastest and the slowest at this shape, by the device clock (docs/results/h100-peers
and h100-gpu-preset), forward as well as with the backward; then one of each framework that is not among
them."""
MOST_BYTES = 2 << 20
"""Of a file in the archive, so that it stays under 16 MiB."""
LEFT_OUT = ("counters", "proton")
"""perf's counters and proton's tree say little of a call that a GPU bounds, and the time is short."""


def main() -> int:
    """Profile one after another; 0 where none failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mode", default="forward_backward", choices=["forward", "forward_backward"])
    parser.add_argument("--shape", default="8,16,4096,64", help="batch,heads,seq_len,head_dim")
    parser.add_argument("--device", default="cuda", choices=sorted(CHOSEN))
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--limit", type=float, default=420.0, help="seconds after which no profile begins")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    batch, heads, n, dim = (int(size) for size in options.shape.split(","))
    work = options.out / "work"
    work.mkdir(parents=True)
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    profiles: dict[str, Profile] = {}
    for kind, backend, form in CHOSEN[options.device]:
        name = f"{kind}-{backend}-{form}"
        case = Case(
            spec=AttentionSpec(kind=kind),  # type: ignore[arg-type]
            batch=batch,
            heads=heads,
            seq_len=n,
            head_dim=dim,
            dtype="bfloat16" if options.device == "cuda" else "float32",
            device=options.device,
            mode=options.mode,
        )
        if time.monotonic() - began > options.limit:
            rows.append({"name": name, "problem": "left for another call: the time was up"})
            continue
        start = time.monotonic()
        try:
            profiles[name] = make_profile(
                target_of(backend, case, form), work / name, calls=options.calls, without=LEFT_OUT
            )
        except Exception as error:  # noqa: BLE001  (whatever it is, the others are wanted)
            traceback.print_exc()
            rows.append({"name": name, "problem": f"{type(error).__name__}: {error}"})
        else:
            rows.append(told(name, profiles[name], time.monotonic() - start))
        line(rows[-1])
    beside(profiles, work)
    (work / "summary.json").write_text(json.dumps(rows, indent=1) + "\n")
    with tarfile.open(options.out / "profiles.tar.gz", "w:gz") as tar:
        tar.add(work, arcname=f"profiles-{options.mode}", filter=small)
    shutil.copy(work / "summary.json", options.out)
    shutil.rmtree(work)
    size = (options.out / "profiles.tar.gz").stat().st_size
    print(f"{time.monotonic() - began:.0f} s; {size / 2**20:.1f} MiB")
    return int(any("problem" in row and "time was up" not in row["problem"] for row in rows))


def small(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Not what is too large to be brought home: the trace of thousands of kernels, say."""
    if entry.size <= MOST_BYTES:
        return entry
    print(f"left out of the archive: {entry.name}, {entry.size / 2**20:.1f} MiB")
    return None


def told(name: str, profile: Profile, seconds: float) -> dict[str, Any]:
    """What the table says of one."""
    seen = profile.traced
    top = seen.kernels[0] if seen and seen.kernels else None
    return {
        "name": name,
        "wall_ms": profile.wall_ms,
        "device_ms": profile.device_ms,
        "union_ms": seen.busy_ms if seen else None,
        "launches": seen.launches if seen else None,
        "before_ms": seen.before_ms if seen else None,
        "between_ms": seen.between_ms if seen else None,
        "verdict": profile.bound.verdict,
        "because": profile.bound.because,
        "shares": dict(profile.bound.shares),
        "longest": top and {"name": top.name, "ms": top.ms, "counters": dict(top.counters)},
        "remarks": list(profile.remarks),
        "missing": dict(profile.missing),
        "seconds": seconds,
    }


def line(row: dict[str, Any]) -> None:
    """One line of the table, and what is to be known of it below."""
    if "problem" in row:
        print(f"{row['name']:32} {row['problem']}", flush=True)
        return
    figures = (row["wall_ms"], row["device_ms"], row["union_ms"])
    shown = " ".join("       -" if ms is None else f"{ms:8.3f}" for ms in figures)
    print(f"{row['name']:32} wall device union {shown} ms  {row['verdict']}: {row['because']}", flush=True)
    for text in (*row["remarks"], *(f"no {part}: {why}" for part, why in row["missing"].items())):
        print(f"    {text}")
    if row["longest"]:
        print(f"    longest: {row['longest']['ms']:.3f} ms {row['longest']['name'][:90]}", flush=True)


def beside(profiles: dict[str, Profile], folder: Path) -> None:
    """A page for each attention: its first profile is A, every other B."""
    for kind in dict.fromkeys(name.partition("-")[0] for name in profiles):
        first, *others = (name for name in profiles if name.startswith(f"{kind}-"))
        for other in others:
            page = import_part("reports.against_page").against_html(
                against_of(profiles[first], profiles[other]), first, other
            )
            (folder / f"{first}-against-{other}.html").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
