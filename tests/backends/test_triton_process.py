"""What the Triton backend declares, and how it settles between a card and the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mtbench
from mtbench import AttentionSpec, Case, load_backend

pytestmark = pytest.mark.triton

ROOT = Path(mtbench.__file__).parent.parent
BUILD = "b.build(Case(device={!r}), 'fused')\n"
LOAD = "from mtbench import Case, load_backend; b = load_backend('triton')\n"


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_what_it_declares() -> None:
    backend = load_backend("triton")
    for case, kind in (
        (Case(head_dim=257, value_dim=1), "notimpl"),
        (Case(value_dim=257), "notimpl"),
        (Case(kv_heads=2), "notimpl"),
        (Case(dtype="bfloat16"), "notyet"),
    ):
        limit = backend.unsupported(case, "fused")
        assert limit is not None
        assert limit.kind == kind
    assert backend.unsupported(Case(head_dim=256, value_dim=1), "fused") is None
    assert backend.unsupported(Case(lengths=(1000,)), "fused") is None
    assert backend.unsupported(Case(spec=AttentionSpec(causal=False), kv_len=7), "fused") is None
    assert backend.unsupported(Case(dtype="bfloat16", device="cuda"), "fused") is None
    assert backend.unsupported(Case(mode="forward_backward"), "fused") is None
    assert backend.unsupported(Case(), "chunked") is not None


def test_listing_it_loads_no_framework() -> None:
    found = python(
        LOAD + "import sys; b.forms('linear'); b.unavailable('cpu'); b.unsupported(Case(), 'fused')\n"
        "assert not {'torch', 'triton'} & set(sys.modules)"
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.usefixtures("triton_installed")
class TestProcesses:
    def test_an_interpreted_kernel_has_no_time_and_says_its_blocks(self) -> None:
        found = python(
            LOAD
            + "short, long = (b.build(Case(heads=1, seq_len=n, head_dim=8), 'fused') for n in (8, 200))\n"
            "assert short.untimed == long.untimed == 'interpreted'\n"
            "assert short.config['rows'] == short.config['keys'] == 16 and short.config['parallel']\n"
            "assert long.config['rows'] == long.config['keys'] == 32 and long.config['segments'] == 2"
        )
        assert found.returncode == 0, found.stderr

    def test_a_card_is_refused_where_the_kernels_would_be_interpreted(self) -> None:
        found = python(LOAD + BUILD.format("cuda"), TRITON_INTERPRET="1")
        assert "BackendFailure: TRITON_INTERPRET is set" in found.stderr

    def test_one_process_runs_the_kernels_one_way(self) -> None:
        failure = "BackendFailure: this process has loaded the Triton kernels for"
        found = python(LOAD + BUILD.format("cpu") + BUILD.format("cuda"))
        assert f"{failure} the interpreter" in found.stderr
        maps = "from mtbench.registry import import_part; import_part('backends.triton.maps')\n"
        found = python(LOAD + maps + BUILD.format("cpu"))
        assert f"{failure} a GPU" in found.stderr

    def test_it_runs_where_triton_was_imported_before(self) -> None:
        """As torch.compile does: Triton's own library functions are then not for the interpreter."""
        found = python(
            "import triton.language, numpy as np; from mtbench import AttentionSpec, attend\n"
            "x = np.ones((1, 1, 40, 16), np.float32)\n"
            "for kind in ('softmax', 'linear'):\n"
            "  for causal in (True, False):\n"
            "    o = attend(x, x, x, AttentionSpec(kind=kind, causal=causal), backend='triton')\n"
            "    assert abs(o - 1).max() < 1e-5\n"
        )
        assert found.returncode == 0, found.stderr


@pytest.fixture
def triton_installed() -> None:
    reason = load_backend("triton").unavailable("cpu")
    if reason is not None:
        pytest.skip(reason)
