"""What the compiler made of a kernel: its files, gathered from caches that were empty before, and what is in
them.

Triton's cache has the TTGIR, the PTX and the cubin of every kernel that was compiled, Inductor's the code
that it generated, XLA's dump the PTX; the optimised HLO comes from the program itself.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mtbench.profile.record import Kernel, Made

__all__ = ["caches", "digest_of", "gather", "memory_report", "spills", "with_spills"]

CHECKOUT = Path(__file__).parents[2]
FOLDER = "compiled"
PROGRAM, REPORT = "jit_program", "memory-usage-report.txt"
"""What XLA calls the program of a `JaxKernel`, and how the name of its plan of memory ends."""
MOST_FILES, MOST_BYTES = 200, 8 << 20
"""That are kept of one profile; and of one file, in bytes."""
SUFFIXES = (".ttgir", ".ptx", ".txt", ".py", ".cpp", ".ll")
USAGE = re.compile(r"Function (\S+):\s*\n\s*REG:(\d+) STACK:(\d+)")
"""cuobjdump's lines of what a kernel uses."""

PTX = {
    "tensor-core instructions": r"\bwgmma\.mma_async|\bmma\.sync|\bwmma\.mma|\btcgen05\.mma",
    "asynchronous copies": r"\bcp\.async",
    "loads from memory": r"\bld\.global",
    "stores to memory": r"\bst\.global",
    "loads and stores of local memory": r"\b(?:ld|st)\.local",
    "barriers": r"\bbar\.sync|\bbarrier\.sync",
}
TTGIR = {
    "products": r"= (?:tt\.dot|ttng\.warp_group_dot|nvidia_gpu\.warp_group_dot|ttng\.tc_gen5_mma)\b",
    "conversions of layout": r"= ttg\.convert_layout\b",
    "transposes": r"= (?:tt\.trans|ttg\.memdesc_trans)\b",
    "buffers in shared memory": r"= ttg\.local_alloc\b",
    "reductions": r'= "tt\.reduce"',
}
INDUCTOR = {
    "kernels": r"= async_compile\.(?:triton|cpp_pybinding|cpp)\(",
    "calls of libraries": r"\bextern_kernels\.|torch\.ops\.aten\.\w+\.\w+\(",
    "copies": r"\.copy_\(|aten\.clone",
    "buffers": r"= empty_strided_\w+\(",
}
HLO_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = [^=]*?\s([a-z][a-z0-9-]*)\(", re.MULTILINE)
HLO_TARGET = re.compile(r'custom_call_target="([^"]+)"')
HLO = {
    "fusion": "fusions",
    "dot": "products",
    "custom-call": "custom calls",
    "copy": "copies",
    "transpose": "transposes",
    "while": "loops",
    "sort": "sorts",
    "reduce": "reductions",
}


def caches(folder: Path) -> dict[str, str]:
    """The environment in which compilers keep what they make under this folder, and find nothing there."""
    return {
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
    }


def gather(cache: Path, programs: Mapping[str, str], folder: Path) -> Made:
    """Copy what was made into ``compiled`` of a profile's folder, and say what is in it."""
    target = folder / FOLDER
    texts = dict(programs)
    for file in sorted(p for part in ("triton", "inductor", "xla") for p in (cache / part).rglob("*")):
        if not (file.is_file() and file.suffix in SUFFIXES and _wanted(file, cache)):
            continue
        if len(texts) < MOST_FILES and file.stat().st_size <= MOST_BYTES:
            # Inductor's names are digests of what is in the files.
            name = f"generated{file.suffix}" if cache / "inductor" in file.parents else file.name
            texts[_free(name, texts)] = file.read_text(encoding="utf-8", errors="replace")
    if texts:
        target.mkdir(exist_ok=True)
    texts = {name: _homeless(text) for name, text in texts.items()}
    for name, text in texts.items():
        (target / name).write_text(text, encoding="utf-8")
    digest = {name: found for name, text in texts.items() if (found := digest_of(name, text))}
    files = tuple((f"{FOLDER}/{name}", len(text.encode())) for name, text in texts.items())
    return Made(files=files, digest=digest)


def memory_report(cache: Path) -> str:
    """What XLA dumped of the memory of the kernel's program; empty where there is none."""
    reports = sorted((cache / "xla").glob(f"*{PROGRAM}*{REPORT}"), key=lambda file: file.stat().st_size)
    return reports[-1].read_text(encoding="utf-8", errors="replace") if reports else ""


def _homeless(text: str) -> str:
    """Without the folders that this machine alone has: a compiler writes down where a source file lay."""
    return text.replace(f"{CHECKOUT}/", "").replace(str(Path.home()), "~")


def _wanted(file: Path, cache: Path) -> bool:
    """Of Inductor's cache its generated modules, and of XLA's dump the PTX and the plan of memory."""
    part = file.relative_to(cache).parts[0]
    if part == "xla":
        return file.suffix == ".ptx" or (file.name.endswith(REPORT) and PROGRAM in file.name)
    if part == "inductor":
        return file.suffix in (".py", ".cpp") and "async_compile" in file.read_text(errors="replace")
    return file.suffix in (".ttgir", ".ptx")


def _free(name: str, taken: Iterable[str]) -> str:
    """A name that is not taken: two variants of a kernel have one name.

    >>> _free("a.ptx", ["a.ptx", "a-2.ptx"])
    'a-3.ptx'
    """
    stem, dot, ending = name.partition(".")
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{stem}-{number}{dot}{ending}"
    return free


def digest_of(name: str, text: str) -> dict[str, float]:
    """Counts of what a reader would look for, by a file's kind; empty for another."""
    if name.endswith("hlo.txt"):
        found = Counter(HLO_INSTRUCTION.findall(text))
        counts: dict[str, float] = {words: found[opcode] for opcode, words in HLO.items() if found[opcode]}
        for target, count in Counter(HLO_TARGET.findall(text)).items():
            counts[f"calls of {target}"] = count
        return counts
    for ending, patterns in ((".ptx", PTX), (".ttgir", TTGIR), (".py", INDUCTOR)):
        if name.endswith(ending):
            return {words: len(re.findall(pattern, text)) for words, pattern in patterns.items()}
    return {}


def spills(cache: Path) -> dict[tuple[str, int], int]:
    """By kernel and registers a thread, the bytes of a thread's stack, as the cubins in Triton's cache say by
    the tool that Triton brings; empty where there are none."""
    tool = _cuobjdump()
    found: dict[tuple[str, int], int] = {}
    for cubin in sorted((cache / "triton").rglob("*.cubin")) if tool else ():
        done = subprocess.run(
            [str(tool), "-res-usage", str(cubin)], capture_output=True, text=True, check=False
        )
        for name, registers, stack in USAGE.findall(done.stdout + done.stderr):
            found[name, int(registers)] = int(stack)
    return found


def _cuobjdump() -> Path | None:
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        return None
    tool = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return tool if tool.is_file() else None


def with_spills(kernels: Sequence[Kernel], stacks: Mapping[tuple[str, int], int]) -> tuple[Kernel, ...]:
    """The kernels with their stacks, where the variant that ran is known: by its registers, or as the one."""
    told = []
    for kernel in kernels:
        variants = {registers: stack for (name, registers), stack in stacks.items() if name == kernel.name}
        stack = variants.get(kernel.registers or -1)
        if stack is None and len(variants) == 1:
            (stack,) = variants.values()
        told.append(kernel if stack is None else replace(kernel, spilled_bytes=stack))
    return tuple(told)
