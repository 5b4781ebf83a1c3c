"""One sweep of several commits of this checkout, a run folder each, for `mtbench trend` and `mtbench report`.

`python scripts/run_commits.py --out runs/trend v1 v2 main -- --backend jax --seq-len 1024` checks each commit
out beside this tree, runs `mtbench run` there with what follows the `--`, and removes it again. The folders
are called after the commits. A commit whose folder is there is left out, so that a list can be gone on with.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT = (0, 1)
"""Exit codes with which a run has left its folder; 1 says that some row failed."""


def git(*arguments: str) -> str:
    """What git says of this checkout."""
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments],  # noqa: S607
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.strip()


def measure(commit: str, out: Path, options: list[str]) -> int:
    """Run the sweep of one commit. Returns the exit code of `mtbench run`."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        git("worktree", "add", "--detach", str(tree), commit)
        try:
            return subprocess.run(
                [sys.executable, "-m", "mtbench", "run", *options, "--out", str(out)],
                cwd=tree,
                env={**os.environ, "PYTHONPATH": str(tree)},
                check=False,
            ).returncode
        finally:
            git("worktree", "remove", "--force", str(tree))


def main() -> None:
    """See the module."""
    own, options = sys.argv[1:], []
    if "--" in own:
        own, options = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("commits", nargs="+", help="What git takes for a commit.")
    parser.add_argument("--out", type=Path, required=True, help="The folder of the run folders.")
    arguments = parser.parse_args(own)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.commits:
        commit = git("rev-parse", "--verify", f"{name}^{{commit}}")
        folder = arguments.out.resolve() / commit[:7]
        if folder.exists():
            print(f"{folder} is there")
            continue
        print(f"{commit[:7]}: {git('log', '-1', '--format=%s', commit)}", flush=True)
        if (code := measure(commit, folder, options)) not in LEFT:
            sys.exit(f"{name}: mtbench run ended with {code}")


if __name__ == "__main__":
    main()
