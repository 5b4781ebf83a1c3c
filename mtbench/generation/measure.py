"""One checkpoint drawn from: timed, its memory read, and what it drew held against the parallel form."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import torch

from mtbench.errors import BadInput
from mtbench.frameworks import load_framework
from mtbench.generation.drawing import Drawing, decoding
from mtbench.generation.results import Check, Generated
from mtbench.generation.source import Source
from mtbench.inputs import Array
from mtbench.spec import AttentionSpec, Case
from mtbench.transformer.attention import BackendAttention
from mtbench.transformer.config import ModelConfig
from mtbench.transformer.pixels import PixelTransformer
from mtbench.transformer.recurrent import past
from mtbench.transformer.sampling import PastOf, Sampler

__all__ = ["drawn", "load_model"]

TOLERANCE = {"float32": 1e-4, "tf32": 5e-3, "bfloat16": 1e-2}
"""Bits/dim by which the likelihood of one image may differ between the sampler, in that precision, and the
parallel form in float32."""
CHECKED, TOGETHER = 64, 16
"""Images of a batch that the parallel form is asked about, at most, and how many of them at a time."""
PARTS = 8
"""That an image's pixels are timed in."""


def drawn(source: Source, side: int | None, batch: int, how: Drawing) -> tuple[Generated, Array | None]:
    """A row, and the images, [batch, rows, columns, channels] uint8; None where memory was short.

    Args:
        source: the checkpoint.
        side: rows and columns of an image; None are those it was trained on.
        batch: images at a time.
        how: with what.

    Raises:
        BadInput: a checkpoint that cannot be read, or a backend that decodes nothing.
    """
    framework = load_framework("torch")
    rows, columns, channels = source.task.shape
    shape = (rows, columns, channels) if side is None else (side, side, channels)
    row = Generated(
        name=source.name,
        variant=source.trained.job.variant,
        shape=shape,
        trained_size=shape == source.task.shape,
        batch=batch,
        status="ok",
    )
    try:
        return _drawn(source, row, how)
    except Exception as error:
        if not framework.is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300]
        return replace(row, status="oom", reason=reason), None
    finally:
        framework.release()


def _drawn(source: Source, row: Generated, how: Drawing) -> tuple[Generated, Array | None]:
    batch = row.batch
    model = load_model(source, row.positions, how.device)
    before = torch.cuda.memory_allocated() if how.device == "cuda" else 0
    if how.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    torch.set_float32_matmul_precision("high" if how.precision == "tf32" else "highest")
    sampler = Sampler(
        model,
        _past_of(how, model, batch, row.positions),
        batch,
        bfloat16=how.precision == "bfloat16",
        compiled=how.compiled,
    )
    if how.captured:
        sampler.capture()
    else:
        sampler.run(1)  # what is compiled at the first call is
    seconds, parts = [], []
    for turn in range(how.rounds):
        sampler.restart()
        torch.manual_seed(how.seed + turn)
        clock = _Clock(how.device)
        at = 0
        for part in range(PARTS):
            upto = row.positions * (part + 1) // PARTS
            sampler.run(upto - at)
            at = upto
            clock.mark()
        seconds.append(clock.seconds())
        parts = clock.parts()
    counts = [row.positions * (n + 1) // PARTS - row.positions * n // PARTS for n in range(PARTS)]
    peak = torch.cuda.max_memory_allocated() - before if how.device == "cuda" else None
    pixels, nats = sampler.pixels, sampler.nats
    made = replace(
        row,
        seconds=tuple(seconds),
        parts_s=tuple(s / n for s, n in zip(parts, counts, strict=True) if n),
        held_bytes=sampler.held_bytes // batch,
        peak_bytes=peak,
        moved_bytes=_moved_bytes(model.config, sampler, row.positions, how),
    )
    del sampler, model
    if row.trained_size:
        check = _checked(source, pixels, nats, how)
        made = replace(made, check=check)
        if not check.agrees:
            reason = (
                "the parallel form gives an image another likelihood than the sampler, by "
                f"{check.largest:.3g} bits/dim, and {check.tolerance:g} are allowed"
            )
            made = replace(made, status="disagrees", reason=reason)
    return made, pixels.cpu().numpy().reshape(batch, *row.shape)


def load_model(source: Source, positions: int, device: str) -> PixelTransformer:
    """The trained model, with encodings of that many positions.

    Raises:
        BadInput: the file is no checkpoint of that training.
    """
    job = source.trained.job
    config = replace(job.model, size=replace(job.model.size, max_len=positions))
    model = PixelTransformer(config, BackendAttention("torch-eager"))
    try:
        state = torch.load(source.file, map_location="cpu", weights_only=True)
        of = state["job"]
        model.load_state_dict(state["model"])
    except Exception as error:
        raise BadInput(
            f"{source.file} is no checkpoint of {job.id} that can be read ({type(error).__name__}): train it "
            "again"
        ) from error
    if of != job.id:
        raise BadInput(f"{source.file} is a checkpoint of {of}, and not of {job.id}")
    return model.to(device).eval()


def _past_of(how: Drawing, model: PixelTransformer, batch: int, positions: int) -> PastOf:
    """Makes what a layer keeps, by the backend that is asked for.

    Raises:
        BadInput: as `decoding`.
    """
    backend, size = decoding(how), model.config.size
    if backend is None:
        return past

    def made(spec: AttentionSpec) -> Any:
        case = Case(
            spec=spec,
            batch=batch,
            heads=size.heads,
            seq_len=positions,
            head_dim=size.head_dim,
            dtype="bfloat16" if how.precision == "bfloat16" else "float32",
            device=how.device,  # type: ignore[arg-type]
        )
        return backend.decoder(case)

    return made


def _moved_bytes(config: ModelConfig, sampler: Sampler, positions: int, how: Drawing) -> float:
    """Of a pixel of an image, in all layers: a state is read and written; of keys and values those before are
    read, on the average, and one is written."""
    size = config.size
    if config.spec(causal=True).kind != "softmax":
        return 2 * sampler.held_bytes / sampler.batch
    numbers = 2 * size.layers * size.heads * size.head_dim
    item = 2 if how.precision == "bfloat16" else 4
    return numbers * item * ((positions - 1) / 2 + 1)


def _checked(source: Source, pixels: torch.Tensor, nats: torch.Tensor, how: Drawing) -> Check:
    """What the parallel form says of the first images, in float32."""
    torch.set_float32_matmul_precision("highest")
    model = load_model(source, pixels.shape[1], how.device)
    images = pixels[:CHECKED]
    with torch.no_grad():
        found = torch.cat([model(part).double().sum(-1) for part in images.split(TOGETHER)])
    scale = -1 / (math.log(2) * pixels.shape[1])
    ours, theirs = nats[:CHECKED] * scale, found * scale
    return Check(
        images=len(images),
        sampler_bits=ours.mean().item(),
        parallel_bits=theirs.mean().item(),
        largest=(ours - theirs).abs().max().item(),
        tolerance=TOLERANCE[how.precision],
    )


class _Clock:
    """Seconds of a round by the host's clock, and of its parts by the device's."""

    def __init__(self, device: str) -> None:
        self._gpu = device == "cuda"
        self._marks: list[Any] = []
        if self._gpu:
            torch.cuda.synchronize()
        self._began = time.perf_counter()
        self.mark()

    def mark(self) -> None:
        if not self._gpu:
            self._marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)

    def seconds(self) -> float:
        if self._gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - self._began

    def parts(self) -> list[float]:
        pairs = list(zip(self._marks, self._marks[1:], strict=False))
        if self._gpu:
            return [a.elapsed_time(b) / 1000 for a, b in pairs]
        return [b - a for a, b in pairs]
