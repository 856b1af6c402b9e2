"""The queue on disk: what was put in comes out once, whatever happens to the process or the disk."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest

from timepro.inference.monitor.spool import Spool, SpoolFull


def message(number: int, size: int = 10) -> dict[str, Any]:
    return {"id": f"m{number}", "kind": "alert", "text": "ä\r\x0b\u2028" + "x" * size}


def drain(spool: Spool) -> list[str]:
    found = []
    while (first := spool.first()) is not None:
        found.append(first["id"])
        spool.done(first["id"])
    return found


def test_messages_come_out_in_order_and_never_twice(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "q")
    assert [spool.put(message(i)) for i in (1, 2, 3)] == [True] * 3
    assert spool.put(message(2)) is False
    assert spool.first() == message(1)
    spool.done("m1")
    again = Spool(tmp_path / "q")  # as after a kill: the first one was never closed
    assert again.put(message(1)) is False, "delivered before the restart"
    assert drain(again) == ["m2", "m3"]
    assert Spool(tmp_path / "q").first() is None


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_last_line_that_was_cut_off_is_dropped_and_the_next_one_is_whole(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "q"
    spool = Spool(path)
    spool.put(message(1))
    spool.put(message(2))
    path.write_bytes(path.read_bytes()[:-cut])
    again = Spool(path)
    assert "cut off" in again.notes[0]
    again.put(message(3))
    assert drain(Spool(path)) == ["m1", "m3"]


def test_a_damaged_line_is_named_and_the_others_are_delivered(tmp_path: Path) -> None:
    path = tmp_path / "q"
    spool = Spool(path)
    for i in (1, 2, 3):
        spool.put(message(i))
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"m2"', b'"mX"'))
    again = Spool(path)
    assert again.notes == [f"{path}:2: damaged, left out; the disk may be failing"]
    assert drain(again) == ["m1", "m3"]


def test_a_full_disk_keeps_messages_in_memory_and_marks_deliveries_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / "q", os.pwrite
    spool = Spool(path)
    spool.put(message(1))
    size = path.stat().st_size

    def full(handle: int, data: bytes, place: int) -> int:
        if place + len(data) <= size:
            return whole(handle, data, place)  # in place: takes no room
        whole(handle, data[:5], place)  # a disk takes what fits
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        spool.put(message(2))
    assert path.stat().st_size == size, "half a line is left"
    spool.done("m1")
    assert spool.first() == message(2) and spool.in_memory_alone() == 1
    assert Spool(path).first() is None, "m1 would be sent again"
    monkeypatch.undo()
    spool.put(message(3))
    spool.done("m2")
    assert drain(Spool(path)) == ["m3"]


def test_what_had_no_room_is_kept_once_there_is_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "q")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        for i in (1, 2):
            with pytest.raises(OSError, match="full"):
                spool.put(message(i))
    spool.done("m1")
    assert spool.in_memory_alone() == 0
    assert drain(Spool(tmp_path / "q")) == ["m2"]


def test_a_queue_is_bounded_and_grows_again_after_deliveries(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "q", most_bytes=1500)
    for i in range(3):
        spool.put(message(i, 400))
    with pytest.raises(SpoolFull, match="sinks.queue_mib"):
        spool.put(message(3, 400))
    assert (tmp_path / "q").stat().st_size <= 1500
    spool.done("m0")
    spool.done("m1")
    spool.put(message(4, 400))
    assert drain(Spool(tmp_path / "q", most_bytes=1500))[0] == "m2"


@pytest.mark.parametrize("seed", range(10))
def test_random_puts_deliveries_and_kills_lose_nothing_and_double_nothing(tmp_path: Path, seed: int) -> None:
    rng, path = random.Random(seed), tmp_path / "q"
    spool, delivered, n = Spool(path, most_bytes=20_000), [], 0
    for _ in range(300):
        action = rng.random()
        if action < 0.5:
            n += spool.put(message(n, rng.randrange(200)))
            if rng.random() < 0.3:
                assert not spool.put(message(rng.randrange(max(0, n - 50), n)))
        elif action < 0.9 and (first := spool.first()):
            spool.done(first["id"])
            delivered.append(first["id"])
        else:
            spool = Spool(path, most_bytes=20_000)
    delivered += drain(spool)
    assert delivered == [f"m{i}" for i in range(n)]
