"""The program. Each command turns its words into the house's types and hands over; what goes wrong with the
words is one line on stderr and exit code 2."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from mtbench import __version__
from mtbench.commands.compare import compare, noise, trend
from mtbench.commands.report import figures, report, table
from mtbench.commands.run import run
from mtbench.errors import BackendFailure, BadInput, StorageError
from mtbench.generation.cli import generate
from mtbench.outputs import BAD_INPUT, INTERRUPTED
from mtbench.profile.cli import profile
from mtbench.training.cli import train
from mtbench.words import as_typed

__all__ = ["app", "main"]

REFUSED = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),  # a disk that takes no more
        *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG),  # a path that may not be, or cannot be
    }
)
"""What the system says of a disk or a path, which is no mistake of the code and deserves one line."""

app = typer.Typer(
    name="mtbench",
    help="How softmax, linear and momentum attention compare: speed, memory and agreement, measured.",
    add_completion=False,
    pretty_exceptions_enable=False,
    # With markup every [default: ...] would be taken for some and not shown, and --help would import rich.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

USAGE_ERROR: Any = typer.BadParameter.__base__
"""What is wrong with options and arguments; typer has a click of its own or not, by its version."""


def main() -> None:
    """The console script: errors in the input become one line."""
    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:  # Ctrl-C outside of a sweep
        print("mtbench: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(INTERRUPTED)
    except USAGE_ERROR as error:
        command = error.ctx.command_path if error.ctx else _asked()
        # Of a value that does not do, some versions of typer say what it is, and some do not.
        typed = as_typed(error.param.opts) if getattr(error, "param", None) else None
        told = f"{typed}: {error.message}" if typed else error.format_message()
        text = " ".join(told.split()).rstrip(".")
        print(f"mtbench: {text}: `{command} --help` has what there is", file=sys.stderr)  # noqa: T201
        sys.exit(BAD_INPUT)
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"mtbench: {where}{error.strerror}", file=sys.stderr)  # noqa: T201
        sys.exit(BAD_INPUT)
    except (BadInput, BackendFailure, StorageError) as error:
        print(f"mtbench: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(BAD_INPUT)


def _asked() -> str:
    """The command as typed, where the parser does not say whose error it is."""
    known = {_name(command) for command in COMMANDS}
    return " ".join(["mtbench", *(word for word in sys.argv[1:2] if word in known)])


def _name(command: Callable[..., Any]) -> str:
    return command.__name__.rstrip("_")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mtbench {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(BAD_INPUT)


def list_() -> None:
    """Show what each backend does here, what it does not, and why."""
    from mtbench.display import print_support
    from mtbench.registry import backend_names, load_backend
    from mtbench.support import support_of

    print_support([support_of(load_backend(name)) for name in backend_names()])


COMMANDS = (run, train, generate, profile, report, figures, table, compare, trend, noise, list_)
"""In the order of the help; ``list`` would hide Python's."""

for command in COMMANDS:
    app.command(name=_name(command))(command)
