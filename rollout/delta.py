"""A delta of the weights: the numbers whose bits have changed since the version before, by tensor and flat index.

Every learner rank keeps an equal share of each tensor's flat numbers (ZeRO-3's slices) and packs what has changed in
its shares into one part; the parts of all ranks are the delta. The checksum that comes with it is over the whole state
after it, share by share, so each rank sums its own and a worker sums what really lies in its model.

Needs torch only, so both ends can import it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rollout.checksum import StreamChecksum

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


def share_checksum(slices: Iterable[Tensor]) -> int:
    """The checksum of one rank's shares.

    Args:
        slices: (N,) of every tensor, in the stream's order; contiguous, maybe empty.
    """
    flat = (one.view(torch.uint8) for one in slices if one.numel())
    with StreamChecksum() as checksum:
        for one in flat:
            if one.device.type == "cpu":
                checksum.add(one)
            else:  # a GPU takes longer to begin with a small slice than to sum it
                for joined in join(itertools.chain([one], flat), _JOINED_BYTES):
                    checksum.add(joined)
        return checksum.value()


def join(pieces: Iterable[Tensor], least: int) -> Iterator[Tensor]:
    """Pieces (N,) put together, until each but the last has so many numbers at least."""
    waiting: list[Tensor] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(one.numel() for one in waiting) >= least:
            yield torch.cat(waiting)
            waiting = []
    if waiting:
        yield torch.cat(waiting)


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


def state_checksum(shares: Iterable[int]) -> int:
    """The checksum of the whole state from those of the ranks' shares, in the order of the ranks."""
    whole = hashlib.blake2b(digest_size=8)
    for share in shares:
        whole.update(share.to_bytes(8, "little"))
    return int.from_bytes(whole.digest(), "little") >> 1
