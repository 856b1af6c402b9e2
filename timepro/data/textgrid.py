"""Praat's TextGrids, by the package praatio: intervals of one tier never overlap, so events stand in a tier a label."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timepro.hints import install_extra

_NUMBERED = re.compile(r"(.+) \([0-9]+\)")


def read_textgrid(path: Path, tier: str = "") -> tuple[list[tuple[float, float, str]], float]:
    """The labelled intervals (onset, offset, label) of a TextGrid, and its length; all in seconds.

    Args:
        tier: the one that is read. "" for the only one, or for all where each holds the label that it is called by,
            as `textgrid_text` writes them.

    Raises:
        ValueError: not a TextGrid, a choice of tiers that is left to the user, or praatio is not installed.
    """
    textgrid = _praatio(f"{path}: TextGrids are read")
    from praatio.utilities.errors import PraatioException

    try:
        grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False, reportingMode="error")
    except (PraatioException, LookupError, ValueError) as problem:
        raise ValueError(
            f"{path}: this is not a TextGrid that can be read ({problem}); save it again as text"
        ) from None
    tiers = {t.name: t for t in grid.tiers if isinstance(t, textgrid.IntervalTier)}
    if not tier and len(tiers) > 1 and all(_one_label(name, t) for name, t in tiers.items()):
        chosen = list(tiers.values())
    elif tier in tiers or (not tier and len(tiers) == 1):
        chosen = [tiers[tier] if tier else next(iter(tiers.values()))]
    else:
        there = ", ".join(map(repr, tiers)) or "none"
        raise ValueError(f"{path}: {f'no tier {tier!r}' if tier else 'which tier?'} --tier NAME, of intervals: {there}")
    found = [(e.start, e.end, e.label) for t in chosen for e in t.entries if e.label.strip()]
    return (found if len(chosen) == 1 else sorted(found)), float(grid.maxTimestamp)


def _one_label(name: str, tier: Any) -> bool:
    numbered = _NUMBERED.fullmatch(name)
    labels = {entry.label.strip() for entry in tier.entries} - {""}
    return labels <= {name} or (numbered is not None and labels <= {numbered[1]})


def textgrid_text(events: Sequence[tuple[float, float, str]], duration: float) -> str:
    """A TextGrid with a tier for each label; a label whose events overlap has further tiers, "LABEL (2)" and so on.

    Args:
        events: (onset, offset, label), in seconds.
        duration: of the recording in seconds; at least the last offset.

    Raises:
        ValueError: praatio is not installed.
    """
    textgrid = _praatio("TextGrids are written")
    tiers: dict[str, list[tuple[float, float, str]]] = {}
    labels = {label for _, _, label in events}
    for onset, offset, label in sorted(events):
        number, name = 1, label
        while (number > 1 and name in labels) or (name in tiers and tiers[name][-1][1] > onset):
            number += 1
            name = f"{label} ({number})"
        tiers.setdefault(name, []).append((onset, offset, label))
    grid = textgrid.Textgrid(0, duration)
    for name, intervals in (tiers or {"events": []}).items():  # Praat opens no file without a tier
        grid.addTier(textgrid.IntervalTier(name, intervals, 0, duration))
    with tempfile.TemporaryDirectory() as folder:  # praatio writes to paths alone
        path = Path(folder) / "events.TextGrid"
        grid.save(str(path), format="long_textgrid", includeBlankSpaces=True, reportingMode="error")
        return path.read_text(encoding="utf-8")


def _praatio(what: str) -> Any:
    try:
        from praatio import textgrid
    except ImportError:
        raise ValueError(f"{what} by the package praatio; install it: {install_extra('labels')}") from None
    return textgrid
