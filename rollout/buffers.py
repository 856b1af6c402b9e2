"""The buffers of a weight stream in the host's memory, used again and again.

Memory that the system has just handed out is slow: every page is cleared and mapped when it is first written to, on
both sides of the stream, which takes longer than copying the weights. A GPU's allocator keeps its memory itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rollout import stream

_KEPT = stream.IN_FLIGHT + 1  # those under way, and one that is filled or emptied meanwhile


@dataclass(frozen=True)
class _Free:
    """Memory that somebody may still read."""

    memory: Tensor
    readers: Sequence[Future[Any]]


class Buffers:
    """Hands out buffers and takes them back.

    A buffer that is not given back is forgotten: after a broken stream somebody may still write to it.

    Args:
        device: where they lie.
        usual: bytes of those that are kept; smaller ones are a part of such a one, larger ones are not kept.
    """

    def __init__(self, device: torch.device, usual: int) -> None:
        self.device, self.usual = device, usual
        self._free: list[_Free] = []

    def take(self, size: int) -> Tensor:
        """A buffer, (size,) uint8, with anything in it. Waits for those who still read what it held before."""
        if self._free and size <= self.usual:
            one = self._free.pop(0)
            for reader in one.readers:
                with suppress(CancelledError):  # a checksum whose stream was broken off
                    reader.exception()
            return one.memory[:size]
        memory = torch.empty(max(size, self.usual), dtype=torch.uint8, device=self.device)
        return memory[:size]

    def give(self, buffer: Tensor, readers: Sequence[Future[Any]] = ()) -> None:
        """Take back a buffer of `take` that nobody writes to any more.

        Args:
            readers: what still reads it.
        """
        if self.device.type != "cpu" or len(self._free) == _KEPT:
            return
        memory = torch.empty(0, dtype=torch.uint8).set_(buffer.untyped_storage())
        if memory.numel() == self.usual:
            self._free.append(_Free(memory, tuple(readers)))
