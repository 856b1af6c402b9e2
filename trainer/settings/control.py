"""The control arm: `control.*`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ControlConfig:
    """A control arm: more SFT from the same checkpoint for as long as GRPO took."""

    enabled: bool = False
