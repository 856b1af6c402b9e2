"""Buffers that are used again: only what was given back, and not before its readers are done."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from rollout.buffers import Buffers
from rollout.checksum import StreamChecksum

CPU = torch.device("cpu")


def test_memory_that_was_given_back_is_used_again():
    buffers = Buffers(CPU, 100)
    first = buffers.take(70)
    kept = buffers.take(100)  # of a stream that broke: never given back
    place = first.data_ptr()
    buffers.give(first)
    again = buffers.take(100)
    assert (again.data_ptr(), again.shape, again.dtype) == (place, (100,), torch.uint8)
    assert buffers.take(10).data_ptr() not in (place, kept.data_ptr())


def test_it_is_not_handed_out_before_its_readers_are_done():
    buffers, gate = Buffers(CPU, 8), threading.Event()
    with ThreadPoolExecutor(2) as threads:
        buffer = buffers.take(8)
        buffers.give(buffer, [threads.submit(gate.wait, 20)])
        taken = threads.submit(buffers.take, 8)
        with pytest.raises(TimeoutError):
            taken.result(0.2)
        gate.set()
        assert taken.result(20).data_ptr() == buffer.data_ptr()


def test_readers_that_were_given_up_are_not_waited_for():
    buffers, given_up = Buffers(CPU, 8), Future()
    given_up.cancel()  # as by a thread pool that is shut down
    buffer = buffers.take(8)
    buffers.give(buffer, [given_up])
    assert buffers.take(8).data_ptr() == buffer.data_ptr()


def test_larger_ones_and_more_than_are_under_way_are_not_kept():
    buffers = Buffers(CPU, 8)
    large = buffers.take(9)
    assert large.shape == (9,)
    buffers.give(large)
    for buffer in [buffers.take(8) for _ in range(9)]:
        buffers.give(buffer)
    assert [one.memory.numel() for one in buffers._free] == [8] * 4


def test_off_the_host_nothing_is_kept_with_the_meta_device_in_a_cards_place():
    buffers = Buffers(torch.device("meta"), 8)
    buffers.give(buffers.take(8))
    assert buffers._free == [] and buffers.take(3).shape == (3,)


def test_a_checksum_names_what_reads_a_bucket():
    buffers, streams = Buffers(CPU, 40 << 20), []
    for _ in range(2):
        with StreamChecksum() as checksum:
            for number in range(6):
                buffer = buffers.take(buffers.usual).fill_(number)
                buffers.give(buffer, checksum.add(buffer))  # the next one overwrites it at once
            streams.append(checksum.value())
    with StreamChecksum() as checksum:
        for number in range(6):
            checksum.add(torch.full((40 << 20,), number, dtype=torch.uint8))
        assert streams == [checksum.value()] * 2
