"""One sequence on one GPU and on several: checked, timed, its bytes counted, and how long it can be.

``python scripts/scale_gpus.py --out FOLDER`` on a machine with two GPUs takes under 400 s: it writes a line
of ``FOLDER/rows.jsonl`` for each figure as it is measured, then ``FOLDER/scaling.json``, and prints a table.
What does not fit the time is left out, and said. ``--device cpu`` goes through the same at small sizes.
`scaling_model.py` reads such a folder.

Every position's numbers are drawn from a seed of its block, so that one device and two have the same
sequence; of each output some rows are kept, and those of two devices held against those of one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench.measure.agreement import FLOORS  # noqa: E402
from mtbench.measure.environment import environment  # noqa: E402
from scripts.scale_rank import SIZES  # noqa: E402

RANK = str(ROOT / "scripts" / "scale_rank.py")


def differences(folder: Path, ranks: int) -> list[dict[str, Any]]:
    """The kept rows of several devices against those of one: what the split changes."""
    found = []
    for file in sorted(folder.glob("*-of1-rank0.npz")):
        name = file.name.removesuffix("-of1-rank0.npz")
        alone, others = (
            dict(np.load(file)),
            [dict(np.load(other)) for other in sorted(folder.glob(f"{name}-of{ranks}-rank*.npz"))],
        )
        if not others:
            continue
        row: dict[str, Any] = {"what": "difference", "name": name, "ranks": ranks, "relative": {}}
        for array in ("o", "dq", "dk", "dv"):
            if f"{array}-0" not in alone:
                continue
            pieces = [
                (o[f"{key}-at"], o[key])
                for o in others
                for key in o
                if key.startswith(f"{array}-") and not key.endswith("-at")
            ]
            at = np.concatenate([positions for positions, _ in pieces])
            rows = np.concatenate([part for _, part in pieces], 2)[:, :, np.argsort(at)]
            truth = alone[f"{array}-0"].astype(np.float64)
            assert np.array_equal(np.sort(at), alone[f"{array}-0-at"])
            row["relative"][array] = float(np.linalg.norm(rows - truth) / np.linalg.norm(truth))
        found.append(row)
    return found


def table(rows: list[dict[str, Any]]) -> None:
    """What a reader wants first."""
    times = [row for row in rows if row["what"] in ("time", "part")]
    alone = {
        (r["kind"], r["mode"], r["seq_len"]): r["median_ms"]
        for r in times
        if r["ranks"] == 1 and r["what"] == "time"
    }
    print(
        f"{'':28}{'length':>9}{'groups':>7}{'ranks':>6}{'ms':>10}{'speed-up':>9}"
        f"{'sent KiB':>10}{'exposed':>9}"
    )
    for r in times:
        one = alone.get((r["kind"], r["mode"], r["seq_len"]))
        faster = f"{one / r['median_ms']:.2f}" if one and r["ranks"] > 1 else ""
        print(
            f"{r['kind']:10}{r['mode']:18}{r['seq_len']:>9}{r['groups'] or '':>7}{r['ranks']:>6}"
            f"{r['median_ms']:>10.3f}{faster:>9}{r['sent_bytes'] / 1024:>10.1f}{r['exposed_ms']:>9.3f}"
        )
    for row in rows:
        if row["what"] not in ("time", "part"):
            print({k: v for k, v in row.items() if k != "tried"})


def main() -> None:
    """One device, then several; a process each, ended where they take too long."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, help="A folder for what is measured.")
    parser.add_argument("--device", default="cuda", choices=sorted(SIZES))
    parser.add_argument("--devices", type=int, default=2, help="How many, beside one.")
    parser.add_argument("--limit", type=float, default=380.0, help="Seconds for all of it.")
    options = parser.parse_args()
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    for old in ("rows.jsonl", *(path.name for path in folder.glob("*.npz"))):
        (folder / old).unlink(missing_ok=True)
    began = time.time()
    failed = []
    for ranks, share in ((1, 0.4), (options.devices, 0.95)):
        deadline = began + share * options.limit
        with tempfile.TemporaryDirectory() as meet:
            words = ["--out", options.out, "--device", options.device, "--ranks", str(ranks)]
            words += ["--meet", f"{meet}/meet", "--deadline", str(deadline)]
            started = [
                subprocess.Popen([sys.executable, RANK, *words, "--rank", str(rank)]) for rank in range(ranks)
            ]
            # A task that has begun is let finish; one that hangs is not waited for.
            late = deadline + 0.05 * options.limit
            while any(process.poll() is None for process in started) and time.time() < late:
                if any(process.poll() for process in started):
                    break
                time.sleep(0.1)
            for process in started:
                if process.poll() is None:
                    process.kill()
                process.wait()
            codes = [process.returncode for process in started]
            if any(codes):
                failed.append({"what": "failed", "ranks": ranks, "exit_codes": codes})
    written = folder / "rows.jsonl"  # not there where the first process failed at once
    rows = [json.loads(line) for line in (written.read_text().splitlines() if written.exists() else ())]
    failed = [row for row in rows if row["what"] == "failed"] + failed
    rows = [row for row in rows if row["what"] != "failed"] + failed
    rows += differences(folder, options.devices)
    for file in folder.glob("*.npz"):
        file.unlink()
    words = ["git", "rev-parse", "HEAD"]  # on a machine without it, or without the history, there is none
    code = (
        subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT) if which("git") else None
    )
    found = {
        "commit": (code.stdout.strip() if code else "") or None,
        "device": options.device,
        "sizes": SIZES[options.device],
        "environment": environment(threads=1, host=False),
        "seconds": time.time() - began,
        "rows": rows,
    }
    (folder / "scaling.json").write_text(json.dumps(found, indent=1, default=str) + "\n")
    table(rows)
    floor = FLOORS[SIZES[options.device]["dtype"]]
    wrong = [r for r in rows if r["what"] == "agreement" and not r["passes"]]
    wrong += [
        r for r in rows if r["what"] == "difference" and not all(x <= floor for x in r["relative"].values())
    ]
    print(f"{time.time() - began:.0f} s; wrong: {wrong or 'none'}; failed: {failed or 'none'}")
    sys.exit(1 if wrong or failed else 0)


if __name__ == "__main__":
    main()
