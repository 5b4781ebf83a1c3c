"""The arrows: who may import whom, and what loads no framework."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtbench.registry import BUILTIN_BACKENDS

ROOT = Path(__file__).parent.parent
FRAMEWORKS = {"torch", "triton", "jax", "jaxlib", "flax"}

ALLOWED = {
    # who: which of the house's modules it may import (prefixes)
    "backends": (
        "mtbench.backend",
        "mtbench.caches",
        "mtbench.errors",
        "mtbench.frameworks",
        "mtbench.inputs",
        "mtbench.ranks",
        "mtbench.spec",
    ),
    "mtbench/ranks": (
        "mtbench.frameworks",
        "mtbench.inputs",
        "mtbench.measure.environment",
        "mtbench.measure.memory",
        "mtbench.ranks",
        "mtbench.registry",
        "mtbench.spec",
        "mtbench.sweep.channel",
        "mtbench.sweep.child",
    ),
    "reports": (
        "mtbench.compare",
        "mtbench.errors",
        "mtbench.floor",
        "mtbench.generation.claims",
        "mtbench.generation.results",
        "mtbench.measure.statistics",
        "mtbench.profile.against",
        "mtbench.profile.names",
        "mtbench.profile.record",
        "mtbench.results",
        "mtbench.spec",
        "mtbench.training.claims",
        "mtbench.training.metric",
        "mtbench.training.published",
        "mtbench.training.results",
        "mtbench.training.settings",
        "mtbench.training.summary",
        "mtbench.training.tasks",
        "mtbench.training.variants",
        "mtbench.trend",
        "mtbench.work",
    ),
    "mtbench/profile": (
        "mtbench.backend",
        "mtbench.caches",
        "mtbench.errors",
        "mtbench.floor",
        "mtbench.frameworks",
        "mtbench.inputs",
        "mtbench.measure",
        "mtbench.options",
        "mtbench.outputs",
        "mtbench.profile",
        "mtbench.registry",
        "mtbench.results",
        "mtbench.spec",
        "mtbench.sweep.channel",
        "mtbench.sweep.child",
        "mtbench.sweep.command",
        "mtbench.sweep.executor",
        "mtbench.sweep.local",
        "mtbench.sweep.plan",
        "mtbench.sweep.settings",
        "mtbench.sweep.station",
        "mtbench.tables",
        "mtbench.words",
        "mtbench.work",
    ),
    "mtbench/profile/record.py": ("mtbench.errors", "mtbench.floor", "mtbench.results"),
    "mtbench/profile/names.py": (),
    "mtbench/profile/against.py": ("mtbench.profile.record",),
    "mtbench/profile/bounds.py": ("mtbench.floor", "mtbench.profile.record", "mtbench.spec"),
    "mtbench/work.py": ("mtbench.floor", "mtbench.spec"),
    "mtbench/trend": ("mtbench.compare", "mtbench.errors", "mtbench.trend"),
    "mtbench/compare": (
        "mtbench.compare",
        "mtbench.errors",
        "mtbench.measure.statistics",
        "mtbench.results",
    ),
    "mtbench/oracle": ("mtbench.inputs", "mtbench.oracle", "mtbench.spec"),
    "mtbench/frameworks": (
        "mtbench.backend",
        "mtbench.caches",
        "mtbench.errors",
        "mtbench.frameworks",
        "mtbench.inputs",
        "mtbench.measure.memory",
        "mtbench.spec",
    ),
    "mtbench/transformer": (
        "mtbench.backend",
        "mtbench.errors",
        "mtbench.inputs",
        "mtbench.registry",
        "mtbench.spec",
        "mtbench.transformer",
    ),
    "mtbench/transformer/config.py": ("mtbench.errors", "mtbench.spec"),
    "mtbench/training": (
        "mtbench.__version__",
        "mtbench.backend",
        "mtbench.caches",
        "mtbench.display",
        "mtbench.errors",
        "mtbench.frameworks",
        "mtbench.inputs",
        "mtbench.locked_folder",
        "mtbench.measure.environment",
        "mtbench.outputs",
        "mtbench.registry",
        "mtbench.report",
        "mtbench.results",
        "mtbench.spec",
        "mtbench.support",
        "mtbench.sweep.channel",
        "mtbench.sweep.child",
        "mtbench.sweep.code",
        "mtbench.sweep.command",
        "mtbench.sweep.header",
        "mtbench.training",
        "mtbench.transformer",
        "mtbench.words",
    ),
    "mtbench/generation": (
        "mtbench.__version__",
        "mtbench.backend",
        "mtbench.errors",
        "mtbench.floor",
        "mtbench.frameworks",
        "mtbench.generation",
        "mtbench.inputs",
        "mtbench.locked_folder",
        "mtbench.measure.environment",
        "mtbench.outputs",
        "mtbench.registry",
        "mtbench.report",
        "mtbench.results",
        "mtbench.spec",
        "mtbench.sweep.command",
        "mtbench.training",
        "mtbench.transformer",
        "mtbench.words",
    ),
    "mtbench/training/results.py": (
        "mtbench.errors",
        "mtbench.results",
        "mtbench.training.examined",
        "mtbench.training.published",
        "mtbench.training.settings",
    ),
    "mtbench/training/tasks": (
        "mtbench.caches",
        "mtbench.errors",
        "mtbench.inputs",
        "mtbench.locked_folder",
        "mtbench.spec",
        "mtbench.training",
        "mtbench.transformer",
    ),
    "mtbench/frame.py": ("mtbench.errors", "mtbench.registry", "mtbench.results"),
    "mtbench/floor.py": ("mtbench.spec",),
    "mtbench/spec.py": ("mtbench.errors",),
    "mtbench/inputs.py": ("mtbench.spec",),
    "mtbench/backend.py": ("mtbench.errors", "mtbench.inputs", "mtbench.spec"),
    "mtbench/function_backend.py": ("mtbench.backend", "mtbench.frameworks", "mtbench.spec"),
    "mtbench/results.py": (
        "mtbench.errors",
        "mtbench.floor",
        "mtbench.measure.statistics",
        "mtbench.spec",
    ),
    "mtbench/report.py": (
        "mtbench.errors",
        "mtbench.profile.record",
        "mtbench.registry",
        "mtbench.results",
    ),
    "mtbench/locked_folder.py": ("mtbench.errors",),
    "mtbench/run_folder.py": ("mtbench.locked_folder", "mtbench.results"),
    "mtbench/measure": (
        "mtbench.backend",
        "mtbench.errors",
        "mtbench.frameworks",
        "mtbench.inputs",
        "mtbench.measure",
        "mtbench.oracle",
        "mtbench.results",
        "mtbench.spec",
    ),
}


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether relative) of every import, wherever in the file it stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.module or "", True
            elif node.module == "mtbench":
                yield from ((f"mtbench.{alias.name}", False) for alias in node.names)
            else:
                yield node.module or "", False


def files(place: str) -> list[Path]:
    path = ROOT / place
    found = [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))
    assert found, place
    return found


@pytest.mark.parametrize("place", ALLOWED)
def test_arrows(place: str) -> None:
    for file in files(place):
        for module, relative in imports(file):
            house = module.split(".")[0] in ("mtbench", "backends", "reports", "tests")
            if relative or not house:
                continue
            allowed = any(module == a or module.startswith(a + ".") for a in ALLOWED[place])
            assert allowed, f"{file.relative_to(ROOT)} imports {module}"


def test_mtbench_finds_backends_and_reports_by_name_alone() -> None:
    for file in files("mtbench"):
        for module, _ in imports(file):
            assert module.split(".")[0] not in ("backends", "reports", "tests"), file


TORCH_ALONE = (
    "mtbench/transformer/*.py",
    *(f"mtbench/training/{name}.py" for name in ("checkpoint", "optimizer", "step", "trainer")),
    "mtbench/generation/measure.py",
)
"""Files beside mtbench/frameworks that may import torch, and no other framework."""
NO_TORCH = ("mtbench/transformer/backends.py", "mtbench/transformer/config.py")
"""Those among them that may not: what a model is can be said without it."""


def test_frameworks_are_imported_in_their_own_places_alone() -> None:
    torch_alone = {path for place in TORCH_ALONE for path in ROOT.glob(place)}
    torch_alone -= {ROOT / place for place in NO_TORCH}
    for file in [*files("mtbench"), *files("reports")]:
        own = file.parent == ROOT / "mtbench/frameworks"
        for module, relative in imports(file):
            if not relative and module.split(".")[0] in FRAMEWORKS:
                fits = own or (file in torch_alone and module.split(".")[0] == "torch")
                assert fits, f"{file.relative_to(ROOT)} imports {module}"


def test_ray_is_imported_by_its_own_files_alone() -> None:
    """A cluster is looked at and kinds of machine are told apart without it, and one file chooses it."""
    for file in [*files("mtbench"), *files("reports")]:
        name = file.relative_to(ROOT / "mtbench").as_posix() if file.is_relative_to(ROOT / "mtbench") else ""
        own = name.startswith("sweep/ray_")
        for module, relative in imports(file):
            if not relative and not own:
                assert module.split(".")[0] != "ray", f"{file.relative_to(ROOT)} imports {module}"
                chosen = name == "sweep/executors.py" and module == "mtbench.sweep.ray_executor"
                assert chosen or not module.startswith("mtbench.sweep.ray_"), f"{name} imports {module}"


def test_what_measures_knows_no_executor() -> None:
    """A worker process is the same wherever it runs."""
    reached, todo = set[str](), ["mtbench.sweep.worker"]
    while todo:
        module = todo.pop()
        if module in reached or not module.startswith("mtbench."):
            continue
        reached.add(module)
        path = ROOT / module.replace(".", "/")
        file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        if file.exists():
            todo += [found for found, relative in imports(file) if not relative]
    assert "mtbench.sweep.measure" in reached
    others = {
        "executor",
        "executors",
        "local",
        "station",
        "node",
        "ray_executor",
        "ray_cluster",
        "ray_stations",
        "cluster",
    }
    assert not reached & {f"mtbench.sweep.{name}" for name in others}
    assert not any(module.startswith("mtbench.profile") for module in reached)  # a profiler is nowhere near


def test_no_backend_imports_another() -> None:
    shared = {"torch_forms", "by_distance"}
    local = {"distributed": {"triton"}, "jax_distributed": {"jax"}}  # what a rank computes by itself
    for file in files("backends"):
        place = file.relative_to(ROOT / "backends").parts
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == len(place):
                target = (node.module or "").split(".")[0]
                own = place[0].removesuffix(".py")
                assert target in shared | local.get(own, set()) | {own, ""}, (
                    f"{file.relative_to(ROOT)} imports {target}"
                )


PROGRAMS = {
    "import mtbench": "import mtbench",
    "mtbench --help": "import sys; sys.argv = ['mtbench', '--help']; from mtbench.cli import main; main()",
    "mtbench list": "import sys; sys.argv = ['mtbench', 'list']; from mtbench.cli import main; main()",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_framework_is_loaded_by(program: str) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {FRAMEWORKS!r} and "backends" not in name:
            raise AssertionError("imports " + name)
sys.meta_path.insert(0, Block())
try:
    exec({PROGRAMS[program]!r})
except SystemExit as end:
    assert not end.code, end.code
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_matplotlib_scipy_and_ray_stay_out_of_the_way_to_help() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import mtbench.cli;"
        "heavy = {'matplotlib', 'pandas', 'scipy', 'plotly', 'ray'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", BUILTIN_BACKENDS)
def test_importing_a_backend_imports_no_framework(name: str) -> None:
    """It is listed, with its forms, where its framework is not installed."""
    program = (
        "import sys; from mtbench import load_backend; "
        f"backend = load_backend({name!r}); assert backend.forms('softmax') or backend.forms('linear'); "
        f"loaded = {FRAMEWORKS!r} & set(sys.modules); assert not loaded, loaded"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
