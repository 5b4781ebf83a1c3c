"""A model of one sequence over 8 to 1,024 GPUs, from what was measured on one and on two.

``python scripts/scaling_model.py FOLDER`` reads the scaling.json of `scale_gpus.py`, fits the constants of
docs/scaling.md to it, holds the model's times for two GPUs against the measured ones, and prints the
predicted times and efficiencies; ``--json FILE`` and ``--figure FILE.svg`` keep them. What joins nodes was
not measured and is given, ``--between-gb-per-s`` and ``--between-us``, and so is a hop inside one, which
two devices do not tell from the start of an exchange: ``--inside-us``.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

KINDS = ("softmax", "linear", "momentum")
MODES = ("forward", "forward_backward")
DEVICES = (1, 2, 8, 16, 32, 64, 128, 256, 512, 1024)
LENGTHS = (1 << 20, 1 << 24, 1 << 27, 1_000_000_000)
NODE = 8
"""GPUs that share a measured link."""
STATE_PART = {"forward": 1 / 3, "forward_backward": 2 / 5}
"""Of a device's work, what goes before the exchange, by the traffic of the kernels: forward the states read k
and v, and the output q, k, v and o; the backward adds 6 tensors of dq, 2 of the sums over the queries, and 6
of dk and dv."""


@dataclass(frozen=True)
class Link:
    """What joins two devices."""

    seconds: float
    """Of a hop without a length."""
    bytes_per_s: float

    def send(self, size: float) -> float:
        """Seconds."""
        return self.seconds + size / self.bytes_per_s


@dataclass(frozen=True)
class Model:
    """Constants of one run."""

    inside: Link
    between: Link
    start: float = 0.0
    """Seconds of an exchange before its first hop."""
    work: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    """Of a kind and mode: seconds of one device, however long the sequence is, and those a position (linear
    and momentum) or a pair of positions (softmax)."""
    state_bytes: dict[tuple[str, str], float] = field(default_factory=dict)
    """Of a kind and mode: what a device sends each other one."""
    key_bytes: dict[str, float] = field(default_factory=dict)
    """Of a mode: what a device of softmax sends for each of its positions, and each other device."""
    longest: dict[str, int] = field(default_factory=dict)
    """Of a mode: positions that fit on one device."""

    def alone(self, kind: str, mode: str, n: float) -> float:
        """Seconds of one device."""
        fixed, each = self.work[kind, mode]
        return fixed + each * (n * n if kind == "softmax" else n)

    def link(self, devices: int) -> Link:
        """The slowest of a ring's."""
        return self.inside if devices <= NODE else self.between

    def gather(self, devices: int, size: float) -> float:
        """Seconds of an all-gather around a ring: each state passes every other device."""
        return self.start + (devices - 1) * self.link(devices).send(size)

    def doubling(self, devices: int, size: float) -> float:
        """Seconds of a scan in log2 steps, which is not written: a state a step."""
        steps = int(np.ceil(np.log2(devices)))
        inside = min(steps, int(np.log2(NODE)))
        hops = inside * self.inside.send(size) + (steps - inside) * self.between.send(size)
        return steps * self.start + hops

    def together(self, kind: str, mode: str, n: float, devices: int, *, doubling: bool = False) -> float:
        """Seconds of several devices."""
        if devices == 1:
            return self.alone(kind, mode, n)
        fixed, each = self.work[kind, mode]
        if kind == "softmax":
            # Balanced, a step of W sees n^2 / W^2 of the causal pairs, and the next keys come meanwhile.
            step = each * (n / devices) ** 2
            passed = self.start + self.link(devices).send(self.key_bytes[mode] * n / devices)
            return fixed + step + (devices - 1) * max(step, passed)
        work = fixed + each * n / devices
        size = self.state_bytes[kind, mode]
        passes = 1 if mode == "forward" else 2
        exchange = self.doubling if doubling else self.gather
        # Two groups: one's states are under way while the other's are summed, the other's under the first's
        # output. What is longer than that is waited for.
        half = exchange(devices, size / passes / 2)
        part = STATE_PART[mode]
        waited = max(0.0, half - work * part / passes / 2) + max(0.0, half - work * (1 - part) / passes / 2)
        return work + passes * waited

    def efficiency(self, kind: str, mode: str, n: float, devices: int, *, doubling: bool = False) -> float:
        """One device's time over that of all devices together, added up."""
        return self.alone(kind, mode, n) / devices / self.together(kind, mode, n, devices, doubling=doubling)


def fitted(found: dict[str, Any], between: Link, hop: float) -> Model:
    """The model of a run. `hop` is seconds inside a node.

    Raises:
        SystemExit: it lacks what the model is fitted to.
    """
    rows = found["rows"]
    gathers = [(row["bytes"], row["median_ms"] / 1e3) for row in rows if row["what"] == "gather"]
    passes = [(row["bytes"], row["median_ms"] / 1e3) for row in rows if row["what"] == "pass"]
    if not gathers or not passes:
        raise SystemExit("the run has no `gather` or no `pass`: it ended before the link was measured")
    inside = Link(hop, max(size / seconds for size, seconds in passes))
    start = max(0.0, min(seconds for _, seconds in gathers) - hop)
    times = [row for row in rows if row["what"] == "time"]
    work: dict[tuple[str, str], tuple[float, float]] = {}
    for kind in KINDS:
        alone = [r for r in times if r["kind"] == kind and r["ranks"] == 1]
        for mode in MODES:
            points = [(r["seq_len"], r["median_ms"] / 1e3) for r in alone if r["mode"] == mode]
            if points:
                work[kind, mode] = _line(kind, points)
    state_bytes, key_bytes = {}, {}
    for row in times:
        others = row["ranks"] - 1
        if others and row["kind"] != "softmax":
            state_bytes[row["kind"], row["mode"]] = row["sent_bytes"] / others
        elif others:
            key_bytes[row["mode"]] = row["sent_bytes"] / others / (row["seq_len"] / row["ranks"])
    longest = {r["mode"]: r["seq_len"] for r in rows if r["what"] == "longest" and r["ranks"] == 1}
    return Model(inside, between, start, work, state_bytes, key_bytes, longest)


def _line(kind: str, points: list[tuple[int, float]]) -> tuple[float, float]:
    """A constant and a slope that are not negative, each point off by as small a part of itself as can be."""
    from scipy.optimize import nnls

    n = np.array([length for length, _ in points], float)
    seconds = np.array([time for _, time in points])
    if len(points) == 1:
        return 0.0, float(seconds[0] / (n[0] ** 2 if kind == "softmax" else n[0]))
    grown = n**2 if kind == "softmax" else n
    scale = grown.max()
    columns = np.stack([np.ones_like(n), grown / scale], 1) / seconds[:, None]
    fixed, each = nnls(columns, np.ones_like(n))[0]
    return float(fixed), float(each / scale)


def held(model: Model, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The model's times for several devices beside the measured ones."""
    rows = []
    for row in found["rows"]:
        if row["what"] == "time" and row["ranks"] > 1 and not row["groups"]:
            kind, mode, n = row["kind"], row["mode"], row["seq_len"]
            if (kind, mode) in model.work:
                predicted = model.together(kind, mode, n, row["ranks"]) * 1e3
                measured = row["median_ms"]
                rows.append(
                    {"kind": kind, "mode": mode, "seq_len": n, "devices": row["ranks"]}
                    | {"predicted_ms": predicted, "measured_ms": measured, "ratio": predicted / measured}
                )
    return rows


def predictions(model: Model) -> list[dict[str, Any]]:
    """Times and efficiencies for every kind, mode, length and number of devices."""
    rows = []
    for kind, mode in model.work:
        if (kind == "softmax" and mode not in model.key_bytes) or (
            kind != "softmax" and (kind, mode) not in model.state_bytes
        ):
            continue
        for n in LENGTHS:
            for devices in DEVICES:
                row = {"kind": kind, "mode": mode, "seq_len": n, "devices": devices}
                row["ms"] = model.together(kind, mode, n, devices) * 1e3
                row["efficiency"] = model.efficiency(kind, mode, n, devices)
                if kind != "softmax":
                    row["ms_doubling"] = model.together(kind, mode, n, devices, doubling=True) * 1e3
                    row["efficiency_doubling"] = model.efficiency(kind, mode, n, devices, doubling=True)
                most = model.longest.get(mode)
                row["fits"] = None if most is None else n / devices <= most
                rows.append(row)
    return rows


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Time above efficiency against devices, a column a length, forward."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "mtbench"
    from matplotlib import pyplot as plt

    from reports.style import variant_looks

    looks = variant_looks(KINDS)
    canvas, panels = plt.subplots(2, len(LENGTHS), figsize=(11.5, 5.6), sharex=True, sharey="row")
    for (upper, lower), n in zip(panels.T, LENGTHS, strict=True):
        for kind, suffix in [*((kind, "") for kind in KINDS), ("momentum", "_doubling")]:
            own = [r for r in rows if (r["kind"], r["mode"], r["seq_len"]) == (kind, "forward", n)]
            devices = [row["devices"] for row in own]
            look = looks[kind]
            style = {"color": look.color, "marker": look.marker, "markersize": 4}
            style |= {"linestyle": "--" if suffix else "-", "markerfacecolor": "none" if suffix else None}
            if kind == "linear":  # momentum's line lies on it
                style |= {"linewidth": 4, "markersize": 8, "alpha": 0.45}
            label = f"{kind}, states in log2 steps" if suffix else kind
            upper.plot(devices, [row[f"ms{suffix}"] for row in own], label=label, **style)
            lower.plot(devices, [row[f"efficiency{suffix}"] for row in own], **style)
        upper.set_title(f"{n:,} positions", fontsize=10)
        upper.set_yscale("log")
        lower.set_xscale("log", base=2)
        lower.set_xticks([1, 8, 64, 1024], ["1", "8", "64", "1024"])
        lower.set_ylim(0, 1.05)
        lower.set_xlabel("GPUs")
        for panel in (upper, lower):
            panel.grid(color="#d8dee4", linewidth=0.7)
            panel.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_ylabel("predicted time (ms)")
    panels[1, 0].set_ylabel("predicted efficiency")
    canvas.tight_layout(rect=(0, 0.06, 1, 1))
    canvas.legend(*panels[0, 0].get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False)
    canvas.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def main() -> None:
    """Fit, hold against two, and predict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="Of scale_gpus.py.")
    parser.add_argument("--between-gb-per-s", type=float, default=50.0, help="A GPU's, from node to node.")
    parser.add_argument("--between-us", type=float, default=10.0, help="Of a message from node to node.")
    parser.add_argument("--inside-us", type=float, default=5.0, help="Of a hop inside a node.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    file = options.folder / "scaling.json"
    if not file.is_file():
        raise SystemExit(f"{file} is not there: scripts/scale_gpus.py writes it")
    found = json.loads(file.read_text())
    between = Link(options.between_us / 1e6, options.between_gb_per_s * 1e9)
    model = fitted(found, between, options.inside_us / 1e6)
    inside = model.inside
    print(f"an exchange starts in {model.start * 1e6:.1f} us (measured, less a hop)")
    rate = inside.bytes_per_s / 1e9
    print(f"inside a node: {options.inside_us:g} us a hop (given), {rate:.1f} GB/s (measured)")
    print(f"between nodes: {options.between_us:g} us, {options.between_gb_per_s:g} GB/s (given)")
    checks, rows = held(model, found), predictions(model)
    print("predicted and measured, ms:")
    for row in checks:
        print(
            f"  {row['kind']:9}{row['mode']:17}{row['seq_len']:>10} on {row['devices']}: "
            f"{row['predicted_ms']:.3f} {row['measured_ms']:.3f} ({row['ratio']:.2f})"
        )
    print("predicted:")
    for row in rows:
        doubling = row.get("efficiency_doubling")
        print(
            f"  {row['kind']:9}{row['mode']:17}{row['seq_len']:>11} on {row['devices']:>4}: "
            f"{row['ms']:>12.3f} ms, efficiency {row['efficiency']:.0%}"
            + (f" ({doubling:.0%} in log2 steps)" if doubling is not None else "")
            + ("" if row["fits"] in (True, None) else ", does not fit")
        )
    if options.json:
        links = {"start_s": model.start, "inside": asdict(inside), "between": asdict(model.between)}
        told = links | {"held": checks, "predicted": rows}
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    if options.figure:
        draw(rows, options.figure)


if __name__ == "__main__":
    main()
