"""What the documents show is true: examples run, commands and names exist."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import typer.main

import mtbench
from mtbench.cli import app
from mtbench.generation.results import GenerationRun
from mtbench.registry import BUILTIN_BACKENDS
from mtbench.results import Run, run_kind
from mtbench.training.results import TrainingRun
from mtbench.training.tasks import TASKS, load_task
from mtbench.workloads import PRESETS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOXFILE = (ROOT / "noxfile.py").read_text(encoding="utf-8")

MODULES = [
    module.name
    for module in pkgutil.walk_packages(mtbench.__path__, "mtbench.")
    if not module.name.startswith(("mtbench.frameworks.", "mtbench._parts")) and "__main__" not in module.name
]


DOCUMENTS = sorted(
    path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"))
    if "_" not in path.parent.name
)
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# ([\w.]+)\n")
DATA = {"text", "{toctree}", "{eval-rst}", "{recorded-reports}"}
EITHER = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def blocks(document: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(document.read_text(encoding="utf-8"))


def is_doctest(language: str, text: str) -> bool:
    return language == "python" and text.startswith(">>> ")


def those_with(*languages: str) -> list[Path]:
    return [path for path in DOCUMENTS if any(language in languages for language, _ in blocks(path))]


def name(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples(module: str) -> None:
    result = doctest.testmod(
        importlib.import_module(module),
        optionflags=doctest.NORMALIZE_WHITESPACE,
        extraglobs={"np": importlib.import_module("numpy")},
    )
    assert result.failed == 0


def test_the_readmes_backend_is_one(tmp_path: Path) -> None:
    ((_, example),) = [block for block in blocks(ROOT / "README.md") if block[0] == "python"]
    (tmp_path / "mine.py").write_text(example)
    backend = mtbench.load_backend(str(tmp_path / "mine.py"))
    assert backend.forms("momentum") == ("fused",)
    assert backend.unsupported(mtbench.Case(), "fused") is None


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_block_is_run_or_checked_or_data(document: Path) -> None:
    for language, text in blocks(document):
        if language in ("python", "toml"):
            assert is_doctest(language, text) or FILE.match(text), text
        elif language == "console":
            assert text.startswith("$ "), text
        else:
            assert language.split()[0] in {"sh", "{literalinclude}", *DATA}, (language, text)


@pytest.mark.parametrize(
    "document", [d for d in DOCUMENTS if any(is_doctest(*block) for block in blocks(d))], ids=name
)
def test_what_is_at_a_prompt_says_what_is_true(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "\n".join(text for language, text in blocks(document) if is_doctest(language, text))
    if "mtbench.load(" in code:
        pytest.importorskip("pandas")
    monkeypatch.chdir(ROOT)
    example = doctest.DocTestParser().get_doctest(code, {}, document.name, name(document), 0)
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
    assert result.attempted > 10
    assert result.failed == 0


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(path, marks=pytest.mark.torch if "import torch" in path.read_text("utf-8") else ())
        for path in those_with("console")
    ],
    ids=name,
)
def test_what_is_in_a_console_comes_out(document: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path / "installed")])}
    for language, text in blocks(document):
        if (file := FILE.match(text)) and language in ("python", "toml"):
            (tmp_path / file[1]).write_text(text, encoding="utf-8")
        elif language == "sh" and text == "pip install .\n":
            install(tmp_path)
        elif language == "console":
            for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, wanted = part.split("\n", 1)
                got = output(command, tmp_path, environment)
                assert doctest.OutputChecker().check_output(wanted, got, EITHER), f"{command}\n{got}"


def install(folder: Path) -> None:
    """What ``pip install .`` leaves of a project that hatchling builds."""
    code = "from hatchling.build import build_wheel; build_wheel('dist', {})"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "installed")


def output(command: str, folder: Path, environment: dict[str, str]) -> str:
    """What one sees of it, without empty lines, with an exit code that is not 0."""
    program, *arguments = shlex.split(command)
    starts = {"mtbench": [sys.executable, "-m", "mtbench"], "python": [sys.executable]}
    done = subprocess.run(
        [*starts[program], *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return "\n".join([*lines, *([f"[exit code {done.returncode}]"] if done.returncode else []), ""])


@pytest.mark.parametrize("document", those_with("sh"), ids=name)
def test_commands_in_documents_exist(document: Path) -> None:
    group = typer.main.get_command(app)
    for language, text in blocks(document):
        lines = text.replace("\\\n", " ").splitlines() if language == "sh" else ()
        for line in lines:
            words = shlex.split(line, comments=True)
            if "mtbench" in words[:1]:
                command = group.commands[words[1]]  # type: ignore[attr-defined]
                command.make_context(words[1], words[2:])
            for word in words:
                assert not word.startswith("scripts/") or (ROOT / word).exists(), word


def test_sessions_and_presets_that_are_named_exist() -> None:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for session in re.findall(r"nox -s ([a-z]+)", text):
            assert f"def {session}(" in NOXFILE, session
        for preset in re.findall(r"--preset ([a-z]+)", text):
            assert preset in PRESETS or any(preset in load_task(task).presets for task in TASKS), preset
    presets = README.split("Presets:")[1].split("Flags")[0]
    assert set(re.findall(r"`([a-z]+)`", presets)) == set(PRESETS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_linked_files_exist(document: Path) -> None:
    for link in re.findall(r"\]\(((?!https?:|#)[^)\s]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / link.partition("#")[0]).exists(), link


def test_every_picture_is_small_shown_and_taken_by_the_script() -> None:
    gallery = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    script = (ROOT / "scripts" / "screenshots.py").read_text(encoding="utf-8")
    pictures = set((ROOT / "docs" / "images").iterdir())
    assert {path.stem for path in pictures} == set(re.findall(r'Shot\(name="(\w+)"', script))
    for path in pictures:
        assert f"images/{path.name}" in gallery
        assert path.stat().st_size < 250_000


def test_every_recorded_run_has_its_page_and_its_line() -> None:
    index = (ROOT / "docs" / "results" / "index.md").read_text(encoding="utf-8")
    for folder in (path for path in (ROOT / "docs" / "results").iterdir() if path.is_dir()):
        assert (folder / "README.md").read_text(encoding="utf-8").startswith("# ")
        assert index.count(f"{folder.name}/README") == 2, folder.name


def test_every_equation_that_is_cited_is_in_the_mathematics() -> None:
    mathematics = (ROOT / "docs" / "mathematics.md").read_text(encoding="utf-8")
    there = set(re.findall(r"\\tag\{(\w+)\}", mathematics))
    for folder in ("mtbench", "backends"):
        for path in (ROOT / folder).rglob("*.py"):
            for cited in re.findall(r"\b[Ee]q (\d+)", path.read_text(encoding="utf-8")):
                assert cited in there, (path, cited)


SITE_PAGE = '<a href="b.html#there">b</a><img src="b.png"><script src="b.js"></script><p id="here">'


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, []),
        ({"#there": "#gone"}, ["a.html: b.html#gone leads to no anchor"]),
        ({"b.html": "c.html"}, ["a.html: c.html#there leads to nothing"]),
        ({"b.html#there": "#nowhere"}, ["a.html: #nowhere leads to no anchor"]),
        ({"b.html#there": "https://x.test/#y"}, []),
        ({"b.png": "https://x.test/b.png"}, ["a.html: fetches https://x.test/b.png"]),
        ({"b.js": "//x.test/b.js"}, ["a.html: fetches //x.test/b.js"]),
        ({"<p": "<style>@import 'https://x.test/f'</style><p"}, ["a.html: fetches https://x.test/f"]),
    ],
)
def test_the_check_of_the_site_finds(changed: dict[str, str], told: list[str], tmp_path: Path) -> None:
    text = SITE_PAGE
    for old, new in changed.items():
        text = text.replace(old, new)
    (tmp_path / "a.html").write_text(text)
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1>')
    for file in ("b.png", "b.js"):
        (tmp_path / file).touch()
    script = ROOT / "scripts" / "check_site.py"
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == bool(told)
    assert not told or done.stdout.splitlines() == told


@pytest.mark.parametrize(
    "folder", sorted(p.parent for p in ROOT.glob("docs/results/*/run.json")), ids=lambda path: path.name
)
def test_committed_runs_can_be_read(folder: Path) -> None:
    if run_kind(folder) == "training":
        trained = TrainingRun.load(folder)
        assert trained.unreadable_lines == 0
        told = {"cut off"} if "cut off" in (folder / "README.md").read_text(encoding="utf-8") else set()
        assert {one.status for one in trained} <= {"done", "diverged"} | told
        assert trained.header["command"][:2] == ["mtbench", "train"]
        assert "host" not in trained.header["environment"]
        return
    if run_kind(folder) == "generation":
        drawn = GenerationRun.load(folder)
        assert {row.status for row in drawn.rows} == {"ok"}
        assert drawn.header["command"][:2] == ["mtbench", "generate"]
        assert "host" not in drawn.header["environment"]
        return
    run = Run.load(folder)
    assert run.measurements
    assert run.unreadable_lines == 0
    failed = [row for row in run if row.status in ("wrong", "crash", "timeout", "error")]
    assert not [row.id for row in failed if not BUILTIN_BACKENDS[row.backend].startswith("backends.peers")]
    assert run.header["command"][0] == "mtbench"
    assert not any("host" in machine["environment"] for machine in run.machines.values())


CLUSTERS = ROOT / "docs" / "clusters"


def commands_of(text: str) -> list[list[str]]:
    """The words of each `mtbench run` in a script or a comment of one, up to where its own options end."""
    joined = re.sub(r"\\\n#?\s*", " ", text)
    return [shlex.split(found.replace("'", ""))[2:] for found in re.findall(r"mtbench run [^\n]*", joined)]


def test_the_cluster_of_ray_up_is_one_to_ray() -> None:
    import json

    import jsonschema
    import ray
    import yaml

    text = (CLUSTERS / "ray-up.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load(text)
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(found, json.loads(schema.read_text(encoding="utf-8")))
    kinds = found["available_node_types"]
    assert found["head_node_type"] in kinds
    workers = [kind for kind in kinds.values() if kind["resources"]["CPU"]]
    assert sum(kind["max_workers"] for kind in workers) == found["max_workers"]
    assert all(kind["min_workers"] == kind["max_workers"] for kind in workers)
    assert all("mtbench.machine" in kind["labels"] for kind in workers)
    assert len({kind["labels"]["mtbench.machine"] for kind in workers}) == len(workers)
    (words,) = commands_of(text)
    typer.main.get_command(app).commands["run"].make_context("run", words)  # type: ignore[attr-defined]


def test_the_batch_script_is_one() -> None:
    script = CLUSTERS / "mtbench.sbatch"
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    text = script.read_text(encoding="utf-8")
    (what,) = re.findall(r"what=\((--executor [^)]*)\)", text)
    words = [*shlex.split(what.replace("${PRESET:-default}", "default")), "--address", "host:1"]
    run = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    run.make_context("run", words)
    (resumed,) = re.findall(r"what=\((--resume [^)]*)\)", text)
    run.make_context("run", [*shlex.split(resumed), "--address", "host:1"])
