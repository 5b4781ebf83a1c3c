"""Makes an installed package of the backends in `faulty`, found by its entry points."""

from __future__ import annotations

from pathlib import Path

BACKENDS = {
    "faulty": "BACKEND",
    "logged": "LOGGED",
    "holds-numpy": "HOLDS_NUMPY",
    "holds-torch": "HOLDS_TORCH",
    "holds-jax": "HOLDS_JAX",
    "wrong-dk": "WRONG_DK",
}


def install(folder: Path) -> Path:
    """What ``pip install --target folder`` would leave; the folder goes onto PYTHONPATH."""
    (folder / "known_answers.py").write_text((Path(__file__).parent / "faulty.py").read_text())
    info = folder / "known_answers-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: known-answers\nVersion: 1.0\n")
    points = [f"{name} = known_answers:{variable}" for name, variable in BACKENDS.items()]
    (info / "entry_points.txt").write_text("\n".join(["[mtbench.backends]", *points, ""]))
    return folder
