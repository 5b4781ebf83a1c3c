"""Compiles a case's kernels for a Hopper card on a machine without one, and reads what they would use.

It needs a process without TRITON_INTERPRET. ``python -m backends.triton.aot`` prints the table, in about two
minutes where Triton has not cached the kernels.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mtbench.spec import ATTENTIONS, DTYPES, AttentionSpec, Case

from . import compile_all, decode_softmax, shapes_of
from .decode import empty_state, step
from .launch import Launch, Prepared, enter, options
from .plan import make_plan

__all__ = [
    "HOPPER",
    "Resources",
    "compiled",
    "decode_resources",
    "forward_compiled",
    "main",
    "resources",
]

HOPPER = 90
TYPES = {torch.int32: "*i32", torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one compiled kernel uses."""

    kernel: str
    registers: int
    """A thread; 255 is the most there are."""
    stack_bytes: int
    """A thread: what did not fit in registers."""
    shared_bytes: int
    """A program; a Hopper SM has 232448 for it."""
    tensor_core_instructions: int
    """``wgmma`` and ``mma`` in the PTX."""
    warps: int
    rows: int
    """Positions that one turn of its loop takes; 0 where it has no tiles."""


def resources(case: Case, capability: int = HOPPER, *, tf32: bool = False) -> list[Resources]:
    """Every kernel that a call of the case launches, compiled for an NVIDIA card of that capability."""
    return [kernel for kernel, _ in compiled(case, capability, tf32=tf32)]


def compiled(case: Case, capability: int = HOPPER, *, tf32: bool = False) -> list[tuple[Resources, bytes]]:
    """The same, each with its cubin."""
    enter("cuda")
    found: list[tuple[Resources, bytes]] = []
    compile_all(make_plan(case, "meta", tf32=tf32), _into(found, capability))
    return found


def forward_compiled(
    module: str, case: Case, capability: int = HOPPER, **flags: bool
) -> list[tuple[Resources, bytes]]:
    """The same of a forward by its module's name, with the options of its `attention`: the scan, or the
    look-back scan, which no case takes by itself."""
    enter("cuda")
    forward = importlib.import_module(f"{__package__}.{module}")
    found: list[tuple[Resources, bytes]] = []
    forward.attention(
        make_plan(case, "meta", parallel=False), _into(found, capability), *shapes_of(case), **flags
    )
    return found


def decode_resources(
    spec: AttentionSpec, dtype: str, head_dim: int, value_dim: int, capability: int = HOPPER
) -> Resources:
    """The same of the kernel that decodes a token."""
    enter("cuda")
    found: list[tuple[Resources, bytes]] = []
    sizes = {"batch": 1, "heads": 1, "head_dim": head_dim, "value_dim": value_dim}
    q, k, v = (
        torch.empty((1, 1, dim), dtype=getattr(torch, dtype), device="meta")
        for dim in (head_dim, head_dim, value_dim)
    )
    launch = _into(found, capability)
    if spec.kind == "softmax":
        cache = decode_softmax.empty_cache(room=16, dtype=k.dtype, device="meta", **sizes)
        decode_softmax.step(spec, q, k, v, cache, launch=launch)
    else:
        step(spec, q, k, v, empty_state(spec, device="meta", **sizes), launch=launch)
    return found[0][0]


def _into(found: list[tuple[Resources, bytes]], capability: int) -> Launch:
    """A launch that only compiles, and adds what it made."""

    def launch(prepared: Prepared, *tensors: Any) -> None:
        found.append(_compile(prepared, tensors, capability))

    return launch


def _compile(prepared: Prepared, tensors: tuple[Any, ...], capability: int) -> tuple[Resources, bytes]:
    kernel, tiles, constants = prepared.kernel, prepared.tiles, prepared.constants
    signature: dict[str, str] = {}
    values = dict(constants)
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for index, (name, arg) in enumerate(zip(kernel.arg_names, (*tensors, *prepared.scalars), strict=False)):
        if isinstance(arg, torch.Tensor):
            signature[name] = TYPES[arg.dtype]
            attributes[index,] = [["tt.divisibility", 16]]
        elif arg is None:
            signature[name], values[name] = "constexpr", None
        else:
            signature[name] = "i32" if isinstance(arg, int) else "fp32"
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature, values, attributes)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options(tiles))
    usage = _usage(made.asm["cubin"])
    used = Resources(
        kernel=kernel.__name__,
        registers=usage["REG"],
        stack_bytes=usage["STACK"],
        shared_bytes=made.metadata.shared,
        tensor_core_instructions=len(re.findall(r"\bw?g?mma\S*\.sync", made.asm["ptx"])),
        warps=tiles.warps,
        rows=tiles.rows,
    )
    return used, made.asm["cubin"]


def _usage(cubin: bytes) -> dict[str, int]:
    """What Triton's own copy of cuobjdump reads in a compiled kernel: REG, STACK and the like."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        dump = subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(path)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    return {name: int(value) for name, value in re.findall(r"\b([A-Z]+):(\d+)", dump.stdout + dump.stderr)}


def main() -> None:
    """Print what every kernel uses, a line each, for a sequence long enough to be cut into segments."""
    for dtype in DTYPES:
        for head_dim in (64, 128):
            for kind in ATTENTIONS:
                for causal in (True, False):
                    spec = AttentionSpec(kind=kind, causal=causal)
                    case = Case(spec=spec, seq_len=16384, head_dim=head_dim, dtype=dtype, device="cuda")
                    form = "causal" if causal else "full"
                    for found in resources(case):
                        sys.stdout.write(f"{kind} {form} {dtype} {head_dim}: {found}\n")


if __name__ == "__main__":
    main()
