"""The policy-gradient objective: `grpo.objective.*`."""

from __future__ import annotations

from dataclasses import dataclass, field

from timepro.config.marks import NotNegative, Share
from trainer.settings.mismatch import MismatchConfig

AGGREGATIONS = ("dapo", "grpo", "dr_grpo")
OBJECTIVES = ("clip", "cispo")
OLD_POLICIES = ("worker", "learner")
RATIOS = ("token", "sequence")
DIVISORS = ("teaching", "all")


@dataclass
class ObjectiveConfig:
    """The policy-gradient objective."""

    aggregation: str = "dapo"
    # What the loss is divided by: the tokens (dapo) or answers (grpo) of groups that teach, or of all groups of a step.
    # dr_grpo's divisor is a constant, whatever this says. Where 4 of 40 groups teach, "teaching" weighs each of their
    # tokens ten times as much as "all" does.
    divisor: str = "teaching"
    name: str = "clip"  # or cispo, or a function of your own: module:function (see trainer/learner/objectives.py)
    # token, or sequence: one ratio an answer, the geometric mean of its tokens' (GSPO, arXiv 2507.18071), which goes
    # with aggregation=grpo and a far narrower range; published: clip_low 3e-4, clip_high 4e-4.
    ratio: str = "token"
    old_policy: str = "worker"  # whose log-probabilities of the sampled tokens the ratio is taken against, or learner
    clip_low: Share = 0.2
    clip_high: NotNegative = 0.28
    dual_clip: NotNegative = 0.0  # for negative advantages no ratio above this one counts (arXiv 1912.09729); 0: off
    mismatch: MismatchConfig = field(default_factory=MismatchConfig)

    @property
    def against_learner(self) -> bool:
        """Whether the ratio is one between two states of the learner."""
        return self.old_policy == "learner" or self.mismatch.mode != "off"

    def check(self) -> None:
        """Raises ValueError for an unknown name or a clip range out of bounds."""
        self.mismatch.check()
        names = {"aggregation": AGGREGATIONS, "divisor": DIVISORS, "ratio": RATIOS, "old_policy": OLD_POLICIES}
        if ":" not in self.name:
            names["name"] = OBJECTIVES
        for key, allowed in names.items():
            if getattr(self, key) not in allowed:
                raise ValueError(
                    f"grpo.objective.{key} is {getattr(self, key)!r}; it must be one of {', '.join(allowed)}"
                )
        if self.ratio == "sequence" and self.aggregation != "grpo":
            raise ValueError(
                f"grpo.objective.ratio=sequence with aggregation={self.aggregation} weighs an answer's ratio by its "
                "length; GSPO gives every answer the same weight: set grpo.objective.aggregation=grpo (its published "
                "range is clip_low=3e-4 clip_high=4e-4)"
            )
        if not 0 <= self.clip_low <= 1 or self.clip_high < 0:
            raise ValueError(
                f"grpo.objective: clip_low {self.clip_low} must be in [0, 1], clip_high {self.clip_high} at least 0"
            )
        if self.dual_clip and self.dual_clip <= 1 + self.clip_high:
            raise ValueError(
                f"grpo.objective.dual_clip is {self.dual_clip}; it must be above 1 + clip_high, or 0 for off"
            )
