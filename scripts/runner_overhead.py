"""What part of a sweep's wall time is the runner's own, and how heavy the command line is.

``python scripts/runner_overhead.py --preset default`` runs `mtbench run` with the words it is given (all that
are not its own) and adds up what its rows say of their stages. The work is: inputs and oracle, build, first
call, agreement, warm-up and the clocks. All else is overhead: workers that start, memory, messages, files and
the report. ``--of DIR`` adds up a run that is there, from its header's start to its report's last byte.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench.results import Run  # noqa: E402

WORK = ("inputs and oracle", "build", "first call", "agreement", "warm-up", "wall clock", "device clock")
STARTS = 11


def made(words: list[str]) -> dict[str, object]:
    """What `overhead` says of a new run."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "mtbench", "run", *words, "--out", str(out)],
            env=environment(),
            check=False,
        )
        return overhead(Run.load(out), time.perf_counter() - began)


def found(folder: Path) -> dict[str, object]:
    """What `overhead` says of a run that is there."""
    run = Run.load(folder)
    began = datetime.fromisoformat(str(run.header["started"])).timestamp()
    return overhead(run, (folder / "report.html").stat().st_mtime - began)


def overhead(run: Run, total: float) -> dict[str, object]:
    """Seconds of a run by stage, and the part of the `total` that is no work."""
    stages: Counter[str] = Counter()
    for row in run:
        stages.update(row.stage_s)
    work = sum(stages[name] for name in WORK)
    return {
        "command": run.header["command"],
        "rows": len(run.measurements),
        "total_s": total,
        "stage_s": dict(stages),
        "work_s": work,
        "overhead": 1 - work / total,
    }


def help_time() -> dict[str, float]:
    """Seconds of `mtbench --help` and of importing NumPy, in turn, the median of each."""
    commands = {"help_s": ["-m", "mtbench", "--help"], "numpy_s": ["-c", "import numpy"]}
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(STARTS):
        for name, arguments in commands.items():
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, *arguments], env=environment(), check=True, stdout=subprocess.DEVNULL
            )
            samples[name].append(time.perf_counter() - began)
    times = {name: median(values) for name, values in samples.items()}
    return times | {"help_over_numpy": times["help_s"] / times["numpy_s"]}


def environment() -> dict[str, str]:
    """This checkout's mtbench."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def main() -> None:
    """Both figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--of", type=Path, metavar="DIR", help="a run that is there, and no new one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures are written")
    options, words = parser.parse_known_args()
    if options.of and words:
        parser.error(f"{' '.join(words)}: a run that is there takes no words of a new one")
    sweep = found(options.of) if options.of else made(words or ["--preset", "default"])
    text = json.dumps({"command_line": help_time(), "sweep": sweep}, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
