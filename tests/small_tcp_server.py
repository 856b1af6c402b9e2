"""The listening half of the small servers in tests: a thread for each client, on loopback."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from contextlib import suppress


class SmallServer(ABC):
    """Call `_listen` when all is ready for clients.

    Attributes:
        port: where it listens.
    """

    port: int

    def _listen(self, port: int) -> None:
        """Take clients on a port; 0 for any."""
        self._clients: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close every connection without a word, as a broken network does."""
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Free the port, and close every connection."""
        self._server.close()
        with suppress(OSError):  # wakes a thread that waits for the next client
            socket.create_connection(("127.0.0.1", self.port), 0.2).close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    @abstractmethod
    def _serve(self, client: socket.socket) -> None:
        """Answer one client until it leaves."""
