"""The options of a case, which several commands have: declared once, read once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from mtbench.words import flag, floats, names, whole_numbers

__all__ = ["CaseWords", "with_case"]

SIZES = ("batch", "heads", "head_dim", "value_dim", "kv_len", "kv_heads", "lengths")
NAMES = ("dtype", "device", "mode")
NUMBERS = ("beta", "gamma")


@dataclass(frozen=True, kw_only=True)
class CaseWords:
    """What was written after each of the options, or None."""

    batch: Annotated[str | None, typer.Option(help="[default: 1]")] = None
    heads: Annotated[str | None, typer.Option(help="[default: 8]")] = None
    head_dim: Annotated[str | None, typer.Option(help="[default: 64]")] = None
    value_dim: Annotated[str | None, typer.Option(help="[default: head_dim]")] = None
    kv_len: Annotated[
        str | None, typer.Option(help="Keys a sequence has; needs --no-causal. [default: seq_len]")
    ] = None
    kv_heads: Annotated[str | None, typer.Option(help="Grouped heads. [default: heads]")] = None
    lengths: Annotated[
        str | None, typer.Option(help="Real keys of each batch entry; the rest is padding.")
    ] = None
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16. [default: float32]")] = None
    device: Annotated[str | None, typer.Option(help="cpu, cuda. [default: cpu]")] = None
    mode: Annotated[str | None, typer.Option(help="forward, forward_backward. [default: forward]")] = None
    causal: Annotated[
        bool | None,
        typer.Option("--causal/--no-causal", help="A position sees no later one. [default: causal]"),
    ] = None
    beta: Annotated[str | None, typer.Option(help="Momentum, in [0, 1). [default: 0.9]")] = None
    gamma: Annotated[str | None, typer.Option(help="Step size, above 0. [default: 1.0]")] = None
    seed: Annotated[int | None, typer.Option(help="Of the inputs. [default: 0]")] = None

    def axes(self) -> dict[str, Any]:
        """The values of each, as a `mtbench.workloads.Grid` has them; None where nothing was given.

        Raises:
            BadInput: one is no list of what it should be.

        >>> given = CaseWords(head_dim="64,128", causal=False).axes()
        >>> given["head_dim"], given["causal"], given["beta"]
        ((64, 128), (False,), None)
        """
        words = vars(self)
        return {
            **{name: whole_numbers(flag(name), words[name]) for name in SIZES},
            **{name: names(flag(name), words[name]) for name in NAMES},
            **{name: floats(flag(name), words[name]) for name in NUMBERS},
            "causal": None if self.causal is None else (self.causal,),
            "seed": self.seed,
        }


FIELDS = inspect.signature(CaseWords, eval_str=True).parameters


def with_case(command: Callable[..., None]) -> Callable[..., None]:
    """A command of keywords with all of `CaseWords` as options, where its own parameter ``case`` stands."""
    own = inspect.signature(command, eval_str=True)
    shown = [
        parameter
        for name, given in own.parameters.items()
        for parameter in (FIELDS.values() if name == "case" else [given])
    ]

    @functools.wraps(command)
    def run(**words: Any) -> None:
        case = CaseWords(**{name: words.pop(name) for name in FIELDS})
        command(case=case, **words)

    # What typer makes options of.
    run.__signature__ = own.replace(parameters=shown)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return run
