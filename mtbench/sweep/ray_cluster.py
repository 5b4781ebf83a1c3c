"""A Ray cluster: reached by its address, and looked at node by node."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtbench import __version__
from mtbench.errors import BadInput
from mtbench.spec import DEVICES
from mtbench.sweep.cluster import Node
from mtbench.sweep.code import fingerprints
from mtbench.sweep.machine import Machine
from mtbench.sweep.node import Parcel, look

__all__ = ["LABEL", "Survey", "connected", "last_line", "on_node"]

LABEL = "mtbench.machine"
"""The node label by which a user names a kind of machine."""
ANSWER_S = 5.0
"""For a connection to the cluster's port: one that does not answer by then is not there."""
HTTP2_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
"""A frame of settings without any (RFC 9113, section 6.5); its fourth byte is the type."""
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HTTP2_SETTINGS
"""What a client begins with (section 3.4)."""
ADDRESS = "give HOST:PORT as `ray start` printed it (port 6379 unless it was told another), or auto"


def connected(address: str | None) -> Any:
    """The module ray, connected.

    Raises:
        BadInput: Ray is not installed, the address is none, or no cluster answers there.
    """
    try:
        import ray
    except ImportError as error:
        raise BadInput(
            "--executor ray needs Ray, which is not installed: pip install 'mtbench[ray]'"
        ) from error
    asked = "" if address is None else f"--address {address}: "
    if address is not None and address != "auto":
        _answers(address)
    try:
        ray.init(address=address or "auto", log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        why = " ".join(str(error).split())[:300].rstrip(". ")
        raise BadInput(
            f"{asked}no Ray cluster can be joined from here ({why}); start one by `ray start --head`, and "
            "run mtbench on one of its machines"
        ) from error
    return ray


def _answers(address: str) -> None:
    """Ray itself would try for a minute."""
    if "://" in address:
        raise BadInput(
            f"--address {address}: Ray's client is not supported, as rows would pass through a proxy: "
            f"run mtbench on a machine of the cluster, and {ADDRESS}"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise BadInput(f"--address {address}: that is no address: {ADDRESS}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S) as connection:
            connection.sendall(HTTP2_PREFACE)
            # Ray's server speaks HTTP/2, which begins with the server's settings.
            answer = connection.recv(len(HTTP2_SETTINGS) + 1)
    except OSError as error:
        raise BadInput(
            f"--address {address}: nothing answers there ({error.strerror or error}): {ADDRESS}"
        ) from error
    if answer[3:4] != HTTP2_SETTINGS[3:4]:
        raise BadInput(f"--address {address}: what answers there is no Ray cluster: {ADDRESS}")


def on_node(node: str) -> dict[str, Any]:
    """The option that puts a task or an actor on that node and on no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


class Survey:
    """Looks at nodes, each once.

    Args:
        ray: connected.
        backends: as they were asked for.
        threads: of a worker; None: all CPUs of a node.
        accelerator: the type of GPU that a node must have, as Ray names it.
        host: whether nodes' names are told.
    """

    def __init__(
        self,
        ray: Any,
        backends: Sequence[str],
        threads: int | None,
        accelerator: str | None,
        *,
        host: bool,
    ) -> None:
        self._ray, self._backends, self._threads, self._host = ray, list(backends), threads, host
        self._accelerator = accelerator
        self.parcel = Parcel.of(backends)
        self._code = fingerprints(backends)
        self._seen: set[str] = set()
        self._asked: dict[Any, Mapping[str, Any]] = {}
        self.left_out: dict[str, str] = {}
        """Why a node takes no part, by Ray's name for it."""

    def alive(self) -> set[str]:
        """The nodes that the cluster holds for alive."""
        return {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}

    def begin(self) -> None:
        """Look at those nodes that have come since the last time; `found` gives them as they answer."""
        for raw in self._ray.nodes():
            if not raw["Alive"] or raw["NodeID"] in self._seen or not int(raw["Resources"].get("CPU", 0)):
                continue  # a node that gives away no CPU, as many a head, is there for something else
            self._seen.add(raw["NodeID"])
            if why := self._unfit(raw["Resources"]):
                self._leave_out(raw, why)
                continue
            task = self._ray.remote(look).options(num_cpus=0, max_retries=0, **on_node(raw["NodeID"]))
            most = int(raw["Resources"]["CPU"])
            asked = task.remote(self._backends, self.parcel, self._threads, most, host=self._host)
            self._asked[asked] = raw

    def _unfit(self, resources: Mapping[str, float]) -> str | None:
        cpus = int(resources["CPU"])
        if self._threads is not None and self._threads > cpus:
            return f"it has {cpus} of the {self._threads} CPUs that --threads asks for"
        if self._accelerator and f"accelerator_type:{self._accelerator}" not in resources:
            return f"it has no accelerator of the type {self._accelerator}"
        return None

    def found(self, timeout_s: float) -> Iterator[Node]:
        """Nodes that answer within so many seconds and may take part."""
        if not self._asked:
            return
        ready, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=timeout_s)
        for asked in ready:
            raw = self._asked.pop(asked)
            try:
                answer: Mapping[str, Any] = self._ray.get(asked)
            except self._ray.exceptions.RayError as error:
                why = f"mtbench {__version__} does not run there: {last_line(error)}"
            else:
                why = self._differs(answer)
                if not why:
                    yield _node(raw, answer)
                    continue
            self._leave_out(raw, why)

    def _leave_out(self, raw: Mapping[str, Any], why: str) -> None:
        self.left_out[raw["NodeID"]] = f"{raw['NodeManagerAddress']}: {why}" if self._host else why

    def give_up(self) -> None:
        """Those that have not answered take no part."""
        for asked, raw in self._asked.items():
            self._leave_out(raw, "it did not answer")
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.cancel(asked, force=True)
        self._asked.clear()

    def _differs(self, answer: Mapping[str, Any]) -> str:
        if answer["version"] != __version__:
            return f"it has mtbench {answer['version']}, and this is {__version__}"
        other = sorted(name for name, digest in answer["code"].items() if self._code.get(name) != digest)
        return f"its code is another: {', '.join(other[:3])}" if other else ""


def _node(raw: Mapping[str, Any], answer: Mapping[str, Any]) -> Node:
    resources = raw["Resources"]
    cpus, gpus = int(resources["CPU"]), int(resources.get("GPU", 0))
    label = str(raw.get("Labels", {}).get(LABEL, ""))
    machine = replace(Machine.from_dict(answer["machine"]), label=label)
    return Node(
        id=raw["NodeID"],
        machine=machine,
        cpus=cpus,
        gpus=gpus,
        facts={"cpus": cpus, "gpus": gpus, **answer["facts"], **_lacks(machine)},
    )


def _lacks(machine: Machine) -> dict[str, Any]:
    """The backends that none of its devices can run, and why."""
    found = {}
    for asked, problems in machine.unavailable.items():
        here = [problems[device] for device in DEVICES if machine.devices[device] is None]
        if None not in here:
            found[Path(asked).name] = "; ".join(dict.fromkeys(filter(None, here)))
    return {"lacks": found} if found else {}


def last_line(error: BaseException) -> str:
    """The sentence that an error of Ray's says last, which is what happened, without its ids."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = re.sub(r"\b[0-9a-f]{16,}\b ?", "", lines[-1]) if lines else type(error).__name__
    return told.split(". ")[0][:200]
