"""Who wins where, and from which length linear and momentum attention beat softmax: logic alone.

Only ranked rows (`mtbench.results.Measurement.ranked`) take part: a wrong, failed or untimed row wins
nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from mtbench.measure.statistics import Samples
from mtbench.results import Measurement
from mtbench.spec import ATTENTIONS, AttentionSpec

from .crossing import Contest, Equal, equal_length
from .settings import Clock, Context, Names, Shape, clocks, samples

__all__ = ["Contender", "Crossover", "Race", "Span", "Verdict", "judge", "spans"]

MIN_SAMPLES = 5
"""Below it no 95% interval of a median exists (all of n samples miss one side of it with chance 2 / 2^n), and
a comparison is unsure."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A row that may win."""

    attention: str
    """As `settings.Names` has it."""
    kind: str
    backend: str
    form: str
    samples: Samples
    row: Measurement = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """Backend and form."""
        return f"{self.backend}/{self.form}"

    @property
    def median(self) -> float:
        """Ms."""
        return self.samples.median

    @property
    def key(self) -> tuple[float, str, str, str]:
        """The fastest first; equal medians by name, so that a tie is always shown alike."""
        return (self.median, self.attention, self.backend, self.form)

    def surely_differs(self, other: Contender) -> bool:
        """Whether the two intervals of the median are apart."""
        few = min(len(self.samples.values), len(other.samples.values)) < MIN_SAMPLES
        (a_low, a_high), (b_low, b_high) = self.samples.interval, other.samples.interval
        return not few and (a_high < b_low or b_high < a_low)


@dataclass(frozen=True, kw_only=True)
class Race:
    """The contenders at one length, the fastest first; at least one."""

    seq_len: int
    attention: str | None
    """None: all of them together."""
    ranking: tuple[Contender, ...]

    @property
    def winner(self) -> Contender:
        """The smallest median."""
        return self.ranking[0]

    @property
    def next(self) -> Contender | None:
        """The second, or None where there is one contender only."""
        return self.ranking[1] if len(self.ranking) > 1 else None

    @property
    def ratio(self) -> float | None:
        """How many times as long the next takes."""
        return None if self.next is None else self.next.median / self.winner.median

    @property
    def sure(self) -> bool:
        """Whether the winner's interval is apart from the next's."""
        return self.next is None or self.winner.surely_differs(self.next)


@dataclass(frozen=True)
class Span:
    """Neighbouring measured lengths with one winner."""

    winner: Contender
    """At the first of them."""
    races: tuple[Race, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """In order."""
        return tuple(race.seq_len for race in self.races)


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """From which length an attention beats softmax: its best form against softmax's best form."""

    attention: str
    backend: str | None
    """None: each attention in its best backend."""
    compared: tuple[int, ...]
    """The lengths at which both were measured."""
    faster: tuple[int, ...]
    """Those of them at which the attention's median is smaller than softmax's."""
    start: int | None
    """It is faster at this length and at every larger compared one; None: there is no such length."""
    ratios: tuple[float, ...]
    """softmax's median over the attention's, at each compared length."""
    unsure: tuple[int, ...]
    """The lengths that decide and whose intervals overlap: from the last slower one before `start` on, or any
    where there is no start."""
    contests: tuple[Contest, ...]
    """All forms of both at each compared length."""
    missing: tuple[int, ...]
    """Swept lengths that were not compared, above `start` (or anywhere, where there is none)."""

    @functools.cached_property
    def equal(self) -> Equal | None:
        """Where the two take equally long; None where fewer than two lengths were compared."""
        return equal_length(self.contests)

    @property
    def holds_on(self) -> bool:
        """Whether "from `start` on" may be said: faster at *every* larger swept length."""
        return self.start is not None and not self.missing


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one setting says on one clock."""

    context: Context
    shape: Shape
    clock: Clock
    lengths: tuple[int, ...]
    """Every length swept in this setting, measured or not."""
    attentions: tuple[str, ...]
    races: dict[tuple[int, str | None], Race]
    """By length and attention; None is all attentions together."""
    crossovers: tuple[Crossover, ...]
    left_out: tuple[Measurement, ...] = field(default=())
    """Ranked rows that have no time on this clock."""

    def along(self, attention: str | None) -> list[Race]:
        """The races of one attention (None: overall), by length."""
        return [self.races[n, attention] for n in self.lengths if (n, attention) in self.races]


def spans(races: Iterable[Race]) -> list[Span]:
    """Races in order of length, neighbours with the same winner together."""
    grouped = groupby(races, key=lambda race: (race.winner.attention, race.winner.name))
    return [Span(together[0].winner, tuple(together)) for together in (list(g) for _, g in grouped)]


def judge(rows: Sequence[Measurement]) -> list[Verdict]:
    """A verdict for each setting and clock that has ranked rows; the settings with most lengths first."""
    name = Names(rows)
    groups: dict[tuple[Context, Shape], dict[str, Measurement]] = {}
    for row in rows:
        # Where a run holds a row twice, the later one counts.
        groups.setdefault((Context.of(row), Shape.of(row.case)), {})[row.id] = row
    found = [
        _judge_setting(context, shape, clock, list(by_id.values()), name)
        for (context, shape), by_id in groups.items()
        for clock in clocks(list(by_id.values()))
    ]
    return sorted(
        found, key=lambda v: (v.context.key, -len(v.lengths), v.shape.key, ("device", "wall").index(v.clock))
    )


def _judge_setting(
    context: Context, shape: Shape, clock: Clock, rows: list[Measurement], name: Names
) -> Verdict:
    entries: dict[int, list[Contender]] = {}
    left_out = []
    specs: set[AttentionSpec] = set()
    for row in rows:
        found = samples(row, clock)
        if found is None:
            if row.ranked:
                left_out.append(row)
            continue
        spec = row.case.spec
        specs.add(spec)
        contender = Contender(
            attention=name(spec),
            kind=spec.kind,
            backend=row.backend,
            form=row.form,
            samples=found,
            row=row,
        )
        entries.setdefault(row.case.seq_len, []).append(contender)
    lengths = tuple(sorted({row.case.seq_len for row in rows}))
    ordered = sorted(specs, key=lambda s: (ATTENTIONS.index(s.kind), s.beta, s.gamma, s.eps, s.scale or 0))
    attentions = tuple(dict.fromkeys(name(spec) for spec in ordered))
    races: dict[tuple[int, str | None], Race] = {}
    for seq_len, contenders in sorted(entries.items()):
        for attention in (*attentions, None):
            ranking = sorted((c for c in contenders if attention in (None, c.attention)), key=lambda c: c.key)
            if ranking:
                races[seq_len, attention] = Race(seq_len=seq_len, attention=attention, ranking=tuple(ranking))
    return Verdict(
        context=context,
        shape=shape,
        clock=clock,
        lengths=lengths,
        attentions=attentions,
        races=races,
        crossovers=tuple(_crossovers(entries, lengths, attentions)),
        left_out=tuple(left_out),
    )


def _crossovers(
    entries: dict[int, list[Contender]], lengths: tuple[int, ...], attentions: tuple[str, ...]
) -> Iterable[Crossover]:
    everyone = [c for contenders in entries.values() for c in contenders]
    softmax = {c.attention for c in everyone if c.kind == "softmax"}
    backends = sorted({c.backend for c in everyone})
    for backend in (*backends, None) if len(backends) > 1 else backends:
        for attention in attentions:
            if attention not in softmax:
                yield _crossover(entries, lengths, backend, attention)


def _crossover(
    entries: dict[int, list[Contender]], lengths: tuple[int, ...], backend: str | None, attention: str
) -> Crossover:
    pairs: dict[int, tuple[Contender, Contender]] = {}
    contests = []
    for seq_len in lengths:
        here = [c for c in entries.get(seq_len, ()) if backend in (None, c.backend)]
        softmax = sorted((c for c in here if c.kind == "softmax"), key=lambda c: c.key)
        other = sorted((c for c in here if c.attention == attention), key=lambda c: c.key)
        if softmax and other:
            pairs[seq_len] = (softmax[0], other[0])
            contests.append(
                Contest(
                    seq_len=seq_len,
                    softmax=tuple(c.samples for c in softmax),
                    other=tuple(c.samples for c in other),
                )
            )
    compared = tuple(pairs)
    faster = tuple(n for n, (softmax, other) in pairs.items() if other.median < softmax.median)
    start, before = None, None
    for seq_len in reversed(compared):
        if seq_len not in faster:
            before = seq_len
            break
        start = seq_len
    deciding = compared if start is None else [n for n in compared if n >= (before or start)]
    return Crossover(
        attention=attention,
        backend=backend,
        compared=compared,
        faster=faster,
        start=start,
        ratios=tuple(softmax.median / other.median for softmax, other in pairs.values()),
        unsure=tuple(n for n in deciding if not pairs[n][0].surely_differs(pairs[n][1])),
        contests=tuple(contests),
        missing=tuple(n for n in lengths if n not in pairs and (start is None or n > start)),
    )
