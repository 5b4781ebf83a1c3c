"""The profiles in a run's folder, which its report leads to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mtbench.profile.names import PROFILES, profile_folder, profile_name
from mtbench.profile.record import FILE
from mtbench.results import Run

from .profile_page import PAGE

__all__ = ["NO_PROFILES", "Link", "profile_links"]


@dataclass(frozen=True, kw_only=True)
class Link:
    """To a profile's page."""

    href: str
    """From the report; letters, digits, hyphens, dots and slashes alone."""
    verdict: str
    """As the profile has it: text of the run, not yet fit to be shown."""


NO_PROFILES: Mapping[str, Link] = {}
"""Of a run without profiles."""


def profile_links(run: Run) -> Mapping[str, Link]:
    """By a row's id, for the rows that have one."""
    found = {}
    for row in run:
        folder = profile_folder(run.folder, row.id)
        if not (folder / PAGE).is_file():
            continue
        try:
            told = json.loads((folder / FILE).read_text(encoding="utf-8"))
            verdict = str(told["bound"]["verdict"])
        except (OSError, ValueError, KeyError, TypeError):
            verdict = "profile"  # the page is there, whatever has become of its data
        found[row.id] = Link(href=f"{PROFILES}/{profile_name(row.id)}/{PAGE}", verdict=verdict)
    return found
