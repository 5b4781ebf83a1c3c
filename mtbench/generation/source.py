"""What a checkpoint is of: the run that it lies in says it. Imports no framework."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mtbench.errors import BadInput
from mtbench.training.results import Trained, TrainingRun
from mtbench.training.tasks import load_task
from mtbench.training.tasks.images import ImageTask

__all__ = ["Source", "find_sources"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint and its training."""

    file: Path
    trained: Trained
    task: ImageTask

    @property
    def name(self) -> str:
        """Its training's, which is its file's, too."""
        return self.trained.job.id


def find_sources(files: list[Path]) -> list[Source]:
    """Of every file, in that order.

    Raises:
        BadInput: a file that is none, lies in no training run, is of a task that is no image task, or two of
            one name or of two tasks.
    """
    found: list[Source] = []
    for file in files:
        if not file.is_file():
            raise BadInput(f"{file} is no file: a run of mtbench train has its checkpoints in checkpoints/")
        try:
            run = TrainingRun.load(file.resolve().parent.parent)
        except BadInput as error:
            raise BadInput(
                f"{file} does not lie in checkpoints/ of a run of mtbench train, whose run.json says what it "
                "is of: name the one in the run's folder"
            ) from error
        of = [trained for trained in run if trained.job.id == file.stem]
        if not of:
            raise BadInput(f"{file} is of no training of its run: {', '.join(t.job.id for t in run)} are")
        task = load_task(of[0].job.task)
        if not isinstance(task, ImageTask):
            raise BadInput(f"{file} was trained on the task {task.name}, and what is generated is images")
        if of[0].job.model.attention == "momentum-released":
            raise BadInput(
                f"{file} is of momentum-released, which is trained with the weights of eq 14 and would "
                "generate by eq 12, which is another function: leave it out"
            )
        if of[0].job.model.bare:
            raise BadInput(
                f"{file} is of {of[0].job.variant}, which has no normaliser, and the recurrences of a token "
                "have one: leave it out"
            )
        found.append(Source(file=file, trained=of[0], task=task))
    names = [source.name for source in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"two checkpoints are called {twice[0]}: generate from one run at a time")
    if len({source.task.name for source in found}) > 1:
        raise BadInput("the checkpoints are of two tasks: generate from those of one at a time")
    return found
