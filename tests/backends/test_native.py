"""The native backend: sizes, weights and segments against the oracle, its compiler and its cache."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbench import AttentionSpec, BackendFailure, Case
from mtbench.frameworks import numpy as framework
from mtbench.inputs import Inputs, make_inputs
from mtbench.measure.agreement import Judge
from mtbench.oracle import Rows, attention
from mtbench.registry import load_backend
from mtbench.sweep.code import fingerprints

BACKEND = load_backend("native")
compiler = importlib.import_module("backends.native.compiler")
call = importlib.import_module("backends.native.call")

needs_compiler = pytest.mark.skipif(compiler.missing() is not None, reason="needs a C++ compiler")
pytestmark = pytest.mark.native


def run(case: Case, inputs: Inputs) -> np.ndarray[Any, Any]:
    kernel = BACKEND.build(case, "chunked")
    kernel.load(inputs)
    return np.asarray(kernel.outputs(kernel())["o"])


def check(case: Case) -> None:
    judge = Judge(case, make_inputs(case))
    outputs = {"o": run(case, judge.inputs)}
    assert judge.contract_problem(outputs) is None
    agreement = judge.agreement("chunked", outputs)["o"]
    assert agreement.relative <= 1e-5, f"{case.id}: {agreement}"


@needs_compiler
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("beta", [None, 0.0, 0.1, 0.9, 0.999, 1 - 2.0**-40])
def test_any_size_and_beta(causal: bool, beta: float | None) -> None:
    """Beside the borders of vectors, tiles and chunks."""
    kind = "linear" if beta is None else "momentum"
    spec = AttentionSpec(kind=kind, causal=causal, beta=beta or 0.0, gamma=0.7)  # type: ignore[arg-type]
    for n in (1, 2, 15, 16, 17, 31, 32, 33, 63, 65, 130):
        check(Case(spec=spec, batch=2, heads=2, seq_len=n, head_dim=5, value_dim=3))
    for d, e in ((1, 1), (8, 16), (15, 33), (64, 64), (139, 7), (256, 256), (300, 270)):
        check(Case(spec=spec, batch=1, heads=2, seq_len=70, head_dim=d, value_dim=e))


@needs_compiler
@pytest.mark.parametrize("kind", ["linear", "momentum"])
def test_a_long_sequence(kind: str) -> None:
    for causal in (True, False):
        spec = AttentionSpec(kind=kind, causal=causal, beta=0.999, gamma=2.0)  # type: ignore[arg-type]
        check(Case(spec=spec, heads=2, seq_len=100_003, head_dim=8, value_dim=8))


@needs_compiler
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_any_number_of_threads_and_segments(
    threads: int, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framework, "_started_with", threads)
    found = set()
    for kind in ("linear", "momentum"):
        for n in (40, 700, 2000):
            spec = AttentionSpec(kind=kind, causal=causal, beta=0.99)  # type: ignore[arg-type]
            case = Case(spec=spec, heads=1, seq_len=n, head_dim=12, value_dim=20)
            check(case)
            config = BACKEND.build(case, "chunked").config
            assert config["threads"] == threads
            found.add(config["segments"])
    assert (max(found) > 1) == (threads > 1)
    assert min(found) == 1


@needs_compiler
def test_the_threads_do_not_change_a_bit_where_each_has_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(batch=2, heads=3, seq_len=100, head_dim=16)
    inputs, found = make_inputs(case), []
    for threads in (1, 2, 6):
        monkeypatch.setattr(framework, "_started_with", threads)
        found.append(run(case, inputs))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@needs_compiler
def test_the_future_changes_no_bit_of_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    for threads in (1, 4):
        monkeypatch.setattr(framework, "_started_with", threads)
        for kind in ("linear", "momentum"):
            case = Case(spec=AttentionSpec(kind=kind), heads=1, seq_len=900, head_dim=16)  # type: ignore[arg-type]
            inputs = make_inputs(case)
            before = run(case, inputs)
            inputs.k[:, :, 333:], inputs.v[:, :, 333:] = np.nan, np.inf
            after = run(case, inputs)
            assert np.array_equal(before[:, :, :333], after[:, :, :333])
            assert np.isnan(after[:, :, 333:]).all()


@needs_compiler
def test_the_feature_map_far_from_zero() -> None:
    """One position of one dimension: o is phi(q) phi(k) v / (phi(q) phi(k) + eps), which shows the smallest
    phi that there are as they are."""
    spec = AttentionSpec(kind="linear", eps=1.0)
    for x in np.concatenate([np.linspace(-86.0, 3.0, 400), [-1e-8, 0.0, 1e-8, 80.0]]):
        one = np.full((1, 1, 1, 1), x, np.float32)
        zero, value = np.zeros_like(one), np.ones_like(one)
        inputs = Inputs(q=one, k=zero, v=value)
        case = Case(spec=spec, batch=1, heads=1, seq_len=1, head_dim=1)
        right = attention(case, inputs, Rows.all(case)).reshape(-1)
        np.testing.assert_allclose(run(case, inputs).reshape(-1), right, rtol=4e-7)
    case = Case(spec=spec, batch=1, heads=1, seq_len=5, head_dim=1)
    far = np.array([-88.0, -200.0, -3e38, -np.inf, np.nan], np.float32).reshape(1, 1, 5, 1)
    found = run(case, Inputs(q=far, k=np.zeros_like(far), v=np.ones_like(far)))[0, 0, :, 0]
    assert np.abs(found[:4]).max() < 1e-37
    assert np.isnan(found[4])


@needs_compiler
def test_a_call_changes_neither_its_inputs_nor_what_it_returned_before() -> None:
    case = Case(heads=2, seq_len=50, head_dim=8)
    inputs = make_inputs(case)
    kept = [x.copy() for x in (inputs.q, inputs.k, inputs.v)]
    kernel = BACKEND.build(case, "chunked")
    kernel.load(inputs)
    first = kernel()
    copy = first.copy()
    kernel.wait(kernel())
    assert np.array_equal(first, copy)
    for x, was in zip((inputs.q, inputs.k, inputs.v), kept, strict=True):
        assert np.array_equal(x, was)


@needs_compiler
def test_what_it_chose_is_in_the_row() -> None:
    config = BACKEND.build(Case(heads=8, seq_len=64), "chunked").config
    assert config["chunk"] == call.CHUNK
    assert config["compiler"] == compiler.version()
    assert config["segments"] == 1


def test_limits() -> None:
    def kind(**case: Any) -> str | None:
        limit = BACKEND.unsupported(Case(**case), "chunked")
        return None if limit is None else limit.kind

    assert kind() is None
    for case in (
        {"dtype": "float16"},
        {"dtype": "bfloat16"},
        {"mode": "forward_backward"},
        {"lengths": (3,)},
        {"heads": 4, "kv_heads": 2},
    ):
        assert kind(**case) == "notimpl"
    assert BACKEND.unavailable("cuda") == "native runs on cpu"


def test_its_source_is_part_of_what_makes_a_figure() -> None:
    assert "backends/native/attention.cpp" in fingerprints(["native"])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler.library.cache_clear()
    yield tmp_path / "mtbench" / "native"
    compiler.library.cache_clear()


@needs_compiler
def test_the_library_is_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler.library(CHUNK=16)
    (path,) = cache.iterdir()  # and nothing half made is left
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    made = path.stat().st_mtime_ns
    compiler.library.cache_clear()
    compiler.library(CHUNK=16)
    assert path.stat().st_mtime_ns == made
    # Another chunk, flag or source is another library.
    compiler.library(CHUNK=48)
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-O1"))
    compiler.library.cache_clear()
    compiler.library(CHUNK=16)
    source = cache.parent / "attention.cpp"
    source.write_text(compiler.SOURCE.read_text() + "\n// changed\n")
    monkeypatch.setattr(compiler, "SOURCE", source)
    compiler.library.cache_clear()
    compiler.library(CHUNK=16)
    assert len(list(cache.glob("*.so"))) == 4


@needs_compiler
def test_other_instructions_and_chunks_give_the_same(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of 4 and 8 numbers too, where the machine has those of 8."""
    usual = compiler.FLAGS
    choices = [(usual, 16), (usual, 64), (tuple(f for f in usual if f != "-march=native"), 32)]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and "avx512f" in cpuinfo.read_text():
        choices.append(((*usual, "-mno-avx512f"), 32))
    for flags, chunk in choices:
        monkeypatch.setattr(compiler, "FLAGS", flags)
        monkeypatch.setattr(call, "CHUNK", chunk)
        compiler.library.cache_clear()
        for kind in ("linear", "momentum"):
            for causal in (True, False):
                spec = AttentionSpec(kind=kind, causal=causal)  # type: ignore[arg-type]
                check(Case(spec=spec, batch=1, heads=2, seq_len=131, head_dim=17, value_dim=9))


def compile_here() -> str:
    """In a process of its own: the library that it loaded."""
    return str(importlib.import_module("backends.native.compiler").library(CHUNK=16)._name)


@needs_compiler
def test_two_processes_may_build_at_once(cache: Path) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        names = {task.result() for task in [processes.submit(compile_here) for _ in range(2)]}
    assert [str(path) for path in cache.iterdir()] == list(names)


def test_without_a_compiler_it_is_unavailable(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    why = "no C++ compiler is found (c++, g++, clang++; $CXX names another)"
    assert BACKEND.unavailable("cpu") == why
    with pytest.raises(BackendFailure, match=r"no C\+\+ compiler is found"):
        BACKEND.build(Case(), "chunked")
    monkeypatch.setenv("CXX", "no-such-compiler -x")
    assert BACKEND.unavailable("cpu") == "the C++ compiler $CXX is not found: no-such-compiler -x"


def test_a_compiler_that_fails_is_quoted_in_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'warming up' >&2\necho 'fatal error: no space' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert BACKEND.unavailable("cpu") is None
    with pytest.raises(BackendFailure, match=r"broken fails: fatal error: no space$"):
        BACKEND.build(Case(), "chunked")
    assert not cache.exists() or not list(cache.iterdir())


@needs_compiler
@pytest.mark.skipif(os.name != "posix", reason="a folder that is a file")
def test_a_cache_that_cannot_be_written_is_named(cache: Path) -> None:
    cache.parent.write_text("a file")
    with pytest.raises(BackendFailure, match="cannot be kept or loaded"):
        BACKEND.build(Case(), "chunked")
