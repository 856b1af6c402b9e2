"""What a step of GRPO reports, over all ranks, under the names that TRL uses where it has one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from trainer.learner import distributed
from trainer.learner.advantages import is_scored, spread
from trainer.learner.groups import Asked
from trainer.learner.scoring import ScoredGroup
from trainer.learner.sender import SyncReport
from trainer.learner.spans import span
from trainer.learner.updates import UpdateReport
from trainer.learner.usage import peak_memory_gib


class PhaseClock:
    """Seconds of a step's phases: `with clock("rows"): ...`.

    Args:
        begins: told each phase when it begins.
    """

    def __init__(self, begins: Callable[[str], None] = lambda phase: None) -> None:
        self.seconds: dict[str, float] = {}
        self._begins = begins
        self._began = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the step began, what lies between phases included."""
        return time.monotonic() - self._began

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the time spent inside to the phase's."""
        begun = time.monotonic()
        self._begins(phase)
        with span(phase):
            yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - begun


@dataclass
class Step:
    """What one step has done so far.

    Args:
        asked: this rank's groups as they were generated.
        drawn: the same, scored; rewards and lengths are reported of these, since groups that replaced flat ones
            are a selection.
        trained: what the update saw.
        report: None before the update.
        sync: None where the workers were lost.
    """

    clock: PhaseClock
    asked: Asked | None = None
    drawn: list[ScoredGroup] = field(default_factory=list)
    trained: list[ScoredGroup] = field(default_factory=list)
    report: UpdateReport | None = None
    sync: SyncReport | None = None


def step_metrics(step: Step, part_names: Sequence[str], version: int) -> dict[str, float]:
    """The step's metrics over all ranks. A collective.

    Args:
        step: with its report.
        part_names: all parts that the reward can record. A part is averaged over the groups that have it: with
            several tasks, each may have rewards of its own. Answers that were not scored are in no mean; they are
            counted in `rewards/NAME/skipped` for the reward that gave up on them.
        version: of the weights that the step trained.
    """
    assert step.report is not None, "a step is reported once it has been trained"
    slowest = distributed.maxima(step.clock.seconds)
    metrics = _reward_metrics(step.drawn, part_names)
    metrics |= _completion_metrics(step.drawn, _seconds_of_generation(step, slowest))
    metrics |= _group_metrics(step.drawn, step.trained, version)
    metrics |= _speed_metrics(step)
    if step.asked is not None and (seconds := distributed.largest(step.asked.seconds or 0.0)):
        metrics["perf/generation_seconds"] = seconds  # from asking to the last answer, also while the learner trains
    if step.sync is not None:
        metrics |= {"sync/bytes": float(step.sync.bytes), "sync/workers": float(step.sync.workers)}
        metrics |= {"sync/seconds": step.sync.seconds, "sync/gather_seconds": step.sync.gather_seconds}
        metrics |= {"sync/paused_seconds": step.sync.paused_seconds, "sync/delta": float(step.sync.mode == "delta")}
        if step.sync.arrived is not None:
            metrics["sync/arrived_share"] = step.sync.arrived
    return metrics | {f"time/{phase}": seconds for phase, seconds in slowest.items()} | step.report.as_metrics()


def _reward_metrics(drawn: Sequence[ScoredGroup], part_names: Sequence[str]) -> dict[str, float]:
    found = {
        "scored": float(sum(is_scored(group.rewards).sum() for group in drawn)),
        "reward": float(sum(np.nansum(group.rewards) for group in drawn)),
        "groups": float(len(drawn)),
        "spread": float(sum(spread(group.rewards) for group in drawn)),
    }
    for name in part_names:
        parts = [group.parts[name] for group in drawn if name in group.parts]
        parts = [part[is_scored(part)] for part in parts if is_scored(part).any()]
        found[f"{name}/n"] = float(len(parts))
        found[f"{name}/mean"] = float(sum(part.mean() for part in parts))
        found[f"{name}/std"] = float(sum(part.std() for part in parts))
        found[f"{name}/skipped"] = float(sum(len(group.skipped.get(name, ())) for group in drawn))
    total = distributed.totals(found)
    metrics = {"reward_std": total["spread"] / total["groups"]}
    if total["scored"]:
        metrics["reward"] = total["reward"] / total["scored"]
    for name in part_names:
        if total[f"{name}/n"]:
            metrics[f"rewards/{name}/mean"] = total[f"{name}/mean"] / total[f"{name}/n"]
            metrics[f"rewards/{name}/std"] = total[f"{name}/std"] / total[f"{name}/n"]
        if total[f"{name}/skipped"]:
            metrics[f"rewards/{name}/skipped"] = total[f"{name}/skipped"]
    return metrics


def _seconds_of_generation(step: Step, slowest: Mapping[str, float]) -> float | None:
    """None in the last step of those that generate one ahead: its answers were there before it began."""
    if "ahead" in slowest:
        return sum(slowest.values())  # generation hides behind all the rest: what counts is the whole step
    return None if step.asked is not None and step.asked.ahead else slowest["generate"]


def _completion_metrics(drawn: Sequence[ScoredGroup], seconds: float | None) -> dict[str, float]:
    answers = [answer for group in drawn for answer in group.answers]
    lengths = [float(len(answer.token_ids)) for answer in answers]
    total = distributed.totals(
        {
            "answers": float(len(answers)),
            "length": float(sum(lengths)),
            "cut": float(sum(answer.truncated for answer in answers)),
            "repeats": float(sum(len(group.texts) - len(set(group.texts)) for group in drawn)),
        }
    )
    bounds = distributed.maxima({"longest": max(lengths, default=0.0), "shortest": -min(lengths, default=math.inf)})
    n = total["answers"]
    metrics = {
        "completions/mean_length": total["length"] / n,
        "completions/max_length": bounds["longest"],
        "completions/min_length": -bounds["shortest"],
        "completions/clipped_ratio": total["cut"] / n,
        "completions/repeated_ratio": total["repeats"] / n,  # equal to an earlier one of their group
    }
    return metrics if seconds is None else metrics | {"perf/answers_per_second": n / max(seconds, 1e-9)}


def _speed_metrics(step: Step) -> dict[str, float]:
    """How long the step took until now, and what it made of the time. Tokens are those trained on, prompts included."""
    tokens = sum(
        len(group.prompt_token_ids) + sum(len(answer.token_ids) for answer in group.answers) for group in step.trained
    )
    seconds = distributed.largest(step.clock.elapsed)
    total = distributed.total(float(tokens))
    found = {"step_time": seconds, "perf/tokens": total, "perf/tokens_per_second": total / max(seconds, 1e-9)}
    return found | distributed.maxima(peak_memory_gib())


def _group_metrics(drawn: Sequence[ScoredGroup], trained: Sequence[ScoredGroup], version: int) -> dict[str, float]:
    behind = [version - answer.weight_versions[0] for group in trained for answer in group.answers]
    total = distributed.totals(
        {
            "groups": float(len(drawn)),
            "flat": float(sum(not group.teaches for group in drawn)),
            "left": float(sum(not group.teaches for group in trained)),
            "replaced": float(sum(a is not b for a, b in zip(drawn, trained, strict=True))),
            "behind": float(sum(behind)),
            "answers": float(len(behind)),
        }
    )
    return {
        "frac_reward_zero_std": total["flat"] / total["groups"],
        "frac_trained_zero_std": total["left"] / total["groups"],
        "perf/resampled_groups": total["replaced"],
        "sampling/staleness": total["behind"] / max(total["answers"], 1.0),  # updates, a mean over answers
    }
