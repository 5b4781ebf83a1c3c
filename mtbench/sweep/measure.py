"""One row, measured in this process: the protocol, step by step."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import replace

from mtbench.backend import Backend, Kernel
from mtbench.frameworks import Framework
from mtbench.inputs import Inputs, make_inputs
from mtbench.measure.agreement import Judge
from mtbench.measure.clocks import Sampling, device_samples, wall_samples
from mtbench.measure.cupti import CuptiError
from mtbench.results import Measurement
from mtbench.spec import Case

__all__ = ["Measurer"]

Stage = Callable[[str], None]


class Measurer:
    """Measures rows with one backend on one device. Remembers the truth of the last case, for its forms."""

    def __init__(self, backend: Backend, framework: Framework, device: str) -> None:
        self._backend = backend
        self._framework = framework
        self._device = device
        self._judged: tuple[Case, Inputs, Judge] | None = None

    def measure(self, case: Case, form: str, sampling: Sampling, stage: Stage) -> Measurement:
        """Build, first call, agreement, wall clock, device clock, memory, in this order.

        `stage` is told what comes next, so that whoever watches knows where a crash happened. Exceptions of
        the kernel become rows: ``oom`` where the framework says that memory ran out, else ``error``.
        """
        row = Measurement(case=case, backend=self._backend.name, form=form, status="ok")
        try:
            return self._measure(row, sampling, stage)
        except Exception as error:  # noqa: BLE001  (whatever a kernel raises is its row's outcome)
            traceback.print_exc()
            status = "oom" if self._framework.is_out_of_memory(error) else "error"
            return replace(row, status=status, reason=_one_line(error))  # type: ignore[arg-type]
        finally:
            self._framework.release()

    def _measure(self, row: Measurement, sampling: Sampling, stage: Stage) -> Measurement:
        stage("inputs and oracle")
        inputs, judge = self._truth(row.case)

        stage("build")
        began = time.perf_counter()
        kernel = self._backend.build(row.case, row.form)
        build_s = time.perf_counter() - began
        kernel.load(judge.inputs)

        stage("first call")
        began = time.perf_counter()
        result = kernel()
        kernel.wait(result)
        first_call_s = time.perf_counter() - began
        row = replace(
            row,
            layout=kernel.layout,
            build_s=build_s,
            first_call_s=first_call_s,
            config=dict(kernel.config),
        )

        stage("agreement")
        outputs = kernel.outputs(result)
        if problem := judge.contract_problem(outputs):
            return replace(row, status="wrong", reason=problem)
        row = replace(row, agreement=judge.agreement(row.form, outputs), compared=judge.rows.description)
        del result, outputs
        if failed := [name for name, a in row.agreement.items() if not a.passes]:
            worst = row.agreement[failed[0]]
            return replace(
                row,
                status="wrong",
                reason=f"{', '.join(failed)} beyond tolerance: relative error of {failed[0]} "
                f"{worst.relative:.2g}, allowed {worst.tolerance:.2g}",
            )
        if kernel.untimed is not None:
            return replace(
                row,
                reason=kernel.untimed,
                flags=(*row.flags, kernel.untimed),
                wall_reason=kernel.untimed,
                device_reason=kernel.untimed,
                memory_method=f"not read: {kernel.untimed}",
            )
        if judge.inputs is not inputs:
            kernel.load(inputs)
        return self._clocks(row, kernel, sampling, stage)

    def _truth(self, case: Case) -> tuple[Inputs, Judge]:
        if self._judged is None or self._judged[0] != case:
            inputs = make_inputs(case)
            self._judged = (case, inputs, Judge(case, inputs))
        return self._judged[1:]

    def _clocks(self, row: Measurement, kernel: Kernel, sampling: Sampling, stage: Stage) -> Measurement:
        def flush() -> None:
            self._framework.flush_cache(self._device)

        stage("wall clock")
        wall, stop = wall_samples(kernel, flush, sampling)
        flags = row.flags if len(wall.values) >= Sampling.least else (*row.flags, "few samples")
        gpu = self._device == "cuda"
        row = replace(
            row,
            wall_ms=wall,
            wall_reason=stop,
            flags=flags,
            cache="L2 flushed by reading, before every sample" if gpu else "warm",
        )
        if gpu:
            stage("device clock")
            try:
                device, span = device_samples(kernel, flush, sampling)
                row = replace(row, device_ms=device, span_ms=span)
            except CuptiError as error:
                row = replace(row, device_reason=str(error))
        else:
            row = replace(row, device_reason="a CPU has the wall clock alone")

        stage("memory")
        peak = self._framework.peak_memory(kernel, self._device)
        return replace(row, peak_memory_bytes=peak.bytes, memory_method=peak.method)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]
