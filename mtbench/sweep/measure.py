"""One row, measured in this process: the protocol, step by step."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from mtbench.backend import Backend, Kernel, Spread, partial_of
from mtbench.frameworks import Framework, PeakMemory
from mtbench.inputs import NUMPY_DTYPES, Array, Inputs, make_inputs
from mtbench.measure.agreement import Judge
from mtbench.measure.clocks import Sampling, device_samples, wall_samples, warm_up
from mtbench.measure.cupti import CuptiError, recorder
from mtbench.measure.machine import Watch, noise_reasons
from mtbench.results import DOES_LESS, Measurement
from mtbench.spec import Case
from mtbench.sweep.child import Ended

__all__ = ["Measurer", "Memory"]

Stage = Callable[[str], None]
Memory = Literal["here", "elsewhere", "known"]
"""Where a row's peak memory is read: in this process, in a worker of its own, or in an earlier launch."""

RETRIES = 2
"""Times that clocks which ran while the GPU was held down are run again."""


class _Stages:
    """Tells whoever watches what comes next, and adds up the seconds of each stage."""

    def __init__(self, tell: Stage) -> None:
        self._tell = tell
        self._name, self._began = "", time.perf_counter()
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str) -> None:
        self.end()
        self._name = name
        self._tell(name)

    def end(self) -> None:
        now = time.perf_counter()
        if self._name:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._began
        self._name, self._began = "", now


class Measurer:
    """Measures rows with one backend on one device. Remembers the truth of the last case, for its forms."""

    def __init__(self, backend: Backend, framework: Framework, device: str) -> None:
        self._backend = backend
        self._framework = framework
        self._device = device
        self._judged: tuple[Case, Inputs, Judge] | None = None

    def measure(
        self, case: Case, form: str, sampling: Sampling, stage: Stage, memory: Memory = "here"
    ) -> Measurement:
        """Build, first call, agreement, a second call's agreement, wall clock, device clock, memory, in this
        order.

        `stage` is told what comes next, so that whoever watches knows where a crash happened. Exceptions of
        the kernel become rows: ``oom`` where the framework says that memory ran out, else ``error``.
        """
        row = Measurement(case=case, backend=self._backend.name, form=form, status="ok")
        if less := partial_of(self._backend, case, form):
            row = replace(row, reason=less, flags=(DOES_LESS,))
        stages = _Stages(stage)
        try:
            row = self._measure(row, sampling, stages, memory)
        except Ended as end:
            row = replace(row, status=end.status, reason=end.reason)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001  (whatever a kernel raises is its row's outcome)
            traceback.print_exc()
            status = "oom" if self._framework.is_out_of_memory(error) else "error"
            row = replace(row, status=status, reason=_one_line(error))  # type: ignore[arg-type]
        finally:
            self._framework.release()
        stages.end()
        return replace(row, stage_s=stages.seconds, machine=row.machine or ({},))

    def peak_memory(self, case: Case, form: str) -> PeakMemory:
        """That of a row which is known to be right, in a process that does nothing else. The inputs are
        zeros: no memory depends on them."""
        try:
            kernel = self._backend.build(case, form)
            kernel.load(_zeros(case))
            return self._framework.peak_memory(kernel, self._device)
        except Exception as error:  # noqa: BLE001  (the row has its clocks; this says why it has no peak)
            traceback.print_exc()
            return PeakMemory(bytes=None, method=f"not read: {_one_line(error)}")
        finally:
            self._framework.release()

    def _measure(self, row: Measurement, sampling: Sampling, stage: _Stages, memory: Memory) -> Measurement:
        stage("inputs and oracle")
        inputs, judge = self._truth(row.case)

        stage("build")
        before = self._framework.compilations()
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
            compiled={
                how: count - before.get(how, 0) for how, count in self._framework.compilations().items()
            },
            config=dict(kernel.config),
        )

        stage("agreement")
        row = self._compared(row, judge, kernel.outputs(result))
        del result
        if row.status == "wrong":
            return row
        if kernel.untimed is not None:
            return replace(
                row,
                reason=kernel.untimed,
                flags=(*row.flags, kernel.untimed),
                wall_reason=kernel.untimed,
                device_reason=kernel.untimed,
                memory_method=f"not read: {kernel.untimed}",
            )

        stage("second call")  # what is timed is no first call
        result = kernel()
        kernel.wait(result)
        again = self._compared(row, judge, kernel.outputs(result))
        del result
        if again.status == "wrong":
            reason = f"at its second call, after a first that was right: {again.reason}"
            return replace(again, reason=reason)
        if judge.inputs is not inputs:
            kernel.load(inputs)
        return self._clocks(row, kernel, sampling, stage, memory)

    def _compared(self, row: Measurement, judge: Judge, outputs: Mapping[str, Array]) -> Measurement:
        """The row with its agreement, ``wrong`` where that does not do."""
        if problem := judge.contract_problem(outputs):
            return replace(row, status="wrong", reason=problem)
        row = replace(row, agreement=judge.agreement(row.form, outputs), compared=judge.rows.description)
        if failed := [name for name, a in row.agreement.items() if not a.passes]:
            worst = row.agreement[failed[0]]
            return replace(
                row,
                status="wrong",
                reason=f"{', '.join(failed)} beyond tolerance: relative error of {failed[0]} "
                f"{worst.relative:.2g}, allowed {worst.tolerance:.2g}",
            )
        return row

    def _truth(self, case: Case) -> tuple[Inputs, Judge]:
        if self._judged is None or self._judged[0] != case:
            inputs = make_inputs(case)
            self._judged = (case, inputs, Judge(case, inputs))
        return self._judged[1:]

    def _clocks(
        self, row: Measurement, kernel: Kernel, sampling: Sampling, stage: _Stages, memory: Memory
    ) -> Measurement:
        stage("warm-up")
        warm_up(kernel, sampling)
        for attempt in range(1 + RETRIES):
            watch = Watch(self._device, kernel.processes() if isinstance(kernel, Spread) else ())
            timed = self._sampled(row, kernel, sampling, stage)
            state = watch.state() | {"retries": attempt}
            if not (state.get("gpu") and noise_reasons(state)):
                break
        flags = list(timed.flags)
        if timed.wall_ms is not None and len(timed.wall_ms.values) < Sampling.least:
            flags.append("few samples")
        if noise := noise_reasons(state):
            flags.append("noisy")
            state["noisy"] = noise
        row = replace(timed, flags=tuple(flags), machine=(state,))

        stage("memory")
        row = replace(row, static_memory_bytes=self._framework.static_memory(kernel))
        if isinstance(kernel, Spread):
            return self._spread(row, kernel, stage)
        if memory == "here":
            peak = self._framework.peak_memory(kernel, self._device)
            row = replace(row, peak_memory_bytes=peak.bytes, memory_method=peak.method)
        return row

    def _spread(self, row: Measurement, kernel: Spread, stage: _Stages) -> Measurement:
        peaks, method = kernel.peaks()
        stage("exchange")
        sent_bytes, exposed_ms = kernel.traffic()
        most = [peak for peak in peaks if peak is not None]
        return replace(
            row,
            peak_memory_bytes=max(most, default=None),
            memory_method=method,
            exchange={"sent_bytes": sent_bytes, "exposed_ms": exposed_ms, "peak_memory_bytes": peaks},
        )

    def _sampled(self, row: Measurement, kernel: Kernel, sampling: Sampling, stage: _Stages) -> Measurement:
        def flush() -> None:
            self._framework.flush_cache(self._device)

        gpu = self._device == "cuda"
        stage("wall clock")
        wall, stop = wall_samples(kernel, flush, sampling)
        row = replace(
            row,
            wall_ms=wall,
            wall_reason=stop,
            cache="L2 flushed by reading, before every sample" if gpu else "warm",
        )
        if not gpu:
            return replace(row, device_reason="a CPU has the wall clock alone")
        if row.case.world_size > 1:  # what one waits for another lies among its kernels, too
            return replace(row, device_reason="several devices: the wall clock of the slowest alone")
        try:
            recorder()
        except CuptiError as error:  # this machine has no such clock; one that catches nothing is an error
            return replace(row, device_reason=str(error))
        stage("device clock")
        device, span, stop = device_samples(kernel, flush, sampling)
        return replace(row, device_ms=device, span_ms=span, device_reason=stop)


def _zeros(case: Case) -> Inputs:
    dtype = NUMPY_DTYPES[case.dtype]
    b, h, g = case.batch, case.heads, case.kv_heads
    return Inputs(
        q=np.zeros((b, h, case.seq_len, case.head_dim), dtype),
        k=np.zeros((b, g, case.kv_len, case.head_dim), dtype),
        v=np.zeros((b, g, case.kv_len, case.value_dim), dtype),
        do=None if case.mode == "forward" else np.zeros((b, h, case.seq_len, case.value_dim), dtype),
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]
