"""Kill nodes, workers and drivers of sweeps on a Ray cluster, and see that nothing is lost and nothing is
measured twice.

``python scripts/kill_on_ray.py --each 20`` starts a cluster of three nodes on this machine and sweeps over it
again and again. In each sweep one thing is killed at a random moment while rows are being measured: a node
(its raylet and all it started, a new one takes its place), one of mtbench's workers, a station (the process
of Ray that holds them), or the driver (`mtbench run` itself, gone on with by ``--resume``). Needs Ray and the
tests' own backend. Exit code 1 where a row was lost, failed, or was measured more often than it had to be.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench.results import Run  # noqa: E402
from tests.clusters import Cluster, cluster  # noqa: E402

BACKEND = ROOT / "tests" / "known" / "faulty.py"
"""Its form ``right`` is; every build of a row goes to the file that KNOWN_LOG names."""
KIND = "simulated"
OUTLIVE_S = 60.0


class Sweep:
    """One run folder on a cluster, from its first start to its end."""

    def __init__(
        self,
        on: Cluster,
        folder: Path,
        built: Path,
        rows: int,
        launches: int,
        backend: Path = BACKEND,
        more: str = "",
    ) -> None:
        self.cluster, self.folder, self.launches = on, folder, launches
        self.out = folder / "run"
        self.steps = rows * launches * len(set(on.nodes.values()))
        self._built = built
        built.write_text("")
        sizes = ",".join(str(16 + n) for n in range(rows))
        self._first = (
            f"--executor ray --backend {backend} --form right --attention softmax --heads 1 --head-dim 4 "
            f"--seq-len {sizes} --launches {launches} --out run {more}"
        )
        self.start()

    def start(self) -> None:
        """Begin the run, or go on with it."""
        words = "--resume run" if (self.out / "run.json").exists() else self._first
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mtbench", "run", "--address", self.cluster.address, *words.split()],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    @property
    def rows(self) -> list[str]:
        """The whole lines of measurements.jsonl."""
        file = self.out / "measurements.jsonl"
        text = file.read_text() if file.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()

    @property
    def built(self) -> list[str]:
        """The rows that were built, in order."""
        return [line.split()[1] for line in self._built.read_text().splitlines()]

    def until(self, rows: int) -> None:
        """Wait until so many lines are on disk, or it has ended."""
        while len(self.rows) < rows and self.process.poll() is None:
            time.sleep(0.02)

    def end(self) -> tuple[int, str]:
        """Wait; its exit code, and what it said."""
        said, _ = self.process.communicate(timeout=300)
        return self.process.returncode, said.decode()

    def faults(self, code: int, said: str, again: Counter[str]) -> list[str]:
        """What is wrong with it at the end.

        Args:
            code: the exit code.
            said: what it said.
            again: by row, on any kind of machine, how often it may have been measured beyond its launches.
        """
        run = Run.load(self.out)
        wrong = [] if code == 0 else [f"exit code {code}: {said[-400:]}"]
        planned = run.header["plan"]["rows"]
        if sorted(row.id for row in run) != sorted(planned):
            wrong.append(f"the rows are not the plan: {len(run.measurements)} of {len(planned)}")
        if run.unreadable_lines:
            wrong.append(f"{run.unreadable_lines} damaged lines")
        wrong += [
            f"{row.id}: {row.status} with {row.launches} launches: {row.reason}"
            for row in run
            if (row.status, row.launches) != ("ok", self.launches)
        ]
        builds, kinds = Counter(self.built), Counter(row.unplaced_id for row in run)
        for name, count in kinds.items():
            # A row that was lost may have been lost before it was built.
            least = self.launches * count
            if not least <= builds[name] <= least + again[name]:
                wrong.append(f"{name} was built {builds[name]} times, not {least} to {least + again[name]}")
        return wrong


def lost(run: Run) -> Counter[str]:
    """By row, how often its worker or station was lost, as the run tells."""
    notes = [note for note in run.header.get("notes", ()) if " was lost on " in note]
    return Counter(note.split("@", 1)[0] for note in notes)


def kill_node(sweep: Sweep, chance: random.Random) -> None:
    """One that measures; another takes its place."""
    at_work = [node for node in sweep.cluster.nodes if sweep.cluster.workers(node)]
    victim = chance.choice(at_work or list(sweep.cluster.nodes))
    kind = sweep.cluster.nodes[victim]
    sweep.cluster.kill_node(victim)
    sweep.cluster.add(kind)


def kill_worker(sweep: Sweep, chance: random.Random) -> None:
    """One of mtbench's own worker processes."""
    _kill_one(sweep, chance, sweep.cluster.workers)


def kill_station(sweep: Sweep, chance: random.Random) -> None:
    """One of the processes of Ray that hold them."""
    _kill_one(sweep, chance, sweep.cluster.stations)


def _kill_one(sweep: Sweep, chance: random.Random, which: Callable[[Any], list[Any]]) -> None:
    found: list[Any] = []
    while not found and sweep.process.poll() is None:
        found = [process for node in sweep.cluster.nodes for process in which(node)]
    if found:
        chance.choice(found).kill()


def kill_driver(sweep: Sweep, chance: random.Random) -> Counter[str]:
    """`mtbench run` itself, and go on with it once its stations have ended; by row, how often it was built
    for nothing."""
    sweep.process.kill()
    sweep.process.communicate()
    deadline = time.monotonic() + OUTLIVE_S
    while any(sweep.cluster.workers(node) for node in sweep.cluster.nodes):
        if time.monotonic() > deadline:
            raise SystemExit(f"workers outlive their driver by {OUTLIVE_S:g} s")
        time.sleep(0.05)
    on_disk = Counter(line.split('"id": "', 1)[1].split("@", 1)[0] for line in sweep.rows)
    found = Counter(sweep.built) - on_disk
    sweep.start()
    return found


KILLS: dict[str, Callable[[Sweep, random.Random], Counter[str] | None]] = {
    "node": kill_node,
    "worker": kill_worker,
    "station": kill_station,
    "driver": kill_driver,
}


def one_kill(sweep: Sweep, what: str, chance: random.Random) -> tuple[int, list[str]]:
    """Kill once at a random moment, and see the sweep to its end; how many rows were lost with what was
    killed, and what went wrong."""
    sweep.until(chance.randrange(sweep.steps - 4))
    time.sleep(chance.uniform(0.0, 0.5))
    if sweep.process.poll() is not None:
        return 0, [f"it had ended before anything was killed: {sweep.end()[1][-300:]}"]
    for_nothing = KILLS[what](sweep, chance) or Counter[str]()
    code, said = sweep.end()
    again = lost(Run.load(sweep.out)) + for_nothing
    return sum(again.values()), sweep.faults(code, said, again)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--each", type=int, default=20, help="kills of each kind")
    parser.add_argument("--only", choices=KILLS, action="append", help="[default: all]")
    parser.add_argument("--rows", type=int, default=12, help="of each sweep")
    parser.add_argument("--launches", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    wrong: list[str] = []
    tally: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / "built"
        with cluster({KIND: 3}, KNOWN_LOG=str(built)) as on:
            for number in range(options.each):
                for what in options.only or KILLS:
                    folder = Path(scratch) / f"{what}-{number}"
                    folder.mkdir()
                    began = time.monotonic()
                    sweep = Sweep(on, folder, built, options.rows, options.launches)
                    measured_again, found = one_kill(sweep, what, chance)
                    on.ready()
                    tally[f"{what}: rows lost and measured again"] += measured_again
                    wrong += [f"{what} {number + 1}: {fault}" for fault in found]
                    seconds = time.monotonic() - began
                    print(
                        f"{what} {number + 1} of {options.each}: {measured_again} lost and measured again, "
                        f"{len(found)} faults, {seconds:.0f} s",
                        flush=True,
                    )
    for line in wrong:
        print(line)
    for what, count in sorted(tally.items()):
        print(f"{what}: {count}")
    kills = options.each * len(options.only or KILLS)
    swept = f"{options.rows} rows, {options.launches} launches each"
    print(f"{kills} kills in {kills} sweeps of {swept}: {len(wrong)} faults")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
