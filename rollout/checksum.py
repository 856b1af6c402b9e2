"""The checksum over a weight stream, computed where the bytes are and beside the wire.

The stream is cut into slices, each with a sum of its own; a hash over the slices' sizes and sums, in their order, is
the checksum. Slices can thus be summed in several threads while the next bucket travels. In the host's memory a slice's
sum is its XXH3 hash, which takes a quarter of a CRC-32's time. On a GPU it is made of weighted sums of its 64-bit words
(exact integers), since any other would first bring every byte to the host.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch
import xxhash
from torch import Tensor

_SLICE_BYTES = 16 << 20
_ROW_WORDS = 1 << 15
_ROWS_AT_A_TIME = 256  # 64 MiB, and as much again for the products
_SEED = 20_011  # both ends draw the same weights
_THREADS = max(1, min(4, (os.cpu_count() or 1) - 1))


class StreamChecksum:
    """The checksum of a stream, given in bucket after bucket; other threads do the sums (xxhash and torch let them).

    A context; leaving it ends the threads.

    Args:
        threads: of somebody else, who ends them; None: its own.
    """

    def __init__(self, threads: ThreadPoolExecutor | None = None) -> None:
        self._owns = threads is None
        self._threads = threads or checksum_threads()
        self._pending: deque[Future[bytes]] = deque()
        self._whole = hashlib.blake2b(digest_size=8)

    def __enter__(self) -> StreamChecksum:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def add(self, buffer: Tensor) -> list[Future[bytes]]:
        """Take in the next bucket. Waits where the sums fall behind, since a bucket that waits keeps its memory.

        Args:
            buffer: (N,) uint8, contiguous, on any device.

        Returns:
            what must be done before the bucket may be written to again.
        """
        sums = []
        for part in buffer.split(_SLICE_BYTES):
            while len(self._pending) > 2 * _THREADS:
                self._whole.update(self._pending.popleft().result())
            sums.append(self._threads.submit(slice_sum, part))
            self._pending.append(sums[-1])
        return sums

    def value(self) -> int:
        """The checksum of all buckets so far, as a number that a signed 64-bit integer holds."""
        while self._pending:
            self._whole.update(self._pending.popleft().result())
        return int.from_bytes(self._whole.digest(), "little") >> 1


def checksum_threads() -> ThreadPoolExecutor:
    """Threads for sums; a context."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="stream-checksum")


def slice_sum(part: Tensor) -> bytes:
    """Size and sum of (N,) uint8, computed on its device."""
    size = part.numel().to_bytes(8, "little")
    return size + (host_sum(part) if part.device.type == "cpu" else weighted_sums(part).cpu().numpy().tobytes())


def host_sum(part: Tensor) -> bytes:
    """The hash of (N,) uint8 in the host's memory."""
    return xxhash.xxh3_128_digest(part.numpy().data)


def weighted_sums(part: Tensor) -> Tensor:
    """Two sums of each row of 64-bit words, modulo 2**64; the last row is filled up with zeros.

    Within a row, a changed word always shows in the first sum: its weight is odd, hence invertible. Several changes
    could cancel for certain only in the words' highest bits, whose weights differ by even numbers; the second sum tells
    those apart: it is over the words' upper halves, whose products with their weights have room in 64 bits.

    Shapes: (N,) uint8 to (2, R) int64.
    """
    words, uppers = _weights(part.device)
    row_bytes = 8 * _ROW_WORDS
    if part.data_ptr() % 8:  # a rank's slice may begin anywhere
        part = part.clone()
    if short := -part.numel() % row_bytes:
        part = torch.cat([part, part.new_zeros(short)])
    rows = part.view(torch.int64).view(-1, _ROW_WORDS)
    sums = [
        torch.stack([(some * words).sum(1), ((some >> 32) * uppers).sum(1)]) for some in rows.split(_ROWS_AT_A_TIME)
    ]
    return torch.cat(sums, dim=1)


@functools.cache
def _weights(device: torch.device) -> tuple[Tensor, Tensor]:
    """Odd 64-bit weights of words, and distinct ones below 2**31 of their upper halves; (`_ROW_WORDS`,) int64 each."""
    draw = torch.Generator().manual_seed(_SEED)
    words = torch.randint(-(2**63), 2**63 - 1, (_ROW_WORDS,), generator=draw) | 1
    step = 2**31 // _ROW_WORDS
    uppers = torch.randperm(_ROW_WORDS, generator=draw) * step
    uppers += torch.randint(1, step, (_ROW_WORDS,), generator=draw)
    return words.to(device), uppers.to(device)
