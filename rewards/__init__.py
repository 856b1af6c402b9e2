"""Reward functions over groups of completions, chosen and composed by configuration. See README.md."""

from __future__ import annotations

from rewards import adaptive, by_task, eb_f1, eb_f1_soft, format, miou, weighted  # noqa: F401  (importing registers them)
from rewards.group import Completion, Group, Reward
from rewards.registry import BuiltReward, available_rewards, build_reward, register

__all__ = ["BuiltReward", "Completion", "Group", "Reward", "available_rewards", "build_reward", "register"]
