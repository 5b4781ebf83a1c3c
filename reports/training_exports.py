"""The steps of a training run for other tools: a row each."""

from __future__ import annotations

import csv
import gzip
import io

from mtbench.training.results import TrainingRun

__all__ = ["steps_csv"]

COLUMNS = (
    *("job", "variant", "seed", "epoch", "step", "lr", "loss", "metric", "seconds", "tokens_per_s"),
    *("peak_memory_bytes", "held_out_loss", "held_out_metric"),
)


def steps_csv(run: TrainingRun) -> bytes:
    """Every step of every training, as CSV, compressed. What is held out stands at the last step of its
    epoch, and peak memory is that of the epoch. The same run gives the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for trained in run:
        job = trained.job
        for row in trained.epochs:
            last = len(row.loss) - 1
            # Of padded data each step is told the mean of its epoch.
            tokens = job.schedule.tokens if row.tokens is None else row.tokens / len(row.loss)
            for at, (loss, metric, seconds) in enumerate(zip(row.loss, row.metric, row.seconds, strict=True)):
                speed = f"{tokens / seconds:.6g}" if seconds > 0 else ""
                held_out = (row.held_out_loss, row.held_out_metric) if at == last else (None, None)
                writer.writerow(
                    [
                        *(job.id, job.variant, job.seed, row.epoch, row.epoch * job.schedule.iterations + at),
                        *(row.lr, loss, metric, seconds, speed, row.peak_memory_bytes, *held_out),
                    ]
                )
    return gzip.compress(text.getvalue().encode(), mtime=0)
