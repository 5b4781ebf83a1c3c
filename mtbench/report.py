"""The report of a run of any kind, and of a profile."""

from __future__ import annotations

from pathlib import Path

import typer

from mtbench.errors import StorageError
from mtbench.profile.record import is_profile
from mtbench.registry import import_part
from mtbench.results import run_kind

__all__ = ["conclude", "write_report"]

WRITERS = {
    None: ("reports.page", "write_report"),
    "generation": ("reports.generation_page", "write_generation_report"),
    "training": ("reports.training_page", "write_training_report"),
}
"""By the kind of run, what writes its report."""
PROFILE = ("reports.profile_page", "write_profile_page")
"""What writes the page of a profile, which is no run and has no header."""


def write_report(folder: Path) -> Path:
    """Make the report of a run or a profile from its folder; of a profile from its file, too. Returns the
    path: report.html in a run's folder, profile.html in a profile's, NAME.html beside a file NAME.json.

    Raises:
        BadInput: there is no run in it, or one of a kind or schema that a newer mtbench wrote.
        StorageError: the report cannot be written; the run is as it was.
    """
    # A sweep's writer says what is wrong with a kind that is not known.
    module, function = PROFILE if is_profile(folder) else WRITERS.get(run_kind(folder), WRITERS[None])
    try:
        page: Path = getattr(import_part(module), function)(folder)
    except OSError as error:
        raise StorageError(
            f"{error.filename or folder}: {error.strerror}; no row is lost, and `mtbench report {folder}` "
            "makes the report once it can be written"
        ) from error
    return page


def conclude(summary: str, folder: Path) -> None:
    """Tell how a run ended and write its report, each though the other fails: who reads may be gone
    (`mtbench run | head`), and the disk may be full.

    Raises:
        StorageError: as `write_report` says.
    """
    try:
        typer.echo(f"\n{summary}")
    finally:
        report = write_report(folder)
    typer.echo(f"report: {report}")
