"""The stream's checksum: what it sees, in the host's memory and, by the sums that a GPU makes, anywhere."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from rollout import checksum
from rollout.checksum import StreamChecksum, weighted_sums

SIZE = 3 * 8 * checksum._ROW_WORDS + 4099  # three rows and a part of one, which is no whole word


@pytest.fixture(params=["host", "gpu"])
def total(request, monkeypatch):
    """The checksum of a stream of buckets, in either way; both run on a CPU here."""
    if request.param == "gpu":
        monkeypatch.setattr(checksum, "host_sum", lambda part: weighted_sums(part).numpy().tobytes())
    monkeypatch.setattr(checksum, "_SLICE_BYTES", 8 * checksum._ROW_WORDS * 2)

    def _total(*buckets):
        with StreamChecksum() as running:
            for bucket in buckets:
                running.add(bucket)
            return running.value()

    return _total


@pytest.fixture
def content():
    return torch.randint(0, 256, (SIZE,), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def flipped(content, *places):
    changed = content.clone()
    for byte, bit in places:
        changed[byte] ^= 1 << bit
    return changed


def test_the_same_bytes_have_the_same_sum(total, content):
    assert total(content) == total(content.clone())
    assert 0 <= total(content) < 2**63
    assert total() == total() != total(content)


def test_a_flipped_bit_shows_wherever_it_is(total, content):
    right = total(content)
    draw = torch.Generator().manual_seed(2)
    places = torch.randint(0, SIZE, (40,), generator=draw).tolist() + [0, 7, SIZE - 1, SIZE - 4099]
    assert all(total(flipped(content, (place, place % 8))) != right for place in places)


def test_pairs_of_flipped_bits_show_also_in_the_highest_bit_of_words(total, content):
    right = total(content)
    for first, second in ((7, 15), (7, 8 * 4001 + 7), (8 * 500 + 7, 8 * (checksum._ROW_WORDS + 500) + 7)):
        assert total(flipped(content, (first, 7), (second, 7))) != right, (first, second)
    row = 8 * checksum._ROW_WORDS  # at the corners of a rectangle of rows and words
    corners = [(8 * word + 7 + row * line, 7) for word in (3, 90) for line in (0, 1)]
    assert total(flipped(content, *corners)) != right


def test_negated_weights_show(total, content):
    for step in (2, 4):  # the signs of all bfloat16 or float32 numbers
        changed = content.clone()
        changed[step - 1 :: step] ^= 128
        assert total(changed) != total(content)


def test_moved_bytes_show(total, content):
    right, row = total(content), 8 * checksum._ROW_WORDS
    for width, first, second in ((1, 10, 11), (2, 10, 12), (8, 0, 8), (8, 16, 8 * 4001), (row, 0, row), (64, 64, row)):
        changed = content.clone()
        changed[first : first + width] = content[second : second + width]
        changed[second : second + width] = content[first : first + width]
        assert total(changed) != right, (width, first, second)
    assert total(content.roll(1)) != right
    assert total(content.flip(0)) != right


def test_missing_and_added_bytes_show_also_where_they_are_zero(total):
    zeros = torch.zeros(SIZE, dtype=torch.uint8)
    sums = {total(zeros[:-1]), total(zeros), total(zeros, zeros), total(torch.cat([zeros, zeros])), total()}
    assert len(sums) == 5


def test_the_order_of_buckets_shows(total, content):
    first, second = content[:100_000], content[100_000:]
    assert total(first, second) != total(second, first)
    assert total(first, second) != total(first)


def test_the_sums_are_those_of_unbounded_integers(content):
    words, uppers = checksum._weights(torch.device("cpu"))
    assert len(set(uppers.tolist())) == len(uppers) and int(uppers.min()) > 0 and int(uppers.max()) < 2**31
    assert all(word % 2 for word in words.tolist())
    first, second = weighted_sums(content)[:, 0].tolist()
    row = content[: 8 * checksum._ROW_WORDS].view(torch.int64).tolist()
    expected = sum(x * w for x, w in zip(row, words.tolist(), strict=True))
    assert (first - expected) % 2**64 == 0
    upper = sum((x >> 32) * w for x, w in zip(row, uppers.tolist(), strict=True))
    assert (second - upper) % 2**64 == 0


def test_sums_are_made_beside_the_caller_and_do_not_pile_up(monkeypatch):
    """`add` returns at once, until as many slices wait as may."""
    go, seen = threading.Event(), []

    def slow(part):
        seen.append(threading.current_thread().name)
        assert go.wait(20)
        return b"x"

    monkeypatch.setattr(checksum, "slice_sum", slow)
    with StreamChecksum() as running:
        began = time.monotonic()
        for _ in range(2 * checksum._THREADS + 1):
            running.add(torch.zeros(10, dtype=torch.uint8))
        assert time.monotonic() - began < 5
        threading.Timer(0.3, go.set).start()
        running.add(torch.zeros(10, dtype=torch.uint8))
        assert time.monotonic() - began > 0.25  # it has waited for the first one
        running.value()
    assert all(name.startswith("stream-checksum") for name in seen)
