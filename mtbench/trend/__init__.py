"""Many runs over commits: each case's time from run to run, and where it changed.

`docs/comparing.md` says how the changes are found.
"""

from __future__ import annotations

from mtbench.trend.lines import Level, Line, Series, lines_of
from mtbench.trend.trends import Change, Trend, read_runs, trend_of

__all__ = ["Change", "Level", "Line", "Series", "Trend", "lines_of", "read_runs", "trend_of"]
