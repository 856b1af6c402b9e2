"""What `peers.py` asks of every system: a question about a clip, and what an answer is worth. Standard library alone.

Every environment imports it, so that all systems are given the same reward.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

QUESTION = "Name the sounds in the order in which they begin."
AUDIO = "<|AUDIO|>"
PROMPTS, ANSWERS, TOKENS = 12, 8, 20
LEARNING_RATE = 3e-4
WINDOW = 5  # steps whose mean reward counts as reached


def in_order(answer: str, wanted: str) -> float:
    """How much of a list of sounds is right, and in the right order: F1 of the longest common subsequence."""
    given, right = ([part.strip() for part in text.split(",") if part.strip()] for text in (answer, wanted))
    longest = [[0] * (len(right) + 1) for _ in range(len(given) + 1)]
    for i, one in enumerate(given):
        for j, other in enumerate(right):
            longest[i + 1][j + 1] = longest[i][j] + 1 if one == other else max(longest[i][j + 1], longest[i + 1][j])
    return 2 * longest[-1][-1] / max(len(given) + len(right), 1)


def reached_at(rewards: Sequence[float], reward: float) -> int | None:
    """Steps after which the mean of the last `WINDOW` steps is `reward` or more; None: it never is."""
    for step in range(WINDOW, len(rewards) + 1):
        if statistics.mean(rewards[step - WINDOW : step]) >= reward:
            return step
    return None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
