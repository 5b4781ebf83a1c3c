"""``mtbench profile``, from a checked target to a folder with its page."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from mtbench.errors import BadInput, StorageError, nearest
from mtbench.measure.environment import environment
from mtbench.profile import machine as machines
from mtbench.profile.assembling import assemble, seen_in
from mtbench.profile.measuring import measure, settings_of
from mtbench.profile.parts import OPTIONAL, Asked, find
from mtbench.profile.record import FILE, Machine, Profile
from mtbench.profile.target import Target, refusal
from mtbench.profile.tools import by_tools
from mtbench.registry import import_part
from mtbench.results import Measurement

__all__ = ["CALLS", "PAGE", "make_profile", "write_page"]

CALLS = 20
"""That are traced, and counted."""
PAGE = "profile.html"

Tell = Callable[[str], None]


def make_profile(
    target: Target,
    folder: Path,
    *,
    row: Measurement | None = None,
    threads: int | None = None,
    calls: int = CALLS,
    remeasure: bool = False,
    without: Sequence[str] = (),
    command: Sequence[str] = (),
    tell: Tell = lambda text: None,
) -> Profile:
    """Measure, profile, and write a folder: ``profile.json``, the page, the traces, what the compiler made.

    Args:
        target: what.
        folder: a new one.
        row: how a sweep of this code on this machine has measured it; None: it is measured first.
        threads: CPU threads; None is all CPUs.
        calls: that are traced.
        remeasure: whether the machine's ceilings are measured anew where they are known.
        without: parts that are left out, of `mtbench.profile.parts.OPTIONAL`.
        command: the words it was asked for with.
        tell: is told what comes next.

    Raises:
        BadInput: a part is unknown, the folder is there, or the case is not ok: wrong, say, or out of memory.
        StorageError: the folder cannot be written.
    """
    for part in without:
        if part not in OPTIONAL:
            raise BadInput(f"--without {part}: {nearest(part, OPTIONAL)}")
    settings = settings_of(threads)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with _new(folder):
        logs = folder / "logs"
        logs.mkdir()
        if row is None:
            row = measure(target, settings, logs, tell)
            if why := refusal(row):
                raise BadInput(f"{row.id}: {why}")
        with tempfile.TemporaryDirectory(prefix="mtbench-profile-", ignore_cleanup_errors=True) as cache:
            asked = Asked(
                backend=target.asked,
                case=target.case,
                form=target.form,
                threads=settings.threads or 1,
                memory_limit_bytes=settings.memory_limit_here,
                folder=folder.resolve(),
                cache=Path(cache),
                calls=calls,
                without=frozenset(without),
            )
            profile = _profiled(asked, target.backend.framework, row, tell, remeasure=remeasure)
        profile = replace(profile, started=started, command=tuple(command))
        (folder / FILE).write_text(profile.to_json(), encoding="utf-8")
        tell("page")
        write_page(folder)
    return profile


def _profiled(asked: Asked, framework: str, row: Measurement, tell: Tell, *, remeasure: bool) -> Profile:
    here, case = environment(threads=asked.threads), asked.case
    known = None if remeasure else machines.known(here, framework, case.device, case.dtype)
    findings = find(asked, tell, machine=known is None)
    seen = seen_in(findings, asked.folder, case.device)
    if case.device == "cuda":
        launches = None if seen is None else seen.launches
        by_tools(asked, findings, tell, launches=launches, triton=framework == "torch")
    if known is None:
        if "machine" not in findings.found:
            why = findings.missing.get("machine", "nothing was said")
            told = f"what this machine reaches could not be measured ({why})"
            raise BadInput(f"{row.id}: {told}, and without it there is no verdict")
        known = Machine(**findings.found["machine"])
        # A cache that cannot be written costs the next profile some seconds.
        with contextlib.suppress(OSError):
            machines.remember(here, framework, case.device, known)
            known = machines.known(here, framework, case.device, case.dtype) or known
    return assemble(row, findings, known, seen, framework=framework, folder=asked.folder, environment=here)


def write_page(folder: Path) -> Path:
    """The page of a profile's folder, made from its ``profile.json``. Returns its path."""
    page: Path = import_part("reports.profile_page").write_profile_page(folder)
    return page


@contextlib.contextmanager
def _new(folder: Path) -> Iterator[None]:
    """A folder that was not there, and is not there afterwards where no profile came of it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is there already, and is not empty: name a new folder with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise StorageError(f"{error.filename or folder}: {error.strerror or error}") from error
    except (BadInput, KeyboardInterrupt):
        shutil.rmtree(folder, ignore_errors=True)
        raise
