"""The command ``mtbench generate``: its words become what `mtbench.generation.command` carries out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtbench.errors import BadInput, nearest
from mtbench.outputs import INTERRUPTED, dated
from mtbench.words import whole_numbers

if TYPE_CHECKING:
    from mtbench.generation.command import Asked
    from mtbench.generation.results import Generated

__all__ = ["generate"]

BATCHES = {"cpu": "16", "cuda": "1,4096"}
BACKENDS = {"cpu": "own", "cuda": "triton"}


def generate(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="Checkpoints of mtbench train on an image task, of one run.")
    ],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    backend: Annotated[
        str | None,
        typer.Option(
            help="What computes the attention of a pixel: triton's decoding kernels, or own, the model's own "
            "recurrences in PyTorch. [default: triton on device cuda, own on cpu]"
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(help="float32; tf32 for its matrix products; bfloat16 by autocast. States are float32."),
    ] = "float32",
    batch: Annotated[
        str | None,
        typer.Option(
            help="Images at a time, several with commas. [default: 1,4096 on device cuda, 16 on cpu]"
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Rows and columns of square images, several with commas, as 14,28,56: times and memory of "
            "other sizes than the model was trained on. [default: that one]"
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Batches that are drawn and timed.", min=1)] = 3,
    images: Annotated[int, typer.Option(help="Of a sheet, at most.", min=1)] = 64,
    capture: Annotated[
        bool | None,
        typer.Option(
            "--capture/--no-capture",
            help="Whether a pixel's step is one CUDA graph. [default: on device cuda, unless --backend own]",
        ),
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Fuse what is not attention by torch.compile.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of what is drawn.", min=0)] = 0,
    threads: Annotated[int | None, typer.Option(help="CPU threads. [default: all CPUs]", min=1)] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder. [default: mtbench-generate-TIME]")] = None,
    host: Annotated[bool, typer.Option("--host", help="Record this machine's name.")] = False,
) -> None:
    """Draw images from checkpoints, and leave a page.

    A pixel at a time. It says how many images a second, how long a pixel takes and what memory an image
    needs, and holds the likelihood of what was drawn against the parallel form's.

    Exit code: 0; 1 when a likelihood disagrees, or memory was short for all that was asked for; 2 for bad
    input; 130 after Ctrl-C.
    """
    from mtbench.generation.command import run_generation
    from mtbench.report import conclude

    asked = _asked(
        checkpoints,
        device=device,
        backend=backend,
        precision=precision,
        batch=batch,
        sizes=sizes,
        rounds=rounds,
        images=images,
        capture=capture,
        compiled=compiled,
        seed=seed,
        threads=threads,
    )
    folder = out or dated("generate")
    outcome = run_generation(asked, folder, told=_told, host=host, arguments=sys.argv[1:])
    parts = [f"{count} {status}" for status, count in outcome.counts.items()]
    conclude(f"{'interrupted: ' if outcome.interrupted else ''}{', '.join(parts)}", folder)
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    if outcome.failed:
        raise typer.Exit(1)


def _asked(
    checkpoints: list[Path],
    *,
    device: str,
    backend: str | None,
    precision: str,
    batch: str | None,
    sizes: str | None,
    rounds: int,
    images: int,
    capture: bool | None,
    compiled: bool,
    seed: int,
    threads: int | None,
) -> Asked:
    """The words, checked."""
    from mtbench.generation.command import Asked
    from mtbench.generation.drawing import OWN, Drawing
    from mtbench.generation.source import find_sources
    from mtbench.measure.environment import cpus
    from mtbench.spec import DEVICES
    from mtbench.training.settings import PRECISIONS

    if device not in DEVICES:
        raise BadInput(f"unknown device {device!r}: known: {', '.join(DEVICES)}")
    if precision not in PRECISIONS:
        raise BadInput(f"unknown precision {precision!r}: {nearest(precision, PRECISIONS)}")
    chosen = BACKENDS[device] if backend is None else backend
    captured = (device == "cuda" and chosen != OWN) if capture is None else capture
    if captured and (device != "cuda" or chosen == OWN):
        raise BadInput(
            "--capture: a CUDA graph is captured on device cuda, of kernels that need no number of the host: "
            "leave it out on a CPU and with --backend own"
        )
    sources = find_sources(checkpoints)
    batches = whole_numbers("--batch", BATCHES[device] if batch is None else batch) or ()
    sides = whole_numbers("--sizes", sizes)
    return Asked(
        sources=sources,
        sides=sides or (None,),
        batches=batches,
        sheet=images,
        how=Drawing(
            device=device,
            backend=chosen,
            precision=precision,
            captured=captured,
            compiled=compiled,
            rounds=rounds,
            seed=seed,
        ),
        threads=threads or cpus(),
    )


def _told(row: Generated) -> None:
    """A row in a line."""
    rows, columns, _ = row.shape
    where = f"{row.name}, {rows} x {columns}, batch {row.batch}"
    if row.images_per_s is None or row.latency_s is None or row.held_bytes is None:
        typer.echo(f"{where}: {row.status}: {row.reason}")
        return
    told = (
        f"{row.images_per_s:.4g} images/s, {row.latency_s * 1e6:.4g} us a pixel, "
        f"{row.held_bytes / 1024:.4g} KiB an image"
    )
    if row.check is not None:
        verdict = "agrees" if row.check.agrees else "DISAGREES"
        told += (
            f"; drawn at {row.check.sampler_bits:.4f} bits/dim, the parallel form {verdict} within "
            f"{row.check.largest:.1e}"
        )
    typer.echo(f"{where}: {told}")
