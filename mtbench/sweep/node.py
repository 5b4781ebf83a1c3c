"""What runs on a node of a cluster: a look at it, and its station. The engine that starts these does nothing
else there; a backend is measured in a worker process of its own, as on any machine."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mtbench
from mtbench.backend import Backend
from mtbench.errors import BackendFailure, BadInput
from mtbench.measure.environment import cpus
from mtbench.registry import load_backend
from mtbench.results import Measurement
from mtbench.spec import DEVICES
from mtbench.sweep.code import fingerprints
from mtbench.sweep.executor import Step, Told
from mtbench.sweep.machine import this_machine
from mtbench.sweep.settings import Settings
from mtbench.sweep.station import Station

__all__ = ["Answer", "NodeStation", "Parcel", "look"]

MOST_BYTES = 4 << 20
"""Of the files that travel with a backend: its folder may be anybody's home."""
LOG_BYTES = 64 << 10
"""Of what workers print while a row is measured, as much travels back."""


@dataclass(frozen=True)
class Parcel:
    """The backends that are files, for nodes that have them not: by what they were asked for as, the file and
    what lies beside it that may be imported."""

    files: Mapping[str, Mapping[str, bytes]]

    @classmethod
    def of(cls, backends: Sequence[str]) -> Parcel:
        """Those among the names that end in ``.py``.

        Raises:
            BadInput: there is too much beside one.
        """
        found: dict[str, dict[str, bytes]] = {}
        for asked in backends:
            if asked.endswith(".py"):
                beside = {path.name: path.read_bytes() for path in Path(asked).resolve().parent.glob("*.py")}
                if sum(map(len, beside.values())) > MOST_BYTES:
                    raise BadInput(
                        f"backend {asked}: over {MOST_BYTES >> 20} MiB of Python files lie beside it, which "
                        "would go to every node: put it into a folder of its own"
                    )
                found[asked] = beside
        return cls(found)

    def unpack(self, folder: Path) -> dict[str, str]:
        """Write them there; by what each was asked for as, its path."""
        places = {}
        for number, (asked, files) in enumerate(self.files.items()):
            home = folder / f"backend-{number}"
            home.mkdir()
            for name, text in files.items():
                (home / name).write_bytes(text)
            places[asked] = str(home / Path(asked).name)
        return places


def look(
    backends: Sequence[str], parcel: Parcel, threads: int | None, most: int, *, host: bool
) -> dict[str, Any]:
    """This node as plain data, which another version of mtbench can read as well: its ``version``, the
    fingerprints of its ``code``, the ``machine`` (`Machine.to_dict`) with which of the backends could run on
    what, and ``facts`` for the record.

    Args:
        backends: as they were asked for.
        parcel: those that are files.
        threads: of a worker; None: all CPUs.
        most: the CPUs that the engine gives away here.
        host: whether the node's name is told.
    """
    niceness = _settle_priority()
    with tempfile.TemporaryDirectory(prefix="mtbench-look-") as folder:
        places = parcel.unpack(Path(folder))
        loaded: dict[str, Backend] = {}
        failed: dict[str, str] = {}
        for asked in backends:
            try:
                loaded[asked] = load_backend(places.get(asked, asked))
            except (BadInput, BackendFailure) as error:
                failed[asked] = str(error).replace(f"{folder}{os.sep}", "")
        machine = this_machine(loaded, threads=threads or min(cpus(), most), host=host)
        lacking = {asked: dict.fromkeys(DEVICES, reason) for asked, reason in failed.items()}
        code = fingerprints(places.get(asked, asked) for asked in backends if asked in loaded)
    return {
        "version": mtbench.__version__,
        "code": code,
        "machine": replace(machine, unavailable={**machine.unavailable, **lacking}).to_dict(),
        "facts": {"niceness": niceness, **({"host": platform.node()} if host else {})},
    }


def _settle_priority() -> int:
    """Ray starts its workers at niceness 15, and what they start inherits it: a measurement would give way to
    whatever else runs. Taken back where that is allowed; the niceness that it is measured at."""
    if sys.platform != "win32":
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)
    return os.getpriority(os.PRIO_PROCESS, 0)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What comes back from a node for a step."""

    measurement: Measurement
    killed: bool = False
    """Whether its worker was killed from outside: no error in a program sends SIGKILL."""
    workers: Sequence[Mapping[str, Any]] = ()
    """What those that were started for it say of themselves."""
    logs: Mapping[str, bytes] = field(default_factory=dict)
    """What the workers printed meanwhile, by the log's name."""


class NodeStation:
    """A station, and the folders it needs. It measures in the process's main thread, as a worker ends with
    the thread that started it."""

    def __init__(self, settings: Settings, parcel: Parcel) -> None:
        _settle_priority()
        self._folder = tempfile.TemporaryDirectory(prefix="mtbench-node-", ignore_cleanup_errors=True)
        home = Path(self._folder.name)
        self._logs = home / "logs"
        self._logs.mkdir()
        places = parcel.unpack(home)
        self._station = Station(settings, self._logs, lambda asked: places.get(asked, asked))
        self._read: dict[str, int] = {}

    def ready(self) -> None:
        """Answers as soon as the engine has started it."""

    def measure(self, step: Step) -> Answer:
        """Measure one row."""
        workers: list[Mapping[str, Any]] = []
        told = Told(
            stage=lambda step, stage: None,
            worker=lambda step, says: workers.append(says),
            joined=lambda hardware, node: None,
            note=lambda text: None,
        )
        measurement, end = self._station.measure(step, told)
        killed = end is not None and end.signal == signal.SIGKILL
        return Answer(measurement=measurement, killed=killed, workers=workers, logs=self._printed())

    def _printed(self) -> dict[str, bytes]:
        found = {}
        for path in self._logs.iterdir():
            begin, end = self._read.get(path.name, 0), path.stat().st_size
            if end > begin:
                with path.open("rb") as file:
                    file.seek(max(begin, end - LOG_BYTES))
                    found[path.name] = file.read(LOG_BYTES)
                self._read[path.name] = end
        return found

    def renew(self) -> None:
        """See `Station.renew`."""
        self._station.renew()

    def close(self) -> None:
        """End the workers."""
        self._station.close(kill=False)
        self._folder.cleanup()
