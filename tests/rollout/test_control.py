"""What the learner makes of workers that answer badly."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from rollout.control import WorkerControl, WorkerState

STATES = b'{"results": [{"group": "", "version": null}, {"group": "g1", "version": 3}]}'
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(STATES), STATES)
OF_ANOTHER_KIND = b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"results": [""]}'
BAD = {
    "cut": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{",
    "cut-by-length": b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{",
    "no-json": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
    "no-http": b"hello\r\n\r\n",
    "nothing": b"",
}


@contextmanager
def worker(reply: bytes) -> Iterator[str]:
    """An address that gives every request the same bytes and ends the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(reply)
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(65536)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("reply", BAD.values(), ids=BAD)
def test_a_bad_reply_is_an_error_that_names_the_call(reply: bytes) -> None:
    with worker(reply) as url:
        control = WorkerControl([url], "token", 5.0)
        with pytest.raises(RuntimeError, match=f"{url}/timepro/finish"):
            control.finish_update([url], 1, 2)
        with pytest.raises(RuntimeError, match=f"{url}/finish"):
            control.begin(url, "finish", {}).result(5.0)
        control.abort_update([url])
        control.close()


def test_workers_that_answer_badly_are_not_counted_on() -> None:
    with ExitStack() as stack:
        whole = stack.enter_context(worker(WHOLE))
        bad = [stack.enter_context(worker(reply)) for reply in (*BAD.values(), OF_ANOTHER_KIND)]
        control = WorkerControl([*bad, whole], "token", 5.0)
        assert control.answering() == {whole: [WorkerState("", None), WorkerState("g1", 3)]}
        control.close()
