"""Options of a case that more than one command has, each with its help."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "Batch",
    "Beta",
    "Causal",
    "Device",
    "Dtype",
    "Gamma",
    "HeadDim",
    "Heads",
    "KvHeads",
    "KvLen",
    "Lengths",
    "Mode",
    "Seed",
    "ValueDim",
]

Batch = Annotated[str | None, typer.Option(help="[default: 1]")]
Heads = Annotated[str | None, typer.Option(help="[default: 8]")]
HeadDim = Annotated[str | None, typer.Option(help="[default: 64]")]
ValueDim = Annotated[str | None, typer.Option(help="[default: head_dim]")]
KvLen = Annotated[str | None, typer.Option(help="Keys a sequence has; needs --no-causal. [default: seq_len]")]
KvHeads = Annotated[str | None, typer.Option(help="Grouped heads. [default: heads]")]
Lengths = Annotated[str | None, typer.Option(help="Real keys of each batch entry; the rest is padding.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16. [default: float32]")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda. [default: cpu]")]
Mode = Annotated[str | None, typer.Option(help="forward, forward_backward. [default: forward]")]
Causal = Annotated[
    bool | None,
    typer.Option("--causal/--no-causal", help="A position sees no later one. [default: causal]"),
]
Beta = Annotated[str | None, typer.Option(help="Momentum, in [0, 1). [default: 0.9]")]
Gamma = Annotated[str | None, typer.Option(help="Step size, above 0. [default: 1.0]")]
Seed = Annotated[int | None, typer.Option(help="Of the inputs. [default: 0]")]
