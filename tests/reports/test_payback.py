"""What compiling costs, and after how many calls it has paid."""

from __future__ import annotations

import pytest

from reports import sentences
from reports.payback import paybacks


@pytest.fixture
def timed(row):
    """A row of so many ms a call that is ready after so many seconds."""

    def make(ms, ready_s, backend="torch-eager", build_s=None, compiled=None, **more):
        first = ready_s + ms / 1e3 - (build_s or 0)
        told = {"first_call_s": first, "build_s": build_s, "compiled": compiled or {}}
        return row(ms, backend=backend, width=0, row=told, **more)

    return make


def only(rows):
    ((found,),) = paybacks(rows).values()
    return found


def test_after_how_many_calls(timed):
    found = only([timed(3.0, 0.0), timed(1.0, 2.0, "torch-compile", build_s=0.5)])
    assert (found.setup_s, found.other_setup_s) == pytest.approx((2.0, 0.0))
    assert found.saved_ms == pytest.approx(2.0)
    assert found.calls == pytest.approx(1000)
    assert (found.row.backend, found.other.backend) == ("torch-compile", "torch-eager")
    assert sentences.payback(found) == "after 1,000 calls"


def test_what_is_not_faster_never_pays(timed):
    found = only([timed(1.0, 0.0), timed(3.0, 2.0, "jax")])
    assert not found.pays
    assert sentences.payback(found) == "never: it is not faster"


def test_it_is_held_against_the_fastest_eager_form(timed):
    rows = [timed(9.0, 0.0), timed(3.0, 0.0, form="sdpa"), timed(2.0, 1.0, "jax"), timed(1.0, 2.0, "triton")]
    (found,) = paybacks(rows).values()
    assert [(p.row.backend, p.other.form) for p in found] == [("triton", "sdpa"), ("jax", "sdpa")]


def test_without_eager_torch_against_what_is_ready_sooner(timed):
    found = only([timed(2.0, 1.0, "jax"), timed(1.0, 2.0, "triton")])
    assert (found.row.backend, found.other.backend) == ("triton", "jax")
    assert found.calls == pytest.approx(1000)


def test_who_is_ready_at_once_compiles_nothing(timed):
    assert paybacks([timed(2.0, 0.0), timed(1.0, 0.05, "native")]) == {}


def test_a_program_that_serves_several_lengths_is_compiled_once(timed):
    rows = [timed(3.0, 0.0, seq_len=n) for n in (256, 512)]
    rows += [timed(1.0, 2.0, "triton", seq_len=256), timed(1.0, 0.0, "triton", seq_len=512)]
    found = only(rows)
    assert found.row.case.seq_len == 512
    assert found.setup_s == pytest.approx(2.0)


def test_what_a_cache_had_is_said(timed):
    compiled = {"anew": 1, "from_cache": 2}
    found = only([timed(3.0, 0.0), timed(1.0, 2.0, "jax", compiled=compiled)])
    assert found.from_cache == 2


def test_an_interval_of_calls_is_open_where_the_lead_is_not_sure(row):
    rows = [
        row(1.0, width=0.3, row={"first_call_s": 0.0}),
        row(0.97, width=0.3, backend="jax", row={"first_call_s": 2.0}),
    ]
    found = only(rows)
    assert found.high == float("inf")
    assert "never" in sentences.payback(found)


def test_settings_and_attentions_are_apart(timed):
    rows = [
        timed(ms, ready_s, backend, **more)
        for backend, ms, ready_s in (("torch-eager", 3.0, 0.0), ("jax", 1.0, 2.0))
        for more in ({}, {"batch": 2}, {"attention": "linear"}, {"mode": "forward_backward"})
    ]
    found = paybacks(rows)
    assert sorted(len(told) for told in found.values()) == [1, 1, 2]


def test_a_row_without_a_first_call_is_left_out(row):
    assert paybacks([row(1.0), row(2.0, backend="jax"), row(None, status="oom")]) == {}
