"""What a user installs: the wheel, beside a project that has folders of the same names."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    code = (
        "import os, sys; from hatchling.build import build_wheel;print(build_wheel(sys.argv[1], {}), end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return out / done.stdout.splitlines()[-1]


def test_it_has_one_top_level_package_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mtbench"}
    assert not any("test" in name.split("/") or "tests" in name.split("/") for name in names)
    for needed in (
        "mtbench/_parts/backends/torch_eager.py",
        "mtbench/_parts/backends/triton/__init__.py",
        "mtbench/_parts/backends/native/attention.cpp",
        "mtbench/_parts/reports/page.py",
    ):
        assert needed in names
    assert any(name.startswith("mtbench/_parts/reports/templates/") for name in names)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(site)
    return site


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody's project: its own packages `reports`, `backends` and `tests`, which must not be touched."""
    for name in ("reports", "backends", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not mtbench: somebody else')\n")
    (tmp_path / "mine.py").write_text(
        (ROOT / "tests" / "known" / "faulty.py").read_text().replace('"faulty"', '"mine"')
    )
    return tmp_path


def test_it_works_beside_a_project_with_such_folders(installed: Path, project: Path) -> None:
    def mtbench(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mtbench", *arguments],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            check=False,
        )

    listed = mtbench("list")
    assert listed.returncode == 0, listed.stderr
    done = mtbench(
        *"run --backend ./mine.py --attention softmax --form right --seq-len 16 --heads 1 --out r".split()
    )
    assert done.returncode == 0, done.stderr
    assert (project / "r" / "report.html").stat().st_size > 0


def test_it_leaves_a_namespace_package_of_that_name_alone(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "mine.py").write_text("x = 1\n")
    # The environment of the tests may have the checkout on its path; a user's has not.
    code = (
        f"import sys; sys.path = [p for p in sys.path if p != {str(ROOT)!r}];"
        "import mtbench, reports.mine; assert reports.mine.x == 1"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
