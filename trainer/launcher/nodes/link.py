"""Signed messages and signs of life between node 0 and the others, over a store that node 0 owns.

The store itself lets anybody write who reaches its port, so every value carries an HMAC under the nodes' token, over
its key and the session (which both sides have put a random number into): nobody without the token can make a node
start or end anything, nor repeat what was said in an earlier run. All talk with the store happens in a thread of its
own: a node that is stopped or cut off leaves a call hanging that no timeout of the store covers, and whoever asks this
object for messages must still learn that the other side is silent.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import queue
import threading
import time
from collections.abc import Iterable
from typing import Any

from torch.distributed import TCPStore

_CYCLE_S = 0.25


class BadSignature(ValueError):
    """A message that was not written under our token."""


def sign(token: str, session: str, key: str, body: dict[str, Any]) -> str:
    """A message as it lies in the store: 64 hex digits of HMAC-SHA256, then JSON."""
    text = json.dumps(body).encode()
    return (_mac(token, session, key, text) + text).decode()


def verify(token: str, session: str, key: str, message: bytes) -> dict[str, Any]:
    """A message's body.

    Raises:
        BadSignature: another token, another session, another key, or not a message.
    """
    if not hmac.compare_digest(message[:64], _mac(token, session, key, message[64:])):
        raise BadSignature(f"a message ({key}) carries another signature")
    return json.loads(message[64:])


def _mac(token: str, session: str, key: str, text: bytes) -> bytes:
    return hmac.new(token.encode(), f"{session}\n{key}\n".encode() + text, hashlib.sha256).hexdigest().encode()


class Link:
    """One node's end.

    Args:
        store: this thread's alone from now on.
        me: this node's number.
        peers: the nodes to listen to: node 0 listens to all others, they to it.
    """

    def __init__(self, store: TCPStore, me: int, peers: Iterable[int], token: str, session: str) -> None:
        self._store, self._me, self._token, self.session = store, me, token, session
        self._inbox: queue.SimpleQueue[tuple[int, dict[str, Any]]] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[tuple[int, dict[str, Any]]] = queue.SimpleQueue()
        self._sent: dict[int, int] = {}
        self._next = dict.fromkeys(peers, 0)
        self._beats: dict[int, bytes] = {}
        self._heard = dict.fromkeys(self._next, time.monotonic())
        self._stop = threading.Event()
        self._failure = ""
        self.trouble = ""  # why this end has stopped talking, for messages about silence
        self._beat = 0
        self._thread = threading.Thread(target=self._run, name="nodes", daemon=True)
        self._thread.start()

    def send(self, peer: int, body: dict[str, Any]) -> None:
        """Leave a message for a node; messages arrive in order."""
        self._outbox.put((peer, body))

    def receive(self) -> tuple[int, dict[str, Any]] | None:
        """The next message and who sent it, or None. Never waits.

        Raises:
            BadSignature: somebody without the token wrote into the store.
        """
        try:
            return self._inbox.get_nowait()
        except queue.Empty:
            if self._failure:
                raise BadSignature(self._failure) from None
            return None

    def silence_s(self, peer: int) -> float:
        """Seconds since a node gave its last sign of life."""
        return time.monotonic() - self._heard[peer]

    def close(self, timeout_s: float) -> None:
        """Send what is left and stop; waits at most `timeout_s` for a store that does not answer."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._cycle()
                self._stop.wait(_CYCLE_S)
            self._cycle()
        except BadSignature as error:
            self._failure = str(error)
        except Exception as error:  # noqa: BLE001 - mostly the store is gone, with node 0: silence says so
            self.trouble = f"; the last try to reach it: {type(error).__name__}: {str(error)[:200]}"

    def _cycle(self) -> None:
        while not self._outbox.empty():
            peer, body = self._outbox.get_nowait()
            number = self._sent.get(peer, 0)
            self._sent[peer] = number + 1
            key = f"to/{peer}/from/{self._me}/{number}"
            self._store.set(key, sign(self._token, self.session, key, body))
        self._beat += 1
        self._store.set(f"beat/{self._me}", str(self._beat))
        for peer in self._next:
            self._listen(peer)

    def _listen(self, peer: int) -> None:
        while self._store.check([key := f"to/{self._me}/from/{peer}/{self._next[peer]}"]):
            self._inbox.put((peer, verify(self._token, self.session, key, self._store.get(key))))
            self._store.delete_key(key)
            self._next[peer] += 1
        if self._store.check([f"beat/{peer}"]):
            beat = self._store.get(f"beat/{peer}")
            if beat != self._beats.get(peer):
                self._beats[peer], self._heard[peer] = beat, time.monotonic()
