"""Counts the instructions in the loops of the chunked Triton kernels, compiled for a Hopper without one.

``python scripts/triton_instructions.py --shape "1,16,16384,64;8,16,4096,128" --mode forward --json FILE``

For each kernel of linear and momentum attention in bfloat16, causal or not (`--mask`): registers, spills, all
instructions, and for every loop those by class and the issue cycles that 64 positions take an SM whose four
schedulers issue one instruction each in every cycle; a loop of the parallel form takes columns in turn, not
positions. A Hopper of 132 SMs at 1.75 GHz and 3.05 TB/s moves 64 positions of q, k, v
and o, head_dim 64 and bfloat16, in some 2480 cycles an SM: a kernel near that is bound by its instructions.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mtbench import AttentionSpec, Case  # noqa: E402
from mtbench.registry import import_part  # noqa: E402

CLASSES = {
    "exp2": r"MUFU",
    "tensor core": r"HGMMA|HMMA",
    "global memory": r"LDG|STG",
    "shared memory": r"LDS|STS",
    "spill": r"LDL|STL",
    "shuffle": r"SHFL",
    "float": r"F(FMA|MUL|ADD|MNMX)",
    "select and compare": r"F?SEL|[FIH]SETP|PLOP|LOP3",
    "convert": r"F2F|I2F|F2I|PRMT",
    "integer": r"IMAD|IADD|LEA|SHF|MOV|VIADD|IMNMX",
    "barrier": r"BAR|WARPSYNC|DEPBAR|WARPGROUP",
}
SHORTEST = 50
"""Instructions of a loop that counts: shorter ones wait for something."""
SCHEDULERS = 4


def loops(sass: str) -> tuple[int, list[Counter[str]]]:
    """How many instructions a disassembly has, and those by class of every loop, in its order."""
    operations: list[tuple[str, str]] = []
    labels: dict[str, int] = {}
    for line in sass.splitlines():
        if label := re.match(r"^(\.L_x_\d+):", line):
            labels[label.group(1)] = len(operations)
        elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\d+ )?\s*([A-Z0-9_.]+)(.*);", line):
            operations.append((found.group(1), found.group(2)))
    counted = []
    for end, (name, rest) in enumerate(operations):
        target = re.search(r"\((\.L_x_\d+)\)", rest) if name.startswith("BRA") else None
        start = labels.get(target.group(1), end) if target else end
        if end - start >= SHORTEST:
            counted.append(Counter(_class(operation) for operation, _ in operations[start : end + 1]))
    return len(operations), counted


def _class(operation: str) -> str:
    return next((name for name, pattern in CLASSES.items() if re.match(pattern, operation)), "other")


def disassembled(cubin: bytes) -> str:
    """By the nvdisasm that comes with Triton."""
    import triton

    program = Path(triton.knobs.nvidia.cuobjdump.path).with_name("nvdisasm")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        return subprocess.run(
            [str(program), "-c", str(path)], capture_output=True, text=True, check=True
        ).stdout


def main() -> None:
    """Print a line a loop."""
    parser = argparse.ArgumentParser(description="Instructions of the Triton kernels' loops.")
    parser.add_argument(
        "--shape",
        default="1,16,16384,64;1,16,16384,128",
        help="batch,heads,seq_len,head_dim; several with ; between them",
    )
    parser.add_argument("--kind", default="linear,momentum")
    parser.add_argument("--mode", default="forward_backward", help="or forward; both with , between them")
    parser.add_argument("--mask", default="causal", help="or full; both with , between them")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    aot = import_part("backends.triton.aot")
    found: list[dict[str, Any]] = []
    for kind in options.kind.split(","):
        for mode, mask, shape in itertools.product(
            options.mode.split(","), options.mask.split(","), options.shape.split(";")
        ):
            spec = AttentionSpec(kind=kind, causal=mask == "causal")
            batch, heads, seq_len, head_dim = (int(x) for x in shape.split(","))
            sizes: dict[str, Any] = {
                "batch": batch, "heads": heads, "seq_len": seq_len, "head_dim": head_dim
            }  # fmt: skip
            case = Case(spec=spec, dtype="bfloat16", device="cuda", mode=mode, **sizes)
            for kernel, cubin in aot.compiled(case):
                instructions, found_loops = loops(disassembled(cubin))
                for loop in found_loops:
                    cycles = loop.total() * kernel.warps / SCHEDULERS * 64 / (kernel.rows or 64)
                    row = {
                        "kind": kind,
                        **sizes,
                        "mode": mode,
                        "mask": mask,
                        "kernel": kernel.kernel,
                        "rows": kernel.rows,
                        "warps": kernel.warps,
                        "registers": kernel.registers,
                        "spilled_bytes": kernel.stack_bytes,
                        "instructions": instructions,
                        "loop": loop.total(),
                        "issue_cycles_for_64_rows": cycles if kernel.rows else None,
                        "by_class": dict(loop),
                    }
                    found.append(row)
                    print(
                        f"{kind} {mode} {mask} {shape} {kernel.kernel}: {kernel.warps} warps of "
                        f"{kernel.rows} rows, {kernel.registers} registers, {kernel.stack_bytes} bytes "
                        f"spilled, {instructions} instructions, "
                        f"loop of {loop.total()} with {loop['spill']} of spills, "
                        f"{row['issue_cycles_for_64_rows']} issue cycles for 64 rows"
                    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
