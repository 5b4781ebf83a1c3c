from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from mtbench import BackendFailure, BadInput, load_backend, registry, support

ROOT = Path(__file__).parent.parent


def test_an_entry_point_is_a_backend_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "their_package.py").write_text((ROOT / "tests/known/faulty.py").read_text())
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("theirs", "their_package:BACKEND", registry.ENTRY_POINT_GROUP)
    broken = EntryPoint("broken", "no_such_package:BACKEND", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "_entry_points", lambda: {"theirs": point, "broken": broken})
    assert load_backend("theirs").name == "faulty"
    assert registry.backend_names()[-2:] == ["theirs", "broken"]
    with pytest.raises(BackendFailure, match=r"backend 'broken' .* cannot be loaded"):
        load_backend("broken")
    with pytest.raises(BadInput, match="did you mean 'theirs'"):
        load_backend("their")


def test_a_foreign_package_in_the_way_is_named() -> None:
    """In a checkout, a library user who has imported another `backends` is told, not given the wrong one."""
    code = (
        f"import sys, types; sys.path.insert(0, {str(ROOT)!r});"
        "sys.modules['backends'] = types.ModuleType('backends')\n"
        "import mtbench\n"
        "try: mtbench.load_backend('torch-eager')\n"
        "except mtbench.BackendFailure as e: assert 'is already imported' in str(e), e\n"
        "else: raise SystemExit('loaded the wrong one')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("listed", "why"), [([], "nvidia-smi lists no GPU"), ([{"name": "a card"}], None)])
def test_support_tells_whether_there_is_a_gpu(
    listed: list[Any], why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "gpus", lambda: listed)
    monkeypatch.setattr(support, "_not_here", support._not_here.__wrapped__)
    found = support.support_of(load_backend("torch-eager"))["unavailable"]
    assert found == {"cpu": None, "cuda": why}
