from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from mtbench import AttentionSpec, BadInput, Case
from mtbench.measure.statistics import Samples
from mtbench.results import SCHEMA_VERSION, Agreement, Measurement, Run
from mtbench.run_folder import RunFolder


def full_row(**changes: object) -> Measurement:
    fields: dict[str, object] = {
        "case": Case(spec=AttentionSpec(causal=False), batch=2, kv_len=7, lengths=(3, 7), value_dim=5),
        "backend": "torch-eager",
        "form": "chunked",
        "status": "ok",
        "flags": ("few samples",),
        "layout": "bhnd",
        "wall_ms": Samples([3.0, 1.0, 2.0]),
        "wall_reason": "interval",
        "device_ms": Samples([0.5]),
        "span_ms": Samples([0.75]),
        "cache": "warm",
        "build_s": 0.25,
        "first_call_s": 1.5,
        "compiled": {"anew": 2, "from_cache": 1},
        "peak_memory_bytes": 12345,
        "memory_method": "counted",
        "agreement": {
            "o": Agreement(relative=1e-6, max_abs=2e-6, tolerance=1e-5),
            "dq": Agreement(relative=8e-6, max_abs=1e-5, tolerance=1e-5),
        },
        "compared": "all rows",
        "config": {"chunk": 64},
    }
    return Measurement(**{**fields, **changes})  # type: ignore[arg-type]


REQUIRED = """attention backend form device dtype mode causal batch heads seq_len head_dim value_dim layout
status reason flags wall_ms device_ms build_s first_call_s peak_memory_bytes memory_method relative_error
tolerance""".split()


def test_a_row_survives_json() -> None:
    row = full_row()
    assert Measurement.from_row(json.loads(json.dumps(row.to_row(), allow_nan=False))) == row


def test_a_row_has_every_promised_column() -> None:
    row = full_row().to_row()
    assert set(REQUIRED) <= set(row)
    assert set(row["wall_ms"]) >= {"median", "ci_low", "ci_high", "samples"}
    assert row["relative_error"] == 8e-6  # of the array nearest to its tolerance


@pytest.mark.parametrize("relative", [math.inf, math.nan])
def test_errors_that_json_has_no_number_for(relative: float) -> None:
    agreement = {"o": Agreement(relative=relative, max_abs=relative, tolerance=1e-5)}
    row = full_row(agreement=agreement, status="wrong")
    assert not row.agreement["o"].passes
    back = Measurement.from_row(json.loads(json.dumps(row.to_row(), allow_nan=False)))
    assert str(back.agreement["o"].relative) == str(relative)
    assert back.worst is not None


def test_a_row_without_a_measurement() -> None:
    row = Measurement(case=Case(), backend="x", form="y", status="oom", reason="too large")
    assert Measurement.from_row(json.loads(json.dumps(row.to_row()))) == row
    assert row.to_row()["wall_ms"] is None
    assert not row.ranked


def test_a_run_folder_is_read_back(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run") as folder:
        folder.write_header({"environment": {"os": "x"}})
        folder.append(full_row())
        # On disk at once: a reader does not wait for the run to end.
        assert Run.load(tmp_path / "run").measurements == (full_row(),)
    assert Run.load(tmp_path / "run").header["schema"] == SCHEMA_VERSION


def test_a_line_cut_off_by_a_crash_and_damage_are_counted_not_fatal(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path) as folder:
        folder.write_header({"environment": {}})
        folder.append(full_row())
    with (tmp_path / "measurements.jsonl").open("a") as file:
        file.write('{"schema": 1}\n[]\n3\n')
        file.write(json.dumps({**full_row().to_row(), "status": "perfect"}) + "\n")
        file.write(json.dumps(full_row().to_row())[:100])
    run = Run.load(tmp_path)
    assert (len(run.measurements), run.unreadable_lines) == (1, 5)


def test_a_row_of_a_later_schema_is_not_skipped(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path) as folder:
        folder.write_header({"environment": {}})
    (tmp_path / "measurements.jsonl").write_text(json.dumps({"schema": SCHEMA_VERSION + 1}) + "\n")
    with pytest.raises(BadInput, match="newer mtbench"):
        Run.load(tmp_path)


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run"), pytest.raises(BadInput, match="is being written by another run"):
        RunFolder.create(tmp_path / "run")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="is a file"):
        RunFolder.create(tmp_path / "file")
    with pytest.raises(BadInput, match="cannot be written"):
        RunFolder.create(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "holds no run"),
        ("not json", "is not JSON"),
        ("[]", "no schema version"),
        (json.dumps({"schema": SCHEMA_VERSION + 1}), "needs a newer mtbench"),
    ],
)
def test_what_is_not_a_run_says_so(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(BadInput, match=says):
        Run.load(tmp_path)


def test_what_devices_sent_comes_back_and_older_rows_are_of_one_device() -> None:
    exchange = {"sent_bytes": 528384, "exposed_ms": 0.25, "peak_memory_bytes": [1024, 2048]}
    row = Measurement(
        case=Case(world_size=2), backend="torch-distributed", form="chunked", status="ok", exchange=exchange
    )
    found = Measurement.from_row(json.loads(json.dumps(row.to_row())))
    assert found == row
    assert found.id.endswith("-on2")
    older = Measurement(case=Case(), backend="jax", form="chunked", status="ok").to_row() | {"schema": 3}
    del older["world_size"], older["exchange"]
    found = Measurement.from_row(older)
    assert found.case.world_size == 1
    assert found.exchange == {}
    assert found.id == older["id"]
