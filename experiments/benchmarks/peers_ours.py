"""This project's GRPO on what `peers.py` prepared: `timepro train`, as a user starts it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from peers_task import ANSWERS, LEARNING_RATE, PROMPTS, TOKENS, in_order, read_lines
from peers_workload import TASK

if TYPE_CHECKING:
    from rewards import Group

NAME = "ours"


def reward(group: Group) -> np.ndarray:
    """The reward, named to the trainer by this function's import path."""
    return np.array([in_order(completion.text, group.reference[0].label) for completion in group.completions])


def settings(workload: Path, runs: Path, steps: int, threads: int, seed: int) -> dict[str, Any]:
    """The experiment: GRPO alone, from the checkpoint that the peers start from, with the same numbers."""
    manifests = {split: str(workload / "train" / "train.jsonl") for split in ("sft", "rl", "validation")}
    return {
        "name": NAME, "runs": str(runs), "task": TASK, "seed": seed,
        "data": {**manifests, "test": str(workload / "test" / "test.jsonl")},
        "model": {"path": str(workload / "checkpoint")},
        "learner": {"ranks": 1, "threads": threads},
        # Unseeded, since a seed for each request is something that the peers do not have.
        "rollout": {"workers": 1, "threads": threads, "max_model_len": 1024, "seeded": False},
        "sft": {"enabled": False, "label_times": "exact"},
        "control": {"enabled": False},
        "grpo": {
            "max_steps": steps,
            "groups": {
                "prompts_per_step": PROMPTS, "group_size": ANSWERS, "temperature": 1.0, "max_tokens": TOKENS,
            },
            "optimiser": {"learning_rate": LEARNING_RATE, "warmup_steps": 0, "flat": 1.0},
        },
        "evaluation": {"max_tokens": TOKENS},
        "rewards": f"{__name__}:reward",
        "wandb": {"mode": "disabled"},
    }  # fmt: skip


def command(experiment: Path) -> list[str]:
    """What starts it."""
    return [sys.executable, "-m", "timepro.cli", "train", str(experiment)]


def metrics_file(runs: Path) -> Path:
    """Where the run writes a line a step."""
    return runs / NAME / "metrics.grpo.jsonl"


def steps_of(metrics: Path, first_seen: float) -> dict[str, Any]:
    """When each step ended, its reward and answer length, in the form of a peer's `StepClock`.

    Args:
        first_seen: when the first line appeared, by the clock of the other systems.
    """
    lines = read_lines(metrics)
    ahead = first_seen - lines[0]["elapsed_s"]
    return {
        "began": first_seen - lines[0]["step_time"],
        "ends": [ahead + line["elapsed_s"] for line in lines],
        "rewards": [line["reward"] for line in lines],
        "tokens": [line["completions/mean_length"] for line in lines],
        "seconds": {
            phase: float(np.median([line[f"time/{phase}"] for line in lines]))
            for phase in ("generate", "rows", "train", "sync")
        },
    }


def write_experiment(path: Path, values: dict[str, Any]) -> None:
    """The settings as an experiment's file; JSON is YAML."""
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")
