"""One rank of scale_gpus.py, which starts it: what is measured, and in which order."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mtbench import AttentionSpec, Case
from mtbench.inputs import make_inputs
from mtbench.measure.agreement import Judge
from mtbench.registry import import_part
from mtbench.sweep.child import die_with_parent

SIZES: dict[str, dict[str, Any]] = {
    "cuda": {
        "heads": 16, "head_dim": 64, "dtype": "bfloat16", "form": "fused", "block": 8192, "long": 1 << 20,
        "softmax": 1 << 17, "lengths": (1 << 16, 1 << 18, 1 << 21, 1 << 22),
        "softmax_lengths": (1 << 14, 1 << 16), "check": 2048, "calls": 20, "longest_step": 1 << 20,
        "gathered": (1 << 14, 1 << 17, 1 << 20, 1 << 24), "passed": 1 << 28,
    },
    "cpu": {
        "heads": 2, "head_dim": 16, "dtype": "float32", "form": "chunked", "block": 64, "long": 4096,
        "softmax": 1024, "lengths": (1024, 8192), "softmax_lengths": (512,), "check": 384, "calls": 5,
        "longest_step": 0, "gathered": (1 << 10, 1 << 14), "passed": 1 << 20,
    },
}  # fmt: skip
"""By device. Bytes of what is gathered and passed on; a longest_step of 0 looks for no longest sequence."""
KEPT = 64
"""Positions of every array that are kept, those beside a rank's border among them."""
WARM = 3
FAIL_TOGETHER_S = 10.0
"""From the first rank's failure at a task to the last one's, or they have not failed alike."""


class Ranked:
    """One rank's side of the measuring."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        self.torch, self.options, self.sizes = torch, options, SIZES[options.device]
        self.rank, self.ranks = options.rank, options.ranks
        member = import_part("backends.distributed.member")
        self.member_module = member
        if self.ranks > 1:
            member.join(options.device, self.rank, self.ranks, options.meet)
            self.exchange = import_part("backends.distributed.exchange").Exchange(options.device)
        else:
            torch.set_num_threads(1 if options.device == "cpu" else torch.get_num_threads())
        if options.device == "cuda":
            import_part("backends.triton.launch").enter("cuda")

    def case(self, kind: str, n: int, mode: str, **changed: Any) -> Case:
        """Causal, of one sequence."""
        sizes = {name: self.sizes[name] for name in ("heads", "head_dim", "dtype")} | changed
        spec = AttentionSpec(kind=kind, causal=sizes.pop("causal", True))  # type: ignore[arg-type]
        return Case(
            spec=spec, seq_len=n, mode=mode, device=self.options.device, world_size=self.ranks, **sizes
        )  # type: ignore[arg-type]

    def built(self, case: Case, groups: int | None = None) -> Any:
        """A member, or the kernel of one device in its clothes, which has no groups."""
        if self.ranks == 1 and groups is None:
            return Alone(case, self.sizes["form"])
        more = {} if groups is None else {"groups": groups}
        return self.member_module.TorchMember(case, self.sizes["form"], **more)

    def fill(self, member: Any, case: Case) -> None:
        """Draw what it has of the sequence, on the device."""
        torch, block = self.torch, self.sizes["block"]
        names = ("q", "k", "v") + (("do",) if case.mode == "forward_backward" else ())
        for seed, name in enumerate(names):
            parts = []
            for first, last in member.pieces:
                part = torch.empty(
                    (1, case.heads, last - first, case.head_dim),
                    dtype=getattr(torch, case.dtype),
                    device=case.device,
                )
                for at in range(first - first % block, last, block):
                    generator = torch.Generator(case.device).manual_seed(1_000_003 * seed + at // block)
                    drawn = torch.randn(
                        (1, case.heads, block, case.head_dim), generator=generator, device=case.device
                    )
                    begin, end = max(at, first), min(at + block, last)
                    part[:, :, begin - first : end - first] = drawn[:, :, begin - at : end - at]
                parts.append(part)
            member.hold(name, parts)

    def together(self, mine: Any) -> list[Any]:
        """What every rank has."""
        if self.ranks == 1:
            return [mine]
        every: list[Any] = [None] * self.ranks
        self.torch.distributed.all_gather_object(every, mine)
        return every

    def barrier(self) -> None:
        """All are here, and idle."""
        if self.ranks > 1:
            self.exchange.barrier()
        elif self.options.device == "cuda":
            self.torch.cuda.synchronize()

    def timed(self, call: Callable[[], Any], wait: Callable[[Any], None], calls: int) -> list[float]:
        """Milliseconds of the slowest rank, call by call."""
        for _ in range(WARM):
            wait(call())
        mine = []
        for _ in range(calls):
            self.barrier()
            began = time.perf_counter_ns()
            wait(call())
            mine.append((time.perf_counter_ns() - began) / 1e6)
        return [max(one) for one in zip(*self.together(mine), strict=True)]

    def kept(self, member: Any, result: Any, case: Case, name: str) -> None:
        """Some rows of each array, in a file of this rank's."""
        n = case.seq_len
        borders = [n * part // 4 + side for part in (1, 2, 3) for side in (-1, 0)]
        drawn = np.random.default_rng(0).integers(0, n, KEPT - len(borders) - 2)
        positions = np.unique([0, n - 1, *borders, *drawn])
        found: dict[str, Any] = {}
        for array, parts in result.items():
            for (first, last), part in zip(member.pieces, parts, strict=True):
                mine = positions[(positions >= first) & (positions < last)]
                rows = part[:, :, self.torch.from_numpy(mine - first).to(part.device)]
                found[f"{array}-{first}"] = rows.detach().float().cpu().numpy()
                found[f"{array}-{first}-at"] = mine
        np.savez(Path(self.options.out) / f"{name}-of{self.ranks}-rank{self.rank}.npz", **found)

    def measured(self, kind: str, n: int, mode: str, groups: int | None = None) -> dict[str, Any]:
        """Time, bytes, exposed time and peak memory of one case."""
        torch, case = self.torch, self.case(kind, n, mode)
        member = self.built(case, groups)
        self.fill(member, case)
        member.wait(member())
        peak = None
        if case.device == "cuda":
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            member.wait(member())
            peak = torch.cuda.max_memory_allocated() - before
        calls = self.sizes["calls"] if n <= self.sizes["long"] else max(5, self.sizes["calls"] // 4)
        call = member.repeated()
        samples = self.timed(call, member.wait, calls)
        if groups is None:
            self.kept(member, call(), case, f"{kind}-{mode}-{n}")
        metered = [member.metered() for _ in range(3)] if self.ranks > 1 else [(0, 0.0)]
        every = self.together(
            {"peak": peak, "sent": metered[0][0], "exposed": median(ms for _, ms in metered)}
        )
        return {
            "what": "time", "kind": kind, "mode": mode, "seq_len": n, "ranks": self.ranks, "groups": groups,
            "ms": samples, "median_ms": median(samples), "tokens_per_s": n / median(samples) * 1e3,
            "sent_bytes": max(one["sent"] for one in every),
            "exposed_ms": max(one["exposed"] for one in every),
            "peak_bytes": [one["peak"] for one in every],
        }  # fmt: skip

    def part(self, kind: str, mode: str, groups: int) -> dict[str, Any]:
        """What each of two ranks does itself of the long length, by one that nobody sends anything."""
        if not self.torch.distributed.is_initialized():
            self.member_module.join(self.options.device, self.rank, self.ranks, self.options.meet)
        return self.measured(kind, self.sizes["long"] // 2, mode, groups) | {"what": "part"}

    def checked(self, kind: str, causal: bool) -> dict[str, Any]:
        """Against the float64 oracle, gradients included, a length that is not even."""
        case = self.case(kind, self.sizes["check"] - 37, "forward_backward", heads=2, causal=causal)
        member = self.built(case)
        inputs = make_inputs(case)
        member.load(inputs)
        every = self.together((member.pieces, member.outputs(member())))
        row: dict[str, Any] = {"what": "agreement", "kind": kind, "causal": causal, "ranks": self.ranks}
        if self.rank == 0:
            whole = {}
            for name in ("o", "dq", "dk", "dv"):
                whole[name] = np.zeros((1, 2, case.seq_len, case.head_dim), every[0][1][name][0].dtype)
                for pieces, outputs in every:
                    for (first, last), part in zip(pieces, outputs[name], strict=True):
                        whole[name][:, :, first:last] = part
            found = Judge(case, inputs).agreement(self.sizes["form"], whole)
            row["relative"] = {name: one.relative for name, one in found.items()}
            row["passes"] = all(one.passes for one in found.values())
        return row

    def gathered(self, numbers: int) -> dict[str, Any]:
        """An all-gather of so many bytes from each."""
        torch = self.torch
        mine = torch.zeros(numbers // 4, dtype=torch.float32, device=self.options.device)
        samples = self.timed(lambda: self.exchange.gather(mine).wait(), self._idle, 30)
        return {"what": "gather", "bytes": numbers, "ranks": self.ranks, "median_ms": median(samples)}

    def passed(self, numbers: int) -> dict[str, Any]:
        """So many bytes from each to the next."""
        torch = self.torch
        mine, theirs = (torch.zeros(numbers // 4, device=self.options.device) for _ in range(2))
        samples = self.timed(lambda: self.exchange.pass_on([mine], [theirs]).wait(), self._idle, 10)
        return {"what": "pass", "bytes": numbers, "ranks": self.ranks, "median_ms": median(samples)}

    def _idle(self, result: Any) -> None:
        if self.options.device == "cuda":
            self.torch.cuda.synchronize()

    def longest(self, mode: str, deadline: float) -> dict[str, Any]:
        """The longest momentum attention that fits, in steps; all ranks go on, or none."""
        torch, step = self.torch, self.sizes["longest_step"]
        fits, ms, tried = 0, None, []
        n = (4 if mode == "forward" else 2) * step * self.ranks
        while time.time() < deadline:
            tried.append(n)
            seconds = self._fitting(n, mode)
            ok = all(one is not None for one in self.together(seconds))
            torch.cuda.empty_cache()
            if not ok:
                break
            fits, ms = n, max(self.together(seconds)) * 1e3
            n += step * self.ranks // 2
        return {
            "what": "longest", "kind": "momentum", "mode": mode, "ranks": self.ranks, "seq_len": fits,
            "first_call_ms": ms, "tried": tried,
        }  # fmt: skip

    def _fitting(self, n: int, mode: str) -> float | None:
        """Seconds of a call of that length, or None where memory does not hold it. What the call needs is
        had first, so that no rank waits for one that has failed."""
        torch, case = self.torch, self.case("momentum", n, mode)
        room: Any = None
        try:
            member = self.built(case)
            lengths = sum(last - first for first, last in member.pieces)
            shape = (1, case.heads, lengths, case.head_dim)
            names = ("q", "k", "v") + (("do",) if mode == "forward_backward" else ())
            for name in names:
                part = torch.empty(shape, dtype=getattr(torch, case.dtype), device=case.device)
                member.hold(name, [part.normal_()])
            outputs = 4 if mode == "forward_backward" else 1
            room = [
                torch.empty(shape, dtype=getattr(torch, case.dtype), device=case.device)
                for _ in range(outputs)
            ]
            room.append(
                torch.empty((256 << 20) + 8 * shape[1] * shape[2], dtype=torch.int8, device=case.device)
            )
            fits = True
        except torch.OutOfMemoryError:
            fits = False
        room = None
        torch.cuda.empty_cache()
        if not all(self.together(fits)):
            return None
        try:
            began = time.perf_counter()
            member.wait(member())
            return time.perf_counter() - began
        except torch.OutOfMemoryError:
            return None

    def tasks(self, deadline: float) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
        """In the order of what matters most."""
        sizes, modes = self.sizes, ("forward", "forward_backward")
        kinds = ("momentum", "linear", "softmax") if self.ranks > 1 else ()
        for kind in kinds:
            yield f"check {kind}", lambda k=kind: self.checked(k, True)
        states = tuple(itertools.product(("momentum", "linear"), modes))
        for kind, mode in states:
            yield f"{kind} {mode}", lambda k=kind, m=mode: self.measured(k, sizes["long"], m)
        for mode in modes:
            yield f"softmax {mode}", lambda m=mode: self.measured("softmax", sizes["softmax"], m)
        if self.ranks > 1:
            for kind, mode in states:
                yield f"one group {kind} {mode}", lambda k=kind, m=mode: self.measured(k, sizes["long"], m, 1)
            for numbers in sizes["gathered"]:
                yield "gather", lambda b=numbers: self.gathered(b)
            yield "pass", lambda: self.passed(sizes["passed"])
        for n in sizes["softmax_lengths"]:
            yield f"softmax {n}", lambda m=n: self.measured("softmax", m, "forward")
        for n in sizes["lengths"]:
            yield f"momentum {n}", lambda m=n: self.measured("momentum", m, "forward")
            yield f"linear {n}", lambda m=n: self.measured("linear", m, "forward")
        for kind in kinds:
            yield f"check {kind}, not causal", lambda k=kind: self.checked(k, False)
        if sizes["longest_step"]:
            for mode in modes:
                yield f"longest {mode}", lambda m=mode: self.longest(m, deadline)
        if self.ranks == 1:  # at the end: a process group takes memory
            for kind, mode in states:
                yield f"half {kind} {mode}", lambda k=kind, m=mode: self.measured(k, sizes["long"] // 2, m)
                for groups in (2, 1):
                    yield (
                        f"part {kind} {mode} {groups}",
                        lambda k=kind, m=mode, g=groups: self.part(k, m, g),
                    )

    def run(self, deadline: float) -> None:
        """All tasks until the deadline; rank 0 writes. One that fails on every rank costs itself alone."""
        for number, (name, task) in enumerate(self.tasks(deadline)):
            late = self.together(time.time() > deadline)
            if any(late):
                row = {"what": "left out", "task": name, "ranks": self.ranks}
            else:
                try:
                    row = task()
                except Exception as error:
                    traceback.print_exc()
                    if not failed_alike(f"{self.options.meet}-{number}", self.rank, self.ranks):
                        raise
                    row = {"what": "failed", "task": name, "ranks": self.ranks, "why": str(error)[:500]}
            if self.options.device == "cuda":
                self.torch.cuda.empty_cache()
            if self.rank == 0:
                with (Path(self.options.out) / "rows.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(
                    name,
                    {k: v for k, v in row.items() if k not in ("what", "ms", "kind", "mode")},
                    flush=True,
                )


def failed_alike(mark: str, rank: int, ranks: int, patience_s: float = FAIL_TOGETHER_S) -> bool:
    """Whether every rank has failed at a task, by a file of each beside `mark`: one that has not waits in a
    collective for the others, and would take their next one for its own."""
    Path(f"{mark}-{rank}").touch()
    until = time.time() + patience_s
    while not all(Path(f"{mark}-{other}").exists() for other in range(ranks)):
        if time.time() > until:
            return False
        time.sleep(0.02)
    return True


class Alone:
    """One device's own kernel, as a rank: no state is summed for others, and nothing is sent."""

    def __init__(self, case: Case, form: str) -> None:
        self.case, self.pieces = case, ((0, case.seq_len),)
        self._given: dict[str, Any] = {}
        self._kernel = import_part("backends.distributed").BACKEND.build(case, form)

    def hold(self, name: str, parts: list[Any]) -> None:
        """As `TorchMember.hold`."""
        self._given[name] = parts[0].requires_grad_(self.case.mode == "forward_backward" and name != "do")
        if len(self._given) == (4 if self.case.mode == "forward_backward" else 3):
            self._kernel.give(*(self._given[x] for x in ("q", "k", "v")), self._given.get("do"))

    def __call__(self) -> dict[str, list[Any]]:
        """As `TorchMember.__call__`."""
        return {name: [x] for name, x in zip(("o", "dq", "dk", "dv"), self._kernel(), strict=False)}

    def repeated(self) -> Callable[[], Any]:
        """As `TorchMember.repeated`."""
        if self.case.device == "cpu":
            return self
        return import_part("backends.distributed.replay").Replay(self)

    def wait(self, result: Any) -> None:
        """Until it is computed."""
        self._kernel.wait(result)


def main() -> None:
    """One rank, from its first task to its last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="A folder for what is measured.")
    parser.add_argument("--device", required=True, choices=sorted(SIZES))
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument(
        "--meet", required=True, help="A file that is not there, by which the ranks find each other."
    )
    parser.add_argument(
        "--deadline", type=float, required=True, help="Of the last task's start, by the clock."
    )
    options = parser.parse_args()
    die_with_parent()
    Ranked(options).run(options.deadline)
    # Not by the interpreter's end: gloo's threads were still there then, and at times aborted a rank that
    # was done.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
