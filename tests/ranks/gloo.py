"""Ranks over gloo that stay for many cases, for the tests: what each answers is put together and judged."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from mtbench import Case
from mtbench.inputs import make_inputs
from mtbench.measure.agreement import Judge

__all__ = ["Ranks"]

PATIENCE_S = 60.0


def _rank(rank: int, ranks: int, meet: str, line: Any) -> None:
    """One of them: cases come in, and their pieces and outputs go out."""
    try:
        import torch

        from mtbench.registry import import_part

        torch.set_num_threads(1)
        member = import_part("backends.distributed.member")
        member.join("cpu", rank, ranks, meet)
        while True:
            task = line.recv()
            if task is None:
                return
            case, form, options = task
            one = member.TorchMember(case, form, **options)
            one.load(make_inputs(case))
            outputs = one.outputs(one())
            line.send((one.pieces, outputs, one.metered()))
    except Exception:  # noqa: BLE001  (told to the test)
        traceback.print_exc()
        sys.exit(1)


class Ranks:
    """So many processes. Of form ``fused`` they run the Triton kernels in Triton's interpreter."""

    def __init__(self, ranks: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        meet = str(Path(self._folder.name) / "meet")
        self._lines, self._processes = [], []
        for rank in range(ranks):
            ours, theirs = context.Pipe()
            process = context.Process(target=_rank, args=(rank, ranks, meet, theirs), daemon=True)
            process.start()
            theirs.close()
            self._lines.append(ours)
            self._processes.append(process)

    def outputs(
        self, case: Case, form: str, **options: Any
    ) -> tuple[dict[str, Any], list[tuple[int, float]]]:
        """The whole arrays, every place of them written once, and what each rank's meter says."""
        for line in self._lines:
            line.send((case, form, options))
        answers = []
        for line in self._lines:
            assert line.poll(PATIENCE_S), "a rank does not answer"
            answers.append(line.recv())
        whole: dict[str, Any] = {}
        for name in answers[0][1]:
            parts = [
                (first, last, part)
                for pieces, outputs, _ in answers
                for (first, last), part in zip(pieces, outputs[name], strict=True)
            ]
            parts.sort(key=lambda one: one[0])
            assert [first for first, _, _ in parts] == [0, *(last for _, last, _ in parts[:-1])]
            assert parts[-1][1] == case.seq_len
            whole[name] = np.concatenate([part for _, _, part in parts], 2)
        return whole, [metered for _, _, metered in answers]

    def judge(self, case: Case, form: str, **options: Any) -> list[tuple[int, float]]:
        """Against the float64 oracle; what each rank's meter says."""
        outputs, metered = self.outputs(case, form, **options)
        judge = Judge(case, make_inputs(case))
        assert judge.contract_problem(outputs) is None
        for name, agreement in judge.agreement(form, outputs).items():
            assert agreement.passes, f"{name} of {case.id} {form} {options}: {agreement}"
        return metered

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.send(None)
        for process in self._processes:
            process.join(10)
            process.kill()
        self._folder.cleanup()
