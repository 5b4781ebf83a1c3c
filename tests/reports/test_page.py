"""report.html on runs of every kind."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

import reports.format
import reports.header
from mtbench.errors import BadInput
from mtbench.results import Run
from reports.embed import packed, plotly_js
from reports.page import write_report
from tests.reports.parsed import Page

HOME = Path(reports.format.__file__).parents[1]


def checked(path):
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.ids) == len(set(page.ids)), "ids must be unique"
    assert page.links, "the sections are linked"
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert page.events == []
    assert len([s for s in page.scripts if s.strip()]) == 3
    assert "url(http" not in text
    assert "@import" not in text
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    for heading in (
        "Verdict",
        "Figures",
        "Explore",
        "Skipped and failed",
        "Support",
        "Environment",
        "How to read",
        "All rows",
    ):
        assert heading in page.text
    return page


@pytest.fixture(scope="module")
def full(tmp_path_factory, sweep, save):
    folder = save(tmp_path_factory.mktemp("full") / "run", list(sweep(lengths=(256, 512, 1024))))
    return folder, write_report(folder)


def test_a_full_run(full):
    folder, path = full
    page = checked(path)
    assert path == folder / "report.html"
    assert "cpu, float32, forward, causal ranked by the wall clock" in page.text
    assert "Softmax: torch-eager/sdpa at every length (256..1024)" in page.text
    assert "Linear beats softmax: on " in page.text
    assert "Numerics only, not timed" in page.text
    assert "relative error 0.30, tolerance 1.0e-5" in page.text
    assert "grouped heads are in the spec and in no backend yet" in page.text
    assert "Some CPU @ 2.60GHz" in page.text
    assert "7 min 42 s" in page.text
    assert page.tags.count("svg") == page.tags.count("figure") == 18
    assert "Who wins where: cpu, float32, forward, causal; wall clock" in page.text
    assert "equally fast at about" in page.text
    assert "How the time grows with seq_len, as measured" in page.text
    assert "What compiling costs, and when it has paid" in page.text
    assert "ceilings were not measured in this run: a copy and a product in float32 on cpu." in page.text
    rows = len(Run.load(folder).measurements)
    assert len(re.findall(r'<tr data-status="', path.read_text())) == rows
    assert path.stat().st_size < 3_500_000


def test_what_lies_beside_the_page(full):
    folder, _ = full
    assert {p.name for p in folder.iterdir()} == {
        "figures",
        "measurements.csv",
        "measurements.jsonl",
        "pytest-benchmark.json",
        "report.html",
        "run.json",
        "run.lock",
    }
    svgs, pngs = ({p.stem for p in (folder / "figures").glob(f"*.{e}")} for e in ("svg", "png"))
    assert svgs == pngs
    assert len(svgs) == 18


def test_the_same_folder_gives_the_same_page(make_run, row):
    folder = make_run([row(n / 100, seq_len=n) for n in (128, 256)])
    stale = folder / "figures" / "latency-old.svg"
    stale.parent.mkdir()
    stale.write_text("old")
    first = {
        p: p.read_bytes() for p in [write_report(folder), *folder.glob("figures/*"), *folder.glob("*.*")]
    }
    write_report(folder)
    assert {p: p.read_bytes() for p in first} == first
    assert not stale.exists()


def test_an_empty_run(make_run):
    page = checked(write_report(make_run([])))
    assert "No row was measured" in page.text
    assert "there is no verdict" in page.text
    assert "svg" not in page.tags


def test_all_failed(make_run, row):
    rows = [row(None, seq_len=n, status="crash", row={"reason": "signal 11"}) for n in (128, 256)]
    rows.append(row(0.5, seq_len=512, status="wrong"))
    page = checked(write_report(make_run(rows)))
    assert "No row has a time that may be ranked" in page.text
    assert "crash 2 rows" in page.text
    assert "signal 11" in page.text
    assert "wrong 1 row" in page.text
    assert "Nothing: every row is ok" not in page.text


def test_interrupted(make_run, row):
    rows = [row(1.0, seq_len=n) for n in (128, 256, 512)]
    planned = [r.id for r in rows]
    page = checked(
        write_report(make_run(rows[:1], outcome="interrupted", finished=None, plan={"rows": planned}))
    )
    assert "This run is interrupted. 2 planned rows were not measured" in page.text
    assert "2 not measured" in page.text
    assert planned[2] in page.text


def test_a_cut_off_line_is_counted(make_run, row):
    folder = make_run([row(1.0)])
    with (folder / "measurements.jsonl").open("a") as file:
        file.write('{"schema": 1, "id"')
    assert "1 line of measurements.jsonl cannot be read" in checked(write_report(folder)).text


def test_only_a_gpu(make_run, row, on_gpu):
    rows = [on_gpu(row(1.0, device="cuda", seq_len=n), 0.5) for n in (128, 256)]
    rows.append(row(1.0, device="cuda", backend="jax", row={"device_reason": "no CUPTI here"}))
    gpus = [{"name": "NVIDIA H100", "driver": "570", "memory_bytes": 80 * 2**30}]
    page = checked(write_report(make_run(rows, environment={"gpus": gpus, "cpu": {"model": "x"}})))
    assert "attention on NVIDIA H100" in page.text
    assert "ranked by the device clock" in page.text
    assert "ranked by the wall clock" in page.text
    assert "for want of a time on the device clock: 1 row" in page.text
    assert "no CUPTI here" in page.text


HOSTILE = (
    "<script>alert(1)</script>\"'><img src=http://x.test/a onerror=alert(1)>%s{{7*7}}"
    "\x00\u202e\ud800 漢字 ]]> -->"
)


def test_hostile_strings(make_run, row):
    rows = [
        row(
            n / 100,
            backend=HOSTILE,
            form=HOSTILE,
            attention=kind,
            seq_len=n,
            row={"layout": HOSTILE, "cache": HOSTILE, "flags": (HOSTILE,), "first_call_s": 2.0},
        )
        for n in (128, 256, 512)
        for kind in ("softmax", "linear")
    ]
    rows.append(row(9.0, seq_len=512, row={"first_call_s": 0.009}))
    rows.append(row(None, status="error", row={"reason": HOSTILE * 3000}))
    rows.append(row(None, backend=HOSTILE, row={"wall_reason": HOSTILE}))
    path = write_report(
        make_run(
            rows,
            outcome=HOSTILE,
            started=HOSTILE,
            command=[HOSTILE],
            plan={"rows": [HOSTILE], HOSTILE: HOSTILE},
            environment={"host": HOSTILE, "cpu": {"model": HOSTILE}, "packages": {HOSTILE: HOSTILE}},
            workers={HOSTILE: {HOSTILE: [HOSTILE]}},
            support=[
                {
                    "backend": HOSTILE,
                    "framework": HOSTILE,
                    "forms": {HOSTILE: [HOSTILE]},
                    "limits": [{"kind": HOSTILE, "what": HOSTILE, "reason": HOSTILE}],
                    "caveats": [{"what": HOSTILE, "reason": HOSTILE}],
                    "unavailable": {HOSTILE: HOSTILE},
                }
            ],
        )
    )
    page = checked(path)
    assert "img" not in page.tags
    assert "{{7*7}}" in page.text
    assert "49" not in re.findall(r"%s(\S+)", page.text)
    assert "more characters)" in page.text
    text = path.read_text()
    assert not set("\x00\u202e") & set(text)
    assert "after " in page.text  # calls: compiling has paid
    assert "N^" in page.text
    assert len(text) < 600_000 + len(packed(plotly_js()))
    json.loads((path.parent / "pytest-benchmark.json").read_text())


@pytest.mark.parametrize("value", [None, 7, "text", [], [[1]], {"a": []}, [None]])
def test_a_header_of_unexpected_kinds(make_run, row, value):
    keys = ("command", "started", "finished", "outcome", "plan", "environment", "workers", "support")
    checked(write_report(make_run([row(1.0)], **dict.fromkeys(keys, value))))


def test_caveats_are_shown_once_for_all_backends_that_have_them(make_run, row):
    caveat = {"what": "a NaN in v goes far", "reason": "weights of 0 are multiplied"}
    support = [{"backend": name, "caveats": [caveat]} for name in ("one", "two")]
    run = make_run([row(1.0)], support=[*support, {"backend": "three", "caveats": []}])
    assert reports.header.caveats(Run.load(run)) == [
        (("a NaN in v goes far", "weights of 0 are multiplied"), ["one", "two"])
    ]
    text = checked(write_report(run)).text
    assert text.count("weights of 0 are multiplied") == 1
    assert "Caveats" in text


def test_a_run_from_before_caveats(make_run, row):
    run = make_run([row(1.0)], support=[{"backend": "old", "limits": []}])
    assert reports.header.caveats(Run.load(run)) == []
    assert "Caveats" not in checked(write_report(run)).text


def test_a_bare_header(tmp_path, row):
    (tmp_path / "run.json").write_text('{"schema": 1}')
    (tmp_path / "measurements.jsonl").write_text(json.dumps(row(1.0).to_row()) + "\n")
    checked(write_report(tmp_path))


def test_nested_environment(make_run):
    run = Run.load(
        make_run([], environment={"gpus": [{"name": "A", "memory_bytes": 2**30}], "x": {"y": [1, 2]}})
    )
    (_, lines), *_ = reports.header.facts(run)
    assert lines == [
        ("gpus[0].name", "A"),
        ("gpus[0].memory_bytes", "1.00 GiB (1,073,741,824)"),
        ("x.y", "1, 2"),
    ]


def test_a_link_is_replaced_not_followed(make_run, row, tmp_path):
    folder = make_run([row(1.0)])
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (folder / "report.html").symlink_to(precious)
    checked(write_report(folder))
    assert precious.read_text() == "mine"


def test_no_run(tmp_path):
    with pytest.raises(BadInput, match="holds no run"):
        write_report(tmp_path)


def test_the_scripts_are_those_that_the_policy_allows(full):
    text = full[1].read_text()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (library,) = re.findall(r'<script type="text/plain" id="plotly-packed">(.*?)</script>', text)
    scripts.append(gzip.decompress(base64.b64decode(library)).decode())
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert f"script-src {allowed};" in text
    assert "default-src 'none'" in text
