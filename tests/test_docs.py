"""What the documents show is true: examples run, commands and names exist."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import mtbench
from mtbench.registry import BUILTIN_BACKENDS
from mtbench.results import Run
from mtbench.workloads import PRESETS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOXFILE = (ROOT / "noxfile.py").read_text(encoding="utf-8")

MODULES = [
    module.name
    for module in pkgutil.walk_packages(mtbench.__path__, "mtbench.")
    if not module.name.startswith(("mtbench.frameworks.", "mtbench._parts")) and "__main__" not in module.name
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    result = doctest.testmod(
        importlib.import_module(name),
        optionflags=doctest.NORMALIZE_WHITESPACE,
        extraglobs={"np": importlib.import_module("numpy")},
    )
    assert result.failed == 0


def test_the_readmes_backend_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "mine.py").write_text(example)
    backend = mtbench.load_backend(str(tmp_path / "mine.py"))
    assert backend.forms("momentum") == ("fused",)
    assert backend.unsupported(mtbench.Case(), "fused") is None


def test_the_example_of_analysing_says_what_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "analysing.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    example = doctest.DocTestParser().get_doctest(code, {}, "analysing.md", "docs/analysing.md", 0)
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
    assert result.attempted > 10
    assert result.failed == 0


def test_sessions_and_presets_that_are_named_exist() -> None:
    for name in re.findall(r"nox -s ([a-z]+)", README):
        assert f"def {name}(" in NOXFILE, name
    for name in re.findall(r"--preset ([a-z]+)", README):
        assert name in PRESETS
    presets = README.split("Presets:")[1].split("Flags")[0]
    assert set(re.findall(r"`([a-z]+)`", presets)) == set(PRESETS)


def test_linked_files_exist_and_name_no_machine() -> None:
    links = re.findall(r"\]\(((?!https?:)[^)]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize(
    "folder", sorted(p.parent for p in ROOT.glob("docs/results/*/run.json")), ids=lambda path: path.name
)
def test_committed_runs_can_be_read(folder: Path) -> None:
    run = Run.load(folder)
    assert run.measurements
    assert run.unreadable_lines == 0
    failed = [row for row in run if row.status in ("wrong", "crash", "timeout", "error")]
    assert not [row.id for row in failed if not BUILTIN_BACKENDS[row.backend].startswith("backends.peers")]
    assert run.header["command"][0] == "mtbench"
    assert "host" not in run.environment
