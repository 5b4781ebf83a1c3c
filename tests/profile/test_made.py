"""What compilers made: TTGIR, PTX and cubins of Triton, without a card, and texts of XLA and Inductor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtbench.profile.made import caches, digest_of, gather, spills, with_spills
from mtbench.profile.record import Kernel
from tests.profile.conftest import ROOT

COMPILE = """
from mtbench import AttentionSpec, Case
from mtbench.registry import import_part
aot = import_part("backends.triton.aot")
case = Case(spec=AttentionSpec(kind="softmax"), heads=2, seq_len=512, dtype="bfloat16", device="cuda")
for found in aot.resources(case):
    print(found.kernel, found.registers, found.stack_bytes, found.tensor_core_instructions)
"""


@pytest.mark.triton
@pytest.mark.torch
@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_tritons_kernels(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env={**environment, "PYTHONPATH": str(ROOT), **caches(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    name, registers, stack, products = done.stdout.split()
    folder = tmp_path / "profile"
    folder.mkdir()
    made = gather(tmp_path / "cache", {}, folder)
    assert [file for file, _ in made.files] == [f"compiled/{name}.ptx", f"compiled/{name}.ttgir"]
    assert all((folder / file).stat().st_size == size for file, size in made.files)
    ptx, ttgir = made.digest[f"{name}.ptx"], made.digest[f"{name}.ttgir"]
    assert 0 < ptx["tensor-core instructions"] <= int(products)  # that counts fences and waits, too
    assert ptx["loads from memory"] + ptx["asynchronous copies"] > 0
    assert ttgir["products"] > 0
    assert str(Path.home()) not in (folder / f"compiled/{name}.ttgir").read_text()

    stacks = spills(tmp_path / "cache")
    assert stacks == {(name, int(registers)): int(stack)}
    ran = Kernel(name=name, calls=1, ms=1, registers=int(registers))
    other = Kernel(name="another", calls=1, ms=1, registers=int(registers))
    assert [one.spilled_bytes for one in with_spills([ran, other], stacks)] == [int(stack), None]


def test_of_two_variants_the_one_that_ran() -> None:
    stacks = {("k", 128): 0, ("k", 255): 64}
    kernels = [Kernel(name="k", calls=1, ms=1, registers=registers) for registers in (255, 128, 40)]
    assert [one.spilled_bytes for one in with_spills(kernels, stacks)] == [64, 0, None]


HLO = """HloModule jit_program, is_scheduled=true

%fused (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %e = f32[4]{0} exponential(f32[4]{0} %p)
}

ENTRY %main (a: f32[4,4]) -> (f32[4,4], f32[4]) {
  %a = f32[4,4]{1,0} parameter(0)
  %copy.1 = f32[4,4]{0,1} copy(%a)
  %transpose.2 = f32[4,4]{1,0} transpose(%copy.1), dimensions={1,0}
  %gemm = (f32[4,4]{1,0}, s8[64]{0}) custom-call(%a, %transpose.2), custom_call_target="__cublas$gemm"
  %fusion.1 = f32[4]{0} fusion(%a), kind=kLoop, calls=%fused
  ROOT %t = (f32[4,4]{1,0}, f32[4]{0}) tuple(%gemm, %fusion.1)
}
"""
INDUCTOR = '''
cpp_fused_mul_0 = async_compile.cpp_pybinding(["float*"], """ ... """)
triton_poi_fused_1 = async_compile.triton("triton_poi_fused_1", """ ... """)
def call(args):
    buf0 = empty_strided_cpu((4, 4), (4, 1), torch.float32)
    extern_kernels.bmm(arg0, arg1, out=buf0)
'''


@pytest.mark.parametrize(
    ("name", "text", "counts"),
    [
        (
            "optimised.hlo.txt",
            HLO,
            {"fusions": 1, "custom calls": 1, "copies": 1, "transposes": 1, "calls of __cublas$gemm": 1},
        ),
        ("generated.py", INDUCTOR, {"kernels": 2, "calls of libraries": 1, "copies": 0, "buffers": 1}),
        ("kernel.bin", "tt.dot", {}),
    ],
)
def test_digests(name: str, text: str, counts: dict[str, int]) -> None:
    assert digest_of(name, text) == counts
