"""A delta of the weights: the numbers whose bits have changed since the version before, by tensor and flat index.

Every learner rank keeps an equal share of each tensor's flat numbers (ZeRO-3's slices) and packs what has changed in
its shares into one part; the parts of all ranks are the delta. The checksum that comes with it is over the whole state
after it, share by share, so each rank sums its own and a worker sums what really lies in its model.

Needs torch only, so both ends can import it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from rollout.checksum import StreamChecksum, checksum_threads

_ALIGNMENT = 8  # bytes, within a part: any type can be viewed there
_JOINED_BYTES = 64 << 20
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Change:
    """What changed in one tensor.

    Args:
        indices: (N,) int32, flat, of the whole tensor, ascending.
        values: (N,) the new numbers' bits, as integers of their size.
    """

    indices: Tensor
    values: Tensor

    @property
    def bytes(self) -> int:
        return self.indices.numel() * (self.indices.itemsize + self.values.itemsize)


def bits(tensor: Tensor) -> Tensor:
    """A tensor's numbers as integers of the same size, in the same memory."""
    return tensor.view(_BITS[tensor.itemsize])


def share_of(numel: int, rank: int, ranks: int) -> tuple[int, int]:
    """The flat numbers of a tensor that a rank keeps: first, and end. As ZeRO-3 shares them out."""
    size = -(-numel // ranks)
    return min(numel, rank * size), min(numel, (rank + 1) * size)


def pack(changes: Sequence[Change]) -> Tensor:
    """One rank's part of a delta, (B,) uint8: how many numbers of each tensor, then indices and values by tensor.

    Args:
        changes: of every tensor of the stream, in its order.
    """
    device = changes[0].indices.device
    counts = torch.tensor([change.indices.numel() for change in changes], dtype=torch.int64, device=device)
    pieces = [counts.view(torch.uint8)]
    for change in changes:
        for piece in (change.indices, change.values):
            if piece.numel():
                flat = piece.contiguous().view(torch.uint8)
                pieces += [flat, flat.new_zeros(-flat.numel() % _ALIGNMENT)]
    return torch.cat(pieces)


def unpack(part: Tensor, dtypes: Sequence[torch.dtype]) -> Iterator[tuple[int, Change]]:
    """What `pack` put in: the number of each tensor that has changed, and what of it. Views, no copies.

    Raises:
        ValueError: the part is not as long as its counts say.
    """
    end = 8 * len(dtypes)
    for number, count in enumerate(part[:end].view(torch.int64).tolist()):
        if not count:
            continue
        found = []
        for dtype in (torch.int32, _BITS[dtypes[number].itemsize]):
            size = count * dtype.itemsize
            if size > part.numel() - end:
                raise ValueError(f"a part of a delta ends within tensor {number}, of which {count:,} numbers change")
            found.append(part[end : end + size].view(dtype))
            end += size + -size % _ALIGNMENT
        yield number, Change(*found)
    if end != part.numel():
        raise ValueError(f"a part of a delta has {part.numel() - end:,} bytes behind its last number")


def by_tensor(parts: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> dict[int, Change]:
    """What all parts of a delta change, by the number of the tensor: a few long changes instead of many short ones.

    Raises:
        ValueError: as `unpack`.
    """
    found: dict[int, list[Change]] = {}
    for part in parts:
        for number, change in unpack(part, dtypes):
            found.setdefault(number, []).append(change)
    return {
        number: Change(torch.cat([c.indices for c in changes]), torch.cat([c.values for c in changes]))
        for number, changes in found.items()
    }


class ShareChecksum:
    """The checksum of one rank's share of every tensor, given in one after the other, in the stream's order.

    Other threads do the sums; slices must not be written to before `value`.

    Args:
        threads: as `StreamChecksum` has them.
    """

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._sum = StreamChecksum(threads)
        self._waiting: list[Tensor] = []

    def add(self, own: Tensor) -> None:
        """Take in the next tensor's share: (N,), contiguous, maybe empty."""
        if not own.numel():
            return
        self._waiting.append(own.view(torch.uint8))
        # A GPU takes longer to begin with a small slice than to sum it.
        if own.device.type == "cpu" or sum(one.numel() for one in self._waiting) >= _JOINED_BYTES:
            self._flush()

    def value(self) -> int:
        """As a number that a signed 64-bit integer holds."""
        self._flush()
        return self._sum.value()

    def _flush(self) -> None:
        if self._waiting:
            self._sum.add(self._waiting[0] if len(self._waiting) == 1 else torch.cat(self._waiting))
        self._waiting = []


class StateChecksum:
    """The checksum of the whole state, from the whole tensors, as so many ranks share them out. A context."""

    def __init__(self, ranks: int) -> None:
        self._threads = checksum_threads()
        self._shares = [ShareChecksum(self._threads) for _ in range(ranks)]

    def __enter__(self) -> StateChecksum:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def add(self, flat: Tensor) -> None:
        """Take in the next tensor, (N,), which must not be written to before `value`."""
        ranks = len(self._shares)
        for rank, share in enumerate(self._shares):
            first, end = share_of(flat.numel(), rank, ranks)
            share.add(flat[first:end])

    def value(self) -> int:
        """The checksum."""
        return state_checksum(share.value() for share in self._shares)


def state_checksum(shares: Iterable[int]) -> int:
    """The checksum of the whole state from those of the ranks' shares, in the order of the ranks."""
    whole = hashlib.blake2b(digest_size=8)
    for share in shares:
        whole.update(share.to_bytes(8, "little"))
    return int.from_bytes(whole.digest(), "little") >> 1
