"""Sessions. `nox -s bench` measures this machine; `nox -s tests` is what CI runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "typing", "docs", "tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True

OLDEST_TRITON = ("triton==3.5.0", "numpy==2.3.5")
"""Its interpreter breaks on NumPy 2.4, and warns of that before."""

AT_ONCE = ("--numprocesses=logical", "--maxprocesses=4")
"""Tests at once: one a core; more than four wait for each other's compilers."""

PYPROJECT = nox.project.load_toml("pyproject.toml")
RUNS = Path("runs")


def has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None and not subprocess.call(
        ["nvidia-smi", "-L"],  # noqa: S607
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def install(session: nox.Session, *groups: str, extras: str = "all") -> None:
    """The project, editable, with its extras and dependency groups, pinned by the constraints of this kind
    of machine: an unpinned torch would fetch gigabytes of CUDA for a machine that has no GPU."""
    constraints = "constraints-cuda.txt" if has_gpu() else "constraints.txt"
    wanted = nox.project.dependency_groups(PYPROJECT, *groups) if groups else ()
    target = f".[{extras}]" if extras else "."
    session.install("-c", constraints, "-e", target, *wanted)


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite, and the Triton kernels' sizes, gradients and segments once more in the oldest Triton
    that is supported. Positional arguments go to pytest, which is then all that is run.

    The tests share the cores, but for those that measure, which have the machine for themselves.
    """
    install(session, "test", "typing")
    if session.posargs:
        session.run("python", "-m", "pytest", *session.posargs)
        return
    session.run("python", "-m", "pytest", *AT_ONCE, "-m", "not alone")
    session.run("python", "-m", "pytest", "-m", "alone")
    if sys.platform == "linux":
        oldest = Path(session.create_tmp()) / "oldest"
        shutil.rmtree(oldest, ignore_errors=True)
        # Beside the environment: its torch wants the newest.
        session.install("--no-deps", "--target", str(oldest), *OLDEST_TRITON)
        session.run(
            *("python", "-m", "pytest", *AT_ONCE),
            *("-W", "ignore:Conversion of an array with ndim:DeprecationWarning"),
            *(f"tests/backends/test_triton{part}.py" for part in ("", "_parallel", "_decode")),
            *("-k", "any_size or gradients or after_a_prompt or segments"),
            env={"PYTHONPATH": str(oldest.resolve())},
        )


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure this machine and leave a report. Positional arguments go to `mtbench run`."""
    install(session)
    out = RUNS / f"bench-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    arguments = session.posargs or ["--preset", "default"]
    if "--out" not in arguments:
        arguments = [*arguments, "--out", str(out)]
    # 1 says that some row failed: the report is there and says which.
    session.run("mtbench", "run", *arguments, success_codes=[0, 1])


@nox.session(default=False)
def train(session: nox.Session) -> None:
    """Train every variant of the momentum transformer on a shortened copy task, and on digits of 8 x 8, three
    seeds each, draw digits from what was trained, and leave a page of each. Positional arguments go to
    `mtbench train`, which is then all that is run."""
    install(session, extras="torch,digits")
    now = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if session.posargs:
        arguments = [*session.posargs]
        if "--out" not in arguments and "--resume" not in arguments:
            arguments += ["--out", str(RUNS / f"train-{now}")]
        # 3 says that a time limit was reached: what there is can be gone on with.
        session.run("mtbench", "train", *arguments, success_codes=[0, 3])
        return
    short = ("--preset", "short", "--parallel", "2")
    session.run("mtbench", "train", *short, "--out", str(RUNS / f"train-copy-{now}"))
    digits = RUNS / f"train-digits-{now}"
    variants = ("softmax", "linear", "momentum", "momentum+momentum", "momentum+adaptive")
    session.run(
        *("mtbench", "train", "--task", "digits", *short, "--variant", ",".join(variants)),
        *("--out", str(digits)),
    )
    drawn = [str(digits / "checkpoints" / f"{variant}-seed0.pt") for variant in variants]
    session.run("mtbench", "generate", *drawn, "--batch", "64", "--out", str(RUNS / f"digits-{now}"))


@nox.session(default=False)
def compare(session: nox.Session) -> None:
    """Run the pytest-benchmark benchmarks, compare them with the last saved run, and save them.

    A process a backend: frameworks disturb each other in one. Positional arguments go to pytest.
    """
    install(session, "test")
    for backend in ("torch-eager", "torch-compile", "jax"):
        storage = Path(".benchmarks") / backend
        last = ["--benchmark-compare"] if any(storage.rglob("*.json")) else []
        session.run(
            *("python", "-m", "pytest", "tests/benchmarks", "--benchmark-only", "--backend", backend),
            *("--benchmark-autosave", f"--benchmark-storage=file://./{storage}", *last),
            *session.posargs,
        )


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: rules and format."""
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(venv_backend="none")
def typing(session: nox.Session) -> None:
    """mypy, strict, on the three packages, in the environment of `tests`: all frameworks once more, only to
    be read, would be three gigabytes."""
    environments = session.cache_dir.parent
    programs = environments / "tests" / ("Scripts" if sys.platform == "win32" else "bin")
    if not shutil.which("mypy", path=str(programs)):
        nox_again = (sys.executable, "-m", "nox", "--envdir", str(environments))
        session.run(*nox_again, "--session", "tests", "--install-only")
    session.run(str(programs / "mypy"))


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as a site, in `site/`: a warning, a broken link or anything fetched from another host
    is an error."""
    groups = nox.project.dependency_groups(PYPROJECT, "docs")
    session.install("-c", "constraints.txt", "-e", ".", *groups)
    shutil.rmtree("site", ignore_errors=True)
    session.run("sphinx-build", "--fail-on-warning", "--keep-going", "--fresh-env", "--quiet", "docs", "site")
    session.run("python", "scripts/check_site.py", "site")


@nox.session(default=False, venv_backend="none")
def gpu(session: nox.Session) -> None:
    """The tests that need a GPU, in whatever environment is active: an image with CUDA brings its own torch.

    Two processes: torch and JAX bring a cuDNN each, and only one can be loaded.
    """
    path = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    env = {
        "PYTHONPATH": path,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        # Choosing among XLA's kernels by timing them takes longer than the tests themselves.
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "--xla_gpu_autotune_level=0"),
    }
    for which in ("gpu and not jax", "gpu and jax"):
        session.run(sys.executable, "-m", "pytest", "-m", which, *session.posargs, env=env)
