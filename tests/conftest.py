"""What all tests share."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from mtbench.measure.environment import device_problem

ROOT = Path(__file__).parent.parent

settings.register_profile(
    "mtbench", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("mtbench")


def pytest_configure(config: pytest.Config) -> None:
    """What the tests compile is kept beside their other files, and not in the user's cache; each of several
    processes has a cache of its own, as JAX may read what another is still writing."""
    folder = tempfile.TemporaryDirectory(prefix="mtbench-cache-")
    config.add_cleanup(folder.cleanup)
    config.add_cleanup(gc.unfreeze)  # else what ends with the process is told to have leaked
    os.environ["XDG_CACHE_HOME"] = folder.name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    problem = device_problem("cuda")
    if problem is not None:
        skip = pytest.mark.skip(reason=f"needs a GPU: {problem}")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


FROZEN = pytest.StashKey[int]()
"""How many modules there were at the last freeze."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """As in a worker, which freezes what its imports made: a collection, and each case makes one, would go
    through the frameworks' million objects each time."""
    stash = item.config.stash
    if len(sys.modules) > stash.get(FROZEN, 0):
        gc.collect()
        gc.freeze()
        stash[FROZEN] = len(sys.modules)


def started_with(statement: str) -> list[str]:
    """The command line in a process that first runs a statement on `signal` and `resource`. A preexec_fn
    would fork this one, which has torch's and JAX's threads by then."""
    code = f"import resource, signal; {statement}; from mtbench.cli import main; main()"
    return [sys.executable, "-c", code]


Mtbench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def mtbench(tmp_path: Path) -> Mtbench:
    """Run the command line in a folder of its own, as a user would."""

    def run(*arguments: str | Path, timeout: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mtbench", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
