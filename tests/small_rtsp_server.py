"""A small RTSP camera for tests, not for use: one audio track (G.711, 8 kHz), RTP inside the TCP connection."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress

import numpy as np
from small_tcp_server import SmallServer

RATE, SAMPLES = 8000, 160


class SmallCamera(SmallServer):
    """Plays a sound to each client, then goes on in silence until it is cut.

    Args:
        sound: (N,) floats at 8 kHz.
        speed: how many times as fast as it would come.
    """

    def __init__(self, sound: np.ndarray, speed: float = 1.0, port: int = 0) -> None:
        self._sound, self._speed = np.concatenate([sound, np.zeros(RATE * 600)]), speed
        self._listen(port)
        self.url = f"rtsp://user:secret@127.0.0.1:{self.port}/cam"

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, ValueError), client, client.makefile("rb") as stream:
            while line := stream.readline():
                method, headers = line.split()[0].decode(), {}
                while (header := stream.readline().strip()) != b"":
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                self._answer(client, method, headers)
                if method == "PLAY":
                    threading.Thread(target=self._play, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket, method: str, headers: dict[str, str]) -> None:
        more, body = {"Session": "1"}, ""
        if method == "OPTIONS":
            more = {"Public": "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER"}
        if method == "DESCRIBE":
            body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=cam\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\na=control:track1\r\n"
            more = {"Content-Type": "application/sdp", "Content-Length": str(len(body))}
        if method == "SETUP":
            more["Transport"] = "RTP/AVP/TCP;unicast;interleaved=0-1"
        lines = ["RTSP/1.0 200 OK", f"CSeq: {headers['cseq']}", *(f"{name}: {value}" for name, value in more.items())]
        client.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    def _play(self, client: socket.socket) -> None:
        begun = time.monotonic()
        with suppress(OSError):
            for number in range(len(self._sound) // SAMPLES):
                time.sleep(max(0.0, begun + number * SAMPLES / RATE / self._speed - time.monotonic()))
                payload = _mu_law(self._sound[number * SAMPLES : (number + 1) * SAMPLES])
                packet = struct.pack(">BBHII", 0x80, 0, number & 0xFFFF, number * SAMPLES, 1) + payload
                client.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)


def _mu_law(samples: np.ndarray) -> bytes:
    """ITU-T G.711."""
    value = np.clip(np.abs(samples) * 32635, 0, 32635).astype(int) + 132
    exponent = np.floor(np.log2(value)).astype(int) - 7
    mantissa = (value >> (exponent + 3)) & 0x0F
    return (~((samples < 0) * 0x80 | exponent << 4 | mantissa) & 0xFF).astype(np.uint8).tobytes()
