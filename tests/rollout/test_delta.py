"""Deltas as bytes, and the checksum over the whole state by shares."""

from __future__ import annotations

import pytest
import torch

from rollout import delta
from rollout.checksum import checksum_threads
from rollout.delta import Change

DTYPES = [torch.bfloat16, torch.float32, torch.bfloat16]


def some_changes() -> list[Change]:
    return [
        Change(torch.tensor([0, 3, 70_000], dtype=torch.int32), torch.tensor([1, -2, 3], dtype=torch.int16)),
        Change(torch.empty(0, dtype=torch.int32), torch.empty(0, dtype=torch.int32)),
        Change(torch.tensor([2**31 - 1], dtype=torch.int32), torch.tensor([-32768], dtype=torch.int16)),
    ]


def test_what_is_packed_comes_out_again():
    changes = some_changes()
    found = dict(delta.unpack(delta.pack(changes), DTYPES))
    assert found.keys() == {0, 2}  # nothing of the tensor that has not changed
    for number, change in found.items():
        assert torch.equal(change.indices, changes[number].indices)
        assert torch.equal(change.values, changes[number].values)
        assert change.values.dtype == changes[number].values.dtype


def test_parts_of_several_ranks_are_put_together_by_tensor():
    first, second = some_changes(), some_changes()
    second[0] = Change(torch.tensor([90_000], dtype=torch.int32), torch.tensor([9], dtype=torch.int16))
    second[2] = Change(torch.empty(0, dtype=torch.int32), torch.empty(0, dtype=torch.int16))
    found = delta.by_tensor([delta.pack(first), delta.pack(second)], DTYPES)
    assert {number: change.indices.tolist() for number, change in found.items()} == {
        0: [0, 3, 70_000, 90_000], 2: [2**31 - 1]
    }  # fmt: skip
    assert found[0].values.tolist() == [1, -2, 3, 9]


@pytest.mark.parametrize("bad", [lambda part: part[:-8], lambda part: torch.cat([part, part[:8]])])
def test_a_part_that_does_not_fit_its_counts_is_refused(bad):
    with pytest.raises(ValueError, match="a part of a delta"):
        list(delta.unpack(bad(delta.pack(some_changes())), DTYPES))


@pytest.mark.parametrize(("numel", "ranks"), [(10, 1), (10, 3), (2, 4), (0, 2), (64, 64)])
def test_shares_hold_every_number_once_and_none_is_larger_than_zero_3_would_have_it(numel, ranks):
    shares = [delta.share_of(numel, rank, ranks) for rank in range(ranks)]
    assert [n for first, end in shares for n in range(first, end)] == list(range(numel))
    assert max(end - first for first, end in shares) == -(-numel // ranks)


def state_of(tensors, ranks):
    """As a worker sums it; the ranks' own sums must come to the same."""
    with delta.StateChecksum(ranks) as checksum:
        for tensor in tensors:
            checksum.add(tensor.flatten())
        found = checksum.value()
    with checksum_threads() as threads:
        shares = [delta.ShareChecksum(threads) for _ in range(ranks)]
        for rank, share in enumerate(shares):
            for tensor in tensors:
                first, end = delta.share_of(tensor.numel(), rank, ranks)
                share.add(tensor.flatten()[first:end].clone())
        assert found == delta.state_checksum(share.value() for share in shares)
    return found


@pytest.mark.parametrize("ranks", [1, 2, 7])
def test_the_states_checksum_sees_one_bit_anywhere(ranks):
    draw = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=draw).to(dtype) for shape, dtype in zip([13, 40, 3], DTYPES, strict=True)]
    whole, seen = state_of(tensors, ranks), set()
    assert 0 <= whole < 2**63
    for tensor in tensors:
        for index in range(tensor.numel()):
            delta.bits(tensor)[index] ^= 1
            seen.add(state_of(tensors, ranks))
            delta.bits(tensor)[index] ^= 1
    assert len(seen) == 56 and whole not in seen
    assert state_of(tensors, ranks) == whole


def test_numbers_that_changed_places_are_seen():
    tensors = [torch.arange(6, dtype=torch.float32), torch.arange(6, dtype=torch.float32) + 1]
    swapped = [tensors[1], tensors[0]]
    assert state_of(tensors, 2) != state_of(swapped, 2) != state_of([t.flip(0) for t in swapped], 2)
