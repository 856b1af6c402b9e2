"""Messages between nodes over a real store: in order, signed, and silence noticed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from torch.distributed import TCPStore

from rollout import stream
from trainer.launcher.nodes.link import BadSignature, Link, sign, verify

TOKEN = "0123456789abcdef"


@pytest.fixture
def store() -> TCPStore:
    return stream.host_store("127.0.0.1", 0, 10)


@pytest.fixture
def links(store: TCPStore) -> Iterator[tuple[Link, Link]]:
    ends = [stream.join_store("127.0.0.1", store.port, 10) for _ in range(2)]
    pair = Link(ends[0], 0, [1], TOKEN, "s"), Link(ends[1], 1, [0], TOKEN, "s")
    yield pair
    for link in pair:
        link.close(5)


def until(reached: Callable[[], bool], limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not reached():
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.02)


def received(link: Link, count: int) -> list[tuple[int, dict]]:
    found: list[tuple[int, dict]] = []

    def more() -> bool:
        message = link.receive()
        if message is not None:
            found.append(message)
        return len(found) == count

    until(more)
    return found


def test_messages_arrive_in_order_both_ways(links: tuple[Link, Link]) -> None:
    head, other = links
    for number in range(5):
        head.send(1, {"n": number})
    other.send(0, {"is": "ready"})
    assert received(other, 5) == [(0, {"n": number}) for number in range(5)]
    assert received(head, 1) == [(1, {"is": "ready"})]
    assert head.receive() is None


@pytest.mark.parametrize(
    "forged",
    [
        sign("another token 123", "s", "to/1/from/0/0", {"do": "leave"}),
        sign(TOKEN, "an earlier session", "to/1/from/0/0", {"do": "leave"}),
        sign(TOKEN, "s", "to/1/from/0/7", {"do": "leave"}),  # said before, at another place
        b"not a message at all",
        b"",
    ],
)
def test_a_forged_message_is_refused(store: TCPStore, links: tuple[Link, Link], forged: bytes) -> None:
    store.set("to/1/from/0/0", forged)

    def refused() -> bool:
        try:
            assert links[1].receive() is None, "obeyed"
        except BadSignature:
            return True
        return False

    until(refused)


def test_signature_covers_the_body() -> None:
    message = bytearray(sign(TOKEN, "s", "k", {"signal": 15}).encode())
    assert verify(TOKEN, "s", "k", bytes(message)) == {"signal": 15}
    message[-2] ^= 1
    with pytest.raises(BadSignature):
        verify(TOKEN, "s", "k", bytes(message))


def test_silence_grows_when_the_other_side_ends(links: tuple[Link, Link]) -> None:
    head, other = links
    until(lambda: head.silence_s(1) < 0.5 and other.silence_s(0) < 0.5)
    other.close(5)
    until(lambda: head.silence_s(1) > 1.5)


HOST = """
import sys, time
sys.path.insert(0, {root!r})
from rollout import stream
from trainer.launcher.nodes.link import Link
store = stream.host_store("127.0.0.1", 0, 10)
link = Link(stream.join_store("127.0.0.1", store.port, 10), 0, [1], {token!r}, "s")
print(store.port, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_silence_grows_when_node_0_is_killed_or_stopped(how: str, request: pytest.FixtureRequest) -> None:
    """A stopped store leaves calls hanging; the link must still tell."""
    code = HOST.format(root=str(request.config.rootpath), token=TOKEN)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        link = Link(stream.join_store("127.0.0.1", port, 10), 1, [0], TOKEN, "s")
        until(lambda: link.silence_s(0) < 0.3)
        process.kill() if how == "kill" else process.send_signal(19)
        until(lambda: link.silence_s(0) > 1.5)
        assert link.receive() is None
        began = time.monotonic()
        link.close(1.0)
        assert time.monotonic() - began < 3
    finally:
        process.kill()
        process.wait()
