"""Where W&B puts a run: `wandb.*`."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass
class WandbConfig:
    """Where W&B puts a run."""

    project: str = "timepro-rl"
    group: str = ""
    tags: str = ""  # comma-separated
    mode: str = "auto"  # auto: online when logged in, else offline; or online, offline, disabled


def wandb_mode(config: WandbConfig) -> str:
    """The mode to run in.

    Raises:
        ValueError: an unknown mode.
    """
    if config.mode not in ("auto", "online", "offline", "disabled"):
        raise ValueError(f"wandb.mode is {config.mode!r}; it must be auto, online, offline or disabled")
    if config.mode != "auto":
        return config.mode
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    import wandb

    return "online" if wandb.login(prompt=False, verify=False) else "offline"
