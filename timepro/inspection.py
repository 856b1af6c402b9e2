"""What a training step did, from a run's `rollouts/` folder, as tables in the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from timepro.answers import parse_answer
from timepro.events import Event
from timepro.names import near
from timepro.tables import plain_table, print_lines, print_table

_FILE = re.compile(r"step-(\d+)\.rank(\d+)\.jsonl")
_KEYS = {"id", "question", "duration", "reference", "answers"}
SORTS = ("batch", "spread", "best", "worst")


@dataclass(frozen=True)
class RecordedGroup:
    """One group as it was recorded: the sample, and its answers with rewards, parts and advantages."""

    line: dict[str, Any]

    @property
    def rewards(self) -> np.ndarray:
        """(G,), NaN where an answer was not scored."""
        return np.array([np.nan if a["reward"] is None else a["reward"] for a in self.line["answers"]])

    @property
    def is_flat(self) -> bool:
        """Whether all scored answers earned the same."""
        return self.spread < 1e-6

    @property
    def spread(self) -> float:
        """Standard deviation of the rewards."""
        scored = self.rewards[~np.isnan(self.rewards)]
        return float(scored.std()) if len(scored) else 0.0

    @property
    def mean(self) -> float:
        """Mean reward; below everything where no answer was scored."""
        scored = self.rewards[~np.isnan(self.rewards)]
        return float(scored.mean()) if len(scored) else -np.inf


def steps_of(run: Path) -> list[int]:
    """The steps that a run has recorded.

    Raises:
        ValueError: none at all.
    """
    return sorted(_files_of(run))


def _files_of(run: Path) -> dict[int, list[Path]]:
    files: dict[int, list[Path]] = {}
    for path in sorted((run / "rollouts").glob("step-*.jsonl")):
        if found := _FILE.fullmatch(path.name):
            files.setdefault(int(found[1]), []).append(path)
    if not files:
        raise ValueError(f"{run} holds no rollouts; give the folder of a GRPO run, runs/NAME")
    return files


def read_step(run: Path, step: int | None) -> tuple[int, list[RecordedGroup]]:
    """A step's groups of all ranks.

    Args:
        step: None for the last one.

    Raises:
        ValueError: no such run or step, or a damaged file.
    """
    files = _files_of(run)
    step = max(files) if step is None else step
    if step not in files:
        raise ValueError(f"{run} has no step {step}; it has {min(files)} to {max(files)}")
    groups = []
    for path in sorted(files[step], key=lambda p: int(_FILE.fullmatch(p.name)[2])):  # type: ignore[index]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                group = RecordedGroup(json.loads(line))
            except ValueError as error:
                raise ValueError(f"{path}:{number}: not a group ({error})") from None
            if missing := sorted(_KEYS - group.line.keys()):
                raise ValueError(f"{path}:{number}: no {', '.join(missing)}; the run is of an older version")
            groups.append(group)
    return step, groups


def choose(groups: Sequence[RecordedGroup], sort: str, limit: int, sample_id: str | None) -> list[RecordedGroup]:
    """The groups to show.

    Raises:
        ValueError: no group of the wanted sample, an unknown order, or a negative limit.
    """
    if sort not in SORTS or limit < 0:
        raise ValueError(f"sort is {sort!r} and limit {limit}; sort by {', '.join(SORTS)}, limit at least 0")
    if sample_id is not None:
        known = [str(group.line["id"]) for group in groups]
        groups = [group for group in groups if group.line["id"] == sample_id]
        if not groups:
            hint = near(sample_id, known) or f"; it has {', '.join(known[:10])}{' ...' if len(known) > 10 else ''}"
            raise ValueError(f"the step has no group of {sample_id!r}{hint}")
    keys = {"spread": lambda g: -g.spread, "best": lambda g: -g.mean, "worst": lambda g: g.mean}
    ordered = sorted(groups, key=keys[sort]) if sort in keys else list(groups)
    return ordered[:limit] if limit else ordered


def print_group(group: RecordedGroup, form: str = "text") -> None:
    """Print one group: question, right answer, and a line for every sampled one, best advantage first."""
    line = group.line
    names = sorted({name for answer in line["answers"] for name in answer["parts"]})
    note = "  replaced by another prompt" if line.get("replaced") else ""
    title = f"{line['id']} ({line['duration']:.2f} s){note}"
    rows = []
    for answer in sorted(line["answers"], key=lambda a: -a["advantage"]):
        notes = ["cut off"] if answer["truncated"] else []
        notes += [f"{name} skipped: {why}" for name, why in answer.get("skipped", {}).items()]
        values = [answer["reward"], *(answer["parts"].get(name) for name in names)]
        rows.append(
            [f"{answer['advantage']:+.2f}", *("-" if v is None else f"{v:.3f}" for v in values)]
            + [show_answer(answer["text"]), "; ".join(notes)]
        )
    reference = [Event(**event) for event in line["reference"]]
    print_lines([line["question"], f"right: {show_events(reference)}"], form)
    headings = ["advantage", "reward", *names, "events", ""]
    print_table(plain_table(title, headings, [[Text(c) for c in r] for r in rows]), form)


def show_answer(text: str) -> str:
    """The events of an answer on one line, as `show_events`; `unreadable` where it says nothing that could be read."""
    answer = parse_answer(text)
    return show_events(answer.events) if answer.ok else "unreadable"


def show_events(events: Sequence[Event]) -> str:
    """Events on one line, `dog_bark 0.40-1.20`; `none` for none."""
    return "; ".join(f"{e.label} {e.onset:.2f}-{e.offset:.2f}".strip() for e in events) or "none"
