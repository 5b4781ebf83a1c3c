"""Who wins and from where on, on hand-made rows."""

from __future__ import annotations

import dataclasses
import re

import pytest

from mtbench.measure.statistics import Samples
from reports import sentences
from reports.settings import clocks
from reports.verdict import Crossover, judge, spans


def crossover(rows, attention="linear", backend="torch-eager"):
    (verdict,) = judge(rows)
    found = [c for c in verdict.crossovers if (c.attention, c.backend) == (attention, backend)]
    assert len(found) == 1
    return found[0], sentences.crossing(found[0], verdict.lengths)


@pytest.fixture
def pair(row):
    """Rows of softmax and linear attention: ms by length, None is no row, a word is a status."""

    def make(softmax, linear, lengths=(256, 512, 1024, 2048), **more):
        rows = []
        for attention, values in (("softmax", softmax), ("linear", linear)):
            for n, ms in zip(lengths, values, strict=True):
                if isinstance(ms, str):
                    rows.append(row(None, attention=attention, seq_len=n, status=ms))
                elif ms is not None:
                    rows.append(row(ms, attention=attention, seq_len=n, **more))
        return rows

    return make


def test_the_fastest_wins_with_the_ratio_to_the_next(row):
    (verdict,) = judge([row(2.0, backend="jax"), row(1.0, form="sdpa"), row(3.0)])
    race = verdict.races[256, "softmax"]
    assert race.winner.name == "torch-eager/sdpa"
    assert race.next.name == "jax/parallel"
    assert race.ratio == pytest.approx(2.0, rel=0.03)
    assert race.sure
    assert verdict.races[256, None].ranking == race.ranking


@pytest.mark.parametrize("status", ["wrong", "error", "crash", "timeout", "oom", "unsupported"])
def test_a_row_that_is_not_ok_never_wins(row, status):
    (verdict,) = judge([row(0.001, backend="jax", status=status), row(1.0)])
    assert verdict.races[256, "softmax"].winner.backend == "torch-eager"
    assert len(verdict.races[256, None].ranking) == 1


def test_a_wrong_row_does_not_move_a_crossover(pair, row):
    rows = pair([1, 2, 4, 8], [9, 9, 9, 9])
    rows += [
        row(0.01, attention="linear", form="fused", status="wrong", seq_len=n) for n in (256, 512, 1024, 2048)
    ]
    found, said = crossover(rows)
    assert found.start is None
    assert said == "not within the sweep (256..2048)"


def test_an_untimed_row_is_in_no_ranking(row):
    assert judge([row(None, row={"flags": ("interpreted",)})]) == []


def test_a_tie_is_unsure_and_always_shown_alike(row):
    a, b = row(1.0, backend="b", width=0), row(1.0, backend="a", width=0)
    for rows in ([a, b], [b, a]):
        (verdict,) = judge(rows)
        race = verdict.races[256, "softmax"]
        assert race.winner.backend == "a"
        assert race.ratio == 1
        assert not race.sure


def test_a_tie_with_softmax_beats_nothing(pair):
    found, _ = crossover(pair([1, 1, 1, 1], [1, 1, 1, 1], width=0))
    assert found.faster == ()
    assert found.unsure == (256, 512, 1024, 2048)


def test_overlapping_intervals_are_unsure(row):
    (verdict,) = judge([row(1.0, width=0.5), row(1.05, width=0.5, backend="jax")])
    assert not verdict.races[256, "softmax"].sure
    assert "(unsure)" in sentences.winners(verdict, "softmax")


def test_few_samples_are_unsure_however_far_apart(row):
    (verdict,) = judge([row(1.0, n=4), row(100.0, backend="jax")])
    assert not verdict.races[256, "softmax"].sure


def test_one_contender_is_alone_and_sure(row):
    (verdict,) = judge([row(1.0)])
    race = verdict.races[256, "softmax"]
    assert (race.next, race.ratio, race.sure) == (None, None, True)
    assert sentences.winners(verdict, "softmax") == "torch-eager/parallel (alone)"


def test_from_one_length_on(pair):
    found, said = crossover(pair([1, 2, 8, 30], [2, 3, 4, 5]))
    assert (found.start, found.faster, found.unsure, found.missing) == (1024, (1024, 2048), (), ())
    assert found.holds_on
    assert said == "from 1024 on"


def test_at_every_length(pair):
    assert crossover(pair([2, 4, 8, 16], [1, 1, 1, 1]))[1] == "from 256 on, that is at every length swept"


def test_not_within_the_sweep(pair):
    assert crossover(pair([1, 1, 1, 1], [2, 2, 2, 2]))[1] == "not within the sweep (256..2048)"


def test_crossing_twice_counts_from_the_last_time(pair):
    found, said = crossover(pair([3, 1, 4, 8], [2, 2, 2, 2]))
    assert (found.start, found.faster) == (1024, (256, 1024, 2048))
    assert said == "from 1024 on (faster at 256 too)"


def test_faster_only_at_the_small_lengths_is_no_crossover(pair):
    found, said = crossover(pair([3, 1, 1, 1], [2, 2, 2, 2]))
    assert found.start is None
    assert said == "not within the sweep (256..2048) (faster at 256 only)"


def test_the_largest_length_without_softmax_is_said(pair):
    found, said = crossover(pair([1, 4, 8, "oom"], [2, 2, 2, 2]))
    assert (found.start, found.missing) == (512, (2048,))
    assert not found.holds_on
    assert said == "from 512 to 1024, where both were measured (not compared at 2048)"


def test_a_hole_in_the_middle_is_said(pair):
    found, said = crossover(pair([1, 4, None, 16], [2, 2, 2, 2]))
    assert found.missing == (1024,)
    assert not found.holds_on
    assert said == "from 512 to 2048, where both were measured (not compared at 1024)"


def test_a_hole_below_the_crossover_does_not_matter(pair):
    assert crossover(pair([None, 1, 4, 16], [2, 2, 2, 2]))[1] == "from 1024 on"


def test_faster_at_the_last_compared_length_only(pair):
    assert crossover(pair([1, 1, 8, "timeout"], [2, 2, 2, 2]))[1] == "at 1024 (not compared at 2048)"


def test_never_both_measured(pair):
    found, said = crossover(pair(["oom"] * 4, [1, 1, 1, 1]))
    assert found.compared == ()
    assert said == "not compared: one of the two has no time"


def test_unsure_at_the_crossing_and_just_below_it(pair):
    found, said = crossover(pair([1, 1.9, 2.1, 9], [2, 2, 2, 2], width=0.3))
    assert (found.start, found.unsure) == (1024, (512, 1024))
    assert said == "from 1024 on (unsure at 512 and 1024)"


def test_one_length_gives_no_from_on(pair):
    _, said = crossover(pair([4], [1], lengths=(256,)))
    assert said.startswith("at 256, the one length: 4.")
    assert said.endswith("as fast as softmax")


def test_one_length_in_words(row):
    (verdict,) = judge([row(4.0), row(1.0, attention="linear"), row(8.0, attention="linear", backend="jax")])
    assert sentences.overall(verdict) == "linear by torch-eager/parallel"
    (said,) = sentences.crossing_sentences(verdict)
    assert re.fullmatch(r"Linear, by backend: torch-eager [34]\.\d\d× as fast as softmax", said)


def test_best_form_against_best_form(pair, row):
    rows = pair([1, 4, 8, 16], [2, 2, 2, 2])
    rows += [row(0.5, form="sdpa", seq_len=n) for n in (256, 512, 1024, 2048)]
    assert crossover(rows)[0].start is None


def test_each_backend_and_all_at_their_best(pair, row):
    rows = pair([1, 4, 8, 16], [2, 2, 2, 2])
    rows += [row(0.5, backend="jax", seq_len=n) for n in (256, 512, 1024, 2048)]
    assert crossover(rows)[0].start == 512
    assert crossover(rows, backend="jax")[0].compared == ()
    assert crossover(rows, backend=None)[0].start is None


def test_settings_are_never_mixed(row):
    rows = [
        row(1.0, dtype="float32"),
        row(0.1, dtype="float16"),
        row(0.2, mode="forward_backward"),
        row(0.3, batch=2),
        row(0.4, heads=4),
        row(0.5, head_dim=32),
        row(0.6, value_dim=32),
        row(0.7, spec={"causal": False}),
        row(0.8, spec={"causal": False}, kv_len=64),
        row(0.9, lengths=(17,)),
        row(0.9, kv_heads=2),
    ]
    verdicts = judge(rows)
    assert len(verdicts) == len(rows)
    assert all(len(v.races[256, "softmax"].ranking) == 1 for v in verdicts)
    assert len({(v.context.label, v.shape.label()) for v in verdicts}) == len(rows)


def test_two_betas_are_two_attentions(row):
    rows = [row(1.0), *(row(b, attention="momentum", spec={"beta": b}) for b in (0.5, 0.9))]
    (verdict,) = judge(rows)
    assert verdict.attentions == ("softmax", "momentum (beta 0.5)", "momentum (beta 0.9)")
    assert [c.attention for c in verdict.crossovers] == ["momentum (beta 0.5)", "momentum (beta 0.9)"]
    close = [row(1.0, attention="momentum", spec={"beta": b}) for b in (0.9999995, 0.9999996)]
    assert len(judge(close)[0].attentions) == 2


def on_gpu(row, ms, device_ms, **more):
    made = row(ms, device="cuda", **more)
    return made if device_ms is None else dataclasses.replace(made, device_ms=Samples([device_ms] * 9))


def test_a_gpu_is_ranked_by_the_device_clock(row):
    rows = [on_gpu(row, 1.0, 0.9), on_gpu(row, 2.0, 0.1, backend="jax")]
    (verdict,) = judge(rows)
    assert verdict.clock == "device"
    assert verdict.races[256, None].winner.backend == "jax"


def test_clocks_are_never_mixed(row):
    rows = [on_gpu(row, 1.0, 0.9), on_gpu(row, 0.5, None, backend="jax")]
    device, wall = judge(rows)
    assert (device.clock, wall.clock) == ("device", "wall")
    assert [c.backend for c in device.races[256, None].ranking] == ["torch-eager"]
    assert [m.backend for m in device.left_out] == ["jax"]
    assert [c.backend for c in wall.races[256, None].ranking] == ["jax", "torch-eager"]
    assert wall.left_out == ()


def test_a_gpu_without_device_times_is_ranked_by_the_wall_clock(row):
    assert clocks([on_gpu(row, 1.0, None)]) == ("wall",)


def test_a_row_held_twice_counts_once(row):
    (verdict,) = judge([row(1.0), row(2.0)])
    assert [round(c.median) for c in verdict.races[256, None].ranking] == [2]


def test_what_is_no_time_is_not_ranked(row):
    nan, zero = (
        dataclasses.replace(row(1.0, form=f), wall_ms=Samples([v] * 9))
        for f, v in (("a", float("nan")), ("b", 0))
    )
    (verdict,) = judge([nan, zero, row(1.0)])
    assert [c.form for c in verdict.races[256, None].ranking] == ["parallel"]


def test_spans_and_their_sentence(row):
    rows = [row(1.0, seq_len=n, form="sdpa") for n in (128, 256)]
    rows += [row(2.0, seq_len=n, attention="linear", form="chunked") for n in (128, 256)]
    rows += [row(4.0, seq_len=n, form="sdpa") for n in (512, 1024)]
    rows += [row(3.0, seq_len=n, attention="linear", form="chunked") for n in (512, 1024)]
    (verdict,) = judge(rows)
    assert [s.lengths for s in spans(verdict.along(None))] == [(128, 256), (512, 1024)]
    assert sentences.overall(verdict) == (
        "softmax by torch-eager/sdpa from 128 to 256; linear by torch-eager/chunked from 512 to 1024"
    )
    (said,) = sentences.crossing_sentences(verdict)
    beats = r"Linear beats softmax: on torch-eager from 512 on"
    assert re.fullmatch(beats + r", equally fast at about 4\d\d \(4\d\d to 4\d\d\)", said)


def test_a_missing_length_is_not_claimed(row):
    rows = [row(1.0, seq_len=128), row(None, seq_len=256, status="oom"), row(1.0, seq_len=512)]
    (verdict,) = judge(rows)
    assert verdict.lengths == (128, 256, 512)
    assert "at every length measured (128 and 512)" in sentences.winners(verdict, "softmax")


def test_no_rows_no_verdict():
    assert judge([]) == []


def test_holds_on_needs_a_start():
    empty = Crossover(
        attention="linear",
        backend=None,
        compared=(),
        faster=(),
        start=None,
        ratios=(),
        unsure=(),
        contests=(),
        missing=(),
    )
    assert not empty.holds_on
