"""Where W&B puts a run: `wandb.*`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

Mode = Literal["online", "offline", "disabled"]


@dataclass
class WandbConfig:
    """Where W&B puts a run."""

    project: str = "timepro-rl"
    group: str = ""
    tags: str = ""  # comma-separated
    mode: str = "auto"  # auto: online when logged in, else offline; or online, offline, disabled


def named_mode(config: WandbConfig) -> Mode | None:
    """The mode that is named; None where it goes by the login.

    Raises:
        ValueError: an unknown mode.
    """
    modes: tuple[Mode, ...] = ("online", "offline", "disabled")
    for name, wanted in (("wandb.mode", config.mode), ("WANDB_MODE", os.environ.get("WANDB_MODE") or "auto")):
        if wanted in modes:
            return modes[modes.index(wanted)]
        if wanted != "auto":
            raise ValueError(f"{name} is {wanted!r}; it must be auto, online, offline or disabled")
    return None


def wandb_mode(config: WandbConfig) -> Mode:
    """The mode to run in.

    Raises:
        ValueError: as `named_mode`.
    """
    if mode := named_mode(config):
        return mode
    import wandb

    return "online" if wandb.login(prompt=False, verify=False) else "offline"
