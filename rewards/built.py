"""A reward as configured: where it runs, what its failures mean, and the check of what it returns.

With ``on_error: skip`` a completion that a reward fails on leaves the group: the whole tree of rewards is computed
again for the completions that stay, as if the group had been sampled without it. So no reward ever sees a gap, and
every mean, spread or rank within a group is that of the completions that stay.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rewards.group import Group, Reward
from rewards.pool import Job, Ticket, shared_pool

log = logging.getLogger("rewards")

ON_ERROR = ("fail", "skip")


@dataclass(frozen=True)
class FailurePolicy:
    """Settings that any reward's spec may hold.

    slow: run in the pool of worker processes, with a time limit.
    timeout_s: longest time for one group, in seconds; one completion alone, where failures are looked at one by one.
    processes: workers to run side by side; the pool has as many as the reward that asks for most.
    on_error: "fail" ends the run at an exception or a timeout, "skip" lets the completion leave its group.
    """

    slow: bool = False
    timeout_s: float = 30.0
    processes: int = 1
    on_error: str = "fail"

    def __post_init__(self) -> None:
        if not isinstance(self.slow, bool):
            raise ValueError(f"slow must be true or false, got {self.slow!r}")
        if isinstance(self.timeout_s, bool) or not isinstance(self.timeout_s, (int, float)) or not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be a number of seconds > 0, got {self.timeout_s!r}")
        if isinstance(self.processes, bool) or not isinstance(self.processes, int) or self.processes < 1:
            raise ValueError(f"processes must be a whole number >= 1, got {self.processes!r}")
        if self.on_error not in ON_ERROR:
            raise ValueError(f"on_error is {self.on_error!r}; it must be one of {', '.join(ON_ERROR)}")


class RewardFailed(RuntimeError):
    """A reward of the pool raised, ran out of time or lost its process."""


class RewardNotReady(RewardFailed):
    """A worker could not build or start a reward: a mistake in the set-up, whatever `on_error` says."""


class BadShape(ValueError):
    """A reward returned another number of values than there are completions: a mistake, whatever `on_error` says."""


class _Skipped(Exception):
    """Completions leave the group. reasons: name of the reward -> position in the group being scored -> why."""

    def __init__(self, reasons: Mapping[str, Mapping[int, str]]) -> None:
        super().__init__(reasons)
        self.reasons = reasons


@dataclass(eq=False)
class BuiltReward:
    """A reward ready to call; what it returns is checked and recorded in ``group.parts`` under its name.

    children: the rewards it is composed of. job: what a worker needs to build it; None where it runs here.
    root: the one that was asked for, which deals with the completions that leave.
    per_completion: a completion's value does not depend on the others, so a failure can be traced to one of them.
    """

    name: str
    reward: Reward
    spec: dict[str, Any]
    policy: FailurePolicy = FailurePolicy()
    per_completion: bool = False
    children: tuple[BuiltReward, ...] = ()
    job: Job | None = None
    root: bool = False
    _ahead: dict[int, tuple[Group, Ticket]] = field(default_factory=dict)

    def __call__(self, group: Group) -> np.ndarray:
        """Values (G,) float64, finite but for completions that were skipped, which are NaN and in ``group.skipped``.

        Raises:
            ValueError: another shape, a value that is not finite, or the reward's own, naming reward and clip.
            RewardFailed: a slow reward raised something else, took too long or lost its process.
        """
        return self._of_survivors(group) if self.root else self._scored(group)

    @property
    def part_names(self) -> tuple[str, ...]:
        """Every name that it and the rewards below it can record, sorted."""
        below = {name for child in self.children for name in child.part_names}
        return tuple(sorted({self.name, *below}))

    def prefetch(self, groups: Sequence[Group]) -> None:
        """Hand groups that will be scored later to the workers of the slow rewards, to be computed side by side."""
        if self.job is None:
            for child in self.children:
                child.prefetch([group for group in groups if self._asks(child, group)])
            return
        pool = shared_pool(self.policy.processes)
        self._ahead |= {id(group): (group, pool.submit(self.job, group)) for group in groups}

    def forget(self) -> None:
        """Drop what was handed in and will not be scored."""
        for node in self.nodes():
            if node._ahead:
                pool = shared_pool(node.policy.processes)
                for _, ticket in node._ahead.values():
                    pool.cancel(ticket)
                node._ahead.clear()

    def _asks(self, child: BuiltReward, group: Group) -> bool:
        """Whether a child will be called for a group: always, unless the reward has a method `asks` that says which."""
        asks = getattr(self.reward, "asks", None)
        return asks is None or child in asks(group)

    def check_task(self, task: str) -> None:
        """Refuse a task that this reward has no value for, before there is a group of it.

        Raises:
            ValueError: from a reward's own method `for_task`, which gives the child that a task's groups go to.
        """
        for_task = getattr(self.reward, "for_task", None)
        for child in self.children if for_task is None else (for_task(task),):
            child.check_task(task)

    def nodes(self) -> Iterator[BuiltReward]:
        """This reward and all that it is composed of."""
        yield self
        for child in self.children:
            yield from child.nodes()

    def evaluate(self, group: Group) -> Any:
        """What the reward returns, unchecked."""
        if self.job is None:
            return self.reward(group)
        pool = shared_pool(self.policy.processes)
        _, ticket = self._ahead.pop(id(group), (group, None))
        outcome = pool.result(ticket or pool.submit(self.job, group))
        if outcome.error:
            kind = RewardNotReady if outcome.not_ready else ValueError if outcome.users_fault else RewardFailed
            error = kind(outcome.error)
            if outcome.trace:
                error.add_note(outcome.trace)
            raise error
        group.parts.update(outcome.parts)
        if outcome.skipped:
            raise _Skipped(outcome.skipped)
        return outcome.values

    def _of_survivors(self, group: Group) -> np.ndarray:
        group.skipped.clear()
        size = len(group.completions)
        stay, part = np.arange(size), group
        while len(stay):
            try:
                values = self._scored(part)
                break
            except _Skipped as skipped:
                for name, reasons in skipped.reasons.items():
                    for position, reason in reasons.items():
                        left = int(stay[position])
                        group.skipped.setdefault(name, {})[left] = reason
                        log.warning(
                            "%s: completion %d of %d leaves its group: %s", where(name, group), left, size, reason
                        )
                stay = np.setdiff1d(np.arange(size), [left for reasons in group.skipped.values() for left in reasons])
                part = group.only(stay.tolist())
        if len(stay) == size:
            return values
        for name in {self.name, *group.parts, *part.parts}:
            group.parts[name] = np.full(size, np.nan)
            if name in part.parts:
                group.parts[name][stay] = part.parts[name]
        return group.parts[self.name].copy()

    def _scored(self, group: Group) -> np.ndarray:
        values = self._tolerated(group) if self.policy.on_error == "skip" else self._finite(group)
        group.parts[self.name] = values.copy()
        return values

    def _finite(self, group: Group) -> np.ndarray:
        values = self._shaped(group)
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(f"{where(self.name, group)}: value {values[bad]} for completion {bad} is not finite")
        return values

    def _shaped(self, group: Group) -> np.ndarray:
        place = where(self.name, group)
        try:
            values = np.array(self.evaluate(group), dtype=np.float64)
        except BadShape:
            raise
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place}: {str(error).removeprefix(f'{place}: ')}") from error
        except RewardFailed as error:
            raise type(error)(f"{place}: {error}") from error
        expected = (len(group.completions),)
        if values.shape != expected:
            raise BadShape(f"{place}: returned shape {values.shape}, expected {expected}, one value a completion")
        return values

    def _tolerated(self, group: Group) -> np.ndarray:
        """Values of a group that every completion is scored in; raises _Skipped for those that are not."""
        size = len(group.completions)
        try:
            values = self._shaped(group)
        except (_Skipped, BadShape, RewardNotReady):
            raise
        except Exception as error:
            if self.per_completion and size > 1:
                return self._one_by_one(group)
            told = isinstance(error, (ValueError, RewardFailed))
            reason = str(error).removeprefix(f"{where(self.name, group)}: ") if told else repr(error)
            raise _Skipped({self.name: dict.fromkeys(range(size), reason)}) from error
        failed = np.flatnonzero(~np.isfinite(values)).tolist()
        if failed:
            raise _Skipped({self.name: {position: f"value {values[position]} is not finite" for position in failed}})
        return values

    def _one_by_one(self, group: Group) -> np.ndarray:
        values = np.zeros(len(group.completions))
        failed: dict[str, dict[int, str]] = {}
        for position in range(len(group.completions)):
            try:
                values[position] = self._tolerated(group.only([position]))[0]
            except _Skipped as skipped:
                for name, reasons in skipped.reasons.items():
                    failed.setdefault(name, {})[position] = reasons[0]
        if failed:
            raise _Skipped(failed)
        return values

    def __repr__(self) -> str:
        return f"BuiltReward({self.spec})"


def where(name: str, group: Group) -> str:
    """Which reward and clip an error is about."""
    return f"reward {name!r} on clip {group.clip_id!r}"
