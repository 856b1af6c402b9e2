"""Reward functions over groups of completions, chosen and composed by configuration. See README.md."""

from __future__ import annotations

from rewards import (  # noqa: F401  (importing registers them)
    adaptive,
    adaptive_mean,
    by_task,
    cascade,
    count,
    eb_f1,
    eb_f1_soft,
    format,
    iou,
    length_penalty,
    meteor,
    miou,
    onset_f1,
    tie_break,
    weighted,
)
from rewards.group import Completion, Group, Reward
from rewards.registry import BuiltReward, available_rewards, build_reward, register

__all__ = ["BuiltReward", "Completion", "Group", "Reward", "available_rewards", "build_reward", "register"]
