"""The page of a profile and the page of two, as texts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from mtbench.errors import BadInput
from mtbench.profile.against import against_of, aligned
from mtbench.profile.bounds import LATENCY
from mtbench.profile.record import (
    FILE,
    RESIDENT_METHOD,
    SCHEMA_VERSION,
    Kernel,
    MemoryCourse,
    read_profile,
)
from reports.against_page import against_html
from reports.profile_drawing import memory_figure
from reports.profile_page import profile_html, write_profile_page
from tests.profile.synthetic import gpu_profile


def test_what_a_page_says(tmp_path: Path) -> None:
    profile = gpu_profile(tmp_path)
    page = write_profile_page(tmp_path).read_text()
    assert page == profile_html(profile)  # from profile.json alone
    assert profile.bound.verdict in page
    for told in (
        "nvjet_hsh_128x256_64x4_2x1_v_bz_coopB_NNT",
        "16×64×1",  # the grid
        "208 KiB",  # shared memory
        "64 B",  # spilled
        "50.1%",  # the tensor units, weighted by the time of the two launches
        "The profiler disturbed the run: its kernels cover 0.285 ms of a call, 14% more",
        "the GPU&#39;s counters (ncu)",
        "weights (torch_forms/softmax.py:28)",
        "32 tensor-core instructions, 4 barriers; no loads and stores of local memory",
        "at::_ops::bmm::call (libtorch_cpu.so)",
        "instructions a cycle",
        "task-clock, ms",
        "it did not run: &lt;no such thing&gt;",
        "96.0 MiB",
    ):
        assert told in page, told


def test_what_the_share_of_products_is(tmp_path: Path) -> None:
    """Where the GPU's counters were read, its units at work count too, and may be the more."""
    by_units = "or in which its tensor or float units worked"
    profile = gpu_profile(tmp_path)
    assert profile.traced is not None
    uncounted = tuple(replace(kernel, counters={}) for kernel in profile.traced.kernels)
    assert by_units in profile_html(profile)
    assert by_units not in profile_html(replace(profile, traced=replace(profile.traced, kernels=uncounted)))


def test_it_fetches_nothing_and_runs_nothing(tmp_path: Path) -> None:
    page = profile_html(gpu_profile(tmp_path))
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert not re.search(r"""\bsrc=|href=["'](?!#)""", page)


def test_hostile_strings(tmp_path: Path) -> None:
    profile = gpu_profile(tmp_path)
    evil = '</title><script>alert("x")</script>\x00\u202e'
    assert profile.traced is not None
    kernels = (Kernel(name=evil, calls=1, ms=1.0, operator=evil), *profile.traced.kernels)
    profile = replace(
        profile,
        traced=replace(profile.traced, kernels=kernels, operators=()),
        remarks=(evil,),
        missing={evil: evil},
        command=(evil,),
        traces=(evil,),
    )
    page = profile_html(profile) + against_html(against_of(profile, profile), evil, evil)
    assert "<script" not in page
    assert "\x00" not in page


def test_a_bare_profile_has_a_page(tmp_path: Path) -> None:
    profile = gpu_profile(tmp_path, traced=None, memory=(), flame=None, counters={}, traces=())
    machine = replace(profile.machine, copy_bytes_per_s=None)
    page = profile_html(replace(profile, machine=machine))
    assert "There is no roofline" in page
    assert "Where the time goes" not in page


def test_the_sweep_s_peak_is_drawn_beside_the_memory_that_it_is_of(tmp_path: Path) -> None:
    on_a_gpu = gpu_profile(tmp_path)
    host = MemoryCourse(method=RESIDENT_METHOD, points=((0.0, 0), (1.0, 4096)), peak_bytes=4096)
    on_a_cpu = replace(on_a_gpu.row, case=on_a_gpu.row.case.replace(device="cpu"))
    for profile, drawn in (
        (on_a_gpu, 1),
        (replace(on_a_gpu, memory=(*on_a_gpu.memory, host)), 1),
        (replace(on_a_gpu, memory=(host,)), 0),
        (replace(on_a_gpu, memory=(host,), row=on_a_cpu), 1),
    ):
        assert profile_html(profile).count("the sweep's peak, ") == drawn


def test_what_tells_kernels_apart_is_shown(tmp_path: Path) -> None:
    """Their names are cut, and begin alike; an operator that is the kernel is not said twice."""
    profile = gpu_profile(tmp_path)
    assert profile.traced is not None
    prefix = "void at::native::elementwise_kernel<128, 2, at::native::gpu_kernel_impl_nocast<at::native::("
    names = [f"{prefix}anonymous namespace)::{one}>{'x' * 200}" for one in ("where_kernel", "add_kernel")]
    names.append("triton_poi_fused_add_0")
    kernels = tuple(Kernel(name=name, calls=1, ms=0.1, operator="triton_poi_fused_add_0") for name in names)
    page = profile_html(replace(profile, traced=replace(profile.traced, kernels=kernels)))
    assert "gpu_kernel_impl_nocast&lt;where_kernel&gt;" in page
    assert "gpu_kernel_impl_nocast&lt;add_kernel&gt;" in page
    assert page.count("triton_poi_fused_add_0") == 3


def test_words_of_the_memory_s_axis_are_not_cut() -> None:
    """The line at 30 KiB is a pixel below the figure's upper end."""
    course = MemoryCourse(method="m", points=((0.0, 0), (1.0, 28672)), peak_bytes=28672)
    found = re.findall(r'y="([-\d.]+)"[^>]*>[\d.]+ (?:KiB|B)<', str(memory_figure(course, None)))
    assert len(found) == 4
    assert min(map(float, found)) > 8, found


def test_words_at_the_ends_of_the_roofline_s_axis_are_not_cut(tmp_path: Path) -> None:
    profile = gpu_profile(tmp_path)
    # Its corner is at 397 FLOP a byte, and the axis begins at a quarter of that: a word at 100 has no room.
    machine = replace(profile.machine, copy_bytes_per_s=3.0e12, matmul_flop_per_s={"bfloat16": 1.19e15})
    page = profile_html(replace(profile, machine=machine))
    found = re.findall(r'<text x="([\d.]+)%"[^>]*text-anchor="(\w+)"[^>]*>[\d,.]+ FLOP/byte', page)
    assert min(float(at) for at, _ in found) < 6
    for at, anchor in found:
        assert anchor == ("start" if float(at) < 6 else "end" if float(at) > 94 else "middle")


def test_profiles_of_another_kind_are_refused(tmp_path: Path) -> None:
    gpu_profile(tmp_path)
    told = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(told | {"schema": SCHEMA_VERSION + 1, "more": 1}))
    with pytest.raises(BadInput, match="needs a newer mtbench"):
        read_profile(tmp_path)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(BadInput, match="is no profile"):
        read_profile(tmp_path)
    (tmp_path / FILE).write_text('{"schema": 1}')
    with pytest.raises(BadInput, match="is no profile: KeyError"):
        read_profile(tmp_path)


def kernel(name: str, ms: float, calls: float = 1) -> Kernel:
    return Kernel(name=name, ms=ms, calls=calls)


def test_kernels_are_aligned() -> None:
    a = [kernel("gemm", 1.0, 2), kernel("triton_poi_fused_add_0", 0.5), kernel("gone", 0.1)]
    b = [kernel("gemm", 0.4, 1), kernel("triton_poi_fused_add_3", 0.7), kernel("triton_poi_fused_add_5", 0.2)]
    lines = {line.name: line for line in aligned(a, b)}
    assert list(lines) == ["gemm", "triton_poi_fused_add", "gone"]  # the largest difference first
    assert (lines["gemm"].a_ms, lines["gemm"].b_ms, lines["gemm"].a_calls) == (1.0, 0.4, 2)
    assert lines["triton_poi_fused_add"].b_ms == pytest.approx(0.9)  # both of its kernels
    assert lines["triton_poi_fused_add"].more_ms == pytest.approx(0.4)
    assert (lines["gone"].b_ms, lines["gone"].more_ms) == (None, -0.1)


def test_two_of_one_machine_differ_in_what_they_are(tmp_path: Path) -> None:
    a = gpu_profile(tmp_path)
    commit = {"git": {"commit": "0123456789"}}
    b = replace(a, row=replace(a.row, form="sdpa"), environment={**a.environment, **commit})
    b = replace(b, bound=replace(b.bound, verdict=LATENCY))
    beside = against_of(a, b)
    assert [(name, after) for name, _, after in beside.differs] == [("form", "sdpa"), ("commit", "0123456")]
    assert beside.what == "kernels"
    assert all(line.more_ms == 0 for line in (*beside.lines, *beside.gaps))
    assert "sdpa" in against_html(beside, "a", "b")
    nothing = against_of(a, replace(a, traced=None))
    assert (nothing.what, nothing.lines, nothing.gaps) == ("", (), ())
    assert "no kernels and no operators to align" in against_html(nothing, "a", "b")
