"""Kill runs at random moments, go on with them, and see that nothing is lost and nothing is done twice.

``python scripts/kill_and_resume.py --kills 100``: every other time the runner is killed, and gone on with by
``mtbench run --resume``; in between one of its workers is, which costs it the row it was at and no other.
Needs no framework but NumPy, and the tests' own backend. Exit code 1 where a finished row was lost, changed
or measured again.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]

BACKEND = ROOT / "tests" / "known" / "faulty.py"
"""Its form ``right`` is; every build of a row goes to the file that KNOWN_LOG names."""


class Trial:
    """One run folder, from its first start to its end."""

    def __init__(self, folder: Path, rows: int, launches: int) -> None:
        self.folder, self.launches = folder, launches
        self.out = folder / "run"
        self.built = folder / "built"
        self.built.touch()
        sizes = ",".join(str(16 + n) for n in range(rows))
        self.first = (
            f"--backend {BACKEND} --form right --attention softmax --heads 1 --head-dim 4 --seq-len {sizes} "
            f"--launches {launches} --out run"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin the run, or go on with it. Killed before its plan was on disk it is begun anew."""
        words = "--resume run" if (self.out / "run.json").exists() else self.first
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mtbench", "run", *words.split()],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "KNOWN_LOG": str(self.built)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def finished(self) -> list[str]:
        """The whole lines of measurements.jsonl."""
        rows = self.out / "measurements.jsonl"
        text = rows.read_text() if rows.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()

    def kill(self, *, worker: bool) -> bool:
        """Whether there was one to kill."""
        assert self.process is not None
        try:
            victims = psutil.Process(self.process.pid).children() if worker else [self.process]
            for victim in victims[:1]:
                victim.kill()
        except psutil.Error:
            return False
        if not worker:
            self.process.communicate()
        return bool(victims)

    def end(self) -> str:
        """Wait; what it said on stderr."""
        assert self.process is not None
        _, said = self.process.communicate(timeout=600)
        return said.decode()


def one_trial(trial: Trial, chance: random.Random, most: int) -> tuple[int, list[str]]:
    """Kills made in one run, and what went wrong."""
    launches = trial.launches
    wrong: list[str] = []
    kills = killed_workers = 0
    trial.start()
    while kills < most:
        assert trial.process is not None
        time.sleep(chance.uniform(0.0, 2.5))
        if trial.process.poll() is not None:
            break
        worker = kills % 2 == 1
        if not trial.kill(worker=worker):
            continue
        kills += 1
        killed_workers += worker
        if worker:
            continue
        before, built = trial.finished(), len(trial.built.read_text().splitlines())
        trial.start()
        said = trial.process.poll()
        if said not in (None, 0, 1):
            wrong.append(f"--resume ended with {said}")
        # A row that was on disk with all its launches must not be built again.
        done = {
            line for line in before if '"status": "ok"' not in line or line.count('"seconds"') >= launches
        }
        time.sleep(chance.uniform(0.5, 1.5))
        again = trial.built.read_text().splitlines()[built:]
        ids = {line.split('"id": "', 1)[1].split('"', 1)[0] for line in done}
        wrong += [f"measured again: {row}" for _, row in map(str.split, again) if row in ids]
    said_last = trial.end()
    from mtbench.results import Run

    run = Run.load(trial.out)
    statuses = Counter(row.status for row in run)
    if [row.id for row in run] != run.header["plan"]["rows"]:
        wrong.append(f"the rows are not the plan: {len(run.measurements)} rows; {said_last[-300:]}")
    if run.unreadable_lines:
        wrong.append(f"{run.unreadable_lines} damaged lines")
    if statuses["crash"] > killed_workers:
        wrong.append(f"{statuses['crash']} crashes for {killed_workers} workers killed")
    if set(statuses) - {"ok", "crash"}:
        wrong.append(f"statuses {dict(statuses)}")
    for row in run:
        if row.status == "ok" and row.launches != launches:
            wrong.append(f"{row.id} has {row.launches} launches")
    return kills, wrong


def main() -> None:
    """Trials until so many kills were made."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rows", type=int, default=12, help="of each run")
    parser.add_argument("--launches", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    chance = random.Random(options.seed)
    kills = trials = 0
    wrong: list[str] = []
    while kills < options.kills:
        with tempfile.TemporaryDirectory() as folder:
            trial = Trial(Path(folder), options.rows, options.launches)
            made, found = one_trial(trial, chance, options.kills - kills)
        kills, trials = kills + made, trials + 1
        wrong += found
        print(f"run {trials}: {made} kills, {len(found)} faults; {kills} of {options.kills}", flush=True)
    for line in wrong:
        print(line)
    print(f"{kills} kills in {trials} runs: {len(wrong)} faults")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
