"""What `mtbench compare` finds and what it makes up, at several numbers of launches.

Of two runs of the same code (``python scripts/comparison_power.py A B``), of two it makes first
(``--make DIR``), or of a stated noise (``--simulate``), it reports

- flagged: cases called slower or faster though nothing changed;
- backend: a slow-down put into all cases of one backend of B, each backend in turn: cases caught;
- lone: the slow-down put into one case of B, every case in turn: trials in which it is caught;
- faster: cases called faster although something was slowed, as a count.

``--slowed C`` takes a third run, whose backend ``--slowed-backend`` was really slower (`slowed.py`;
``--make`` measures it too). Fewer launches than a run has are drawn from it at random, passes of A and of B
apart. ``--edge`` and ``--without`` change the test, to see what each part of it is for.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench.compare import test  # noqa: E402
from mtbench.compare.cases import match  # noqa: E402
from mtbench.compare.sides import read_side  # noqa: E402
from mtbench.compare.test import LEAST_VOICES, moderated_test  # noqa: E402
from mtbench.compare.verdicts import verdict_of  # noqa: E402

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two sides: [case, launch] medians in ms, and the backend of each case."""

    a: Floats
    b: Floats
    backends: tuple[str, ...]

    def draw(self, launches: int, rng: np.random.Generator) -> Pair:
        """So many launches of each side."""
        one, other = (
            np.sort(rng.choice(side.shape[1], launches, replace=False)) for side in (self.a, self.b)
        )
        return Pair(a=self.a[:, one], b=self.b[:, other], backends=self.backends)


def measured(a: Path, b: Path) -> Pair:
    """The cases that have every launch on both sides."""
    matched, _ = match(read_side(a), read_side(b))
    most_a, most_b = (max(len(getattr(case, side)) for case in matched) for side in ("a_ms", "b_ms"))
    full = [case for case in matched if (len(case.a_ms), len(case.b_ms)) == (most_a, most_b)]
    return Pair(
        a=np.array([case.a_ms for case in full]),
        b=np.array([case.b_ms for case in full]),
        backends=tuple(case.backend for case in full),
    )


def simulated(options: argparse.Namespace, launches: int, rng: np.random.Generator) -> Pair:
    """Log-normal launches: a spread of each case, a drift of each run and of each backend in it, a scatter
    of each case between runs, and now and then a launch that was disturbed."""
    names = tuple(f"backend-{case % options.backends}" for case in range(options.cases))
    numbers = np.arange(options.cases) % options.backends
    # Smyth's model: variances spread as a scaled inverse chi-square of that many degrees of freedom.
    spread = options.noise / 100 * np.sqrt(options.spread / rng.chisquare(options.spread, options.cases))
    base = rng.uniform(math.log(0.05), math.log(50), options.cases)

    def run() -> Floats:
        logs = base[:, None] + rng.normal(0, 1, (options.cases, launches)) * spread[:, None]
        logs += rng.normal(0, options.drift / 100)
        logs += rng.normal(0, options.backend_drift / 100, options.backends)[numbers][:, None]
        logs += rng.normal(0, options.between / 100, options.cases)[:, None]
        hit = rng.random(logs.shape) < options.disturbed / 100
        return np.asarray(np.exp(logs + hit * rng.exponential(options.disturbance / 100, logs.shape)))

    return Pair(a=run(), b=run(), backends=names)


def verdicts(pair: Pair, effect_percent: float) -> list[str]:
    """The verdict of each case."""
    effect = math.log1p(effect_percent / 100)
    tested = moderated_test(list(pair.a), list(pair.b), pair.backends, effect_log=effect)
    return [
        verdict_of(float(ratio), tested.drift, float(q), effect)[0]
        for ratio, q in zip(tested.log_ratio, tested.q, strict=True)
    ]


class Counts:
    """Of everything tried at one number of launches."""

    def __init__(self) -> None:
        self.pairs = self.cases = self.flagged = self.unsure = self.faster = 0
        self.backend: dict[str, list[int]] = {}
        self.lone: dict[str, list[int]] = {}

    def add(self, pair: Pair, options: argparse.Namespace, rng: np.random.Generator) -> None:
        """Nothing changed; then each backend slowed; then each case (or some of them)."""
        found = verdicts(pair, options.effect)
        self.pairs += 1
        self.cases += len(found)
        self.flagged += sum(verdict in ("slower", "faster") for verdict in found)
        self.unsure += found.count("unsure")
        names = np.array(pair.backends)
        for backend in dict.fromkeys(pair.backends):
            own = names == backend
            if own.sum() >= LEAST_VOICES:
                self._try(pair, own, options, self.backend.setdefault(backend, [0, 0]))
        trials = range(len(names))
        if options.lone_trials and options.lone_trials < len(names):
            trials = rng.choice(len(names), options.lone_trials, replace=False)
        for case in trials:
            own = np.arange(len(names)) == case
            self._try(pair, own, options, self.lone.setdefault(pair.backends[case], [0, 0]))

    def _try(
        self, pair: Pair, slowed: NDArray[np.bool_], options: argparse.Namespace, into: list[int]
    ) -> None:
        b = pair.b * np.where(slowed, 1 + options.slow_down / 100, 1.0)[:, None]
        found = np.array(verdicts(Pair(a=pair.a, b=b, backends=pair.backends), options.effect))
        into[0] += int((found[slowed] == "slower").sum())
        into[1] += int(slowed.sum())
        self.faster += int((found[slowed] == "faster").sum())

    def summary(self) -> dict[str, Any]:
        """Parts in percent."""
        return {
            "pairs": self.pairs,
            "cases": self.cases // self.pairs,
            "flagged_percent": 100 * self.flagged / self.cases,
            "unsure_percent": 100 * self.unsure / self.cases,
            "backend_caught_percent": {name: 100 * c / n for name, (c, n) in self.backend.items()},
            "lone_caught_percent": _part(self.lone),
            "lone_caught_percent_by_backend": {name: 100 * c / n for name, (c, n) in self.lone.items()},
            "slowed_called_faster": self.faster,
        }


def _part(caught: dict[str, list[int]]) -> float:
    return 100 * sum(c for c, _ in caught.values()) / max(1, sum(n for _, n in caught.values()))


def really_slowed(pair: Pair, backend: str, effect_percent: float) -> dict[str, float]:
    """A run whose backend was really slower against one of which it was not."""
    found = np.array(verdicts(pair, effect_percent))
    own = np.array(pair.backends) == backend
    ratio = np.median(pair.b[own], axis=1) / np.median(pair.a[own], axis=1)
    return {
        "cases": int(own.sum()),
        "caught_percent": 100 * float((found[own] == "slower").mean()),
        "called_faster": int((found[own] == "faster").sum()),
        "others_flagged_percent": 100 * float(np.isin(found[~own], ("slower", "faster")).mean()),
        "median_ratio": float(np.median(ratio)),
    }


def make(options: argparse.Namespace) -> tuple[Path, Path, Path]:
    """Two runs of the same code, and one with a backend that is really slower, one after another."""
    names = options.backend.split(",")
    if options.slowed_backend not in names:
        raise SystemExit(f"--slowed-backend {options.slowed_backend} is not in --backend {options.backend}")
    slowed = [str(Path(__file__).with_name("slowed.py")) if n == options.slowed_backend else n for n in names]
    folders = tuple(options.make / name for name in ("a", "b", "slowed"))
    for folder, backends in zip(folders, (names, names, slowed), strict=True):
        subprocess.run(
            [
                *(sys.executable, "-m", "mtbench", "run", "--preset", options.preset),
                *("--backend", ",".join(backends), "--launches", str(max(options.launches))),
                *("--out", str(folder), *shlex.split(options.run_options)),
            ],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "MTBENCH_SLOWED": options.slowed_backend,
                "MTBENCH_SLOWED_PERCENT": str(options.slow_down),
            },
            check=True,
        )
    return folders[0], folders[1], folders[2]


def draws(pair: Pair, launches: int, count: int, rng: np.random.Generator) -> Iterator[Pair]:
    """Some draws of so many launches; one where that is all there are."""
    whole = pair.a.shape[1] == pair.b.shape[1] == launches
    for _ in range(1 if whole else count):
        yield pair.draw(launches, rng)


PARTS: dict[str, tuple[str, Any]] = {
    "drift": ("shared_shift", lambda middles: 0.0),
    "widening": ("widening", lambda residuals, errors, freedom: 1.0),
    "moderation": ("squeezed_variances", lambda variances, freedom: (variances, 0.0)),
    "trimming": ("TRIM", 0.0),
}
"""What stands in for each part of the test where it is left out."""


def main() -> None:
    """Measure or simulate, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, help="two runs of the same code")
    parser.add_argument("--make", type=Path, help="a new folder to make the runs in")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--backend", default="torch-eager,torch-compile,jax")
    parser.add_argument("--run-options", default="", help="more for `mtbench run`: '--threads 1'")
    parser.add_argument("--slowed", type=Path, help="a third run, with a backend that was really slower")
    parser.add_argument("--slowed-backend", default="torch-eager")
    parser.add_argument("--simulate", action="store_true", help="no runs: the noise is as stated")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--backends", type=int, default=4)
    parser.add_argument("--noise", type=float, default=1.5, help="deviation of a launch, %%")
    parser.add_argument("--spread", type=float, default=6.0, help="degrees of freedom it is spread by")
    parser.add_argument("--drift", type=float, default=2.0, help="deviation of a run, all cases, %%")
    parser.add_argument("--backend-drift", type=float, default=0.5, help="of a backend in a run, %%")
    parser.add_argument("--between", type=float, default=0.5, help="of a case in a run, %%")
    parser.add_argument("--disturbed", type=float, default=2.0, help="launches disturbed, %%")
    parser.add_argument("--disturbance", type=float, default=15.0, help="by how much on average, %%")
    parser.add_argument("--launches", type=lambda text: [int(n) for n in text.split(",")], default=[3, 5, 8])
    parser.add_argument("--draws", type=int, default=5, help="of launches from a run, or simulated pairs")
    parser.add_argument("--lone-trials", type=int, default=0, help="cases slowed alone; 0 is every one")
    parser.add_argument("--slow-down", type=float, default=10.0, help="%%")
    parser.add_argument("--effect", type=float, default=3.0, help="smallest effect that matters, %%")
    parser.add_argument("--edge", type=float, default=test.EDGE, help="part of the effect in the hypothesis")
    parser.add_argument("--without", default="", help=f"parts of the test: {', '.join(PARTS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    test.EDGE = options.edge
    for part in filter(None, options.without.split(",")):
        if part not in PARTS:
            parser.error(f"--without {part}: one of {', '.join(PARTS)}")
        setattr(test, *PARTS[part])
    if options.make:
        a, b, options.slowed = make(options)
        options.folders = [a, b]
    if not options.simulate and len(options.folders) != 2:
        parser.error("give two run folders, --make DIR or --simulate")
    pair = None if options.simulate else measured(*options.folders)
    figures: dict[str, Any] = {
        "options": {name: _plain(value) for name, value in vars(options).items()},
        "launches": {},
    }
    print(f"{'launches':>8} {'flagged':>8} {'unsure':>8} {'backend':>8} {'lone':>8} {'faster':>8}")
    for launches in options.launches:
        if pair is not None and launches > min(pair.a.shape[1], pair.b.shape[1]):
            continue
        counts = Counts()
        found = (
            (simulated(options, launches, rng) for _ in range(options.draws))
            if pair is None
            else draws(pair, launches, options.draws, rng)
        )
        for drawn in found:
            counts.add(drawn, options, rng)
        summary = figures["launches"][launches] = counts.summary()
        backend = _part(counts.backend)
        print(
            f"{launches:>8} {summary['flagged_percent']:>7.1f}% {summary['unsure_percent']:>7.1f}% "
            f"{backend:>7.1f}% {summary['lone_caught_percent']:>7.1f}% {summary['slowed_called_faster']:>8}",
            flush=True,
        )
        if options.slowed:
            third = measured(options.folders[0], options.slowed).draw(launches, rng)
            summary["really_slowed"] = really_slowed(third, options.slowed_backend, options.effect)
            print(f"{'':>8} really slowed: {summary['really_slowed']}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return value.name
    return [_plain(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
