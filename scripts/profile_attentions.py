"""The slowest and the fastest backend of each attention, profiled: what bounds each, kernel by kernel.

``python scripts/profile_attentions.py --mode forward_backward --out FOLDER`` on a machine with a GPU makes a
profile of each at (8, 16, 4096, 64) in bfloat16, sets the two of an attention side by side, prints a short
table, and leaves everything in ``FOLDER/profiles.tar.gz``, which is written anew after every profile: a run
that is cut off has lost one. It begins no profile that would end after ``--limit`` seconds if it took as
long as the longest so far, and says which are left: the order is that of what is most worth knowing, and
``--only`` names them for another call. ``--device cpu --shape 1,2,64,16`` tries it whole without a GPU.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tarfile
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench import Case  # noqa: E402
from mtbench.profile.against import against_of  # noqa: E402
from mtbench.profile.command import make_profile  # noqa: E402
from mtbench.profile.record import Profile  # noqa: E402
from mtbench.profile.target import target_of  # noqa: E402
from mtbench.registry import import_part  # noqa: E402
from scripts.tune_triton import the_case  # noqa: E402

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
    parser.add_argument("--limit", type=float, default=540.0, help="seconds for all of it")
    parser.add_argument("--only", default="", help="KIND-BACKEND-FORM of those that are wanted, by commas")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    names = {"-".join(words): words for words in CHOSEN[options.device]}
    wanted = options.only.split(",") if options.only else list(names)
    if unknown := [name for name in wanted if name not in names]:
        parser.error(f"--only {unknown[0]}: there are {', '.join(names)}")
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    profiles: dict[str, Profile] = {}
    longest = 0.0
    with tempfile.TemporaryDirectory(prefix="mtbench-profiles-") as folder:
        work = Path(folder)
        for name in wanted:
            kind, backend, form = names[name]
            start = time.monotonic()
            if start - began + longest > options.limit:
                rows.append({"name": name, "problem": "left for another call: the time was up"})
            else:
                try:
                    target = target_of(backend, case_of(kind, options), form)
                    made = make_profile(target, work / name, calls=options.calls, without=LEFT_OUT)
                except Exception as error:  # noqa: BLE001  (whatever it is, the others are wanted)
                    traceback.print_exc()
                    rows.append({"name": name, "problem": f"{type(error).__name__}: {error}"})
                else:
                    profiles[name] = made
                    beside(profiles, name, work)
                    rows.append(told(name, made, time.monotonic() - start))
                longest = max(longest, time.monotonic() - start)
            line(rows[-1])
            keep(rows, work, options)
    size = (options.out / "profiles.tar.gz").stat().st_size
    print(f"{time.monotonic() - began:.0f} s; {size / 2**20:.1f} MiB")
    return int(any("problem" in row and "time was up" not in row["problem"] for row in rows))


def case_of(kind: str, options: argparse.Namespace) -> Case:
    """What is profiled of an attention."""
    case = the_case(options.shape, kind, options.mode, options.device)
    return case if options.device == "cuda" else case.replace(dtype="float32")


def keep(rows: list[dict[str, Any]], work: Path, options: argparse.Namespace) -> None:
    """What there is so far, in place of what there was: a run that is cut off leaves whole files."""
    new = options.out / "profiles.new"
    (work / "summary.json").write_text(json.dumps(rows, indent=1) + "\n")
    with tarfile.open(new, "w:gz") as tar:
        tar.add(work, arcname=f"profiles-{options.mode}", filter=small)
    new.replace(options.out / "profiles.tar.gz")
    shutil.copy(work / "summary.json", options.out)


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


def beside(profiles: dict[str, Profile], name: str, folder: Path) -> None:
    """A page of an attention's first profile, as A, and this one, as B."""
    kind = name.partition("-")[0]
    first = next(other for other in profiles if other.startswith(f"{kind}-"))
    if first != name:
        found = against_of(profiles[first], profiles[name])
        page = import_part("reports.against_page").against_html(found, first, name)
        (folder / f"{first}-against-{name}.html").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
