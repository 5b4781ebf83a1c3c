"""Every launch of some calls twice, by Triton and by the kernel kept, on a card that is not there: a JSON
object a launch. `test_triton_launch` runs it in a process of its own, since in its own the kernels may be
loaded for the interpreter."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import triton

from mtbench import AttentionSpec, Case
from mtbench.registry import import_part
from tests.pretended_card import Launched, PretendedCard

CARD = PretendedCard()
CARD.activate()
launching = import_part("backends.triton.launch")
launching.enter("cuda")
BOUND: list[str] = []
"""The kernel of every call of `JITFunction.run`."""
HOOKED: list[str] = []
"""Every kernel that Triton's hooks were told of."""
run = triton.JITFunction.run


def counted(kernel: Any, *args: Any, **how: Any) -> Any:
    """`JITFunction.run`, and a line of `BOUND`."""
    BOUND.append(kernel.__name__)
    return run(kernel, *args, **how)


triton.JITFunction.run = counted


def alike(one: Launched, other: Launched) -> bool:
    """The same kernel, grid and stream, the same tensors, and equal numbers of one type."""
    return one[:4] == other[:4] and all(
        a is b or (type(a) is type(b) and not isinstance(a, torch.Tensor) and a == b)
        for a, b in zip(one.args, other.args, strict=True)
    )


def both(about: str, prepared: Any, *tensors: Any) -> None:
    """A launch that does it by Triton, then as users do, and prints what came of it."""
    CARD.launched.clear()
    launching.by_triton(prepared, *tensors)
    before = len(BOUND)
    HOOKED.clear()
    launching.start(prepared, *tensors)
    wanted, found = CARD.launched
    said = {
        "about": about,
        "kernel": prepared.kernel.__name__,
        "function": found.function,
        "device": CARD.loaded[found.function][1],
        "stream": found.stream,
        "grid": found.grid,
        "alike": alike(wanted, found),
        "bound": len(BOUND) - before,
        "hooked": list(HOOKED),
    }
    print(json.dumps(said), flush=True)


def tensor(shape: tuple[int, ...], dtype: torch.dtype, past: int = 0) -> torch.Tensor:
    """A piece of a flat buffer that begins so many bytes past a multiple of 16."""
    count = functools.reduce(int.__mul__, shape)
    first = past // dtype.itemsize
    made = torch.randn(count + 16, dtype=torch.float32).to(dtype)[first : first + count].view(shape)
    assert made.data_ptr() % 16 == past
    return made


def attend(case: Case) -> Callable[..., None]:
    """What calls the case, forward and back, with q that many bytes past a multiple of 16."""
    plan = import_part("backends.triton.plan").make_plan(case, "cpu")
    kernels = import_part("backends.triton").kernels_of(plan)
    differentiable = import_part("backends.triton.differentiable").differentiable

    def call(about: str, past: int = 0, lengths: torch.Tensor | None = None) -> None:
        function = differentiable(*kernels, plan, functools.partial(both, about))
        shape, dtype = (case.batch, case.heads, case.seq_len, case.head_dim), getattr(torch, case.dtype)
        q, k, v = (tensor(shape, dtype, by).requires_grad_() for by in (past, 0, 0))
        o = function(q, k, v, lengths)
        torch.autograd.grad(o, (q, k, v), tensor(shape, dtype))

    return call


def main() -> None:
    """All of it."""
    sizes: dict[str, Any] = {"heads": 2, "head_dim": 16, "dtype": "float32", "device": "cuda"}
    sizes |= {"mode": "forward_backward"}
    for short, n, other, lengths in (("", 256, 400, (64, 256)), ("short, ", 40, 100, (7, 40))):
        call = attend(Case(seq_len=n, **sizes))
        call(f"{short}aligned")
        call(f"{short}aligned again")
        call(f"{short}q is not aligned", past=4)
        call(f"{short}q is not aligned again", past=4)
        call(f"{short}aligned at last")
        attend(Case(seq_len=other, **sizes))(f"{short}another shape")
        call = attend(Case(seq_len=n, batch=2, lengths=lengths, **sizes))
        call(f"{short}lengths")
        call(f"{short}other lengths", lengths=torch.tensor((1, 2)))

    decode = import_part("backends.triton.decode")
    spec = AttentionSpec(kind="linear")
    state = decode.empty_state(spec, batch=1, heads=2, head_dim=16, value_dim=16, device="cpu")

    def step(about: str, dtype: torch.dtype = torch.bfloat16, past: int = 0) -> None:
        q, k, v = (tensor((1, 2, 16), dtype, by) for by in (0, past, 0))
        decode.step(spec, q, k, v, state, launch=functools.partial(both, about))

    step("token")
    step("token of float16", torch.float16)
    step("token with k not aligned", past=2)
    step("token again")
    CARD.stream = 7
    step("token on another stream")
    CARD.device = 1
    step("token on another device")
    CARD.device = CARD.stream = 0
    step("token on the first")
    hook = lambda about: HOOKED.append(about.get()["name"])  # noqa: E731
    for hooks in (triton.knobs.runtime.launch_enter_hook, triton.knobs.runtime.launch_exit_hook):
        hooks.add(hook)
    step("token with hooks")
    for hooks in (triton.knobs.runtime.launch_enter_hook, triton.knobs.runtime.launch_exit_hook):
        hooks.remove(hook)
    triton.knobs.runtime.debug = True
    step("token in debugging")
    triton.knobs.runtime.debug = False
    step("token after debugging")
    with ThreadPoolExecutor(1) as threads, triton.AsyncCompileMode(threads):
        decode.step(spec, *(tensor((1, 2, 16), torch.float32) for _ in range(3)), state)
    step("token compiled aside", torch.float32)
    version = "one"
    triton.knobs.runtime.add_stages_inspection_hook = lambda *compiler: (
        None if compiler else (version, version)
    )
    step("token of other stages")
    version = "two"
    step("token of other stages yet")
    triton.knobs.runtime.add_stages_inspection_hook = None
    step("token of the first stages")
    decode.advance.add_pre_run_hook(lambda *args, **how: HOOKED.append("before run"))
    step("token with a hook before run")


if __name__ == "__main__":
    main()
