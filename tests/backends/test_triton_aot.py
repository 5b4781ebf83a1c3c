"""Every Triton kernel compiled for a Hopper card, with or without one: registers, spills and tensor cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mtbench
from mtbench import load_backend

pytestmark = pytest.mark.triton

FORMS = [("softmax", True), ("linear", True), ("momentum", True), ("momentum", False)]
"""These have every kernel; the other two differ from them by a constant."""
KERNELS = {
    *("softmax", "softmax_query_gradients", "softmax_key_value_gradients"),
    *("states", "combine", "scan", "apply", "query_gradients", "key_value_gradients"),
}
SPILLED_AT_MOST = 1024
"""Bytes a thread. Momentum holds two float32 states, and its largest kernels spill a part of one, the
backward's more than the forward's: docs/triton-notebook.md has what was tried. A tile that does not fit is
thousands."""
SHARED_AT_MOST = 232448
"""Bytes a program can have on a Hopper SM."""

CODE = """
import dataclasses, json, sys
from mtbench import AttentionSpec, Case
from mtbench.registry import import_part
aot = import_part("backends.triton.aot")
dtype, dims, forms, mode = json.loads(sys.argv[1])
tf32, dtype = dtype == "tf32", "float32" if dtype == "tf32" else dtype
for head_dim, value_dim in dims:
    for kind, causal in forms:
        spec = AttentionSpec(kind=kind, causal=causal)
        sizes = dict(heads=2, seq_len=16384, head_dim=head_dim, value_dim=value_dim)
        case = Case(spec=spec, dtype=dtype, device="cuda", mode=mode, **sizes)
        for found in aot.resources(case, tf32=tf32):
            print(json.dumps(dataclasses.asdict(found) | {"case": [kind, causal, head_dim, value_dim]}))
"""


SCAN = """
import dataclasses, json, sys
from mtbench import AttentionSpec, Case
from mtbench.registry import import_part
aot, tiles = (import_part(f"backends.triton.{name}") for name in ("aot", "tiles"))
chosen = tiles.COLUMNS
for beta, keep, batch, n, lengths in json.loads(sys.argv[1]):
    sizes = dict(batch=batch, heads=16, seq_len=n, head_dim=128, lengths=lengths)
    case = Case(spec=AttentionSpec(beta=beta), dtype="bfloat16", device="cuda", **sizes)
    for tiles.COLUMNS in (chosen, (16, 16, 16)):
        found, _ = aot.forward_compiled("scan", case, keep=keep)[-1]
        print(json.dumps(dataclasses.asdict(found)))
"""


PARALLEL = """
import dataclasses, json, sys
from mtbench import AttentionSpec, Case
from mtbench.registry import import_part
aot = import_part("backends.triton.aot")
dtype, sizes = json.loads(sys.argv[1])
for seq_len, kv_len, head_dim, causal in sizes:
    sizes = dict(batch=2, heads=2, seq_len=seq_len, kv_len=kv_len, head_dim=head_dim, lengths=(kv_len, 1))
    spec = AttentionSpec(causal=causal)
    case = Case(spec=spec, dtype=dtype, device="cuda", mode="forward_backward", **sizes)
    for found in aot.resources(case):
        print(json.dumps(dataclasses.asdict(found) | {"case": [seq_len, kv_len, head_dim, causal]}))
"""


SINGLE_PASS = """
import dataclasses, json, sys
from mtbench import AttentionSpec, Case
from mtbench.registry import import_part
aot = import_part("backends.triton.aot")
for kind in ("linear", "momentum"):
    case = Case(spec=AttentionSpec(kind=kind), heads=2, seq_len=16384, dtype="bfloat16", device="cuda")
    for found, _ in aot.forward_compiled("single_pass", case):
        print(json.dumps(dataclasses.asdict(found)))
"""


DECODE = """
import dataclasses, json, sys
from mtbench import AttentionSpec
from mtbench.registry import import_part
aot = import_part("backends.triton.aot")
for kind in ("linear", "momentum", "softmax"):
    for dtype, dims in json.loads(sys.argv[1]):
        print(json.dumps(dataclasses.asdict(aot.decode_resources(AttentionSpec(kind=kind), dtype, *dims))))
"""


def compiled(
    dtype: str, dims: list[tuple[int, int]], forms: list[tuple[str, bool]], mode: str = "forward"
) -> list[dict[str, Any]]:
    """In a process of its own: in this one the kernels may be loaded for the interpreter."""
    return run(CODE, [dtype, dims, forms, mode])


def run(code: str, arguments: list[Any]) -> list[dict[str, Any]]:
    """What a program prints, a JSON object a line."""
    if reason := load_backend("triton").unavailable("cuda"):
        pytest.skip(reason)
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, json.dumps(arguments)],
        env={**kept, "PYTHONPATH": str(Path(mtbench.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float16"])
def test_the_kernels_fit_a_hopper_card(dtype: str) -> None:
    found = compiled(dtype, [(64, 64), (128, 128)], FORMS, "forward_backward")
    assert {row["kernel"] for row in found} == KERNELS
    for row in found:
        assert row["stack_bytes"] <= SPILLED_AT_MOST, row
        assert row["shared_bytes"] <= SHARED_AT_MOST, row
        # float32 means float32: no tensor core multiplies it. `combine` only adds.
        tensor_cores = dtype != "float32" and row["kernel"] != "combine"
        assert (row["tensor_core_instructions"] > 0) == tensor_cores, row


def test_small_unequal_and_large_dims_compile() -> None:
    for dtype, dims in (
        ("bfloat16", (5, 3)), ("float16", (1, 128)), ("float32", (100, 7)), ("bfloat16", (256, 256)),
    ):  # fmt: skip
        found = compiled(dtype, [dims], [("softmax", True), ("momentum", True)])
        assert len(found) == 4
        assert max(row["shared_bytes"] for row in found) <= SHARED_AT_MOST


def test_z_in_8_columns_spills_less_than_in_16() -> None:
    """The scan of head_dim 128 in one segment and in several, with whole chunks and a ragged end, with
    lengths, for a backward, and with u(i-j) of two factors and in a tile (beta of .3)."""
    cases = [
        (0.9, False, 8, 4096, None), (0.9, True, 1, 65536, None), (0.9, True, 1, 5001, (4000,)),
        (0.3, True, 8, 4097, None),
    ]  # fmt: skip
    found = run(SCAN, [*cases])
    assert len(found) == 2 * len(cases)
    for narrow, wide in zip(found[::2], found[1::2], strict=True):
        assert narrow["kernel"] == "scan"
        assert narrow["tensor_core_instructions"] > 0
        assert narrow["shared_bytes"] <= SHARED_AT_MOST
        assert narrow["stack_bytes"] < wide["stack_bytes"], (narrow, wide)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_parallel_form_of_short_sequences(dtype: str) -> None:
    """In bfloat16 some lengths of translation's batches, 139 columns a head, and heads of whole 16 bytes."""
    sizes = [(10, 10, 139, False), (40, 40, 139, True), (64, 64, 64, True)] if dtype == "bfloat16" else []
    found = run(PARALLEL, [dtype, [*sizes, (80, 80, 139, False)]])
    # Past 64 keys the backward has two launches.
    kernels = ["parallel", "parallel_gradients"] * (len(sizes) + 1)
    assert [row["kernel"] for row in found] == [*kernels, "parallel_gradients"]
    for row in found:
        assert row["stack_bytes"] <= SPILLED_AT_MOST // 2, row
        assert row["shared_bytes"] <= SHARED_AT_MOST // 4, row  # so that several programs share an SM
        assert (row["tensor_core_instructions"] > 0) == (dtype != "float32"), row
        assert row["kernel"] != "parallel" or row["stack_bytes"] <= 16, row


def test_the_look_back_scan() -> None:
    found = run(SINGLE_PASS, [])
    assert {kernel["kernel"] for kernel in found} == {"single_pass"}
    for kernel in found:
        assert kernel["stack_bytes"] <= SPILLED_AT_MOST, kernel
        assert kernel["tensor_core_instructions"] > 0, kernel


def test_the_kernel_that_decodes_keeps_its_state_in_registers() -> None:
    found = run(DECODE, [["bfloat16", [64, 64]], ["float16", [5, 72]], ["float32", [256, 256]]])
    assert [row["kernel"] for row in found] == ["advance"] * 6 + ["read"] * 3
    for row in found:
        assert row["stack_bytes"] == 0, row
