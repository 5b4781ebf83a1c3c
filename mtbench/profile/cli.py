"""The command ``mtbench profile``: its words become a target, which `mtbench.profile.command` profiles."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtbench import options
from mtbench.errors import BadInput
from mtbench.words import floats, names, whole_numbers

if TYPE_CHECKING:
    from mtbench.profile.target import Target
    from mtbench.spec import Case

__all__ = ["profile"]

INTERRUPTED = 130
SIZES = ("seq_len", "batch", "heads", "head_dim", "value_dim", "kv_len", "kv_heads")
WORDS = ("dtype", "device", "mode")
CASE = (*SIZES, *WORDS, "attention", "backend", "form", "lengths", "causal", "beta", "gamma", "seed")


def profile(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="A run folder, with --row; or a profile's, with --against."),
    ] = None,
    row: Annotated[
        str | None, typer.Option(help="The id of a row of that run, or a part of it that no other row has.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="The folder of another profile: B, set beside DIR, which is A.")
    ] = None,
    attention: Annotated[
        str | None, typer.Option(help="softmax, linear, or momentum. [default: momentum]")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="A name that `mtbench list` shows, or a file such as ./mine.py.")
    ] = None,
    form: Annotated[str | None, typer.Option(help="[default: the backend's first that does it]")] = None,
    seq_len: Annotated[str | None, typer.Option(help="[default: 1024]")] = None,
    batch: options.Batch = None,
    heads: options.Heads = None,
    head_dim: options.HeadDim = None,
    value_dim: options.ValueDim = None,
    kv_len: options.KvLen = None,
    kv_heads: options.KvHeads = None,
    lengths: options.Lengths = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    mode: options.Mode = None,
    causal: options.Causal = None,
    beta: options.Beta = None,
    gamma: options.Gamma = None,
    seed: options.Seed = None,
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
    given: dict[str, Any] = {name: value for name, value in locals().items() if name in CASE}
    given = {name: value for name, value in given.items() if value is not None}
    if against is not None:
        others = {"--row": row, "--calls": calls, "--threads": threads, "--without": without}
        others["--remeasure"] = remeasure or None
        _alone("--against", given, others)
        _set_beside(folder, against, out)
        return
    if row is not None or folder is not None:
        if folder is None or row is None:
            raise BadInput(
                f"profile {folder}: of a run name a row, by --row ID; of a profile another, by --against DIR"
                if row is None
                else f"--row {row}: name the run's folder, too"
            )
        _alone("--row", given, {})
    from mtbench.profile.command import CALLS, PAGE, make_profile
    from mtbench.profile.display import print_profile, show_stages
    from mtbench.profile.names import profile_folder
    from mtbench.profile.target import target_of_row
    from mtbench.sweep.command import relative

    if folder is not None and row is not None:
        target, found = target_of_row(folder, row)
        out = out or profile_folder(folder, found.id)
    else:
        target = _target(given)
    out = out or Path(f"mtbench-profile-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    try:
        with show_stages() as tell:
            made = make_profile(
                target,
                out,
                threads=threads,
                calls=CALLS if calls is None else calls,
                remeasure=remeasure,
                without=names(without) or (),
                command=["mtbench", *relative(sys.argv[1:])],
                tell=tell,
            )
    except KeyboardInterrupt:
        typer.echo("mtbench: interrupted: no profile was made", err=True)
        raise typer.Exit(INTERRUPTED) from None
    print_profile(made)
    typer.echo(f"profile: {out / PAGE}")


def _alone(option: str, given: dict[str, Any], others: dict[str, Any]) -> None:
    found = [f"--{name.replace('_', '-')}" for name in given]
    found += [name for name, value in others.items() if value is not None]
    if found:
        raise BadInput(f"{option} says already what is meant: leave out {', '.join(found)}")


def _target(given: dict[str, Any]) -> Target:
    from mtbench.profile.target import target_of
    from mtbench.registry import backend_names

    backend = _one("--backend", names(given.get("backend")))
    if backend is None:
        raise BadInput(f"--backend is missing: a profile is of one of {', '.join(backend_names())}")
    return target_of(backend, _case(given), _one("--form", names(given.get("form"))))


def _case(given: dict[str, Any]) -> Case:
    from mtbench.spec import AttentionSpec, Case

    spec: dict[str, Any] = {
        "kind": _one("--attention", names(given.get("attention"))),
        "causal": given.get("causal"),
        "beta": _one("--beta", floats("--beta", given.get("beta"))),
        "gamma": _one("--gamma", floats("--gamma", given.get("gamma"))),
    }
    case: dict[str, Any] = {name: _one(f"--{name}", names(given.get(name))) for name in WORDS}
    for name in SIZES:
        option = f"--{name.replace('_', '-')}"
        case[name] = _one(option, whole_numbers(option, given.get(name)))
    case["lengths"] = whole_numbers("--lengths", given.get("lengths"))
    case["seed"] = given.get("seed")
    known = {name: value for name, value in spec.items() if value is not None}
    return Case(
        spec=AttentionSpec(**known), **{name: value for name, value in case.items() if value is not None}
    )


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
    from mtbench.errors import StorageError
    from mtbench.profile.against import against_of
    from mtbench.profile.display import print_against
    from mtbench.profile.record import read_profile
    from mtbench.registry import import_part

    beside = against_of(read_profile(folder), read_profile(against))
    file = out or Path("against.html")
    text: str = import_part("reports.against_page").against_html(beside, folder.name, against.name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror}") from error
    print_against(beside, folder.name, against.name)
    typer.echo(f"against: {file}")
