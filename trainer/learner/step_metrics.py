"""What a step of GRPO reports, over all ranks, under the names that TRL uses where it has one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from trainer.learner import distributed
from trainer.learner.advantages import is_scored, spread
from trainer.learner.groups import ScoredGroup
from trainer.learner.sender import SyncReport

T = TypeVar("T")


class PhaseClock:
    """Seconds of a step's phases."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, phase: str, work: Callable[[], T]) -> T:
        """Do the work and add its time to the phase's."""
        begun = time.monotonic()
        result = work()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - begun
        return result


def collect(
    drawn: Sequence[ScoredGroup],
    trained: Sequence[ScoredGroup],
    part_names: Sequence[str],
    report: Mapping[str, float],
    clock: PhaseClock,
    sync: SyncReport | None,
) -> dict[str, float]:
    """The step's metrics over all ranks. A collective.

    Args:
        drawn: this rank's first groups; rewards and lengths are theirs, since groups that replaced flat ones are a
            selection.
        trained: what the update saw.
        part_names: all parts that the reward can record. A part is averaged over the groups that have it: with
            several tasks, each may have rewards of its own. Answers that were not scored are in no mean; they are
            counted in `rewards/NAME/skipped` for the reward that gave up on them.
        sync: None where the workers were lost.
    """
    answers = [answer for group in drawn for answer in group.answers.answers]
    sums = {
        "answers": float(len(answers)),
        "groups": float(len(drawn)),
        "scored": float(sum(is_scored(group.rewards).sum() for group in drawn)),
        "reward": float(sum(np.nansum(group.rewards) for group in drawn)),
        "spread": float(sum(spread(group.rewards) for group in drawn)),
        "flat": float(sum(not group.teaches for group in drawn)),
        "left": float(sum(not group.teaches for group in trained)),
        "replaced": float(sum(a is not b for a, b in zip(drawn, trained, strict=True))),
        "length": float(sum(len(a.token_ids) for a in answers)),
        "cut": float(sum(a.truncated for a in answers)),
        "repeats": float(sum(len(group.texts) - len(set(group.texts)) for group in drawn)),
    }
    for name in part_names:
        parts = [group.parts[name] for group in drawn if name in group.parts]
        parts = [part[is_scored(part)] for part in parts if is_scored(part).any()]
        sums[f"{name}/n"] = float(len(parts))
        sums[f"{name}/mean"] = float(sum(part.mean() for part in parts))
        sums[f"{name}/std"] = float(sum(part.std() for part in parts))
        sums[f"{name}/skipped"] = float(sum(len(group.skipped.get(name, ())) for group in drawn))
    total = dict(zip(sums, distributed.total(list(sums.values())), strict=True))
    n_answers, n_groups = total["answers"], total["groups"]
    lengths = [float(len(a.token_ids)) for a in answers]
    longest, shortest = distributed.largest([max(lengths, default=0.0), -min(lengths, default=math.inf)])
    slowest = dict(zip(clock.seconds, distributed.largest(list(clock.seconds.values())), strict=True))
    metrics = {
        "reward": total["reward"] / max(total["scored"], 1.0),
        "reward_std": total["spread"] / n_groups,
        "frac_reward_zero_std": total["flat"] / n_groups,
        "frac_trained_zero_std": total["left"] / n_groups,
        "perf/resampled_groups": total["replaced"],
        "completions/mean_length": total["length"] / n_answers,
        "completions/max_length": longest,
        "completions/min_length": -shortest,
        "completions/clipped_ratio": total["cut"] / n_answers,
        "completions/repeated_ratio": total["repeats"] / n_answers,  # equal to an earlier one of their group
        # One step ahead, generation hides behind all the rest: what counts is the whole step.
        "perf/answers_per_second": n_answers
        / max(sum(slowest.values()) if "ahead" in slowest else slowest["generate"], 1e-9),
        "learning_rate": report["learning_rate"],
        "perf/skipped_step": report["skipped"],
    }
    for name in part_names:
        if total[f"{name}/n"]:
            metrics[f"rewards/{name}/mean"] = total[f"{name}/mean"] / total[f"{name}/n"]
            metrics[f"rewards/{name}/std"] = total[f"{name}/std"] / total[f"{name}/n"]
        if total[f"{name}/skipped"]:
            metrics[f"rewards/{name}/skipped"] = total[f"{name}/skipped"]
    if sync is not None:
        metrics |= {"sync/bytes": float(sync.bytes), "sync/workers": float(sync.workers)}
        metrics |= {"sync/seconds": sync.seconds, "sync/gather_seconds": sync.gather_seconds}
    metrics |= {f"time/{phase}": seconds for phase, seconds in slowest.items()}
    return metrics if report["skipped"] else metrics | _update_metrics(report)


def _update_metrics(report: Mapping[str, float]) -> dict[str, float]:
    return {
        "loss/policy": report["policy_loss"],
        "loss/reference": report["reference_loss"],
        "kl": report["kl"],
        "grad_norm": report["grad_norm"],
        "entropy": report["entropy"],
        "clip_ratio/low_mean": report["clip_low"],
        "clip_ratio/high_mean": report["clip_high"],
        "sampling/importance_sampling_ratio/mean": report["ratio"],
        "sampling/importance_sampling_ratio/max": report["ratio_max"],
        "sampling/drift_kl": report["drift"],
        "sampling/corrected_ratio": report["corrected"],
        "perf/refused_step": report["refused"],
        "perf/micro_batches": report["micro_batches"],
    }
