"""Others' kernels: what a CPU can do of them, and what they say where they are not installed."""

from __future__ import annotations

import importlib.metadata
import itertools
from typing import Any

import pytest

from mtbench import AttentionSpec, Case, load_backend
from mtbench.backend import partial_of
from mtbench.registry import PEERS
from mtbench.workloads import PRESETS

from .test_conformance import judge_row


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", ["forward", "forward_backward"])
def test_the_flash_kernel_for_a_cpu(dtype: Any, mode: Any) -> None:
    for causal, kv_len in ((True, 131), (False, 131), (False, 40)):
        spec = AttentionSpec(kind="softmax", causal=causal)
        case = Case(spec=spec, heads=2, seq_len=131, kv_len=kv_len, head_dim=16, dtype=dtype, mode=mode)
        assert load_backend("sdpa").unsupported(case, "flash") is None
        judge_row("sdpa", "flash", case)


def test_without_its_package_a_peer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("fla-core", "flash-attn"):
            raise importlib.metadata.PackageNotFoundError(name)
        return {"torch": "2.11", "triton": "3.6"}.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    for name, package in (("fla", "fla-core"), ("flash-attn", "flash-attn")):
        assert str(load_backend(name).unavailable("cuda")).startswith(f"{package} is not installed")
        assert load_backend(name).unavailable("cpu") == f"{name} runs on cuda"


def test_the_preset_has_every_form_of_every_peer() -> None:
    grids = PRESETS["peers"].grids
    assert set(PRESETS["peers"].backends or ()) >= PEERS
    for name in PEERS:
        backend = load_backend(name)
        for kind in ("softmax", "linear", "momentum"):
            for form in backend.forms(kind):
                assert any(form in (grid.form or ()) and kind in grid.attention for grid in grids), form


def test_one_scan_of_two_is_not_the_whole_work() -> None:
    fla = load_backend("fla")
    case = Case(device="cuda", dtype="bfloat16")
    assert partial_of(fla, case, "two-scans") is None
    assert partial_of(fla, case, "decayed") is not None
    for form, mode in itertools.product(("bare", "normalised"), ("forward", "forward_backward")):
        linear = case.replace(spec=AttentionSpec(kind="linear"), mode=mode)
        assert (fla.unsupported(linear, form) is None) == (form == "normalised" or mode == "forward")
