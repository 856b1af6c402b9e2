"""The control arm: `control.*`."""

from __future__ import annotations

from dataclasses import dataclass

from timepro.config.marks import Natural, NotNegative

CLIPS = ("sft", "rl")


@dataclass
class ControlConfig:
    """A control arm: more SFT from where GRPO starts, at most for as long as GRPO took.

    It tells what the same time, or the same labels, bring without RL.
    """

    enabled: bool = False
    clips: str = "sft"  # sft: goes on with SFT's clips and times; rl: GRPO's clips with their exact times
    max_steps: Natural = 0  # 0: as many as fit into GRPO's time
    learning_rate: NotNegative = 0.0  # 0: SFT's
    validate_every: Natural = 0  # steps between validation losses, of which the lowest is kept; 0: the last step's

    def check(self) -> None:
        """Raises ValueError for clips that are neither SFT's nor GRPO's."""
        if self.clips not in CLIPS:
            raise ValueError(f"control.clips is {self.clips!r}; it must be sft or rl")
