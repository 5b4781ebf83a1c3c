"""The report of a run of any kind."""

from __future__ import annotations

from pathlib import Path

from mtbench.errors import StorageError
from mtbench.registry import import_part
from mtbench.results import run_kind

__all__ = ["write_report"]

WRITERS = {
    None: ("reports.page", "write_report"),
    "generation": ("reports.generation_page", "write_generation_report"),
    "training": ("reports.training_page", "write_training_report"),
}
"""By the kind of run, what writes its report."""


def write_report(folder: Path) -> Path:
    """Make a run's report from its folder. Returns the path of report.html.

    Raises:
        BadInput: there is no run in it, or one of a kind or schema that a newer mtbench wrote.
        StorageError: the report cannot be written; the run is as it was.
    """
    # A sweep's writer says what is wrong with a kind that is not known.
    module, function = WRITERS.get(run_kind(folder), WRITERS[None])
    try:
        page: Path = getattr(import_part(module), function)(folder)
    except OSError as error:
        raise StorageError(
            f"{error.filename or folder}: {error.strerror}; no row is lost, and `mtbench report {folder}` "
            "makes the report when there is room"
        ) from error
    return page
