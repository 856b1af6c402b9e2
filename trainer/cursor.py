"""The order in which samples are trained on: a fresh permutation an epoch, resumable at any place."""

from __future__ import annotations

import numpy as np


class Cursor:
    """Walks over `n` samples, shuffled anew every epoch from `seed`.

    The order does not depend on the number of ranks: each takes its slice of the same global batch.
    """

    def __init__(self, n: int, seed: int) -> None:
        if n < 1:
            raise ValueError("there are no training samples; check the manifest and data settings")
        self.n, self.seed = n, seed
        self.epoch, self.position = 0, 0

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
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.n).tolist()


def share(items: list[int], rank: int, world_size: int) -> list[int]:
    """A rank's contiguous slice of a global batch; the first ranks take one more where it does not divide."""
    base, extra = divmod(len(items), world_size)
    start = rank * base + min(rank, extra)
    return items[start : start + base + (rank < extra)]
