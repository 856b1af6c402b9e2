"""The order in which prompts are trained on: a fresh permutation an epoch, resumable at any place.

Every rank holds the same order and moves it alike. A class of your own (`grpo.groups.order=module:Class`, made as
`Class(sizes, weights, seed)`) keeps `PromptOrder`; with a method `observe` it hears how the prompts went, which makes a
curriculum one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from timepro.plugins import import_object


@dataclass(frozen=True)
class Outcome:
    """How one prompt of a step went.

    Args:
        id: the sample's.
        reward: mean over the group's scored answers; None where none was scored.
        spread: their standard deviation; 0: the group taught nothing.
    """

    id: str
    reward: float | None
    spread: float


class PromptOrder(Protocol):
    """What gives the samples' indices. Its state is saved with every checkpoint, so it must be JSON-ready.

    A class may also have `observe(outcomes)`: called on every rank with the outcomes of all ranks' groups, in the same
    order everywhere, after they were scored.
    """

    @property
    def epoch(self) -> int:
        """Times that all samples have been gone through."""

    def take(self, count: int) -> list[int]:
        """The next `count` sample indices of the global batch."""

    def state(self) -> dict[str, Any]:
        """Where it is."""

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; ValueError where the data are not those of the state."""


def order_of(name: str, sizes: Sequence[int], weights: Sequence[float], seed: int) -> PromptOrder:
    """The configured order over sets of samples that lie one behind the other."""
    made = Mixture if name == "mixture" else import_object(name, "order", "grpo.groups.order")
    return made(sizes, weights, seed)


class Cursor:
    """Walks over `n` samples, shuffled anew every epoch from `seed`.

    The order does not depend on the number of ranks: each takes its part of the same global batch.
    """

    def __init__(self, n: int, seed: int) -> None:
        if n < 1:
            raise ValueError("there are no training samples; check the manifest and data settings")
        self.n, self.seed = n, seed
        self.epoch, self.position = 0, 0
        self._permutation: tuple[int, list[int]] | None = None  # of an epoch; not drawn anew for every sample

    def take(self, count: int) -> list[int]:
        """The next `count` sample indices."""
        out: list[int] = []
        while len(out) < count:
            order = self._order()
            part = order[self.position : self.position + count - len(out)]
            out += part
            self.position += len(part)
            if self.position == self.n:
                self.epoch, self.position = self.epoch + 1, 0
        return out

    def state(self) -> dict[str, int]:
        return {"n": self.n, "seed": self.seed, "epoch": self.epoch, "position": self.position}

    def restore(self, state: dict[str, int]) -> None:
        """Continue where `state` was taken.

        Raises:
            ValueError: the data or the seed are not those of the state.
        """
        if (state["n"], state["seed"]) != (self.n, self.seed):
            raise ValueError(
                f"the checkpoint was made with {state['n']} samples and seed {state['seed']}, this run has {self.n} "
                f"and {self.seed}; resume with the same data, or start a new run under another name"
            )
        self.epoch, self.position = state["epoch"], state["position"]

    def _order(self) -> list[int]:
        if self._permutation is None or self._permutation[0] != self.epoch:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n).tolist()
            self._permutation = (self.epoch, order)
        return self._permutation[1]


class Mixture:
    """Walks over several sets of samples that lie one behind the other, in given proportions.

    After every draw each set's count is within one of its share (the largest deficit is served first), so no stretch
    of the training misses a task. Each set has a `Cursor` of its own: a small one is repeated more often. With one
    set this is its cursor.

    Args:
        sizes: samples of each set.
        weights: relative, above 0.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int) -> None:
        if len(sizes) != len(weights) or not all(weight > 0 for weight in weights):
            raise ValueError(f"{len(sizes)} sets of samples with weights {list(weights)}: each needs one above 0")
        self._shares = [weight / sum(weights) for weight in weights]
        self._offsets = [0, *accumulate(sizes)][:-1]
        self._cursors = [Cursor(n, seed) for n in sizes]
        self._taken = [0] * len(sizes)

    @property
    def epoch(self) -> int:
        """Times that every set has been gone through."""
        return min(cursor.epoch for cursor in self._cursors)

    def take(self, count: int) -> list[int]:
        """The next `count` indices into the joined sets."""
        out = []
        for _ in range(count):
            n = sum(self._taken) + 1
            deficits = [share * n - taken for share, taken in zip(self._shares, self._taken, strict=True)]
            k = deficits.index(max(deficits))
            self._taken[k] += 1
            out.append(self._offsets[k] + self._cursors[k].take(1)[0])
        return out

    def state(self) -> dict[str, Any]:
        return {"taken": list(self._taken), "cursors": [cursor.state() for cursor in self._cursors]}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            ValueError: the data or the seed are not those of the state.
        """
        if len(state["cursors"]) != len(self._cursors):
            raise ValueError(
                f"the checkpoint was made with {len(state['cursors'])} tasks, this run has {len(self._cursors)}; "
                "resume with the same tasks, or start a new run under another name"
            )
        for cursor, saved in zip(self._cursors, state["cursors"], strict=True):
            cursor.restore(saved)
        self._taken = list(state["taken"])


def share(items: Sequence[int], rank: int, world_size: int) -> list[int]:
    """A rank's part of a global batch of sample indices, in their order.

    A sample goes to rank `index % world_size` as long as that rank has room, so that the rank that has encoded a clip
    mostly meets it again in the next epoch. Every rank gets equally many; the first ones take one more where it does
    not divide.
    """
    base, extra = divmod(len(items), world_size)
    room = [base + (r < extra) for r in range(world_size)]
    owners, left = [-1] * len(items), []
    for place, item in enumerate(items):
        wanted = item % world_size
        if room[wanted]:
            room[wanted] -= 1
            owners[place] = wanted
        else:
            left.append(place)
    free = (r for r in range(world_size) for _ in range(room[r]))
    for place in left:
        owners[place] = next(free)
    return [item for item, owner in zip(items, owners, strict=True) if owner == rank]
