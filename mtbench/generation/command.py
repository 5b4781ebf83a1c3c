"""``mtbench generate``, from checked words to a finished folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mtbench import __version__
from mtbench.errors import BadInput, StorageError
from mtbench.frameworks import load_framework
from mtbench.generation.drawing import Drawing, decoding
from mtbench.generation.results import KIND, Generated, GenerationFolder
from mtbench.generation.sheet import sheet_png
from mtbench.generation.source import Source
from mtbench.locked_folder import write_atomically
from mtbench.measure.environment import cpus, device_problem, environment
from mtbench.spec import DEVICES
from mtbench.sweep.command import relative

__all__ = ["Asked", "Outcome", "run_generation"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be drawn, all of it checked."""

    sources: Sequence[Source]
    sides: Sequence[int | None]
    """Rows and columns of images; None are those that a model was trained on."""
    batches: Sequence[int]
    sheet: int
    """Images of a sheet, at most."""
    how: Drawing
    threads: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How it ended."""

    interrupted: bool
    counts: Mapping[str, int]

    @property
    def failed(self) -> bool:
        """Whether a likelihood disagrees, or nothing could be drawn."""
        return bool(self.counts.get("disagrees")) or not self.counts.get("ok")


def run_generation(
    asked: Asked,
    folder: Path,
    *,
    told: Callable[[Generated], None],
    host: bool = False,
    arguments: Sequence[str] = (),
) -> Outcome:
    """Draw, time and check what is asked for, a row on disk after another.

    Args:
        asked: what.
        folder: a new one.
        told: is told each row when it is on disk.
        host: record this machine's name.
        arguments: the command's, for run.json.

    Raises:
        BadInput: the device is not there, more threads than CPUs, a backend that does not do (`decoding`), or
            a checkpoint that cannot be read: before anything is written.
        StorageError: a row or a sheet could not be written; those before it are whole.
    """
    how = asked.how
    if problem := device_problem(how.device):
        there = [name for name in DEVICES if device_problem(name) is None]
        raise BadInput(f"device {how.device!r} is not there: {problem}; there is: {', '.join(there)}")
    if asked.threads > cpus():
        raise BadInput(f"--threads {asked.threads}: this process may use {cpus()} CPUs")
    decoding(how)
    from mtbench.generation.measure import drawn, load_model

    framework = load_framework("torch")
    framework.start(how.device, asked.threads)
    for source in asked.sources:
        load_model(source, source.trained.job.model.size.max_len, "cpu")
    counts: Counter[str] = Counter()
    interrupted = False
    with GenerationFolder.create(folder) as made:
        header = _header(asked, host=host, arguments=arguments)
        made.write_header(header)
        worker = framework.environment(how.device)
        if how.device == "cuda":
            from mtbench.frameworks.torch_rates import rates

            worker |= rates(("float32" if how.precision != "bfloat16" else "bfloat16",))
        header["workers"] = {f"torch on {how.device}": worker}
        made.write_header(header)
        try:
            for source in asked.sources:
                for side in asked.sides:
                    for batch in asked.batches:
                        row, images = drawn(source, side, batch, how)
                        made.append(row)
                        counts[row.status] += 1
                        told(row)
                        if images is not None and row.trained_size:
                            _write_sheet(made, source.name, sheet_png(images[: asked.sheet]))
        except KeyboardInterrupt:
            interrupted = True
        header |= {"finished": _now(), "outcome": "interrupted" if interrupted else "complete"}
        made.write_header(header)
    return Outcome(interrupted=interrupted, counts=dict(counts))


def _header(asked: Asked, *, host: bool, arguments: Sequence[str]) -> dict[str, Any]:
    return {
        "kind": KIND,
        "mtbench": __version__,
        "command": ["mtbench", *relative(arguments)],
        "started": _now(),
        "finished": None,
        "outcome": "running",
        "plan": {
            "task": asked.sources[0].task.name,
            "drawing": asdict(asked.how),
            "sides": list(asked.sides),
            "batches": list(asked.batches),
            "jobs": [source.trained.job.to_dict() for source in asked.sources],
            "epochs": {source.name: len(source.trained.epochs) for source in asked.sources},
        },
        "environment": environment(threads=asked.threads, host=host),
        "workers": {},
    }


def _write_sheet(folder: GenerationFolder, name: str, png: bytes) -> None:
    path = folder.samples(name)
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, lambda file: file.write(png))
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}; {folder.kept()}") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
