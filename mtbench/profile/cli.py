"""The command ``mtbench profile``: its words become a target, which `mtbench.profile.command` profiles."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtbench.errors import BadInput
from mtbench.options import CaseWords, with_case
from mtbench.outputs import INTERRUPTED, dated, write
from mtbench.words import flag, names, whole_numbers

if TYPE_CHECKING:
    from mtbench.profile.target import Target

__all__ = ["profile"]

SPEC = {"attention": "kind", "causal": "causal", "beta": "beta", "gamma": "gamma"}
"""What belongs to a case's spec, and its name there."""


@with_case
def profile(
    *,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="A run folder, with --row; or a profile's, with --against."),
    ] = None,
    row: Annotated[
        str | None, typer.Option(help="The id of a row of that run, or a part of it that no other row has.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Another profile, by its folder or its file: B, set beside DIR, which is A."),
    ] = None,
    attention: Annotated[
        str | None, typer.Option(help="softmax, linear, or momentum. [default: momentum]")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="A name that `mtbench list` shows, or a file such as ./mine.py.")
    ] = None,
    form: Annotated[str | None, typer.Option(help="[default: the backend's first that does it]")] = None,
    seq_len: Annotated[str | None, typer.Option(help="[default: 1024]")] = None,
    case: CaseWords,
    calls: Annotated[int | None, typer.Option(help="That are traced. [default: 20]", min=1)] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads. [default: all CPUs]", min=1)] = None,
    without: Annotated[
        str | None,
        typer.Option(
            help="Parts to leave out, with commas: resident, counters, flame, made, trace, work, memory, "
            "ncu, proton. [default: none]"
        ),
    ] = None,
    remeasure: Annotated[
        bool, typer.Option("--remeasure", help="Measure what this machine reaches anew.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A new folder; with --against a file. "
            "[default: mtbench-profile-TIME, or in the run's own profiles/; against.html]"
        ),
    ] = None,
) -> None:
    """Profile a call: what bounds it, where time and memory go.

    The case is given by the flags of `mtbench run`, one value each, or by a row of a run. What is wrong,
    unsupported or out of memory is not profiled, and the exit code is 2.
    """
    given = {"attention": attention, "backend": backend, "form": form, "seq_len": seq_len, **vars(case)}
    if against is not None:
        others = {"row": row, "calls": calls, "threads": threads, "without": without}
        _alone("--against", {**given, **others, "remeasure": remeasure or None})
        _set_beside(folder, against, out)
        return
    if row is not None or folder is not None:
        if folder is None or row is None:
            raise BadInput(
                f"profile {folder}: of a run name a row, by --row ID; of a profile another, by --against, "
                f"and `mtbench report {folder}` makes its page"
                if row is None
                else f"--row {row}: name the run's folder, too"
            )
        _alone("--row", given)
    from mtbench.profile.command import CALLS, PAGE, make_profile
    from mtbench.profile.display import print_profile, show_stages
    from mtbench.profile.names import profile_folder
    from mtbench.profile.target import target_of_row
    from mtbench.sweep.command import relative

    if folder is not None and row is not None:
        target, found = target_of_row(folder, row)
        out = out or profile_folder(folder, found.id)
    else:
        target = _target(case, attention=attention, backend=backend, form=form, seq_len=seq_len)
    out = out or dated("profile")
    try:
        with show_stages() as tell:
            made = make_profile(
                target,
                out,
                threads=threads,
                calls=CALLS if calls is None else calls,
                remeasure=remeasure,
                without=names("--without", without) or (),
                command=["mtbench", *relative(sys.argv[1:])],
                tell=tell,
            )
    except KeyboardInterrupt:
        typer.echo("mtbench: interrupted: no profile was made", err=True)
        raise typer.Exit(INTERRUPTED) from None
    print_profile(made)
    typer.echo(f"profile: {out / PAGE}")


def _alone(option: str, others: dict[str, Any]) -> None:
    if found := [flag(name) for name, value in others.items() if value is not None]:
        raise BadInput(f"{option} says already what is meant: leave out {', '.join(found)}")


def _target(
    case: CaseWords, *, attention: str | None, backend: str | None, form: str | None, seq_len: str | None
) -> Target:
    from mtbench.profile.target import target_of
    from mtbench.registry import backend_names
    from mtbench.spec import AttentionSpec, Case

    axes = {
        "attention": names("--attention", attention),
        "seq_len": whole_numbers("--seq-len", seq_len),
        **case.axes(),
    }
    whole = {name: axes.pop(name) for name in ("lengths", "seed")}  # no axes of a grid, either
    one = {name: _one(flag(name), values) for name, values in axes.items()} | whole
    known = {name: value for name, value in one.items() if value is not None}
    spec = {field: known.pop(name) for name, field in SPEC.items() if name in known}
    whole_case = Case(spec=AttentionSpec(**spec), **known)
    # What is wrong with the words that are there comes before a word that is not.
    chosen = _one("--form", names("--form", form))
    named = _one("--backend", names("--backend", backend))
    if named is None:
        raise BadInput(f"--backend is missing: a profile is of one of {', '.join(backend_names())}")
    return target_of(named, whole_case, chosen)


def _one(option: str, values: tuple[Any, ...] | None) -> Any:
    """The one value of an option.

    >>> _one("--heads", (8,)), _one("--heads", None)
    (8, None)
    """
    if values is None:
        return None
    if len(values) > 1:
        told = ",".join(map(str, values))
        raise BadInput(f"{option} {told}: a profile is of one case, give one value")
    return values[0]


def _set_beside(folder: Path | None, against: Path, out: Path | None) -> None:
    if folder is None:
        raise BadInput(f"--against {against}: name the profile that it is set beside, too: mtbench profile A")
    from mtbench.profile.against import against_of
    from mtbench.profile.display import print_against
    from mtbench.profile.record import read_profile
    from mtbench.registry import import_part

    beside = against_of(read_profile(folder), read_profile(against))
    file = out or Path("against.html")
    text: str = import_part("reports.against_page").against_html(beside, folder.name, against.name)
    write("--out", file, text)
    print_against(beside, folder.name, against.name)
    typer.echo(f"against: {file}")
