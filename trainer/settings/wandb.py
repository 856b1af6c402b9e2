"""Where a run is recorded beside its own files: `wandb.*`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from typing import Literal

from timepro.config.marks import Natural
from timepro.hints import install

Mode = Literal["online", "offline", "disabled"]


@dataclass
class WandbConfig:
    """Where W&B puts a run."""

    project: str = "timepro-rl"
    group: str = ""
    tags: str = ""  # comma-separated
    mode: str = "auto"  # auto: online when logged in, else offline; or online, offline, disabled
    completions_every: Natural = 10  # steps between tables of a step's answers and what they earned; 0: none
    tensorboard: bool = False  # TensorBoard's event files, too: RUN/tensorboard/; needs the package tensorboard

    def check(self) -> None:
        """Raises ValueError for an unknown mode, or event files without the package that writes them."""
        named_mode(self)
        if not self.tensorboard:
            return
        try:
            distribution("tensorboard")
        except PackageNotFoundError:
            raise ValueError(
                f"wandb.tensorboard=true needs the package tensorboard: {install('tensorboard')}, or set it to false"
            ) from None


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
