"""What the image tasks share beside their images: sizes, schedules, and what the paper says of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtbench.training.published import PAPER, Claim, Published
from mtbench.training.settings import Optimization, Preset, Schedule
from mtbench.transformer.config import ModelSize

__all__ = ["SMALL", "VARIANTS", "image_published", "over_all", "paper_preset", "short_preset", "sized"]

SYMBOLS = 257
"""Levels of a pixel, and the start (`mtbench.transformer.pixels`, which imports torch)."""
ALL = 10**6
"""Batches of held-out data: more than any test set has."""
SMALL: Mapping[str, int] = {"d_model": 64, "layers": 2, "heads": 4, "head_dim": 16, "feed_forward": 128}
"""Sizes for a CPU."""
VARIANTS: Mapping[str, str] = {
    "softmax": "Softmax",
    "linear": "Linear",
    "momentum": "Momentum",
    "momentum+momentum": "Momentum with momentum connection",
    "momentum+adaptive": "Momentum with adaptive connection",
}
"""The paper's five, as its claims name them."""


def sized(positions: int, **sizes: Any) -> ModelSize:
    """The size of a model that reads that many pixels; what is not given is the paper's."""
    return ModelSize(**{"vocabulary": SYMBOLS, "max_len": positions, "layers": 8, **sizes})


def over_all(images: int, positions: int, *, epochs: int, batch: int, evaluations: int = 20) -> Schedule:
    """Epochs of all training images, held against all test images."""
    return Schedule(
        epochs=epochs,
        iterations=images // batch,
        batch=batch,
        seq_len=positions,
        evaluations=evaluations,
        evaluation_batches=ALL,
    )


def paper_preset(
    task: str, size: ModelSize, *, epochs: int, images: int, batch: int, lr: float, remark: str = ""
) -> Preset:
    """The paper's optimiser, and epochs of all images."""
    return Preset(
        why=f"The paper's own settings of {task}: {epochs} epochs of {images // batch} steps of {batch} "
        f"images, {size.layers} layers of {size.d_model}.{remark}",
        size=size,
        schedule=over_all(images, size.max_len, epochs=epochs, batch=batch),
        optimization=Optimization(lr=lr),
    )


def short_preset(positions: int, *, iterations: int, batch: int, evaluation_batches: int) -> Preset:
    """A preset for a look on a CPU."""
    return Preset(
        why="A small model for some minutes, for a look on a CPU, held against "
        f"{batch * evaluation_batches} test images: too short to test the paper by.",
        size=sized(positions, **SMALL),
        schedule=Schedule(
            epochs=4,
            iterations=iterations,
            batch=batch,
            seq_len=positions,
            evaluation_batches=evaluation_batches,
        ),
        optimization=Optimization(lr=3e-3, drop_epoch=3),
    )


def image_published(table: int, bits: str, images_per_s: str, *, runs: str, first: str) -> Published:
    """What a table of the paper says, in the order of `VARIANTS`.

    Args:
        table: its number.
        bits: bits/dim.
        images_per_s: how fast images are generated.
        runs: what to know of its runs.
        first: what the released code is given of every image.
    """
    reached, speeds = (dict(zip(VARIANTS, told.split(), strict=True)) for told in (bits, images_per_s))
    return Published(
        source=f"{PAPER}, table {table}",
        remark=(
            f"One run each, without intervals; {runs}. The paper's figures were made by its released code, "
            "whose momentum attention and connections are others than the paper's formulas, and which is "
            f"given the first {first} of every image, where here it is predicted, too."
        ),
        values={"metric": reached},
        claims=_claims(reached),
        images_per_s=speeds,
    )


def _claims(bits: Mapping[str, str]) -> tuple[Claim, ...]:
    """What a table of bits/dim claims: each value, rounded as it is, and every difference that it shows
    between linear attention and the others."""
    values = {variant: float(text) for variant, text in bits.items()}
    reached = [
        Claim(
            text=f"{VARIANTS[variant]} reaches {text} bits/dim (less than "
            f"{values[variant] + 0.005:.3f}, which rounds to it or is better)",
            quantity="metric",
            variant=variant,
            relation="below",
            bound=values[variant] + 0.005,
        )
        for variant, text in bits.items()
    ]
    pairs = [
        ("momentum", "linear"),
        ("momentum+momentum", "linear"),
        ("momentum+adaptive", "linear"),
        ("momentum+momentum", "momentum"),
        ("momentum+adaptive", "momentum+momentum"),
    ]
    order = "momentum+adaptive" if values["momentum+adaptive"] < values["softmax"] else "softmax"
    pairs.append((order, "softmax" if order != "softmax" else "momentum+adaptive"))
    less = [
        Claim(
            text=f"{VARIANTS[variant]} needs fewer bits/dim than {VARIANTS[other].lower()} "
            f"({bits[variant]} against {bits[other]})",
            quantity="metric",
            variant=variant,
            against=other,
            relation="below",
            bound=1.0,
        )
        for variant, other in pairs
    ]
    return (*reached, *less)
