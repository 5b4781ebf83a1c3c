"""The same of every executor, on a real cluster where it takes one; and what only several machines show."""

from __future__ import annotations

import http.server
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mtbench.errors import BadInput
from mtbench.measure.clocks import Sampling
from mtbench.results import Run
from mtbench.spec import AttentionSpec, Case, Device
from mtbench.sweep.cluster import slots_of
from mtbench.sweep.executor import Step, Told
from mtbench.sweep.executors import new_executor
from mtbench.sweep.plan import PlannedRow
from mtbench.sweep.queue import Queue
from mtbench.sweep.ray_cluster import Survey, connected
from mtbench.sweep.ray_stations import Member, Stations
from mtbench.sweep.settings import Settings
from scripts.kill_on_ray import KILLS, Sweep, lost
from tests.clusters import Cluster, cluster
from tests.conftest import ROOT, Mtbench, started_with
from tests.processes import in_a_fresh_process

SMALL = ("run", "--attention", "softmax", "--heads", "1", "--head-dim", "4", "--backend")
KINDS = {"alike": 2, "other": 1}

pytestmark = pytest.mark.alone
"""Several processes of tests would start a cluster each."""

Arguments = tuple[str, ...]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests' own backend in a folder that no node has, under a name that no other process has."""
    file = tmp_path_factory.mktemp("known") / f"known_{os.getpid()}.py"
    shutil.copy(ROOT / "tests" / "known" / "faulty.py", file)
    return file


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every build of a row on the cluster is a line of it."""
    file = tmp_path_factory.mktemp("built") / "log"
    file.touch()
    return file


@pytest.fixture(scope="module")
def nodes(built: Path) -> Iterator[Cluster]:
    """Two nodes of one kind and one of another, on this machine."""
    with cluster(KINDS, KNOWN_LOG=str(built)) as found:
        yield found


@pytest.fixture(params=["local", "ray"])
def executor(request: pytest.FixtureRequest) -> Arguments:
    if request.param == "local":
        return ("--executor", "local")
    found: Cluster = request.getfixturevalue("nodes")
    return ("--executor", "ray", "--address", found.address)


def parts(folder: Path, executor: Arguments) -> dict[str, Run]:
    """The run on each kind of machine."""
    found = Run.load(folder).parts()
    assert list(found) == ([""] if "local" in executor else list(KINDS))
    return found


FAULTS = {
    "right": ("ok", ""),
    "one_percent_off": ("wrong", "o beyond tolerance: relative error of o 0.01"),
    "raises": ("error", "RuntimeError: the kernel was not in the mood"),
    "segfault": ("crash", "killed by SIGSEGV), at: first call; Fatal Python error: Segmentation fault"),
    "hangs": ("timeout", "not done after 4 s, at: first call"),
    "allocates_without_end": ("oom", "resident memory passed the limit of 0.4 GiB, at: first call"),
    "forks_and_dies": ("crash", "killed by SIGKILL), at: first call"),
    "prints": ("ok", ""),
}


def test_every_fault_is_a_row_and_costs_no_other(
    executor: Arguments, mtbench: Mtbench, tmp_path: Path, known: Path
) -> None:
    limits = ("--timeout", "4", "--memory-limit", "0.4", "--out", "r")
    done = mtbench(*SMALL, known, "--form", ",".join(FAULTS), "--seq-len", "16", *executor, *limits)
    assert done.returncode == 1, done.stderr
    run = Run.load(tmp_path / "r")
    assert [row.id for row in run] == run.header["plan"]["rows"]
    assert not any(word in (tmp_path / "r" / "run.json").read_text() for word in executor[3:])  # no address
    for part in parts(tmp_path / "r", executor).values():
        rows = {row.form: row for row in part}
        assert list(rows) == list(FAULTS)
        for form, (status, reason) in FAULTS.items():
            assert (rows[form].status, reason in rows[form].reason) == (status, True), rows[form].reason
            assert rows[form].ranked == (status == "ok")
        assert rows["right"].peak_memory_bytes is not None
        assert rows["right"].agreement["o"].passes
        for key in ("cpu", "memory_bytes", "python", "packages", "threads"):
            assert part.header["environment"][key], key
        (worker,) = part.header["workers"].values()
        assert worker["copy_bytes_per_s"]
        assert part.ceilings[rows["right"].hardware]["cpu"].matmul("float32")
    logs = "".join(path.read_text() for path in (tmp_path / "r" / "logs").iterdir())
    assert "Segmentation fault" in logs
    assert '{"row": {}}' in logs


def test_a_launch_is_a_fresh_process_and_what_is_missing_is_gone_on_with(
    executor: Arguments, mtbench: Mtbench, tmp_path: Path, built: Path, known: Path
) -> None:
    built.write_text("")
    words = ("--form", "right", "--seq-len", "8,9", "--launches", "2", "--out", "r", *executor)
    done = mtbench(*SMALL, known, *words, KNOWN_LOG=str(built))
    assert done.returncode == 0, done.stderr
    assert all(row.launches == 2 for row in Run.load(tmp_path / "r"))
    processes: dict[str, list[str]] = {}
    for process, row in map(str.split, built.read_text().splitlines()):
        processes.setdefault(row, []).append(process)
    for found in processes.values():
        assert len(found) == len(set(found)) == 2 * len(parts(tmp_path / "r", executor))
    rows = tmp_path / "r" / "measurements.jsonl"
    *kept, cut = rows.read_bytes().splitlines(keepends=True)
    rows.write_bytes(b"".join(kept) + cut[:-100])
    built.write_text("")
    done = mtbench("run", "--resume", "r", *executor[2:], KNOWN_LOG=str(built))
    assert done.returncode == 0, done.stderr
    assert rows.read_bytes().splitlines(keepends=True)[:-1] == kept
    again = [line.split()[1] for line in built.read_text().splitlines()]
    assert [f"{row}@" for row in again] == [f"{json.loads(cut)['id'].partition('@')[0]}@"] * 2
    assert Run.load(tmp_path / "r").unreadable_lines == 0


def test_ctrl_c_keeps_what_was_measured_and_ends_every_worker(
    executor: Arguments, mtbench: Mtbench, tmp_path: Path, known: Path
) -> None:
    folder = tmp_path / "r"
    words = ("--form", "right,hangs", "--seq-len", "16,17,18", "--out", "r", *executor)
    heeding = started_with("signal.signal(signal.SIGINT, signal.default_int_handler)")
    process = subprocess.Popen(
        [*heeding, *map(str, (*SMALL, known, *words))],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    wait_until(lambda: bool(lines(folder)), process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "interrupted: " in output
    assert Run.load(folder).header["outcome"] == "interrupted"
    assert (folder / "report.html").exists()
    wait_until(lambda: not workers_of(known))


def test_a_killed_driver_is_gone_on_with(
    executor: Arguments, mtbench: Mtbench, tmp_path: Path, built: Path, known: Path
) -> None:
    built.write_text("")
    sizes = ",".join(str(16 + n) for n in range(5))
    words = ("--form", "right", "--seq-len", sizes, "--out", "r", *executor)
    process = subprocess.Popen(
        [sys.executable, "-m", "mtbench", *map(str, (*SMALL, known, *words))],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "KNOWN_LOG": str(built)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_until(lambda: len(lines(tmp_path / "r")) >= 2, process)
    process.kill()
    process.communicate()
    wait_until(lambda: not workers_of(known))  # nothing outlives it
    before = lines(tmp_path / "r")
    built.write_text("")
    done = mtbench("run", "--resume", "r", *executor[2:], KNOWN_LOG=str(built))
    assert done.returncode == 0, done.stderr
    run = Run.load(tmp_path / "r")
    assert [row.id for row in run] == run.header["plan"]["rows"]
    assert {row.status for row in run} == {"ok"}
    kept = set(before) & set(lines(tmp_path / "r"))
    assert len(kept) == len(before)
    again = Counter(line.split()[1] for line in built.read_text().splitlines())
    measured = Counter(json.loads(line)["id"].partition("@")[0] for line in before)
    assert again == Counter(row.unplaced_id for row in run) - measured


def lines(folder: Path) -> list[str]:
    rows = folder / "measurements.jsonl"
    text = rows.read_text() if rows.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def workers_of(backend: Path) -> list[psutil.Process]:
    """Of mtbench, on this machine, that measure this backend: a parcel keeps the file's name."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "mtbench.sweep.worker" in words and any(word.endswith(backend.name) for word in words):
            found.append(process)
    return found


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[str] | subprocess.Popen[bytes] | None = None
) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.02)


@pytest.mark.parametrize("kills", [("worker", "station"), ("node", "worker")], ids="-".join)
def test_what_is_lost_is_measured_again_elsewhere(
    nodes: Cluster, tmp_path: Path, built: Path, known: Path, kills: tuple[str, str]
) -> None:
    """One kill after another in one sweep. Two: chance may have them all strike one row, and one that is lost
    three times is told as a crash."""
    sweep = Sweep(nodes, tmp_path, built, rows=6, launches=1, backend=known)
    chance = random.Random(time.time_ns())
    for number, what in enumerate(kills):
        sweep.until(3 * number + 1)
        KILLS[what](sweep, chance)
    code, said = sweep.end()
    run = Run.load(sweep.out)
    assert not sweep.faults(code, said, lost(run)), run.header["notes"]
    assert 1 <= sum(lost(run).values()) <= 3, run.header["notes"]
    nodes.ready()
    counts = {kind: len(machine["nodes"]) for kind, machine in run.machines.items()}
    # The one that came in a killed one's place is a fourth, where it came in time.
    assert sum(counts.values()) in (3, 4)


def test_a_case_goes_where_it_can_run_and_the_run_says_where_it_could_not(
    nodes: Cluster, tmp_path: Path, mtbench: Mtbench, built: Path
) -> None:
    """One more node has what a backend needs, the driver and the two that are like it have not; and one has
    another code, and takes no part."""
    there = tmp_path / "there" / "only_there-1.0.dist-info"
    there.mkdir(parents=True)
    (there / "METADATA").write_text("Metadata-Version: 2.1\nName: only-there\nVersion: 1.0\n")
    shutil.copy(ROOT / "tests" / "known" / "faulty.py", tmp_path / "beside.py")
    (tmp_path / "mine.py").write_text(
        "from beside import Logged, right\n"
        "from mtbench.backend import Requirement\n"
        "BACKEND = Logged(name='mine', framework='numpy', functions={('softmax', 'right'): right},"
        " requires=(Requirement(distribution='only-there', minimum='1'),))\n"
    )
    nodes.add("alike", environment={"PYTHONPATH": f"{ROOT}{os.pathsep}{there.parent}"})
    stale = tmp_path / "stale"
    for part in ("mtbench", "backends", "reports"):
        shutil.copytree(ROOT / part, stale / part, ignore=shutil.ignore_patterns("__pycache__"))
    with (stale / "mtbench" / "inputs.py").open("a") as file:
        file.write("\n# changed\n")
    other = nodes.add("stale", environment={"PYTHONPATH": str(stale)})
    nodes.ready()
    words = ("--seq-len", "8,9,10,11", "--form", "right", "--out", "r", "--backend", "mine.py,beside.py")
    done = mtbench(*SMALL[:-1], *words, "--executor", "ray", "--address", nodes.address)
    assert done.returncode == 0, done.stderr
    run = Run.load(tmp_path / "r")
    found = Counter((row.backend, row.hardware, row.status) for row in run)
    assert found == {
        ("mine", "alike", "ok"): 4,
        ("faulty", "alike", "ok"): 4,
        ("mine", "other", "unavailable"): 4,
        ("faulty", "other", "ok"): 4,
    }
    assert {row.reason for row in run if row.status == "unavailable"} == {
        "only-there is not installed (needs >= 1)"
    }
    (node,) = {row.machine[0]["node"] for row in run if row.backend == "mine" and row.machine}
    lacking = [number for number, facts in enumerate(run.machines["alike"]["nodes"], 1) if facts.get("lacks")]
    assert len(lacking) == 2
    assert node not in lacking
    assert any("1 node: its code is another: mtbench/inputs.py" in note for note in run.header["notes"])
    nodes.kill_node(other)


def test_a_kind_that_is_gone_leaves_its_rows_to_a_later_resume(
    nodes: Cluster, tmp_path: Path, mtbench: Mtbench, built: Path, known: Path
) -> None:
    nodes.add("passing")
    nodes.ready()
    sweep = Sweep(nodes, tmp_path, built, rows=3, launches=1, backend=known, more="--wait 1")
    sweep.until(2)
    (passing,) = (node for node, kind in nodes.nodes.items() if kind == "passing")
    nodes.kill_node(passing)
    code, said = sweep.end()
    run = Run.load(sweep.out)
    assert code == 1, said
    assert run.header["outcome"] == "unfinished"
    left = 3 - sum(row.hardware == "passing" for row in run)
    assert Counter(row.hardware for row in run if row.hardware != "passing") == {"alike": 3, "other": 3}
    assert f"no node is left that can run {left} row{'' if left == 1 else 's'} on passing" in said
    nodes.add("passing")
    nodes.ready()
    sweep.start()
    code, said = sweep.end()
    assert not sweep.faults(code, said, lost(Run.load(sweep.out)))


BAD: dict[str, tuple[tuple[str, str | None, str | None, float | None], str]] = {
    "near": (("rya", None, None, None), "--executor rya: did you mean 'ray'?"),
    "for ray": (("local", "host:1", None, None), "--address host:1: that is for --executor ray"),
    "no address": (("ray", "nowhere", None, None), "--address nowhere: that is no address"),
    "client": (("ray", "ray://host:1", None, None), "Ray's client is not supported"),
    "nobody": (("ray", "127.0.0.1:1", None, None), "nothing answers there (Connection refused)"),
    "wait": (("ray", None, None, -1.0), "--wait -1.0: must be 0 or more"),
}


@pytest.mark.parametrize("words", BAD)
def test_what_cannot_be_is_told(words: str) -> None:
    given, said = BAD[words]
    with pytest.raises(BadInput) as told:
        new_executor(*given)
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_an_unknown_executor_is_one_line(mtbench: Mtbench, tmp_path: Path, known: Path) -> None:
    done = mtbench(*SMALL, known, "--out", "r", "--executor", "slurm")
    assert (done.returncode, done.stderr) == (2, "mtbench: --executor slurm: known: local, ray\n")
    assert not (tmp_path / "r").exists()


def test_what_answers_and_is_no_cluster_is_told_at_once(mtbench: Mtbench, known: Path) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request).start()
        done = mtbench(*SMALL, known, "--executor", "ray", "--address", f"127.0.0.1:{server.server_port}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "what answers there is no Ray cluster" in done.stderr


def test_without_ray_it_says_how_to_get_it(mtbench: Mtbench, tmp_path: Path, known: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError('no ray')")
    done = mtbench(*SMALL, known, "--executor", "ray", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "pip install 'mtbench[ray]'" in done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--threads", "64"), "no node of the Ray cluster can take part: "),
        (("--accelerator", "H100"), "it has no accelerator of the type H100"),
        (("--device", "cuda"), "device 'cuda' is not there: "),
    ],
)
def test_needs_that_no_node_meets_are_one_line(
    given: Arguments, said: str, nodes: Cluster, mtbench: Mtbench, tmp_path: Path, known: Path
) -> None:
    done = mtbench(*SMALL, known, "--executor", "ray", "--address", nodes.address, "--out", "r", *given)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr
    assert not (tmp_path / "r").exists()


def test_every_station_on_a_node_of_several_gpus_has_one_of_its_own(nodes: Cluster, tmp_path: Path) -> None:
    """Ray is told of two GPUs that are not there: what it gives a station reaches the worker."""
    log = tmp_path / "seen"
    (tmp_path / "seeing.py").write_text(
        "import os\n"
        "from mtbench import FunctionBackend\n"
        f"with open({str(log)!r}, 'a') as file:\n"
        "    print(os.getpid(), os.environ.get('CUDA_VISIBLE_DEVICES'), file=file)\n"
        "BACKEND = FunctionBackend(name='seeing', framework='numpy',"
        " functions={('softmax', 'none'): lambda q, k, v, case: q}, devices=('cpu', 'cuda'))\n"
    )
    node = nodes.add("cards", num_cpus=2, num_gpus=2)
    nodes.ready()
    in_a_fresh_process(_measure_on_gpus, nodes.address, str(tmp_path / "seeing.py"))
    nodes.kill_node(node)
    seen = {words[1] for line in log.read_text().splitlines() if len(words := line.split()) == 2}
    assert {"0", "1"} <= seen


def _measure_on_gpus(address: str, backend: str) -> None:
    ray, stations, queue, _ = _manned(address, backend, "cuda", "cards", "none")
    stations.hand_out(queue)
    assert not list(queue.waiting)  # each has one
    done = []
    while stations.at_work:
        done += stations.answers(queue)
    # NumPy has no GPU, and says so in each worker.
    assert {measurement.status for _, measurement in done} == {"unavailable"}
    stations.close(kill=False)
    ray.shutdown()


def test_a_station_that_stands_still_loses_its_row_to_another(nodes: Cluster, known: Path) -> None:
    nodes.ready()
    raylets = [node.raylet for node, kind in nodes.nodes.items() if kind == "alike"]
    in_a_fresh_process(_freeze_a_station, nodes.address, str(known), raylets)


def _freeze_a_station(address: str, backend: str, raylets: list[int]) -> None:
    from mtbench.sweep import ray_stations

    ray_stations.longest_s = lambda settings: 8.0  # of a quarter of an hour and more
    ray, stations, queue, notes = _manned(address, backend, "cpu", "alike", "raises")
    below = (process for raylet in raylets for process in psutil.Process(raylet).children(recursive=True))
    ours = [process for process in below if "NodeStation" in " ".join(process.cmdline())]
    assert len(ours) == len(list(queue.waiting)) > 1
    ours[0].suspend()
    stations.hand_out(queue)
    done = []
    deadline = time.monotonic() + 60
    while stations.at_work or list(queue.waiting):
        assert time.monotonic() < deadline
        stations.man()
        stations.hand_out(queue)
        done += stations.answers(queue)
    assert sorted(step.index for step, _ in done) == list(range(len(ours)))
    assert {measurement.status for _, measurement in done} == {"error"}
    assert any("its station has not answered for 8 s" in note for note in notes), notes
    stations.renew()
    stations.close(kill=False)
    ray.shutdown()


def _manned(
    address: str, backend: str, device: Device, kind: str, form: str
) -> tuple[Any, Stations, Queue, list[str]]:
    """Ray, its stations on the nodes of a kind, which are ready, a step for each, and what is told."""
    ray = connected(address)
    survey = Survey(ray, [backend], None, None, host=False)
    survey.begin()
    members = {
        node.id: Member(node=node, kind=kind, number=1)
        for node in survey.found(60)
        if node.machine.label == kind
    }
    settings = Settings(sampling=Sampling(), threads=None, timeout_s=60, memory_limit_bytes=None)
    notes: list[str] = []
    told = Told(
        stage=lambda step, stage: None,
        worker=lambda step, says: None,
        joined=lambda hardware, node: None,
        note=notes.append,
    )
    case = Case(spec=AttentionSpec(), device=device, seq_len=8)
    row = PlannedRow(case=case, asked=backend, backend="faulty", form=form, hardware=kind)
    places = sum(len(slots_of(member.node, device)) for member in members.values())
    steps = [Step(index=index, row=row, framework="numpy") for index in range(places)]
    queue = Queue(steps, lambda node, step: True, interleaved=False)
    stations = Stations(ray, device, members, settings, survey.parcel, Path(backend).parent, told)
    stations.man()
    while stations.coming:
        assert not list(stations.answers(queue))
    return ray, stations, queue, notes
