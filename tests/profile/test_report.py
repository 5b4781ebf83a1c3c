"""The page of a profile that is there already, by ``mtbench report``."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from mtbench.profile.record import FILE, read_profile
from reports.profile_page import profile_html
from tests.profile.conftest import ROOT, Refused, command
from tests.profile.synthetic import gpu_profile

RESULTS = ROOT / "docs" / "results"


def test_of_a_folder(tmp_path: Path) -> None:
    """Made again: a page of before is replaced."""
    folder = tmp_path / "made"
    folder.mkdir()
    profile = gpu_profile(folder)
    (folder / "profile.html").write_text("of an older mtbench")
    done = command(tmp_path, "report", "made")
    assert (done.returncode, done.stdout, done.stderr) == (0, "report: made/profile.html\n", "")
    assert (folder / "profile.html").read_text() == profile_html(profile)


def test_of_a_file(tmp_path: Path) -> None:
    """Whatever its name is; beside it, or where --out says."""
    profile = gpu_profile(tmp_path)
    (tmp_path / FILE).rename(tmp_path / "kept.json")
    done = command(tmp_path, "report", "kept.json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "report: kept.html\n", "")
    done = command(tmp_path, "report", "kept.json", "--out", "new/page.html")
    assert (done.returncode, done.stdout, done.stderr) == (0, "report: new/page.html\n", "")
    for page in ("kept.html", "new/page.html"):
        assert (tmp_path / page).read_text() == profile_html(profile)


def test_of_one_with_letters_that_no_file_has(tmp_path: Path) -> None:
    """The name of a file that is no UTF-8, among the words it was asked for with."""
    folder = tmp_path / "made"
    folder.mkdir()
    gpu_profile(folder, command=("mtbench", "profile", "--backend", "./\udcff.py"))
    for words in (("report", "made"), ("report", "made", "--out", "page.html")):
        done = command(tmp_path, *words)
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "page.html").read_bytes() == (folder / "profile.html").read_bytes()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("made --effect 3", "report made --effect: that is for two runs and more, and this is one"),
        ("made --out there", "--out there cannot be written: Is a directory"),
        ("bench.json", "bench.json is no profile: KeyError: 'schema'"),
        ("there", "there holds no run: it has no run.json"),
        ("swept --out page.html", "report swept --out: that is for two runs and more, or a profile"),
    ],
)
def test_what_is_refused(tmp_path: Path, refused: Refused, words: str, says: str) -> None:
    for name in ("made", "there", "swept"):
        (tmp_path / name).mkdir()
    gpu_profile(tmp_path / "made")
    (tmp_path / "bench.json").write_text('{"benchmarks": []}')
    (tmp_path / "swept" / "run.json").write_text('{"schema": 3}')
    assert says in refused("report", *words.split())


def test_the_file_of_a_profile_is_set_beside_another(tmp_path: Path) -> None:
    profile = gpu_profile(tmp_path)
    other = replace(profile, row=replace(profile.row, form="sdpa"))
    (tmp_path / "b.json").write_text(other.to_json())
    done = command(tmp_path, "profile", FILE, "--against", "b.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "form: chunked | sdpa" in done.stdout
    assert "b.json: " in done.stdout


@pytest.mark.parametrize("folder", ["h100-profiles", "h200-profiles"])
def test_the_pages_of_recorded_profiles_are_made_as_their_readme_says(tmp_path: Path, folder: str) -> None:
    """By its command, which names one of them; the others' pages can be made, too."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (told,) = re.findall(r"^mtbench report (.*)$", (RESULTS / folder / "README.md").read_text(), re.MULTILINE)
    done = command(tmp_path, "report", *shlex.split(told))
    page = tmp_path / done.stdout.removeprefix("report: ").strip()
    assert (done.returncode, done.stderr) == (0, "")
    assert page.parent == tmp_path
    recorded = sorted(path for path in (RESULTS / folder).glob("*.json") if path.name != "summary.json")
    assert page.read_text() in [profile_html(read_profile(path)) for path in recorded]
