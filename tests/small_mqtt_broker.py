"""A small MQTT 3.1.1 broker for tests, not for use: CONNECT with a last will, PUBLISH and SUBSCRIBE up to QoS 1,
retained messages, PINGREQ, DISCONNECT. It can be stopped and started on the same port, refuse, or never acknowledge."""

from __future__ import annotations

import socket
import struct
from typing import Any

from small_tcp_server import SmallServer

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 13, 14


class SmallBroker(SmallServer):
    """Takes what is published.

    Args:
        port: 0 for any.
        refuse: return code of CONNACK; 5 is "not authorised".
        acknowledge: whether PUBACK is sent.
    """

    def __init__(self, port: int = 0, refuse: int = 0, acknowledge: bool = True) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.retained: dict[str, bytes] = {}
        self.users: list[tuple[str, str]] = []
        self._refuse, self._acknowledge = refuse, acknowledge
        self._listen(port)

    def text(self, topic: str) -> str:
        return self.retained.get(topic, b"").decode()

    def _serve(self, client: socket.socket) -> None:
        will: tuple[str, bytes, bool] | None = None
        try:
            with client, client.makefile("rb") as stream:
                while True:
                    kind, flags, body = _packet(stream)
                    if kind == CONNECT:
                        will = self._connect(client, body)
                    elif kind == PUBLISH:
                        self._publish(client, flags, body)
                    elif kind == SUBSCRIBE:
                        client.sendall(bytes([SUBACK << 4, 3]) + body[:2] + b"\x00")
                    elif kind == PINGREQ:
                        client.sendall(bytes([PINGRESP << 4, 0]))
                    elif kind == DISCONNECT:
                        will = None
                        return
        except (OSError, EOFError, struct.error):
            pass
        finally:
            if will is not None:
                self._keep(*will)

    def _connect(self, client: socket.socket, body: bytes) -> tuple[str, bytes, bool] | None:
        reader = _Reader(body)
        assert reader.text() == "MQTT" and reader.byte() == 4
        flags = reader.byte()
        reader.take(2)  # keep-alive
        reader.text()
        will = (reader.text(), reader.block(), bool(flags & 0x20)) if flags & 0x04 else None
        self.users.append((reader.text() if flags & 0x80 else "", reader.text() if flags & 0x40 else ""))
        client.sendall(bytes([CONNACK << 4, 2, 0, self._refuse]))
        if self._refuse:
            raise EOFError
        return will

    def _publish(self, client: socket.socket, flags: int, body: bytes) -> None:
        reader = _Reader(body)
        topic = reader.text()
        number = reader.take(2) if flags & 0x06 else b""
        self._keep(topic, reader.rest(), bool(flags & 1))
        if number and self._acknowledge:
            client.sendall(bytes([PUBACK << 4, 2]) + number)

    def _keep(self, topic: str, body: bytes, retain: bool) -> None:
        self.published.append((topic, body))
        if retain:
            self.retained[topic] = body


class _Reader:
    def __init__(self, body: bytes) -> None:
        self._body, self._place = body, 0

    def take(self, count: int) -> bytes:
        self._place += count
        return self._body[self._place - count : self._place]

    def byte(self) -> int:
        return self.take(1)[0]

    def block(self) -> bytes:
        return self.take(struct.unpack(">H", self.take(2))[0])

    def text(self) -> str:
        return self.block().decode()

    def rest(self) -> bytes:
        return self._body[self._place :]


def _packet(stream: Any) -> tuple[int, int, bytes]:
    """Kind, flags and body of the next packet."""
    first = stream.read(1)
    if not first:
        raise EOFError
    length, shift = 0, 0
    while True:
        byte = stream.read(1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    return first[0] >> 4, first[0] & 0x0F, stream.read(length)
