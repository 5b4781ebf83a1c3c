"""Which rows a sweep has, by what backends and presets declare."""

from __future__ import annotations

import pytest

from mtbench import BadInput, load_backend
from mtbench.registry import BUILTIN_BACKENDS, PEERS
from mtbench.spec import ATTENTIONS
from mtbench.sweep.plan import PlannedRow, plan_rows
from mtbench.workloads import PRESETS, Workload

OWN = [name for name in BUILTIN_BACKENDS if name not in PEERS]
INTERPRETED = ("triton", "jax-pallas")


def planned(workload: Workload) -> dict[str, list[PlannedRow]]:
    rows = plan_rows(workload, {name: load_backend(name) for name in OWN})
    return {name: [row for row in rows if row.backend == name] for name in OWN}


def sizes(rows: list[PlannedRow], axis: str) -> set[int]:
    return {getattr(row.case, axis) for row in rows}


def test_the_preset_default_sweeps_each_axis_around_a_point_for_every_backend() -> None:
    for name, rows in planned(PRESETS["default"]).items():
        assert {row.case.mode for row in rows} == {"forward", "forward_backward"}, name
        points = {(row.case.seq_len, row.case.batch, row.case.head_dim) for row in rows}
        timed = {(1024, 1, 64), (256, 4, 64), (256, 1, 32), (256, 1, 128)}
        wanted = {(64, 1, 64), (256, 1, 64)} | (set() if name in INTERPRETED else timed)
        assert points == wanted, name


def test_the_preset_quick_has_every_form_once_and_at_512_tokens_what_is_quick() -> None:
    for name, rows in planned(PRESETS["quick"]).items():
        forms = {n: {row.form for row in rows if row.case.seq_len == n} for n in (64, 512)}
        backend = load_backend(name)
        assert forms[64] == {form for kind in ATTENTIONS for form in backend.forms(kind)}, name
        assert forms[512] == (set() if name in INTERPRETED else forms[64] - {"recurrent"}), name
    asked = planned(PRESETS["quick"].override(form=("recurrent",)))
    assert sizes(asked["jax"], "seq_len") == {64, 512}


@pytest.mark.parametrize("name", INTERPRETED)
def test_kernels_that_are_interpreted_have_the_large_cases_where_a_card_runs_them(name: str) -> None:
    rows = planned(PRESETS["default"].override(device=("cuda",)))[name]
    assert sizes(rows, "seq_len") == {64, 256, 1024}
    assert sizes(rows, "head_dim") == {32, 64, 128}


@pytest.mark.parametrize(
    ("preset", "backend", "attention", "told"),
    [
        ("quick", "native", "softmax", "no form of softmax attention: native has linear, momentum"),
        ("long", "fla", "linear", "the sweep takes none of the forms that fla has: name one by --form"),
    ],
)
def test_a_sweep_without_a_row_says_what_there_would_be(
    preset: str, backend: str, attention: str, told: str
) -> None:
    asked = PRESETS[preset].override(attention=(attention,))
    with pytest.raises(BadInput, match=f"^nothing to measure: {told}$"):
        plan_rows(asked, {backend: load_backend(backend)})


def test_a_form_asked_for_by_name_has_all_its_rows_and_one_where_a_backend_lacks_it() -> None:
    rows = planned(PRESETS["default"].override(form=("fused",)))
    for name in INTERPRETED:
        assert sizes(rows[name], "seq_len") == {64, 256, 1024}
    assert {row.decided.reason for row in rows["native"] if row.decided} >= {
        "notimpl: no fused form of softmax attention"
    }
    assert len(rows["native"]) == len(rows["triton"])
