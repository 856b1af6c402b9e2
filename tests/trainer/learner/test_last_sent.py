"""What a rank finds changed in its own slices: bit patterns, whatever the numbers mean."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rollout.delta import bits, share_of, unpack
from trainer.learner import distributed, last_sent, zero
from trainer.learner.last_sent import LastSent, changed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("size", "offset"), [(4096, 0), (4095, 0), (1000, 1), (3, 0), (0, 0)])
def test_every_changed_number_is_found_and_no_other(monkeypatch, dtype, size, offset):
    """Where words of several numbers can be compared, and where they cannot; in several rounds."""
    monkeypatch.setitem(last_sent._AT_A_TIME, "cpu", 1024)
    draw = torch.Generator().manual_seed(size)
    now = torch.randn(size + offset, generator=draw).to(dtype)[offset:]
    before = now.clone()
    places = torch.rand(size, generator=draw) < 0.05
    bits(now)[places] ^= 1
    assert torch.equal(changed(now, before), places.nonzero().flatten())


def test_bits_count_and_not_values():
    before = torch.tensor([0.0, float("nan"), 1.0, 2.0])
    now = torch.tensor([-0.0, float("nan"), 1.0, 2.0])
    assert changed(now, before).tolist() == [0]  # equal as numbers; and a NaN that has not changed is none


def ranks_of(monkeypatch, whole, ranks):
    """Each rank's parameters as ZeRO-3 leaves them behind, padded."""
    found = []
    for rank in range(ranks):
        size = share_of(whole.numel(), 0, ranks)[1]
        part = torch.zeros(size, dtype=whole.dtype)
        first, end = share_of(whole.numel(), rank, ranks)
        part[: end - first] = whole.flatten()[first:end]
        part.ds_numel = size
        parameter = nn.Parameter(torch.empty(0))
        parameter.ds_tensor, parameter.ds_numel = part, whole.numel()
        found.append(parameter)
    monkeypatch.setattr(distributed, "world_size", lambda: ranks)
    return found


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_parts_of_all_ranks_are_the_change_of_the_whole(monkeypatch, ranks):
    draw = torch.Generator().manual_seed(ranks)
    before = torch.randn(31, 7, generator=draw).bfloat16()
    now = before.clone()
    now[torch.rand(31, 7, generator=draw) < 0.1] *= 2
    rebuilt = before.clone().flatten()
    for rank, (old, new) in enumerate(
        zip(ranks_of(monkeypatch, before, ranks), ranks_of(monkeypatch, now, ranks), strict=True)
    ):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        last = LastSent([old])
        last.take()
        old.ds_tensor.copy_(new.ds_tensor)
        changes = last.changes()
        for _, change in unpack(changes.part, [torch.bfloat16]):
            bits(rebuilt)[change.indices.long()] = change.values
        last.accept(changes)
        assert last.changes().numbers == 0
    assert torch.equal(bits(rebuilt), bits(now.flatten()))


def test_a_delta_as_large_as_the_weights_is_none(monkeypatch):
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    monkeypatch.setattr(distributed, "world_size", lambda: 1)
    weight = nn.Parameter(torch.zeros(1000, dtype=torch.bfloat16))
    last = LastSent([weight])
    last.take()
    weight.data[:300] += 1  # six bytes for two
    assert last.changes().numbers == 300
    weight.data[:350] += 1
    assert last.changes() is None


def test_slices_that_are_no_equal_share_are_known(monkeypatch):
    """As DeepSpeed leaves them where a group of ranks shares the parameters, or an NVMe disk has them."""
    for size, in_memory, equal in ((25, 25, True), (50, 50, False), (25, 1, False)):
        (parameter,) = ranks_of(monkeypatch, torch.zeros(100), 1)
        monkeypatch.setattr(distributed, "world_size", lambda: 4)
        parameter.ds_tensor = torch.zeros(in_memory)
        parameter.ds_tensor.ds_numel = size
        assert zero.shares_equally(parameter) is equal
