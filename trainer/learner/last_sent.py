"""What the workers have, as far as this rank knows it: a copy of its own ZeRO-3 slices as they were last sent.

The copy lies where the slices lie, and takes as much as they do: the streamed weights' bytes over the ranks (0.5 GB a
rank for 2 billion parameters in bfloat16 on 8 ranks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rollout.checksum import checksum_threads
from rollout.delta import Change, ShareChecksum, bits, pack
from trainer.learner import zero

# Bytes compared at a time: on a CPU so few that what is between does not leave the cache.
_AT_A_TIME = {"cpu": 4 << 20, "cuda": 256 << 20}


@dataclass(frozen=True)
class Changes:
    """What of this rank's slices differs from what was last sent."""

    part: Tensor  # (B,) uint8, packed
    checksum: int  # of all of this rank's slices, as they are now
    numbers: int
    by_tensor: list[Change]


class LastSent:
    """A copy of this rank's slices.

    Args:
        parameters: the stream's, in its order, partitioned or (with one rank) whole.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._copies: list[Tensor] | None = None

    @torch.no_grad()
    def take(self) -> None:
        """Remember the slices as they are: they have been sent whole."""
        slices = [own for _, own in self._slices()]
        if self._copies is None:
            self._copies = [torch.empty_like(own) for own in slices]
        for copy, own in zip(self._copies, slices, strict=True):
            copy.copy_(own)

    @torch.no_grad()
    def changes(self) -> Changes | None:
        """What has changed since; None where sending it would take as much as the slices themselves."""
        assert self._copies is not None, "nothing has been sent yet"
        slices = self._slices()
        limit = sum(own.numel() * own.itemsize for _, own in slices)
        found: list[Change] = []
        with checksum_threads() as threads:
            checksum = ShareChecksum(threads)
            for (first, own), copy in zip(slices, self._copies, strict=True):
                checksum.add(own)  # other threads sum what this one compares
                indices = changed(own, copy)
                found.append(Change((indices + first).to(torch.int32), bits(own).index_select(0, indices)))
                limit -= found[-1].bytes
                if limit < 0:
                    return None
            numbers = sum(change.indices.numel() for change in found)
            return Changes(pack(found), checksum.value(), numbers, found)

    @torch.no_grad()
    def accept(self, changes: Changes) -> None:
        """The workers have these changes."""
        assert self._copies is not None, "nothing has been sent yet"
        for (first, _), copy, change in zip(self._slices(), self._copies, changes.by_tensor, strict=True):
            bits(copy).index_copy_(0, change.indices.to(torch.int64) - first, change.values)

    @property
    def device(self) -> torch.device:
        """Where the slices lie."""
        return zero.own_slice(self._parameters[0])[1].device

    def _slices(self) -> list[tuple[int, Tensor]]:
        return [zero.own_slice(parameter) for parameter in self._parameters]


def changed(now: Tensor, before: Tensor) -> Tensor:
    """Where two tensors' bit patterns differ.

    Args:
        now, before: (N,) of one type, contiguous.

    Returns:
        (M,) int64 indices, ascending.
    """
    found = []
    step = _AT_A_TIME[now.device.type] // now.itemsize
    for start in range(0, now.numel(), step):
        here = _changed(bits(now[start : start + step]), bits(before[start : start + step]))
        if here.numel():
            found.append(here + start)
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64, device=now.device)


def _changed(now: Tensor, before: Tensor) -> Tensor:
    """Words of several numbers first, on a CPU, since most are equal and it looks for the others one by one."""
    lanes = 8 // now.itemsize
    aligned = all(one.data_ptr() % 8 == 0 for one in (now, before)) and now.numel() % lanes == 0
    if now.device.type != "cpu" or lanes == 1 or not aligned:
        return (now != before).nonzero().flatten()
    one, other = (numbers.view(torch.int64).numpy() for numbers in (now, before))
    words = np.flatnonzero(one != other)
    differs = (one[words] ^ other[words]).view(f"i{now.itemsize}") != 0  # each lane of those words
    found = np.flatnonzero(differs)  # of truth values it is much faster than of numbers
    shift = lanes.bit_length() - 1
    return torch.from_numpy((words[found >> shift] << shift) + (found & (lanes - 1)))
