"""How near a sweep over several nodes comes to its share of the time that one machine takes, and what the
engine costs a case.

``python scripts/ray_scaling.py --json FILE`` measures the same cases twice: by the local executor, and on a
Ray cluster of four nodes. Both times are those of the whole command, `mtbench run`, its start and its report
included; the cluster is up before. Ideal is the local time over the number of nodes. All nodes are on this
machine, so the kernel sleeps: one that computes would need the cores of four. Needs Ray.

What the engine costs a case is reckoned between the first row and the last: the time of a place for each
row, less what the row says that its stages took. For the local executor it is mtbench's own (messages, the
folder), and for Ray's that and Ray's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench.results import Run  # noqa: E402
from tests.clusters import cluster  # noqa: E402

BACKEND = ROOT / "tests" / "known" / "sleepy.py"
POLL_S = 0.01


def swept(words: list[str], rows: int, places: int) -> dict[str, float]:
    """Seconds of one sweep: whole, to its first row, and what it spent on a case beside the case."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        sizes = ",".join(str(16 + n) for n in range(rows))
        what = f"--backend {BACKEND} --attention softmax --heads 1 --head-dim 4 --seq-len {sizes} --out {out}"
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "mtbench", "run", *what.split(), *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        arrived: list[float] = []
        lines = out / "measurements.jsonl"
        while process.poll() is None:
            count = lines.read_bytes().count(b"\n") if lines.exists() else 0
            arrived += [time.perf_counter() - began] * (count - len(arrived))
            time.sleep(POLL_S)
        whole = time.perf_counter() - began
        found = list(Run.load(out))
    if [row.status for row in found] != ["ok"] * rows or len(arrived) != rows:
        raise SystemExit(f"{' '.join(words)}: not every row is ok")
    stages = sum(sum(row.stage_s.values()) for row in found) / rows
    # From when every place has had one row to the last: each row took a place so long.
    between = places * (arrived[-1] - arrived[places - 1]) / (rows - places)
    return {
        "whole_s": whole,
        "to_first_row_s": arrived[0],
        "after_last_row_s": whole - arrived[-1],
        "stages_a_case_s": stages,
        "engine_a_case_s": between - stages,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--sleep", type=float, default=0.04, help="seconds of a call")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["KNOWN_SLEEP_S"] = str(options.sleep)
    loads = [os.getloadavg()[0]]
    with cluster({"simulated": options.nodes}, KNOWN_SLEEP_S=str(options.sleep)) as on:
        ray = swept(["--executor", "ray", "--address", on.address], options.rows, options.nodes)
    loads.append(os.getloadavg()[0])
    local = swept([], options.rows, 1)
    loads.append(os.getloadavg()[0])
    ideal = local["whole_s"] / options.nodes
    found = {
        "rows": options.rows,
        "nodes": options.nodes,
        "sleep_s": options.sleep,
        "cores": os.cpu_count(),
        "load_average_before_between_after": loads,
        "local": local,
        "ray": ray,
        "ideal_s": ideal,
        "over_ideal": ray["whole_s"] / ideal,
    }
    text = json.dumps(found, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
