"""Keeping near the model that GRPO started from: `grpo.kl.*`."""

from __future__ import annotations

from dataclasses import dataclass

from timepro.config.marks import NotNegative

KL_ESTIMATORS = ("k1", "k2", "k3")


@dataclass
class KlConfig:
    """Keeping near the model that GRPO started from."""

    coefficient: NotNegative = 0.0  # 0: no reference model is kept
    estimator: str = "k3"

    def check(self) -> None:
        """Raises ValueError for an unknown estimator or a negative coefficient."""
        if self.coefficient < 0:
            raise ValueError(f"grpo.kl.coefficient is {self.coefficient}; it must be at least 0")
        if self.estimator not in KL_ESTIMATORS:
            raise ValueError(f"grpo.kl.estimator is {self.estimator!r}; it must be one of {', '.join(KL_ESTIMATORS)}")
